-- Heads: what two instances have of each author, compared.
--
-- A vector cannot show a fork: both name the same number of operations, and mean others. Hence the ids of the
-- changesets at the latest common place. A fork that one side can prove is told to the other.

create or replace function kerai_sync.compare_heads(
    link text, mine jsonb, theirs jsonb, checked jsonb,
    out agreed jsonb, out not_pulled text[], out not_pushed text[], out forks int, out problem text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    frozen_here constant text[] := array(select distinct f.author from kerai.forks as f where f.merged_elsewhere);
    frozen_there constant text[] := kerai_sync.ask_frozen(link);
    frozen constant text[] := array(select f from unnest(frozen_here || frozen_there) as f group by f);
    differing text[];
    who text;
    mine_seq bigint;
    their_seq bigint;
    proof record;
begin
    not_pulled := '{}';
    not_pushed := '{}';
    forks := 0;
    -- A copy that is no longer compressed: it is looked into once an author.
    checked := checked || '{}';
    select coalesce(jsonb_object_agg(v.author, v.seq), '{}'),
        coalesce(jsonb_object_agg(v.author, v.seq) filter (
            where v.seq > coalesce((checked ->> v.author)::bigint, 0) or v.author in (select f from unnest(frozen) as f)),
        '{}')
    into agreed, checked
    from (
        select m.key as author, least(m.value::bigint, (theirs ->> m.key)::bigint) as seq
        from jsonb_each_text(mine) as m
        where theirs ? m.key
    ) as v;
    differing := kerai_sync.differing_heads(link, checked);
    agreed := agreed - differing;

    -- Where both are on one branch of a frozen author, it is followed as far as either has merged it, since others have
    -- built on that.
    foreach who in array frozen loop
        mine_seq := coalesce((mine ->> who)::bigint, 0);
        their_seq := coalesce((theirs ->> who)::bigint, 0);
        problem := coalesce(problem, kerai_sync.pass_proof(link, who, who = any(frozen_here), who = any(frozen_there),
            case when not who = any(differing) then mine_seq end, case when not who = any(differing) then their_seq end));
        if who = any(differing) or their_seq <= mine_seq then
            not_pulled := not_pulled || who;
        end if;
        if who = any(differing) or mine_seq <= their_seq then
            not_pushed := not_pushed || who;
        end if;
    end loop;

    -- A fork that nobody has seen yet.
    for who in select d from unnest(differing) as d where d not in (select f from unnest(frozen) as f) limit 20 loop
        not_pulled := not_pulled || who;
        not_pushed := not_pushed || who;
        proof := kerai_sync.prove_fork(link, who, (checked ->> who)::bigint);
        problem := coalesce(problem, proof.problem);
        forks := forks + proof.proven::int;
    end loop;
end
$$;

comment on function kerai_sync.compare_heads(text, jsonb, jsonb, jsonb) is
'A part of kerai.sync: compares both sides'' changesets of each author at the latest common place, finds forks and exchanges their proofs over an open dblink connection.';

create or replace function kerai_sync.ask_frozen(link text) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select p.author from kerai_sync.ask_peer(link,
            'select distinct author from kerai.forks where merged_elsewhere order by author limit 1000',
            '(author text)') as p (author text)
        limit 1000);
end
$$;

comment on function kerai_sync.ask_frozen(text) is
'A part of kerai.sync: the authors that are frozen at the peer.';

create or replace function kerai_sync.differing_heads(link text, checked jsonb) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select h.author
        from kerai.heads(checked) as h
        left join kerai_sync.ask_peer(link,
            format('select author, seq, changeset_id from kerai.heads(%L::jsonb)', checked),
            '(author text, seq bigint, changeset_id bytea)') as p (author text, seq bigint, changeset_id bytea)
            on p.author = h.author
        where (h.seq, h.changeset_id) is distinct from (p.seq, p.changeset_id));
end
$$;

comment on function kerai_sync.differing_heads(text, jsonb) is
'A part of kerai.sync: the authors of whom the two sides have other changesets at the places that a vector names.';

-- The numbers are NULL where the two sides are on different branches: then neither follows the other's.
create or replace function kerai_sync.pass_proof(
    link text, author text, frozen_here boolean, frozen_there boolean, mine_seq bigint, their_seq bigint,
    out problem text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    proof record;
begin
    if frozen_here then
        select f.public_key, f.first_changeset, f.first_signature, f.second_changeset, f.second_signature into proof
        from kerai.forks as f where f.author = author and f.merged_elsewhere order by f.id limit 1;
    else
        select p.* into proof
        from kerai_sync.ask_peer(link, format('select public_key, first_changeset, first_signature, second_changeset, '
            || 'second_signature from kerai.forks where author = %L and merged_elsewhere order by id limit 1', author),
            '(public_key bytea, first_changeset json, first_signature bytea, second_changeset json, second_signature bytea)')
            as p (public_key bytea, first_changeset json, first_signature bytea, second_changeset json, second_signature bytea);
    end if;
    if not frozen_there or mine_seq > their_seq then
        problem := kerai_sync.tell_fork(link, author, proof.public_key, proof.first_changeset, proof.first_signature,
            proof.second_changeset, proof.second_signature, mine_seq);
    end if;
    if not frozen_here or their_seq > mine_seq then
        perform kerai.report_fork(proof.public_key, proof.first_changeset, proof.first_signature,
            proof.second_changeset, proof.second_signature, their_seq);
    end if;
exception when others then
    problem := coalesce(problem, format('the proof that %s has forked was not taken: %s', author, sqlerrm));
end
$$;

comment on function kerai_sync.pass_proof(text, text, boolean, boolean, bigint, bigint) is
'A part of kerai.sync: gives the proof that an author has forked to the side that has not got it, and says how far the other follows the author.';

create or replace function kerai_sync.tell_fork(
    link text, author text, public_key bytea, first_changeset json, first_signature bytea, second_changeset json,
    second_signature bytea, followed bigint, out problem text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from kerai_sync.ask_peer(link,
        format('select kerai.report_fork(%L::bytea, %L::json, %L::bytea, %L::json, %L::bytea, %L::bigint)',
            public_key, first_changeset, first_signature, second_changeset, second_signature, followed),
        '(kept boolean)') as p (kept boolean);
exception when others then
    problem := format('the peer was not told that %s has forked: %s', author, sqlerrm);
end
$$;

comment on function kerai_sync.tell_fork(text, text, bytea, json, bytea, json, bytea, bigint) is
'A part of kerai.sync: reports a fork to the peer; why the peer has not taken the report, if so.';

-- Where do the histories part? Up to `same` they agree, at `other` they do not.
create or replace function kerai_sync.prove_fork(
    link text, author text, other bigint, out proven boolean, out problem text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    same bigint := 0;
    here record;
    there record;
begin
    proven := false;
    while other - same > 1 loop
        select h.* into here from kerai.heads(jsonb_build_object(author, (same + other) / 2)) as h;
        select p.* into there
        from kerai_sync.ask_peer(link, format('select author, seq, changeset_id from kerai.heads(%L::jsonb)',
            jsonb_build_object(author, (same + other) / 2)),
            '(author text, seq bigint, changeset_id bytea)') as p (author text, seq bigint, changeset_id bytea);
        if here.changeset_id = there.changeset_id and here.seq < other then
            same := here.seq;
        else
            other := (same + other) / 2;
        end if;
    end loop;
    select c.document, c.signature into here from kerai.changesets as c where c.author = author and c.first_seq = other;
    select p.* into there
    from kerai_sync.ask_peer(link,
        format('select document, signature from kerai.changesets where author = %L and first_seq = %s', author, other),
        '(document json, signature bytea)') as p (document json, signature bytea);
    if there.document is null then
        problem := format('the peer does not show what it has of %s at %s', author, other);
        return;
    end if;
    problem := kerai_sync.tell_fork(link, author, null, there.document, there.signature, here.document, here.signature, null);
    perform kerai.report_fork(null, here.document, here.signature, there.document, there.signature);
    proven := true;
exception when others then
    problem := coalesce(problem, format('the peer holds what it cannot prove of %s at %s: %s', author, other, sqlerrm));
end
$$;

comment on function kerai_sync.prove_fork(text, text, bigint) is
'A part of kerai.sync: finds the first changesets of an author in which the two sides differ, and reports them on both as a fork. other: a number at which they differ.';

-- Conversation: one question to a peer, and its answer. 027-partial/sync.sql has the whole of it.

-- A question to the peer. dblink() waits for its answer whatever the session is told; dblink_exec and dblink_fetch end
-- when they are cancelled. At the peer's own isolation level a push would fail whenever others push there.
create or replace function kerai_sync.ask_peer(link text, query text, columns text) returns setof record
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    place constant text := (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'dblink');
    telling constant text := format('select %I.dblink_exec($1, $2)', place);
    most_rows constant int := 5000;
    fetched int;
begin
    execute telling using link,
        'begin isolation level read committed; declare kerai_answer no scroll cursor for ' || query;
    loop
        return query execute format('select * from %I.dblink_fetch($1, ''kerai_answer'', $2) as t %s', place, columns)
        using link, most_rows;
        get diagnostics fetched = row_count;
        exit when fetched < most_rows;
    end loop;
    execute telling using link, 'commit';
exception when others then
    -- So that the peer answers the next question; the connection may be lost.
    execute format('select %I.dblink_exec($1, $2, false)', place) using link, 'rollback';
    raise;
end
$$;

comment on function kerai_sync.ask_peer(text, text, text) is
'A part of kerai.sync: the answer to a query over an open dblink connection, in one transaction there. columns: as in AS t (a int), with types.';

-- Compares what both have of each author, and exchanges the proofs of forks. A vector cannot show a fork: both name
-- the same number of operations, and mean others. Hence the ids of the changesets at the latest common place.
create or replace function kerai_sync.compare_heads(
    link text, mine jsonb, theirs jsonb, checked jsonb,
    out agreed jsonb, out not_pulled text[], out not_pushed text[], out forks int, out problem text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    asking constant text := 'select * from kerai_sync.ask_peer($1, $2, %1$L) as t %1$s';
    proofs constant text := 'select public_key, first_changeset, first_signature, second_changeset, second_signature '
        || 'from kerai.forks where author = %L and merged_elsewhere order by id limit 1';
    changesets constant text := 'select document, signature from kerai.changesets where author = %L and first_seq = %s';
    reporting constant text := 'select kerai.report_fork(%L::bytea, %L::json, %L::bytea, %L::json, %L::bytea, %L::bigint)';
    frozen_here constant text[] := array(select distinct f.author from kerai.forks as f where f.merged_elsewhere);
    frozen_there text[];
    frozen text[];
    differing text[];
    who text;
    mine_seq bigint;
    their_seq bigint;
    same bigint;
    other bigint;
    here record;
    there record;
    proof record;
begin
    forks := 0;
    -- A copy that is no longer compressed: it is looked into once an author.
    checked := checked || '{}';
    execute 'select coalesce(array_agg(t.author), ''{}'') from (' || format(asking, '(author text)') || ' limit 1000) as t'
    into frozen_there using link, 'select distinct author from kerai.forks where merged_elsewhere order by author limit 1000';
    frozen := array(select f from unnest(frozen_here || frozen_there) as f group by f);

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

    execute 'select coalesce(array_agg(h.author), ''{}'') from kerai.heads($3) as h left join ('
        || format(asking, '(author text, seq bigint, changeset_id bytea)') || ') as t using (author)
        where (h.seq, h.changeset_id) is distinct from (t.seq, t.changeset_id)'
    into differing using link, format('select author, seq, changeset_id from kerai.heads(%L::jsonb)', checked), checked;
    agreed := agreed - differing;

    -- A proof that only one side has goes to the other. Where both are on one branch of a frozen author, it is
    -- followed as far as either has merged it, since others have built on that.
    foreach who in array frozen loop
        mine_seq := coalesce((mine ->> who)::bigint, 0);
        their_seq := coalesce((theirs ->> who)::bigint, 0);
        begin
            if who = any(frozen_here) then
                select f.* into proof from kerai.forks as f where f.author = who and f.merged_elsewhere order by f.id limit 1;
            else
                execute format(asking, '(public_key bytea, first_changeset json, first_signature bytea, '
                    || 'second_changeset json, second_signature bytea)')
                into proof using link, format(proofs, who);
            end if;
            if not who = any(frozen_there) or not who = any(differing) and mine_seq > their_seq then
                begin
                    execute format(asking, '(kept boolean)') using link, format(reporting, proof.public_key, proof.first_changeset,
                        proof.first_signature, proof.second_changeset, proof.second_signature,
                        case when not who = any(differing) then mine_seq end);
                exception when others then
                    problem := coalesce(problem, format('the peer was not told that %s has forked: %s', who, sqlerrm));
                end;
            end if;
            if not who = any(frozen_here) or not who = any(differing) and their_seq > mine_seq then
                perform kerai.report_fork(proof.public_key, proof.first_changeset, proof.first_signature,
                    proof.second_changeset, proof.second_signature,
                    case when not who = any(differing) then their_seq end);
            end if;
        exception when others then
            problem := coalesce(problem, format('the proof that %s has forked was not taken: %s', who, sqlerrm));
        end;
        if who = any(differing) or their_seq <= mine_seq then
            not_pulled := not_pulled || who;
        end if;
        if who = any(differing) or mine_seq <= their_seq then
            not_pushed := not_pushed || who;
        end if;
    end loop;

    -- A fork that nobody has seen yet: where do the histories part? Up to `same` they agree, at `other` they do not.
    for who in select d from unnest(differing) as d where d not in (select f from unnest(frozen) as f) limit 20 loop
        not_pulled := not_pulled || who;
        not_pushed := not_pushed || who;
        begin
            same := 0;
            other := checked ->> who;
            while other - same > 1 loop
                select h.* into here from kerai.heads(jsonb_build_object(who, (same + other) / 2)) as h;
                execute format(asking, '(author text, seq bigint, changeset_id bytea)') into there
                using link, format('select author, seq, changeset_id from kerai.heads(%L::jsonb)',
                    jsonb_build_object(who, (same + other) / 2));
                if here.changeset_id = there.changeset_id and here.seq < other then
                    same := here.seq;
                else
                    other := (same + other) / 2;
                end if;
            end loop;
            select c.document, c.signature into here from kerai.changesets as c
            where c.author = who and c.first_seq = other;
            execute format(asking, '(document json, signature bytea)') into there using link, format(changesets, who, other);
            if there.document is null then
                problem := coalesce(problem, format('the peer does not show what it has of %s at %s', who, other));
                continue;
            end if;
            begin
                execute format(asking, '(kept boolean)') using link,
                    format(reporting, null, there.document, there.signature, here.document, here.signature, null);
            exception when others then
                problem := coalesce(problem, format('the peer was not told that %s has forked: %s', who, sqlerrm));
            end;
            perform kerai.report_fork(null, here.document, here.signature, there.document, there.signature);
            forks := forks + 1;
        exception when others then
            problem := coalesce(problem, format('the peer holds what it cannot prove of %s at %s: %s', who, other, sqlerrm));
        end;
    end loop;
    not_pulled := coalesce(not_pulled, '{}');
    not_pushed := coalesce(not_pushed, '{}');
end
$$;

comment on function kerai_sync.compare_heads(text, jsonb, jsonb, jsonb) is
'A part of kerai.sync: compares both sides'' changesets of each author at the latest common place, finds forks and exchanges their proofs over an open dblink connection.';

-- The pages of a pull are one transaction: it takes the locks that any of them may need at its beginning, in the order
-- that all keep.
-- An author who was introduced while this waited for the tree lock may wait for it himself by now: then all over again.
create or replace function kerai_sync.begin_pull(theirs jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '30s'
as $$
declare
    locked text[];
begin
    loop
        begin
            with held as (
                select a.author from kerai_private.authors as a
                where a.author in (select e.author from kerai_private.vector_entries(theirs) as e)
                order by a.author
                for update
            )

            select coalesce(array_agg(h.author), '{}') into locked from held as h;
            perform kerai_private.lock_tree(exclusive => true);
            exit when not exists (
                select from kerai_private.authors as a
                where a.author in (select e.author from kerai_private.vector_entries(theirs) as e)
                    and a.author not in (select u.author from unnest(locked) as u (author)));
            raise exception using errcode = 'KR999';
        exception when sqlstate 'KR999' then
            null;
        end;
    end loop;
end
$$;

comment on function kerai_sync.begin_pull(jsonb) is
'A part of kerai.sync: waits for the pushes that are under way, and keeps others waiting until the end of the transaction.';

create or replace function kerai_sync.hang_up(link text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    place constant text := (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'dblink');
    opened boolean;
begin
    execute format('select $1 = any(%I.dblink_get_connections())', place) into opened using link;
    if opened then
        execute format('select %I.dblink_disconnect($1)', place) using link;
    end if;
end
$$;

comment on function kerai_sync.hang_up(text) is 'A part of kerai.sync: closes the dblink connection of this name, if it is open.';

-- 020 forks: an author who has signed two histories is frozen, and nobody else is.
--
-- What others have merged of him stays, on each instance the branch that it met first. Changesets of others that
-- have seen the other branch are merged all the same: what they say of his sequence cannot be checked here.

create or replace function kerai_private.is_frozen(author text) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (select from kerai.forks as f where f.author = is_frozen.author and f.merged_elsewhere);
end
$$;

-- Refuses KR003 a changeset of an author who has forked, unless it is of the branch that is followed here.
create or replace function kerai_private.require_unfrozen(author text, last_seq bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if kerai_private.is_frozen(author) and not exists (
        select from kerai_private.followed_branches as b
        where b.author = require_unfrozen.author and b.last_seq >= require_unfrozen.last_seq
    ) then
        perform kerai_private.refuse('KR003', 'this author is frozen: two of its changesets cannot both be in one history',
            format('author: %s, up to seq: %s', author, last_seq),
            'The evidence is in kerai.forks. Register a new agent to go on.');
    end if;
end
$$;

-- Refuses KR005 unless the timestamp is the one that follows from base and the author's previous changeset. Of frozen
-- authors in base it is only known how many operations they have: each adds at most 1 to what is known without them.
create or replace function kerai_private.require_lamport(lamport bigint, base jsonb, own_lamport bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    frozen constant text[] := array(
        select e.author from kerai_private.vector_entries(base) as e
        where e.author in (select f.author from kerai.forks as f where f.merged_elsewhere));
    least_lamport constant bigint := kerai_private.next_lamport(base - frozen, own_lamport);
    most_lamport bigint := least_lamport;
begin
    if frozen <> '{}' then
        select greatest(least_lamport, 1 + max(a.lamport))
            + (select sum((base ->> f.author)::bigint) from unnest(frozen) as f (author))
        into most_lamport
        from kerai_private.authors as a;
    end if;
    if lamport not between least_lamport and most_lamport then
        perform kerai_private.refuse('KR005', 'the lamport timestamp is out of bounds',
            format('lamport: %s, must be: %s', lamport, case when frozen = '{}' then least_lamport::text
                else format('%s to %s', least_lamport, most_lamport) end),
            'It is 1 + the highest lamport among the operations that base and the author''s previous changeset name.');
    end if;
end
$$;

-- The changeset that is here and cannot be in one history with this one; NULL when none is.
create or replace function kerai_private.rival_of(author text, seq bigint, last_seq bigint, prev bytea, id bytea)
returns bytea
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    (select c.id from kerai.changesets as c
    where c.author = rival_of.author and c.first_seq <= rival_of.last_seq and c.last_seq >= rival_of.seq
        and c.id <> rival_of.id
    order by c.first_seq limit 1)
    union all
    (select c.id from kerai.changesets as c
    where c.author = rival_of.author and c.prev is not distinct from rival_of.prev and c.id <> rival_of.id
    order by c.first_seq limit 1)
    limit 1
$$;

create or replace function kerai.report_fork(
    public_key bytea, first_changeset json, first_signature bytea, second_changeset json, second_signature bytea,
    followed bigint default null
) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
#variable_conflict use_variable
declare
    a constant jsonb := kerai_private.parse_changeset(first_changeset);
    b constant jsonb := kerai_private.parse_changeset(second_changeset);
    first_id constant bytea := sha256(convert_to(first_changeset::text, 'UTF8'));
    second_id constant bytea := sha256(convert_to(second_changeset::text, 'UTF8'));
    author constant text := a ->> 'author';
    key bytea := public_key;
    kept boolean;
begin
    perform kerai_private.require_envelope(a);
    perform kerai_private.require_envelope(b);
    if first_id = second_id or a -> 'author' <> b -> 'author'
        or a ->> 'prev' is distinct from b ->> 'prev' and (
            (a ->> 'seq')::bigint >= (b ->> 'seq')::bigint + jsonb_array_length(b -> 'ops')
            or (b ->> 'seq')::bigint >= (a ->> 'seq')::bigint + jsonb_array_length(a -> 'ops')) then
        perform kerai_private.refuse('KR005', 'these two changesets prove no fork',
            format('authors: %s, %s; seq: %s, %s; prev: %s, %s', a ->> 'author', b ->> 'author', a ->> 'seq', b ->> 'seq',
                a ->> 'prev', b ->> 'prev'),
            'A fork is two different changesets of one author with an operation of the same seq, or with the same prev.');
    end if;
    if key is null then
        select t.public_key into key from kerai_private.authors as t where t.author = (a ->> 'author');
    end if;
    if key is null or octet_length(key) <> 32 or right(author, 16) <> left(encode(sha256(key), 'hex'), 16) then
        perform kerai_private.refuse('KR002', 'the author id does not match the public key',
            format('author: %s, key: %s', author, coalesce(encode(key, 'hex'), 'null')),
            'An author id is <name>.<first 16 hex digits of sha256(public key)>.');
    end if;
    if not coalesce(kerai_private.verify_signature(first_changeset::text, first_signature, key)
        and kerai_private.verify_signature(second_changeset::text, second_signature, key), false) then
        perform kerai_private.refuse('KR001', 'the author has not signed both changesets',
            format('author: %s, changesets: %s, %s', author, encode(first_id, 'hex'), encode(second_id, 'hex')),
            'Evidence counts only with both signatures.');
    end if;

    perform kerai_private.introduce_author(author, key);
    update kerai.forks as f set merged_elsewhere = true
    where not f.merged_elsewhere
        and ((f.first_id, f.second_id) = (first_id, second_id) or (f.first_id, f.second_id) = (second_id, first_id));
    insert into kerai.forks (author, seq, public_key, first_id, first_changeset, first_signature,
        second_id, second_changeset, second_signature, merged_elsewhere)
    select author, (b ->> 'seq')::bigint, key, first_id, first_changeset, first_signature,
        second_id, second_changeset, second_signature, true
    where (select count(*) from kerai.forks as f where f.author = author and f.merged_elsewhere) < 16
        and not exists (
            select from kerai.forks as f where f.first_id = second_id and f.second_id = first_id)
    on conflict do nothing;
    kept := found;
    if followed is not null then
        insert into kerai_private.followed_branches as t (author, last_seq) values (author, followed)
        on conflict on constraint followed_branches_pkey do update set last_seq = greatest(t.last_seq, excluded.last_seq);
    end if;
    return kept;
end
$$;

comment on function kerai.report_fork(bytea, json, bytea, json, bytea, bigint) is
'Takes the proof that an author has signed two histories: two different changesets with the same seq or prev, and both signatures. Kept in kerai.forks, and the author is frozen: its new changesets are refused with KR003. True when the proof is new. followed: how far its branch may still be followed here. kerai.sync tells peers with it.';

-- Of a changeset that was refused as a fork: keeps it with the one that is here.
create or replace function kerai_private.keep_evidence(document json, signature bytea) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    changeset constant jsonb := kerai_private.parse_changeset(document);
begin
    perform kerai.report_fork(a.public_key, c.document, c.signature, document, signature)
    from kerai_private.authors as a
    inner join kerai.changesets as c on c.id = kerai_private.rival_of(a.author, (changeset ->> 'seq')::bigint,
        (changeset ->> 'seq')::bigint + jsonb_array_length(changeset -> 'ops') - 1, decode(changeset ->> 'prev', 'hex'),
        sha256(convert_to(document::text, 'UTF8')))
    where a.author = changeset ->> 'author';
end
$$;

create or replace function kerai.heads(at jsonb default null)
returns table (author text, seq bigint, changeset_id bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
begin
    if at is null then
        return query select a.author, a.seq, a.changeset_id from kerai_private.authors as a where a.seq > 0;
        return;
    end if;
    return query
    select a.author, c.last_seq, c.id
    from kerai_private.vector_entries(at) as e
    inner join kerai_private.authors as a on a.author = e.author
    cross join lateral (
        select c.last_seq, c.id from kerai.changesets as c
        where c.author = a.author and c.first_seq <= least(e.seq, a.seq)
        order by c.first_seq desc limit 1
    ) as c;
end
$$;

comment on function kerai.heads(jsonb) is
'Each author''s latest changeset here: its last seq and its id. With a vector: the changeset that holds the operation that the vector names, or the latest one before it. Two instances with the same id there hold the same history of that author up to it.';

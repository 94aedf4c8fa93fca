-- Proofs of forks: two changesets that their author has signed and that cannot both be in one history.

-- Refuses KR005 what is no changeset that could stand in a history. Nothing that one instance sets otherwise than
-- another bears on it, but for the size of a document.
create or replace function kerai_private.require_evidence(document json) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    changeset constant jsonb := kerai_private.parse_changeset(document);
    ops jsonb;
    problem text;
begin
    perform kerai_private.require_envelope(changeset);
    if changeset ? 'swarm' then
        perform kerai_private.refuse('KR005', 'a draft proves no fork', format('author: %s', changeset ->> 'author'),
            'A draft has no place in a sequence. Report the changesets that hold the drafts.');
    end if;
    perform kerai_private.require_draft(document, changeset);
    ops := kerai_private.signed_body(changeset) -> 'ops';
    problem := case when jsonb_array_length(ops) = 0 then 'no operation'
        else kerai_private.operations_problem(array[ops], limited => false) end;
    if problem is not null then
        perform kerai_private.refuse('KR005', 'malformed operations prove no fork',
            format('author: %s; %s', changeset ->> 'author', problem), 'No instance could have merged this changeset.');
    end if;
    return changeset;
end
$$;

-- Refuses KR001, KR002, KR005 or KR013 unless an author has forked: two different changesets that it has signed, with
-- an operation of the same seq, or with the same prev. Every comparison is true or false, whatever is missing.
create or replace function kerai_private.require_fork(
    public_key bytea, first_changeset json, first_signature bytea, second_changeset json, second_signature bytea,
    out author text, out seq bigint, out key bytea
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    a constant jsonb := kerai_private.require_evidence(first_changeset);
    b constant jsonb := kerai_private.require_evidence(second_changeset);
    first_seqs constant int8range := kerai_private.seqs_of(a);
    second_seqs constant int8range := kerai_private.seqs_of(b);
    is_fork constant boolean := first_changeset::text <> second_changeset::text and a -> 'author' = b -> 'author'
        and (first_seqs && second_seqs or a ->> 'prev' is not distinct from b ->> 'prev');
begin
    if is_fork is not true then
        perform kerai_private.refuse('KR005', 'these two changesets prove no fork',
            format('authors: %s, %s; seq: %s, %s; prev: %s, %s', a ->> 'author', b ->> 'author', first_seqs, second_seqs,
                coalesce(a ->> 'prev', 'null'), coalesce(b ->> 'prev', 'null')),
            'A fork is two different changesets of one author with an operation of the same seq, or with the same prev.');
    end if;
    author := a ->> 'author';
    seq := (b ->> 'seq')::bigint;
    key := coalesce(public_key, (
        select t.public_key from kerai_private.authors as t where t.author = require_fork.author));
    if (octet_length(key) = 32 and right(author, 16) = left(encode(sha256(key), 'hex'), 16)) is not true then
        perform kerai_private.refuse('KR002', 'the author id does not match the public key',
            format('author: %s, key: %s', author, coalesce(encode(key, 'hex'), 'null')),
            'An author id is <name>.<first 16 hex digits of sha256(public key)>.');
    end if;
    if (kerai_private.verify_signature(first_changeset::text, first_signature, key)
        and kerai_private.verify_signature(second_changeset::text, second_signature, key)) is not true then
        perform kerai_private.refuse('KR001', 'the author has not signed both changesets',
            format('author: %s, seq: %s, %s', author, first_seqs, second_seqs), 'Evidence counts only with both signatures.');
    end if;
end
$$;

-- The sequence numbers of a changeset's operations. Inlined.
create or replace function kerai_private.seqs_of(changeset jsonb) returns int8range
language sql immutable parallel safe
return int8range((changeset ->> 'seq')::bigint,
    (changeset ->> 'seq')::bigint + jsonb_array_length(kerai_private.signed_body(changeset) -> 'ops'));

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
    proof constant record := kerai_private.require_fork(
        public_key, first_changeset, first_signature, second_changeset, second_signature);
    author constant text := proof.author;
    first_id constant bytea := sha256(convert_to(first_changeset::text, 'UTF8'));
    second_id constant bytea := sha256(convert_to(second_changeset::text, 'UTF8'));
    kept boolean;
begin
    perform kerai_private.bound_lock_waits(most_ms => 5000);
    if followed < 0 then
        perform kerai_private.refuse('KR005', 'followed is no sequence number', format('followed: %s', followed),
            'Give the highest seq of the author that the peer has merged, or NULL.');
    end if;
    perform kerai_private.introduce_author(author, proof.key);
    update kerai.forks as f set merged_elsewhere = true
    where not f.merged_elsewhere
        and ((f.first_id, f.second_id) = (first_id, second_id) or (f.first_id, f.second_id) = (second_id, first_id));
    insert into kerai.forks (author, seq, public_key, first_id, first_changeset, first_signature,
        second_id, second_changeset, second_signature, merged_elsewhere)
    select author, proof.seq, proof.key, first_id, first_changeset, first_signature,
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
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'a rebuild, a compaction or another report is in the way', sqlerrm,
        'Nothing was noted. Report the fork again in a minute.');
end
$$;

comment on function kerai.report_fork(bytea, json, bytea, json, bytea, bigint) is
'Takes the proof that an author has signed two histories: two different changesets with the same seq or prev, and both signatures. Kept in kerai.forks, and the author is frozen: its new changesets are refused with KR003. True when the proof is new. The parameter followed is the highest seq of the author that the peer has merged: up to there kerai.accept takes the branch that is here. kerai.sync tells peers with it.';

-- Of a changeset that was refused as a fork: keeps it with the one that is here, unless the author is frozen already. A
-- compacted changeset, or a stub, proves nothing without its text.
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
    inner join kerai.changesets as c on c.id = kerai_private.rival_of(a.author, lower(kerai_private.seqs_of(changeset)),
        upper(kerai_private.seqs_of(changeset)) - 1, decode(changeset ->> 'prev', 'hex'),
        sha256(convert_to(document::text, 'UTF8')))
    where a.author = changeset ->> 'author' and c.document is not null and not kerai_private.is_frozen(a.author);
exception when others then
    -- The limits may have been changed since the other one was merged: then it is refused, without the proof.
    if sqlstate not like 'KR%' then
        raise;
    end if;
end
$$;

create or replace function kerai.heads(at jsonb default null)
returns table (author text, seq bigint, changeset_id bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
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

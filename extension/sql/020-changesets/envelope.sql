-- Changesets: what a document must look like before anything is believed or merged.

-- One operation as a row. Inlined: an expression a column is twice as fast as jsonb_to_recordset.
create or replace function kerai_private.unpack_operation(
    op jsonb, n int, c int, author text, seq bigint, lamport bigint, writer text
) returns kerai_private.operation
language sql immutable parallel safe
return row(
    n, c, seq, op ->> 'op', (op ->> 'node')::uuid, (op ->> 'parent')::uuid, op ->> 'position', op ->> 'kind',
    op ->> 'name', op ->> 'language', op ->> 'content', nullif(op -> 'metadata', 'null'), op -> 'set',
    (op ->> 'source')::uuid, (op ->> 'target')::uuid, op ->> 'relation', (op ->> 'context')::uuid,
    (op ->> 'weight')::double precision, op ->> 'reasoning', lpad(to_hex(lamport), 16, '0') || ':' || author,
    writer, op
)::kerai_private.operation;

-- The operations of a batch as rows, each with its stamp and its place in the order of the fold.
create or replace function kerai_private.unpack_operations(items kerai_private.verified_changeset[])
returns kerai_private.operation[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    author text;
    seq bigint;
    lamport bigint;
    writer text;
    ops jsonb;
begin
    -- One changeset's operations are in that order already.
    if cardinality(items) = 1 then
        author := (items[1]).author;
        seq := (items[1]).first_seq - 1;
        lamport := (items[1]).first_lamport - 1;
        writer := coalesce((items[1]).member, author);
        ops := (items[1]).ops;
        return array(
            select kerai_private.unpack_operation(o.op, o.n::int - 1, 1, author, seq + o.n, lamport + o.n, writer)
            from jsonb_array_elements(ops) with ordinality as o (op, n));
    end if;
    return array(
        select kerai_private.unpack_operation(s.op, s.n::int - 1, s.c::int, s.author, s.seq, s.lamport, s.writer)
        from (
            select o.op, i.c, i.author, i.first_seq + o.place - 1 as seq, i.first_lamport + o.place - 1 as lamport,
                coalesce(i.member, i.author) as writer,
                row_number() over (order by i.first_lamport + o.place, i.author collate "C") as n
            from unnest(items) with ordinality as i (
                id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task, message, ops, document,
                signature, public_key, swarm, member, member_signature, member_key, draft_id, c)
            cross join lateral jsonb_array_elements(i.ops) with ordinality as o (op, place)
        ) as s
        order by s.n);
end
$$;

create or replace function kerai_private.require_size(document json) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    size constant bigint := octet_length(document::text);
    max_size constant bigint := kerai_private.setting('max_changeset_bytes');
begin
    if document is null then
        perform kerai_private.refuse('KR005', 'a changeset is needed', 'given: null',
            'Pass one JSON object, or an array of operations to act for your hosted agent.');
    end if;
    if size > max_size then
        perform kerai_private.refuse('KR005', 'the changeset is too large',
            format('%s bytes, at most %s are taken', size, max_size),
            'Split it into several changesets, or have an operator raise max_changeset_bytes in kerai.settings.');
    end if;
end
$$;

-- A changeset as jsonb. What PostgreSQL cannot take into jsonb (NUL, lone surrogates, endless nesting) is malformed.
create or replace function kerai_private.parse_changeset(document json) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    problem text;
    problem_detail text;
    problem_state text;
begin
    perform kerai_private.require_size(document);
    begin
        return document::jsonb;
    exception when data_exception or statement_too_complex or program_limit_exceeded then
        get stacked diagnostics
            problem = message_text, problem_detail = pg_exception_detail, problem_state = returned_sqlstate;
        perform kerai_private.refuse('KR005', 'the changeset holds what cannot be stored',
            format('%s. %s', problem, problem_detail), case problem_state
                when '22003' then 'Leave out numbers of that size.'
                when '54001' then 'Nest less deeply.'
                else E'Leave out NUL characters (\\u0000) and lone surrogates.' end);
    end;
end
$$;

-- The text that the worker has signed: in a changeset that was made of a draft, the draft.
create or replace function kerai_private.signed_body(document jsonb) returns jsonb
language sql immutable parallel safe
return coalesce(document -> 'draft', document);

-- The beginning of a value for a message. What may be long when it is written out is not: a few characters such as
-- 1e99999 become as many digits. Inlined.
create or replace function kerai_private.excerpt(value jsonb, most int) returns text
language sql immutable parallel safe
return case when pg_column_size(value) > 16384 and jsonb_typeof(value) <> 'string'
    then format('%s of %s bytes', jsonb_typeof(value), pg_column_size(value)) else left(value::text, most) end;

-- A string, NULL where there is none, and what no pattern matches where there is something else. Inlined.
create or replace function kerai_private.string_of(value jsonb) returns text
language sql immutable parallel safe
return case coalesce(jsonb_typeof(value), 'null') when 'string' then value #>> '{}' when 'null' then null else '' end;

-- May a vector hold what is long when it is written out, such as 1e99999? Zeros count as such: 0e-9999 is one. Few
-- entries do no harm. Inlined.
create or replace function kerai_private.may_be_long(vector jsonb) returns boolean
language sql immutable parallel safe
return pg_column_size(vector) > 16384
    and jsonb_path_match(vector, 'strict $.* < 1 || $.* > 999999999999999999') is distinct from false;

-- Refuses KR005 unless the envelope has one of three shapes. The first is a changeset. The second is a draft, which a
-- member of a grouped swarm signs, and which names the swarm instead of a place in a sequence. The third is the
-- changeset that a swarm's instance has made of a draft, with the draft's exact text.
create or replace function kerai_private.require_envelope(changeset jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    uuid_pattern constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
    needed text[] := '{v,author,seq,lamport,base,ops}';
    known text[] := '{v,author,seq,lamport,prev,base,guard,task,message,ops}';
    bad text;
begin
    if jsonb_typeof(changeset) <> 'object' then
        perform kerai_private.refuse('KR005', 'a changeset is a JSON object', format('given: %s', jsonb_typeof(changeset)),
            'Pass one JSON object, or, without a signature, an array of operations to act for your hosted agent.');
    end if;
    if changeset ? 'swarm' then
        needed := '{v,author,swarm,base,ops}';
        known := '{v,author,swarm,base,guard,task,message,ops}';
    elsif changeset ? 'draft' then
        needed := '{v,author,seq,lamport,prev,draft,member_key,member_signature}';
        known := needed;
    end if;

    select string_agg(k, ', ') into bad from unnest(needed) as k where not changeset ? k;
    if bad is not null then
        perform kerai_private.refuse('KR005', 'the changeset lacks a key', format('missing: %s', bad),
            format('It has %s.', array_to_string(known, ', ')));
    end if;
    if changeset - known <> '{}' then
        perform kerai_private.refuse('KR005', 'the changeset has a key that it does not take',
            format('unknown: %s', (
                select string_agg(left(u.k, 80), ', ')
                from (select k from jsonb_object_keys(changeset - known) as k limit 10) as u)),
            format('It has %s.', array_to_string(known, ', ')));
    end if;

    bad := case
        when changeset -> 'v' is distinct from '1' then
            format('v: %s, only 1 is known', kerai_private.excerpt(changeset -> 'v', 40))
        when jsonb_typeof(changeset -> 'author') <> 'string' or length(changeset ->> 'author') not between 18 and 220
            or changeset ->> 'author' !~ '^[^[:cntrl:]]+[.][0-9a-f]{16}$' then
            format('author: %s, is <name>.<16 hex digits>', kerai_private.excerpt(changeset -> 'author', 240))
        when changeset ? 'seq'
            and (jsonb_typeof(changeset -> 'seq') <> 'number' or changeset ->> 'seq' !~ '^[1-9][0-9]{0,17}$') then
            format('seq: %s, is a whole number from 1', kerai_private.excerpt(changeset -> 'seq', 40))
        when changeset ? 'lamport'
            and (jsonb_typeof(changeset -> 'lamport') <> 'number' or changeset ->> 'lamport' !~ '^[1-9][0-9]{0,17}$') then
            format('lamport: %s, is a whole number from 1', kerai_private.excerpt(changeset -> 'lamport', 40))
        when kerai_private.string_of(changeset -> 'prev') !~ '^[0-9a-f]{64}$' then
            format('prev: %s, is null or 64 hex digits', kerai_private.excerpt(changeset -> 'prev', 100))
        when jsonb_typeof(changeset -> 'base') <> 'object' then
            format('base: %s, is an object', kerai_private.excerpt(changeset -> 'base', 100))
        when kerai_private.string_of(changeset -> 'guard') !~* uuid_pattern then
            format('guard: %s, is null or a node''s uuid', kerai_private.excerpt(changeset -> 'guard', 100))
        when kerai_private.string_of(changeset -> 'task') !~* uuid_pattern then
            format('task: %s, is null or a task''s uuid', kerai_private.excerpt(changeset -> 'task', 100))
        when changeset ? 'swarm' and coalesce(kerai_private.string_of(changeset -> 'swarm'), '') !~* uuid_pattern then
            format('swarm: %s, is a swarm''s uuid', kerai_private.excerpt(changeset -> 'swarm', 100))
        when jsonb_typeof(changeset -> 'message') not in ('string', 'null')
            or octet_length(changeset ->> 'message') > 65536 then
            'message: is text of at most 65536 bytes'
        when jsonb_typeof(changeset -> 'ops') <> 'array' then
            format('ops: %s, is an array', kerai_private.excerpt(changeset -> 'ops', 100))
        when changeset ? 'draft' and jsonb_typeof(changeset -> 'draft') <> 'object' then
            format('draft: %s, is an object', kerai_private.excerpt(changeset -> 'draft', 100))
        when changeset ? 'draft' and not (changeset -> 'draft' ? 'swarm') then 'draft: names no swarm'
        when changeset ? 'draft'
            and coalesce(kerai_private.string_of(changeset -> 'member_key'), '') !~ '^[0-9a-f]{64}$' then
            format('member_key: %s, is 64 hex digits', kerai_private.excerpt(changeset -> 'member_key', 100))
        when changeset ? 'draft'
            and coalesce(kerai_private.string_of(changeset -> 'member_signature'), '') !~ '^[0-9a-f]{128}$' then
            format('member_signature: %s, is 128 hex digits', kerai_private.excerpt(changeset -> 'member_signature', 150))
    end;
    if bad is not null then
        perform kerai_private.refuse('KR005', 'the changeset has a malformed value', bad,
            'Correct the value, sign the document anew, and push it again.');
    end if;

    if changeset ? 'draft' then
        perform kerai_private.require_envelope(changeset -> 'draft');
    else
        perform from kerai_private.vector_entries(changeset -> 'base');
    end if;
end
$$;

-- Refuses KR005 unless the operations of each changeset are few enough, at least one, and well-formed.
create or replace function kerai_private.require_operations(variadic ops jsonb[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    most constant bigint := kerai_private.setting('max_changeset_ops');
    most_moves constant bigint := kerai_private.setting('max_changeset_moves');
    given int;
    problem text;
begin
    select jsonb_array_length(o.ops) into given
    from unnest(ops) as o (ops)
    where jsonb_array_length(o.ops) not between 1 and most
    limit 1;
    if found then
        perform kerai_private.refuse('KR005', 'too few or too many operations',
            format('%s operations, 1 to %s are taken', given, most),
            'Split the change into several changesets, or have an operator raise max_changeset_ops in kerai.settings.');
    end if;

    select m.given into given
    from unnest(ops) as o (ops)
    cross join lateral (
        select count(*) as given from jsonb_array_elements(o.ops) as u (op)
        where jsonb_array_length(o.ops) > most_moves and u.op ->> 'op' = 'node_move'
    ) as m
    where m.given > most_moves
    limit 1;
    if found then
        perform kerai_private.refuse('KR005', 'too many moves in one changeset',
            format('%s node_move operations, at most %s are taken', given, most_moves),
            'Split the change into several changesets, or have an operator raise max_changeset_moves in kerai.settings.');
    end if;

    problem := kerai_private.operations_problem(ops);
    if problem is not null then
        perform kerai_private.refuse('KR005', 'an operation is malformed', problem,
            'Operations count from 0. Correct the operation, sign the document anew, and push it again.');
    end if;
end
$$;

-- How large a draft may be: what kerai_private.wrap_drafts puts around it has to pass elsewhere too.
create or replace function kerai_private.max_draft_bytes() returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return kerai_private.setting('max_changeset_bytes') - 2000;
end
$$;

-- What keeps a draft from being put into a changeset, or a changeset from holding its draft; NULL when nothing does.
-- Inlined.
create or replace function kerai_private.draft_problem(document json, changeset jsonb, max_draft bigint) returns text
language sql immutable parallel safe
return case
    when changeset ? 'swarm' then case
        when document::text not like '{%}' then 'white space'
        when octet_length(document::text) > max_draft then 'size' end
    when changeset ? 'draft'
        and right(changeset ->> 'author', 16)
        <> right(replace(lower(changeset #>> '{draft,swarm}'), '-', ''), 16) then 'author' end;

create or replace function kerai_private.require_draft(document json, changeset jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    max_draft constant bigint := kerai_private.max_draft_bytes();
    problem constant text := kerai_private.draft_problem(document, changeset, max_draft);
begin
    -- Drafts are read by everybody: in a changeset of his own anyone could say again what a member once said.
    if problem = 'author' then
        perform kerai_private.refuse('KR013', 'the draft is not for this author to merge',
            format('author: %s, swarm: %s', changeset ->> 'author', changeset #>> '{draft,swarm}'),
            'The id of a swarm that groups its members ends in the fingerprint of its instance''s key.');
    elsif problem = 'white space' then
        perform kerai_private.refuse('KR005', 'the changeset has a malformed value',
            'a draft starts with { and ends with }: white space around it is no part of what others verify',
            'Strip it, sign the document anew, and push it again.');
    elsif problem = 'size' then
        perform kerai_private.refuse('KR005', 'the changeset is too large',
            format('%s bytes, a draft has at most %s', octet_length(document::text), max_draft),
            'Split it into several drafts, or have an operator raise max_changeset_bytes in kerai.settings.');
    end if;
end
$$;

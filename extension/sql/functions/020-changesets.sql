-- 020 changesets: what a document must look like before anything is believed or merged.

-- The shape of each operation. A key that is not listed is refused: a typo would be a lost write.
create or replace function kerai_private.operation_problem(op jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    required text[];
    optional text[] := '{}';
    bad text;
begin
    if jsonb_typeof(op) <> 'object' then
        return 'is not an object';
    end if;

    case op ->> 'op'
    when 'node_insert' then
        required := '{op,node,parent,position,kind}';
        optional := '{name,language,content,metadata}';
    when 'node_update' then
        required := '{op,node}';
        optional := '{set,metadata}';
    when 'node_move' then
        required := '{op,node,parent,position}';
    when 'node_delete', 'node_restore' then
        required := '{op,node}';
    when 'edge_insert' then
        required := '{op,source,target,relation}';
        optional := '{metadata}';
    when 'edge_delete' then
        required := '{op,source,target,relation}';
        optional := '{metadata}';
    when 'perspective_set' then
        required := '{op,node,weight}';
        optional := '{context,reasoning}';
    when 'perspective_delete' then
        required := '{op,node}';
        optional := '{context,weight,reasoning}';
    when 'association_set' then
        required := '{op,source,target,relation,weight}';
        optional := '{reasoning}';
    when 'association_delete' then
        required := '{op,source,target,relation}';
        optional := '{weight,reasoning}';
    else
        return case when op ? 'op' then format('is of an unknown op: %s', left((op -> 'op')::text, 80))
            else 'lacks the key op' end;
    end case;

    if not op ?& required then
        select string_agg(k, ', ') into bad from unnest(required) as k where not op ? k;
        return format('(%s) lacks %s', op ->> 'op', bad);
    end if;
    if op - required - optional <> '{}' then
        select string_agg(left(k, 80), ', ') into bad from jsonb_object_keys(op - required - optional) as k;
        return format('(%s) has a key that it does not take: %s', op ->> 'op', bad);
    end if;

    select format('(%s) has the wrong type in %s: %s', op ->> 'op', f.key, left(f.value::text, 80))
    into bad
    from jsonb_each(op) as f
    where not case
        when f.key in ('node', 'source', 'target') then jsonb_typeof(f.value) = 'string'
            and (f.value #>> '{}') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        when f.key in ('parent', 'context') then jsonb_typeof(f.value) = 'null'
            or jsonb_typeof(f.value) = 'string'
            and (f.value #>> '{}') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        when f.key in ('op', 'position', 'kind', 'relation') then jsonb_typeof(f.value) = 'string'
        when f.key in ('name', 'language', 'content', 'reasoning') then jsonb_typeof(f.value) in ('string', 'null')
        when f.key = 'weight' then jsonb_typeof(f.value) = 'number'
            or jsonb_typeof(f.value) = 'null' and op ->> 'op' in ('perspective_delete', 'association_delete')
        when f.key = 'metadata' then jsonb_typeof(f.value) = 'object'
            or jsonb_typeof(f.value) = 'null' and op ->> 'op' <> 'node_update'
        else jsonb_typeof(f.value) = 'object'
    end
    limit 1;
    if found then
        return bad;
    end if;

    if (op ->> 'weight')::numeric not between -1 and 1 then
        return format('(%s) has a weight outside of −1 … 1: %s', op ->> 'op', left(op ->> 'weight', 40));
    end if;
    if scale((op ->> 'weight')::numeric) > 300 then
        return format('(%s) has a weight with too many digits: %s', op ->> 'op', left(op ->> 'weight', 40));
    end if;
    if length(op ->> 'kind') not between 1 and 200 or length(op ->> 'relation') not between 1 and 200
        or octet_length(op ->> 'position') > 1000 or octet_length(op ->> 'name') > 1000
        or octet_length(op ->> 'language') > 200 then
        return format('(%s) has an empty kind or relation, or one of kind (200), relation (200), position (1000), '
            || 'name (1000), language (200) is too long', op ->> 'op');
    end if;

    if op ->> 'op' = 'node_update' then
        if not op ?| array['set', 'metadata'] then
            return '(node_update) lacks set or metadata';
        end if;
        select format('(node_update) sets %s to %s', f.key, left(f.value::text, 80)) into bad
        from jsonb_each(coalesce(op -> 'set', '{}')) as f
        where not (f.key in ('name', 'language', 'content') and jsonb_typeof(f.value) in ('string', 'null')
            or f.key = 'kind' and jsonb_typeof(f.value) = 'string')
        limit 1;
        if found then
            return bad;
        end if;
        if length(op #>> '{set,kind}') not between 1 and 200 or octet_length(op #>> '{set,name}') > 1000
            or octet_length(op #>> '{set,language}') > 200 then
            return '(node_update) has an empty kind, or one of kind (200), name (1000), language (200) is too long';
        end if;
    end if;
    return null;
end
$$;

-- Is it an id as it is written in a changeset? An error where it cannot be cast. Inlined.
create or replace function kerai_private.is_id(id text) returns boolean
language sql immutable parallel safe
return id like '________-____-____-____-____________' and id::uuid is not null;

-- Does an operation say below which node, or that it is a root, and where among its siblings? Inlined.
create or replace function kerai_private.is_placed(op jsonb) returns boolean
language sql immutable parallel safe
return op ? 'parent' and jsonb_typeof(op -> 'parent') in ('string', 'null')
    and (op ->> 'parent' is null or kerai_private.is_id(op ->> 'parent'))
    and jsonb_typeof(op -> 'position') = 'string' and octet_length(op ->> 'position') <= 1000;

-- The first thing that is wrong with the operations of a batch, NULL when nothing is. The set-based test is strict
-- about the three kinds that make up nearly all operations and hands everything else to operation_problem. When an id
-- cannot be cast, operation_problem looks at all of them.
create or replace function kerai_private.operations_problem(ops jsonb[], max_nesting int) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    bad record;
    too_deep constant jsonpath := format('$.*.**{%s}', max_nesting + 1);
begin
    begin
        select u.n, kerai_private.operation_problem(u.op) as problem into bad
        from unnest(ops) with ordinality as g (ops, c)
        cross join lateral jsonb_array_elements(g.ops) with ordinality as u (op, n)
        where not coalesce(case u.op ->> 'op'
            when 'node_insert' then
                u.op - '{op,node,parent,position,kind,name,language,content}'::text[] = '{}'
                and kerai_private.is_id(u.op ->> 'node') and kerai_private.is_placed(u.op)
                and jsonb_typeof(u.op -> 'kind') = 'string' and length(u.op ->> 'kind') between 1 and 200
                and coalesce(jsonb_typeof(u.op -> 'name'), 'null') in ('string', 'null')
                and coalesce(octet_length(u.op ->> 'name'), 0) <= 1000
                and coalesce(jsonb_typeof(u.op -> 'language'), 'null') in ('string', 'null')
                and coalesce(octet_length(u.op ->> 'language'), 0) <= 200
                and coalesce(jsonb_typeof(u.op -> 'content'), 'null') in ('string', 'null')
            when 'node_update' then
                u.op - '{op,node,set}'::text[] = '{}'
                and kerai_private.is_id(u.op ->> 'node')
                and jsonb_typeof(u.op -> 'set') = 'object' and (u.op -> 'set') - 'content' = '{}'
                and coalesce(jsonb_typeof(u.op #> '{set,content}'), 'null') in ('string', 'null')
            when 'node_move' then
                u.op - '{op,node,parent,position}'::text[] = '{}'
                and kerai_private.is_id(u.op ->> 'node') and kerai_private.is_placed(u.op)
            else false
        end, false)
        and kerai_private.operation_problem(u.op) is not null
        order by g.c, u.n
        limit 1;
    exception when invalid_text_representation then
        select u.n, kerai_private.operation_problem(u.op) as problem into bad
        from unnest(ops) with ordinality as g (ops, c)
        cross join lateral jsonb_array_elements(g.ops) with ordinality as u (op, n)
        where kerai_private.operation_problem(u.op) is not null
        order by g.c, u.n
        limit 1;
    end;
    if bad.n is not null then
        return format('operation %s %s', bad.n - 1, bad.problem);
    end if;
    if not exists (
        select from unnest(ops) as g (ops) cross join lateral jsonb_array_elements(g.ops) as u (op)
        where u.op ? 'metadata') then
        return null;
    end if;

    select u.n into bad
    from unnest(ops) with ordinality as g (ops, c)
    cross join lateral jsonb_array_elements(g.ops) with ordinality as u (op, n)
    where u.op ? 'metadata' and jsonb_path_exists(u.op, too_deep)
    order by g.c, u.n
    limit 1;
    if found then
        return format('operation %s has metadata nested deeper than %s', bad.n - 1, max_nesting);
    end if;

    -- A few characters such as 1e99999 become as many digits wherever the value is written out.
    select u.n, left(m.value::text, 40) as value into bad
    from unnest(ops) with ordinality as g (ops, c)
    cross join lateral jsonb_array_elements(g.ops) with ordinality as u (op, n)
    cross join lateral jsonb_path_query(u.op -> 'metadata', 'strict $.** ? (@.type() == "number")') as m (value)
    where u.op ? 'metadata' and (abs(m.value::numeric) > 1e308 or scale(m.value::numeric) > 400)
    order by g.c, u.n
    limit 1;
    if found then
        return format('operation %s has a number in its metadata with too many digits: %s', bad.n - 1, bad.value);
    end if;
    return null;
end
$$;

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
create or replace function kerai_private.unpack_operations(items kerai_private.checked[])
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

-- What was signed by whoever did the work: in a changeset that was made of a draft, the draft.
create or replace function kerai_private.body_of(document jsonb) returns jsonb
language sql immutable parallel safe
return coalesce(document -> 'draft', document);

-- Is it a changeset, or a draft, with all that it can have and nothing else? Strict: what has less, or holds a draft,
-- is for kerai_private.require_envelope. Inlined. (A pattern that counts to 64 would take half of its time.)
create or replace function kerai_private.is_envelope(changeset jsonb) returns boolean
language sql immutable parallel safe
return case when changeset ? 'swarm' then changeset ?& '{v,author,swarm,base,guard,task,message,ops}'::text[]
        and changeset - '{v,author,swarm,base,guard,task,message,ops}'::text[] = '{}'
        and coalesce(changeset ->> 'swarm' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', false)
    else changeset ?& '{v,author,seq,lamport,prev,base,guard,task,message,ops}'::text[]
        and changeset - '{v,author,seq,lamport,prev,base,guard,task,message,ops}'::text[] = '{}'
        and jsonb_typeof(changeset -> 'seq') = 'number' and changeset ->> 'seq' ~ '^[1-9][0-9]{0,17}$'
        and jsonb_typeof(changeset -> 'lamport') = 'number' and changeset ->> 'lamport' ~ '^[1-9][0-9]{0,17}$'
        and coalesce(length(changeset ->> 'prev') = 64 and changeset ->> 'prev' ~ '^[0-9a-f]+$', true) end
    and changeset -> 'v' = '1'
    and jsonb_typeof(changeset -> 'author') = 'string' and length(changeset ->> 'author') between 18 and 220
    and changeset ->> 'author' ~ '^[^[:cntrl:]]+[.][0-9a-f]{16}$'
    and jsonb_typeof(changeset -> 'base') = 'object'
    and jsonb_path_query_array(changeset -> 'base', '$.*')::text ~ '^[[](([1-9][0-9]{0,17}, )*[1-9][0-9]{0,17})?[]]$'
    and coalesce(changeset ->> 'guard' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', true)
    and coalesce(changeset ->> 'task' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', true)
    and jsonb_typeof(changeset -> 'message') = 'string' and octet_length(changeset ->> 'message') <= 65536
    and jsonb_typeof(changeset -> 'ops') = 'array';

-- Refuses KR005 unless the envelope has one of the three shapes: a changeset; a draft, which a member of a grouped
-- swarm signs and which names the swarm instead of a place in a sequence; or the changeset that a swarm's instance has
-- made of a draft, which holds the draft's exact text.
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
            format('unknown: %s', (select string_agg(left(k, 80), ', ') from jsonb_object_keys(changeset - known) as k)),
            format('It has %s.', array_to_string(known, ', ')));
    end if;

    bad := case
        when changeset -> 'v' is distinct from '1' then format('v: %s, only 1 is known', left((changeset -> 'v')::text, 40))
        when jsonb_typeof(changeset -> 'author') <> 'string' or length(changeset ->> 'author') not between 18 and 220
            or changeset ->> 'author' !~ '^[^[:cntrl:]]+[.][0-9a-f]{16}$' then
            format('author: %s, is <name>.<16 hex digits>', left((changeset -> 'author')::text, 240))
        when changeset ? 'seq'
            and (jsonb_typeof(changeset -> 'seq') <> 'number' or changeset ->> 'seq' !~ '^[1-9][0-9]{0,17}$') then
            format('seq: %s, is a whole number from 1', left((changeset -> 'seq')::text, 40))
        when changeset ? 'lamport'
            and (jsonb_typeof(changeset -> 'lamport') <> 'number' or changeset ->> 'lamport' !~ '^[1-9][0-9]{0,17}$') then
            format('lamport: %s, is a whole number from 1', left((changeset -> 'lamport')::text, 40))
        when changeset ->> 'prev' !~ '^[0-9a-f]{64}$' then
            format('prev: %s, is null or 64 hex digits', left((changeset -> 'prev')::text, 100))
        when jsonb_typeof(changeset -> 'base') <> 'object' then
            format('base: %s, is an object', left((changeset -> 'base')::text, 100))
        when changeset ->> 'guard' !~* uuid_pattern then
            format('guard: %s, is null or a node''s uuid', left((changeset -> 'guard')::text, 100))
        when changeset ->> 'task' !~* uuid_pattern then
            format('task: %s, is null or a task''s uuid', left((changeset -> 'task')::text, 100))
        when changeset ? 'swarm' and coalesce(changeset ->> 'swarm', '') !~* uuid_pattern then
            format('swarm: %s, is a swarm''s uuid', left((changeset -> 'swarm')::text, 100))
        when jsonb_typeof(changeset -> 'message') not in ('string', 'null')
            or octet_length(changeset ->> 'message') > 65536 then
            'message: is text of at most 65536 bytes'
        when jsonb_typeof(changeset -> 'ops') <> 'array' then
            format('ops: %s, is an array', left((changeset -> 'ops')::text, 100))
        when changeset ? 'draft' and jsonb_typeof(changeset -> 'draft') <> 'object' then
            format('draft: %s, is an object', left((changeset -> 'draft')::text, 100))
        when changeset ? 'draft' and not (changeset -> 'draft' ? 'swarm') then 'draft: names no swarm'
        when changeset ? 'draft' and coalesce(changeset ->> 'member_key', '') !~ '^[0-9a-f]{64}$' then
            format('member_key: %s, is 64 hex digits', left((changeset -> 'member_key')::text, 100))
        when changeset ? 'draft' and coalesce(changeset ->> 'member_signature', '') !~ '^[0-9a-f]{128}$' then
            format('member_signature: %s, is 128 hex digits', left((changeset -> 'member_signature')::text, 150))
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
    problem := kerai_private.operations_problem(ops, kerai_private.setting('max_nesting')::int);
    if problem is not null then
        perform kerai_private.refuse('KR005', 'an operation is malformed', problem,
            'Operations count from 0. Correct the operation, sign the document anew, and push it again.');
    end if;
end
$$;

-- How large a draft may be: what kerai_private.seal puts around it has to pass elsewhere too.
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

-- Looks at changesets and drafts without regard to what is merged here, and at who has signed them. Refuses for the
-- first thing that is wrong with any of them.
create or replace function kerai_private.check_changesets(given kerai_private.incoming[], parsed jsonb[])
returns kerai_private.checked[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    max_draft bigint;
    keys bytea[];
    member_keys bytea[] := '{}';
    items kerai_private.checked[];
begin
    perform kerai_private.require_envelope(p.changeset)
    from unnest(parsed) as p (changeset)
    where not coalesce(kerai_private.is_envelope(p.changeset), false);

    keys := kerai_private.require_signatures(
        array_agg(g.document::text order by g.n), array_agg(g.changeset ->> 'author' order by g.n),
        array_agg(g.signature order by g.n), array_agg(g.public_key order by g.n))
    from rows from (unnest(given), unnest(parsed)) with ordinality as g (document, signature, public_key, changeset, n);

    if exists (select from unnest(parsed) as p (changeset) where p.changeset ?| '{swarm,draft}') then
        max_draft := kerai_private.max_draft_bytes();
        perform kerai_private.require_draft(g.document, g.changeset)
        from rows from (unnest(given), unnest(parsed)) as g (document, signature, public_key, changeset)
        where kerai_private.draft_problem(g.document, g.changeset, max_draft) is not null;
    end if;
    if exists (select from unnest(parsed) as p (changeset) where p.changeset ? 'draft') then
        member_keys := kerai_private.require_signatures(
            array_agg((g.document -> 'draft')::text order by g.n), array_agg(g.changeset #>> '{draft,author}' order by g.n),
            array_agg(decode(g.changeset ->> 'member_signature', 'hex') order by g.n),
            array_agg(decode(g.changeset ->> 'member_key', 'hex') order by g.n))
        from rows from (unnest(given), unnest(parsed)) with ordinality as g (document, signature, public_key, changeset, n);
    end if;

    items := array(
        select row(
            case when not g.is_draft then sha256(convert_to(g.document::text, 'UTF8')) end,
            case when not g.is_draft then g.changeset ->> 'author' end,
            (g.changeset ->> 'seq')::bigint, (g.changeset ->> 'seq')::bigint + g.count - 1,
            (g.changeset ->> 'lamport')::bigint, (g.changeset ->> 'lamport')::bigint + g.count - 1,
            decode(g.changeset ->> 'prev', 'hex'), g.content -> 'base', (g.content ->> 'guard')::uuid,
            (g.content ->> 'task')::uuid, g.content ->> 'message', g.content -> 'ops', g.document,
            case when not g.is_draft then g.signature end, case when not g.is_draft then g.key end,
            (g.content ->> 'swarm')::uuid, case when g.content ? 'swarm' then g.content ->> 'author' end,
            case when g.is_draft then g.signature else decode(g.changeset ->> 'member_signature', 'hex') end,
            case when g.is_draft then g.key else g.member_key end,
            case when g.is_draft then sha256(convert_to(g.document::text, 'UTF8'))
                when g.content ? 'swarm' then sha256(convert_to((g.document -> 'draft')::text, 'UTF8')) end
        )::kerai_private.checked
        from (
            select r.*, coalesce(r.changeset -> 'draft', r.changeset) as content, r.changeset ? 'swarm' as is_draft,
                jsonb_array_length(coalesce(r.changeset #> '{draft,ops}', r.changeset -> 'ops')) as count
            from rows from (unnest(given), unnest(parsed), unnest(keys), unnest(member_keys)) with ordinality
                as r (document, signature, public_key, changeset, key, member_key, n)
        ) as g
        order by g.n);
    perform kerai_private.require_operations(variadic array(select i.ops from unnest(items) as i));
    return items;
end
$$;

-- Refuses KR001, KR002 or KR006 unless each text is signed by its author, and returns their keys. Where there is no
-- text there is nothing to sign.
create or replace function kerai_private.require_signatures(
    documents text[], authors text[], signatures bytea[], public_keys bytea[]
) returns bytea[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    keys bytea[];
    fits boolean[];
    bad int;
begin
    select array_agg(coalesce(a.public_key, s.public_key) order by s.n),
        array_agg(s.public_key is null or a.public_key = s.public_key
            or a.public_key is null and right(s.author, 16) = left(encode(sha256(s.public_key), 'hex'), 16) order by s.n)
    into keys, fits
    from unnest(authors, public_keys) with ordinality as s (author, public_key, n)
    left join lateral (select k.public_key from kerai_private.authors as k where k.author = s.author offset 0) as a on true;

    select v.n into bad
    from rows from (
        unnest(kerai_private.verify_signatures(documents, signatures, keys)), unnest(fits), unnest(documents)
    ) with ordinality as v (verifies, fits, document, n)
    where v.document is not null and not coalesce(v.verifies and v.fits, false)
    order by v.n
    limit 1;
    if found then
        perform kerai_private.require_signature(documents[bad], authors[bad], signatures[bad], public_keys[bad]);
    end if;
    return keys;
end
$$;

-- Refuses KR001, KR002 or KR006 unless the author has signed the text. Returns the author's key.
create or replace function kerai_private.require_signature(
    document text, author text, signature bytea, public_key bytea
) returns bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    known_key bytea;
begin
    if signature is null then
        perform kerai_private.refuse('KR001', 'a changeset must be signed', format('author: %s, signature: null', author));
    end if;
    if public_key is not null and (octet_length(public_key) <> 32
        or right(author, 16) <> left(encode(sha256(public_key), 'hex'), 16)) then
        perform kerai_private.refuse('KR002', 'the author id does not match the public key',
            format('author: %s, key: %s', author, encode(public_key, 'hex')),
            'An author id is <name>.<first 16 hex digits of sha256(public key)>.');
    end if;
    select a.public_key into known_key from kerai_private.authors as a where a.author = author;
    if known_key is null and public_key is null then
        perform kerai_private.refuse('KR006', 'no such author', format('author: %s', author),
            'Pass public_key to introduce the author, or register the agent with kerai.register_agent.');
    end if;
    if known_key <> public_key then
        perform kerai_private.refuse_key(author, known_key, public_key);
    end if;
    if not kerai_private.verify_signature(document, signature, coalesce(known_key, public_key)) then
        perform kerai_private.refuse('KR001', 'the signature does not verify',
            format('author: %s, changeset: %s', author, encode(sha256(convert_to(document, 'UTF8')), 'hex')));
    end if;
    return coalesce(known_key, public_key);
end
$$;

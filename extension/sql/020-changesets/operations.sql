-- Operations: what each must look like. Each check takes time that grows with the length of the changeset only, and
-- what has no bound of its own is looked at after what bounds it.

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

    case kerai_private.string_of(op -> 'op')
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
        return case when op ? 'op' then format('is of an unknown op: %s', kerai_private.excerpt(op -> 'op', 80))
            else 'lacks the key op' end;
    end case;

    if not op ?& required then
        select string_agg(k, ', ') into bad from unnest(required) as k where not op ? k;
        return format('(%s) lacks %s', op ->> 'op', bad);
    end if;
    if op - required - optional <> '{}' then
        select string_agg(left(u.k, 80), ', ') into bad
        from (select k from jsonb_object_keys(op - required - optional) as k limit 10) as u;
        return format('(%s) has a key that it does not take: %s', op ->> 'op', bad);
    end if;

    select format('(%s) has the wrong type in %s: %s', op ->> 'op', f.key, kerai_private.excerpt(f.value, 80))
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

    -- Not by way of its text: a few characters such as 1e99999 make a hundred thousand.
    if jsonb_typeof(op -> 'weight') = 'number' and (op -> 'weight')::numeric not between -1 and 1 then
        return format('(%s) has a weight outside of -1 ... 1: %s', op ->> 'op', left(op ->> 'weight', 40));
    end if;
    if jsonb_typeof(op -> 'weight') = 'number' and scale((op -> 'weight')::numeric) > 300 then
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
        select format('(node_update) sets %s to %s', f.key, kerai_private.excerpt(f.value, 80)) into bad
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

-- Does a strict test find nothing wrong with an operation? It knows the three kinds that make up nearly all of them;
-- others, and what it does not understand, are for operation_problem. An error where an id cannot be cast. Inlined.
create or replace function kerai_private.is_plain(op jsonb) returns boolean
language sql immutable parallel safe
return coalesce(jsonb_typeof(op -> 'op') = 'string' and jsonb_typeof(op -> 'node') = 'string' and case op ->> 'op'
    when 'node_insert' then
        op - '{op,node,parent,position,kind,name,language,content}'::text[] = '{}'
        and kerai_private.is_id(op ->> 'node') and kerai_private.is_placed(op)
        and jsonb_typeof(op -> 'kind') = 'string' and length(op ->> 'kind') between 1 and 200
        and coalesce(jsonb_typeof(op -> 'name'), 'null') in ('string', 'null')
        and coalesce(octet_length(op ->> 'name'), 0) <= 1000
        and coalesce(jsonb_typeof(op -> 'language'), 'null') in ('string', 'null')
        and coalesce(octet_length(op ->> 'language'), 0) <= 200
        and coalesce(jsonb_typeof(op -> 'content'), 'null') in ('string', 'null')
    when 'node_update' then
        op - '{op,node,set}'::text[] = '{}'
        and kerai_private.is_id(op ->> 'node')
        and jsonb_typeof(op -> 'set') = 'object' and (op -> 'set') - 'content' = '{}'
        and coalesce(jsonb_typeof(op #> '{set,content}'), 'null') in ('string', 'null')
    when 'node_move' then
        op - '{op,node,parent,position}'::text[] = '{}'
        and kerai_private.is_id(op ->> 'node') and kerai_private.is_placed(op)
    else false
end, false);

-- What is wrong with the metadata of an operation, NULL when nothing is. Every step is bounded by the one before: in
-- jsonb nothing takes eight times the bytes of its text, but for numbers, whose text may be long: 1e99999.
create or replace function kerai_private.metadata_problem(
    metadata jsonb, max_nesting int, max_keys bigint, max_bytes bigint
) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    too_deep constant jsonpath := format('$.**{%s}', max_nesting + 1);
    given bigint;
    bad jsonb;
begin
    select count(*) into given from jsonb_object_keys(case jsonb_typeof(metadata) when 'object' then metadata end);
    if given > max_keys then
        return format('has %s metadata keys, at most %s are taken', given, max_keys);
    end if;
    if pg_column_size(metadata) > 8 * max_bytes then
        return format('has more than %s bytes of metadata', max_bytes);
    end if;
    if jsonb_path_exists(metadata, too_deep) then
        return format('has metadata nested deeper than %s', max_nesting);
    end if;
    -- Taken out of one array: jsonb_path_query would move the rest of its results at every one of them.
    select m.value into bad
    from jsonb_array_elements(jsonb_path_query_array(metadata, 'strict $.** ? (@.type() == "number")')) as m (value)
    where abs(m.value::numeric) > 1e308 or scale(m.value::numeric) > 400
    limit 1;
    if found then
        return format('has a number in its metadata with too many digits: %s', left(bad::text, 40));
    end if;
    given := octet_length(metadata::text);
    if given > max_bytes then
        return format('has %s bytes of metadata, at most %s are taken', given, max_bytes);
    end if;
    return null;
end
$$;

-- The first thing that is wrong with the operations of a batch, NULL when nothing is. Not sorted: the operations come
-- in their order, and nothing after the first wrong one is looked at. When an id cannot be cast, operation_problem
-- looks at all of them. limited: whether the settings of this instance bear on it.
create or replace function kerai_private.operations_problem(ops jsonb[], limited boolean default true) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    unlimited constant int := 1000000000;
    max_nesting constant int := case when limited then kerai_private.setting('max_nesting') else unlimited end;
    max_keys constant bigint := case when limited then kerai_private.setting('max_metadata_keys') else unlimited end;
    max_bytes constant bigint := case when limited then kerai_private.setting('max_metadata_bytes') else unlimited end;
    bad record;
begin
    begin
        select u.n, kerai_private.operation_problem(u.op) as problem into bad
        from unnest(ops) with ordinality as g (ops, c)
        cross join lateral jsonb_array_elements(g.ops) with ordinality as u (op, n)
        where not kerai_private.is_plain(u.op) and kerai_private.operation_problem(u.op) is not null
        limit 1;
    exception when invalid_text_representation then
        select u.n, kerai_private.operation_problem(u.op) as problem into bad
        from unnest(ops) with ordinality as g (ops, c)
        cross join lateral jsonb_array_elements(g.ops) with ordinality as u (op, n)
        where kerai_private.operation_problem(u.op) is not null
        limit 1;
    end;
    if bad.n is null then
        select u.n, kerai_private.metadata_problem(u.op -> 'metadata', max_nesting, max_keys, max_bytes) as problem into bad
        from unnest(ops) with ordinality as g (ops, c)
        cross join lateral jsonb_array_elements(g.ops) with ordinality as u (op, n)
        where u.op ? 'metadata'
            and kerai_private.metadata_problem(u.op -> 'metadata', max_nesting, max_keys, max_bytes) is not null
        limit 1;
    end if;
    return case when bad.n is not null then format('operation %s %s', bad.n - 1, bad.problem) end;
end
$$;

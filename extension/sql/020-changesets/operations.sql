-- Operations: what each must look like. Each check takes time that grows with the length of the changeset only, and
-- what has no bound of its own is looked at after what bounds it.

-- The keys that an operation has, by its op; NULL where there is no such op. Inlined.
create or replace function kerai_private.required_keys(op text) returns text[]
language sql immutable parallel safe
return case op
    when 'node_insert' then '{op,node,parent,position,kind}'::text[]
    when 'node_update' then '{op,node}'
    when 'node_move' then '{op,node,parent,position}'
    when 'node_delete' then '{op,node}'
    when 'node_restore' then '{op,node}'
    when 'edge_insert' then '{op,source,target,relation}'
    when 'edge_delete' then '{op,source,target,relation}'
    when 'perspective_set' then '{op,node,weight}'
    when 'perspective_delete' then '{op,node}'
    when 'association_set' then '{op,source,target,relation,weight}'
    when 'association_delete' then '{op,source,target,relation}'
end;

-- The keys that it may have besides. Inlined.
create or replace function kerai_private.optional_keys(op text) returns text[]
language sql immutable parallel safe
return case op
    when 'node_insert' then '{name,language,content,metadata}'::text[]
    when 'node_update' then '{set,metadata}'
    when 'edge_insert' then '{metadata}'
    when 'edge_delete' then '{metadata}'
    when 'perspective_set' then '{context,reasoning}'
    when 'perspective_delete' then '{context,weight,reasoning}'
    when 'association_set' then '{reasoning}'
    when 'association_delete' then '{weight,reasoning}'
    else '{}'
end;

-- Is the value of a key of the type that it has with this op? Inlined.
create or replace function kerai_private.is_typed(op text, key text, value jsonb) returns boolean
language sql immutable parallel safe
return case
    when key in ('node', 'source', 'target') then jsonb_typeof(value) = 'string'
        and (value #>> '{}') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    when key in ('parent', 'context') then jsonb_typeof(value) = 'null'
        or jsonb_typeof(value) = 'string'
        and (value #>> '{}') ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    when key in ('op', 'position', 'kind', 'relation') then jsonb_typeof(value) = 'string'
    when key in ('name', 'language', 'content', 'reasoning') then jsonb_typeof(value) in ('string', 'null')
    when key = 'weight' then jsonb_typeof(value) = 'number'
        or jsonb_typeof(value) = 'null' and op in ('perspective_delete', 'association_delete')
    when key = 'metadata' then jsonb_typeof(value) = 'object'
        or jsonb_typeof(value) = 'null' and op <> 'node_update'
    else jsonb_typeof(value) = 'object'
end;

-- The shape of each operation. A key that is not listed is refused: a typo would be a lost write.
create or replace function kerai_private.operation_problem(op jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    op_type constant text := kerai_private.string_of(op -> 'op');
    required constant text[] := kerai_private.required_keys(op_type);
    bad text;
begin
    if jsonb_typeof(op) <> 'object' then
        return 'is not an object';
    end if;
    if required is null then
        return case when op ? 'op' then format('is of an unknown op: %s', kerai_private.excerpt(op -> 'op', 80))
            else 'lacks the key op' end;
    end if;

    if not op ?& required then
        select string_agg(k, ', ') into bad from unnest(required) as k where not op ? k;
        return format('(%s) lacks %s', op ->> 'op', bad);
    end if;
    if op - required - kerai_private.optional_keys(op_type) <> '{}' then
        select string_agg(left(u.k, 80), ', ') into bad
        from (select k from jsonb_object_keys(op - required - kerai_private.optional_keys(op_type)) as k limit 10) as u;
        return format('(%s) has a key that it does not take: %s', op ->> 'op', bad);
    end if;

    select format('(%s) has the wrong type in %s: %s', op ->> 'op', f.key, kerai_private.excerpt(f.value, 80))
    into bad
    from jsonb_each(op) as f
    where not kerai_private.is_typed(op_type, f.key, f.value)
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

    if op_type = 'node_update' then
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

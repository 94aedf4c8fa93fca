-- Integrity of the tree: a fold of the log against nodes, relations and moves.

-- The nodes as the log says, where they stand by the moves that are not void.
create or replace function kerai_private.nodes_of_log(wrong bytea[], before text)
returns table (
    id uuid, parent_id uuid, "position" text, kind text, name text, language text, content text, metadata jsonb,
    deleted boolean, created_stamp text, created_seq bigint, placed_stamp text, kind_stamp text, name_stamp text,
    language_stamp text, content_stamp text, metadata_stamps jsonb, deleted_stamp text, created_parent_id uuid,
    created_position text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with inserts as (
        select distinct on (l.node_id) l.*
        from kerai_private.true_log('{node_insert}', wrong, before) as l
        order by l.node_id, l.stamp collate "C"
    ),

    writes as materialized (
        select distinct on (l.node_id, e.part, e.key) l.node_id, e.part, e.key, e.value, l.stamp
        from kerai_private.true_log('{node_update}', wrong, before) as l
        cross join lateral (
            select 'set' as part, f.key, f.value from jsonb_each(l.payload -> 'set') as f
            union all
            select 'metadata', f.key, f.value from jsonb_each(l.payload -> 'metadata') as f
        ) as e
        order by l.node_id, e.part, e.key, l.stamp collate "C" desc
    ),

    fields as (
        select w.node_id, jsonb_object_agg(w.key, w.value) as vals, jsonb_object_agg(w.key, w.stamp) as stamps
        from writes as w where w.part = 'set' group by w.node_id
    ),

    metadata as (
        select w.node_id, jsonb_object_agg(w.key, w.value) as vals, jsonb_object_agg(w.key, w.stamp) as stamps
        from writes as w where w.part = 'metadata' group by w.node_id
    ),

    tombs as (
        select distinct on (l.node_id) l.node_id, l.op_type = 'node_delete' as deleted, l.stamp
        from kerai_private.true_log('{node_delete,node_restore}', wrong, before) as l
        order by l.node_id, l.stamp collate "C" desc
    ),

    places as (
        select distinct on (m.node_id) m.*
        from kerai_private.moves as m
        where not m.void and (before is null or m.stamp < before collate "C")
        order by m.node_id, m.stamp desc
    )

    select i.node_id,
        case when p.stamp is null then (i.payload ->> 'parent')::uuid else p.parent_id end,
        coalesce(p.position, i.payload ->> 'position'),
        coalesce(f.vals ->> 'kind', i.payload ->> 'kind'),
        case when f.vals ? 'name' then f.vals ->> 'name' else i.payload ->> 'name' end,
        case when f.vals ? 'language' then f.vals ->> 'language' else i.payload ->> 'language' end,
        case when f.vals ? 'content' then f.vals ->> 'content' else i.payload ->> 'content' end,
        case when g.metadata = '{}' then g.metadata else kerai_private.without_nulls(g.metadata) end,
        coalesce(t.deleted, false), i.stamp, i.author_seq, p.stamp,
        f.stamps ->> 'kind', f.stamps ->> 'name', f.stamps ->> 'language', f.stamps ->> 'content', k.stamps, t.stamp,
        case when p.stamp is not null then (i.payload ->> 'parent')::uuid end,
        case when p.stamp is not null then i.payload ->> 'position' end
    from inserts as i
    left join fields as f on f.node_id = i.node_id
    left join metadata as k on k.node_id = i.node_id
    left join tombs as t on t.node_id = i.node_id
    left join places as p on p.node_id = i.node_id
    cross join lateral (
        select coalesce(nullif(i.payload -> 'metadata', 'null'), '{}') || coalesce(k.vals, '{}') as metadata
    ) as g
$$;

create or replace function kerai_private.verify_nodes(wrong bytea[])
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select 'node', coalesce(n.id, f.id)::text, case
        when n.id is null then 'is not in the tree; the log has inserted it'
        when f.id is null then 'is in no operation of the log'
        else (
            select string_agg(kerai_private.difference(v.part, v.found, v.wanted), '; ')
            from (values
                ('parent_id', n.parent_id::text, f.parent_id::text), ('position', n.position, f.position),
                ('kind', n.kind, f.kind), ('name', n.name, f.name), ('language', n.language, f.language),
                ('content', n.content, f.content), ('metadata', n.metadata::text, f.metadata::text),
                ('deleted', n.deleted::text, f.deleted::text), ('created_stamp', n.created_stamp, f.created_stamp),
                ('created_seq', n.created_seq::text, f.created_seq::text),
                ('placed_stamp', n.placed_stamp, f.placed_stamp), ('kind_stamp', n.kind_stamp, f.kind_stamp),
                ('name_stamp', n.name_stamp, f.name_stamp), ('language_stamp', n.language_stamp, f.language_stamp),
                ('content_stamp', n.content_stamp, f.content_stamp),
                ('metadata_stamps', n.metadata_stamps::text, f.metadata_stamps::text),
                ('deleted_stamp', n.deleted_stamp, f.deleted_stamp),
                ('created_parent_id', w.created_parent_id::text, f.created_parent_id::text),
                ('created_position', w.created_position, f.created_position)
            ) as v (part, found, wanted)
            where v.found is distinct from v.wanted)
        end
    from kerai.nodes as n
    full join kerai_private.nodes_of_log(wrong, null) as f on f.id = n.id
    -- Nobody looks at these while a node stands where its insert put it.
    cross join lateral (
        select case when n.placed_stamp is not null then n.created_parent_id end as created_parent_id,
            case when n.placed_stamp is not null then n.created_position end as created_position
    ) as w
    where (n.id, n.parent_id, n.position, n.kind, n.name, n.language, n.content, n.metadata, n.deleted, n.created_stamp,
        n.created_seq, n.placed_stamp, n.kind_stamp, n.name_stamp, n.language_stamp, n.content_stamp,
        n.metadata_stamps, n.deleted_stamp, w.created_parent_id, w.created_position)
        is distinct from (f.id, f.parent_id, f.position, f.kind, f.name, f.language, f.content, f.metadata, f.deleted,
        f.created_stamp, f.created_seq, f.placed_stamp, f.kind_stamp, f.name_stamp, f.language_stamp,
        f.content_stamp, f.metadata_stamps, f.deleted_stamp, f.created_parent_id, f.created_position)
    union all
    -- Each from its parent's: where all of these are right, all paths are.
    select 'node', n.id::text, kerai_private.difference('path', n.path::text, w.path)
    from kerai.nodes as n
    left join kerai.nodes as p on p.id = n.parent_id
    cross join lateral (select kerai_private.path_below(coalesce(p.path::text, ''), n.name) as path) as w
    where n.path::text <> w.path
$$;

create or replace function kerai_private.relations_of_log(wrong bytea[], before text)
returns table (
    what text, author text, source uuid, target uuid, relation text, metadata jsonb, weight double precision,
    reasoning text, deleted boolean, stamp text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select distinct on (1, 2, 3, 4, 5)
        split_part(l.op_type, '_', 1), case when l.op_type not like 'edge%' then l.writer end, l.node_id,
        coalesce(l.payload ->> 'target', l.payload ->> 'context')::uuid, l.payload ->> 'relation',
        case when l.op_type like 'edge%' then coalesce(nullif(l.payload -> 'metadata', 'null'), '{}') end,
        (l.payload ->> 'weight')::double precision, l.payload ->> 'reasoning', l.op_type like '%delete', l.stamp
    from kerai_private.true_log('{edge_insert,edge_delete,perspective_set,perspective_delete,association_set,association_delete}',
        wrong, before) as l
    order by 1, 2, 3, 4, 5, l.stamp collate "C" desc
$$;

-- The target of a perspective is its context.
create or replace function kerai_private.verify_relations(wrong bytea[])
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
    with found as (
        select 'edge' as what, null as author, e.source, e.target, e.relation, e.metadata,
            null::double precision as weight, null as reasoning, e.deleted, e.stamp
        from kerai.edges as e
        union all
        select 'perspective', p.author, p.node_id, p.context_id, null, null, p.weight, p.reasoning, p.deleted, p.stamp
        from kerai.perspectives as p
        union all
        select 'association', a.author, a.source, a.target, a.relation, null, a.weight, a.reasoning, a.deleted, a.stamp
        from kerai.associations as a
    ),

    -- Nothing joins on null.
    keyed as (
        select 1 as side, f.* from found as f
        union all
        select 2, l.* from kerai_private.relations_of_log(wrong, null) as l
    ),

    paired as (
        select k.what, k.author, k.source, k.target, k.relation, count(*) filter (where k.side = 1) as here,
            count(*) filter (where k.side = 2) as logged,
            array_agg((k.metadata, k.weight, k.reasoning, k.deleted, k.stamp)::text order by k.side) as vals
        from keyed as k
        group by k.what, k.author, k.source, k.target, k.relation
    )

    select p.what, concat_ws(' ', p.author, p.source, p.relation, p.target), case
        when p.here = 0 then 'is not here; the log has it'
        when p.logged = 0 then 'is in no operation of the log'
        else kerai_private.difference('(metadata, weight, reasoning, deleted, stamp)', p.vals[1], p.vals[2])
        end
    from paired as p
    where p.here <> p.logged or p.vals[1] <> p.vals[2]
$$;

-- The moves against the log, then which of them are void: page by page in the order of stamps, each page from where
-- the nodes stand before it. Below `floor` moves have been folded: those that are left count.
create or replace function kerai_private.verify_moves(wrong bytea[], floor text)
returns table (what text, subject text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    page_size constant int := 20000;
    done text := '';
    stamps text[];
    nodes uuid[];
    parents uuid[];
    flags boolean[];
    base_nodes uuid[];
    base_parents uuid[];
    voids boolean[];
begin
    return query
    select 'move', coalesce(m.stamp, l.stamp), case
        when m.stamp is null then format('of node %s is not kept; the log has it', l.node_id)
        when l.stamp is null then format('of node %s is in no operation of the log', m.node_id)
        when m.void and l.stamp < floor collate "C" then 'is void, but was kept because it counts'
        else (
            select string_agg(kerai_private.difference(v.part, v.found, v.wanted), '; ')
            from (values
                ('node_id', m.node_id::text, l.node_id::text),
                ('parent_id', m.parent_id::text, lower(l.payload ->> 'parent')),
                ('position', m.position, l.payload ->> 'position')) as v (part, found, wanted)
            where v.found is distinct from v.wanted)
        end
    from kerai_private.moves as m
    full join kerai_private.true_log('{node_move}', wrong, null) as l on l.stamp = m.stamp
    where (m.stamp, m.node_id, m.parent_id, m.position) is distinct from
        (l.stamp, l.node_id, (l.payload ->> 'parent')::uuid, l.payload ->> 'position')
        or m.void and l.stamp < floor collate "C";

    loop
        select array_agg(p.stamp order by p.stamp), array_agg(p.node_id order by p.stamp),
            array_agg(p.parent_id order by p.stamp), array_agg(p.void order by p.stamp)
        into stamps, nodes, parents, flags
        from (
            select m.* from kerai_private.moves as m
            where m.stamp > done and (floor is null or m.stamp >= floor) order by m.stamp limit page_size
        ) as p;
        exit when stamps is null;

        with recursive climb (node, parent) as (
            select b.*
            from (select distinct u.node from unnest(nodes || parents) as u (node)) as t
            cross join lateral kerai_private.place_of_log(t.node, stamps[1]) as b
            union
            select b.* from climb as c cross join lateral kerai_private.place_of_log(c.parent, stamps[1]) as b
        )

        select array_agg(c.node), array_agg(c.parent) into base_nodes, base_parents from climb as c;
        begin
            voids := kerai_private.void_moves(base_nodes, base_parents, nodes, parents);
        exception when external_routine_exception or plpgsql_error or internal_error then
            return query select 'move', stamps[1], format('which moves are void from here on cannot be said: %s', sqlerrm);
            exit;
        end;

        return query
        select 'move', u.stamp, kerai_private.difference('void', u.flag::text, u.void::text)
        from unnest(stamps, flags, voids) as u (stamp, flag, void)
        where u.flag <> u.void;
        done := stamps[cardinality(stamps)];
    end loop;
end
$$;

-- Where a node stands by the moves that count and are below a stamp, else by its insert; no row when there is none.
create or replace function kerai_private.place_of_log(node uuid, before text)
returns table (node_id uuid, parent_id uuid)
language plpgsql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select m.node_id, m.parent_id from kerai_private.moves as m
    where m.node_id = node and not m.void and m.stamp < before order by m.stamp desc limit 1;
    if not found then
        -- In the one partition that the tree points to, if that is right.
        return query
        select o.node_id, (o.payload ->> 'parent')::uuid
        from kerai.nodes as n
        inner join kerai.operations as o on o.author = kerai_private.stamp_author(n.created_stamp) and o.author_seq = n.created_seq
        where n.id = node and o.node_id = node and o.op_type = 'node_insert';
    end if;
    if not found then
        return query
        select o.node_id, (o.payload ->> 'parent')::uuid from kerai.operations as o
        where o.node_id = node and o.op_type = 'node_insert' order by o.lamport_ts, o.author limit 1;
    end if;
end
$$;

-- Placements: which nodes come into a served scope.

-- Where operations that a vector has not seen have placed nodes; none when it is NULL.
create or replace function kerai_private.placements_since(seen jsonb) returns table (node_id uuid, parent_id uuid)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
begin
    if seen is null then
        return;
    end if;
    return query
    select distinct o.node_id, (o.payload ->> 'parent')::uuid
    from kerai_private.authors as a
    left join kerai_private.vector_entries(seen) as e on e.author = a.author
    cross join lateral (
        select o.* from kerai.operations as o
        where o.author = a.author and o.author_seq > coalesce(e.seq, 0)
        offset 0
    ) as o
    where a.seq > coalesce(e.seq, 0) and o.op_type in ('node_insert', 'node_move');
end
$$;

create or replace function kerai_private.note_repeated_inserts() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    noted jsonb;
    now_seen jsonb;
begin
    insert into kerai_private.repeats_noted (seen) values ('{}') on conflict do nothing;
    select r.seen into noted from kerai_private.repeats_noted as r for update;
    now_seen := kerai.version_vector();
    if noted = now_seen then
        return;
    end if;

    with fresh as materialized (
        select o.node_id
        from kerai_private.authors as a
        left join kerai_private.vector_entries(noted) as e on e.author = a.author
        cross join lateral (
            select o.node_id, o.op_type from kerai.operations as o
            where o.author = a.author and o.author_seq > coalesce(e.seq, 0)
            offset 0
        ) as o
        where a.seq > coalesce(e.seq, 0) and o.op_type = 'node_insert'
    ),

    repeated as (
        select f.node_id from fresh as f group by f.node_id having count(*) > 1
        union
        select f.node_id from fresh as f
        inner join kerai.operations as o on o.node_id = f.node_id and o.op_type = 'node_insert'
        where noted <> '{}'
        group by f.node_id having count(*) > 1
    )

    insert into kerai_private.repeated_inserts (node_id, parent_id)
    select distinct o.node_id, (o.payload ->> 'parent')::uuid
    from repeated as r
    inner join kerai.operations as o on o.node_id = r.node_id and o.op_type = 'node_insert'
    on conflict do nothing;
    update kerai_private.repeats_noted set seen = now_seen;
end
$$;

-- Everything that a node was ever placed below.
create or replace function kerai_private.parents_ever(node uuid) returns setof uuid
language sql stable
begin atomic
    select n.parent_id from kerai.nodes as n where n.id = node
    union all
    select n.created_parent_id from kerai.nodes as n where n.id = node
    union all
    select m.parent_id from kerai_private.moves as m where m.node_id = node
    union all
    select r.parent_id from kerai_private.repeated_inserts as r where r.node_id = node;
end;

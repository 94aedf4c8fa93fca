-- 020 moves: the one kind of operation whose effect depends on others. A move that would put a node below itself, at
-- its place in the order of stamps, is void. Kleppmann, Mulligan, Gomes, Beresford: "A highly-available move operation
-- for replicated trees" (2022): undo the later moves, apply, redo them. Here for a batch at once, and only where it
-- matters: in the graph of the edges before the batch's first stamp and of all moves since, a move can be void only
-- when it lies on a cycle. So only strongly connected components are replayed; every other node takes its last move.

create or replace function kerai_private.cyclic_nodes(nodes uuid[], parents uuid[]) returns uuid[]
language plpython3u immutable
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].server.cyclic_nodes(nodes, parents)
$$;

create or replace function kerai_private.void_moves(
    base_children uuid[], base_parents uuid[], nodes uuid[], parents uuid[]
) returns boolean[]
language plpython3u immutable
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].server.void_moves(base_children, base_parents, nodes, parents)
$$;

-- The moves of a batch are in kerai_private.moves already: (nodes, parents), the earliest at `since`. Decides which moves
-- from `since` on are void, and puts the nodes where they belong. The caller is alone in the gate. What was decided before
-- stays, except in components that a new edge makes, and in those with a void move that lose a node's edge to a new one:
-- so the search starts from the new moves and from the void ones.
create or replace function kerai_private.replay_moves(since text, nodes uuid[], parents uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    edge_nodes uuid[];
    edge_parents uuid[];
    cyclic uuid[] := '{}';
    changed uuid[];
begin
    -- Upwards over every edge that there is from `since` on.
    with recursive tail as materialized (
        select m.node_id, array_agg(m.parent_id) filter (where m.parent_id is not null) as parents
        from kerai_private.moves as m
        where m.stamp >= since
        group by m.node_id
    ),

    climb (id, parents) as (
        select null::uuid, replay_moves.parents || array(
            select m.parent_id from kerai_private.moves as m where m.void and m.stamp >= since)
        union
        select n.id, array_append(t.parents,
            case when n.placed_stamp is null or n.placed_stamp < since then n.parent_id
                when b.stamp is null then n.created_parent_id else b.parent_id end)
        from (select distinct u.id from climb as c cross join lateral unnest(c.parents) as u (id)) as f
        inner join kerai.nodes as n on n.id = f.id
        left join tail as t on t.node_id = n.id
        left join lateral (
            select e.stamp, e.parent_id from kerai_private.moves as e
            where n.placed_stamp >= since and e.node_id = n.id and e.stamp < since and not e.void
            order by e.stamp desc
            limit 1
        ) as b on true
    )

    select array_agg(c.id), array_agg(u.parent) into edge_nodes, edge_parents
    from climb as c
    cross join lateral unnest(c.parents) as u (parent)
    where c.id is not null and u.parent is not null;

    -- No moved node is on a cycle unless the search has come to it.
    if exists (
        select from unnest(edge_nodes) as e (id) where e.id in (select u.id from unnest(nodes) as u (id))) then
        cyclic := kerai_private.cyclic_nodes(edge_nodes, edge_parents);
    end if;
    if cyclic <> '{}' then
        perform kerai_private.judge_moves(since, cyclic);
    end if;

    with place as materialized (
        select p.id, p.parent_id, p.position, p.stamp from kerai_private.places_before(cyclic, null) as p
        union all
        (select distinct on (m.node_id) m.node_id, m.parent_id, m.position, m.stamp
        from kerai_private.moves as m
        where m.stamp >= since and not m.void and m.node_id in (select u.id from unnest(nodes) as u (id))
            and m.node_id not in (select u.id from unnest(cyclic) as u (id))
        order by m.node_id, m.stamp desc)
    ),

    written as (
        update kerai.nodes as n
        set parent_id = p.parent_id, position = p.position, placed_stamp = p.stamp,
            created_parent_id = case when n.placed_stamp is null then n.parent_id else n.created_parent_id end,
            created_position = case when n.placed_stamp is null then n.position else n.created_position end
        from place as p
        where n.id = p.id and n.placed_stamp is distinct from p.stamp
        returning n.id
    )

    select array_agg(w.id) into changed from written as w;
    perform kerai_private.refresh_paths(changed);
end
$$;

-- Decides anew which moves of these nodes, from `since` on, are void.
create or replace function kerai_private.judge_moves(since text, judged uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    base_parents uuid[];
    stamps text[];
    nodes uuid[];
    parents uuid[];
    were_void boolean[];
    are_void boolean[];
begin
    -- Before its insert nothing can be below a node, so the insert counts from the beginning.
    select array_agg(p.parent_id order by p.n) into base_parents from kerai_private.places_before(judged, since) as p;

    select array_agg(m.stamp), array_agg(m.node_id), array_agg(m.parent_id), array_agg(m.void)
    into stamps, nodes, parents, were_void
    from (
        select t.* from kerai_private.moves as t
        where t.stamp >= since and t.node_id in (select u.id from unnest(judged) as u (id))
        order by t.stamp
    ) as m;

    are_void := kerai_private.void_moves(judged, base_parents, nodes, parents);

    update kerai_private.moves as m
    set void = t.is_void
    from unnest(stamps, were_void, are_void) as t (stamp, was_void, is_void)
    where m.stamp = t.stamp and t.was_void <> t.is_void;
end
$$;

-- Where nodes stand after all effective moves with a stamp below `before`, or all there are; n is their place in the
-- array. `stamp` is NULL where that is still what the insert gave.
create or replace function kerai_private.places_before(nodes uuid[], before text)
returns table (n bigint, id uuid, parent_id uuid, "position" text, stamp text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select u.n, x.id,
        case when m.stamp is not null then m.parent_id when x.placed_stamp is null or x.placed_stamp < before then x.parent_id
            else x.created_parent_id end,
        case when m.stamp is not null then m.position when x.placed_stamp is null or x.placed_stamp < before then x.position
            else x.created_position end,
        case when m.stamp is not null then m.stamp when x.placed_stamp < before then x.placed_stamp end
    from unnest(nodes) with ordinality as u (id, n)
    inner join kerai.nodes as x on x.id = u.id
    left join lateral (
        select t.stamp, t.parent_id, t.position from kerai_private.moves as t
        where (places_before.before is null or x.placed_stamp >= places_before.before)
            and t.node_id = x.id and not t.void
            and (places_before.before is null or t.stamp < places_before.before)
        order by t.stamp desc
        limit 1
    ) as m on true;
end
$$;

-- Rewrites the paths of these nodes, which were placed or named anew, and of everything below them, where they changed.
create or replace function kerai_private.refresh_paths(changed uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(changed) is null or cardinality(changed) = 0 then
        return;
    end if;

    with recursive stale as materialized (
        select n.id, n.parent_id from kerai.nodes as n
        left join kerai.nodes as p on p.id = n.parent_id
        where n.id = any(changed)
            and n.path::text <> kerai_private.path_below(coalesce(p.path::text, ''), n.name)
    ),

    climb (origin, id) as (
        select s.id, s.parent_id from stale as s
        union
        select c.origin, n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.id
    ),

    -- A stale node below another stale one is reached from there.
    tops as (
        select s.id from stale as s
        except
        select c.origin from climb as c where c.id in (select s.id from stale as s)
    ),

    walk (id, path) as (
        select n.id, kerai_private.path_below(coalesce(p.path::text, ''), n.name)
        from tops as t
        inner join kerai.nodes as n on n.id = t.id
        left join kerai.nodes as p on p.id = n.parent_id
        union all
        select n.id, case when n.name is null then w.path else kerai_private.path_below(w.path, n.name) end
        from walk as w
        inner join kerai.nodes as n on n.parent_id = w.id
    )

    update kerai.nodes as n
    set path = w.path::kerai_private.path
    from walk as w
    where n.id = w.id and n.path::text <> w.path;
end
$$;

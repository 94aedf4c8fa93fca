-- 020 moves: the one kind of operation whose effect depends on others. A move that would put a node below itself, at
-- its place in the order of stamps, is void. Kleppmann, Mulligan, Gomes, Beresford: "A highly-available move operation
-- for replicated trees" (2022): undo the later moves, apply, redo them. Here in one batch: the places as of the
-- earliest new stamp are looked up, not undone one by one, and only places that change in the end are written.

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

-- Recomputes which moves from `since` on are void, and where the nodes that they move stand. The caller is alone in
-- the gate. Where an insert put a node counts from the beginning: before its insert nothing can be below a node.
create or replace function kerai_private.replay_moves(since text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    tail_stamps text[];
    tail_nodes uuid[];
    tail_parents uuid[];
    moved uuid[];
    base_parents uuid[];
    closure_nodes uuid[];
    closure_parents uuid[];
    voids boolean[];
    changed uuid[];
begin
    select array_agg(m.stamp order by m.stamp), array_agg(m.node_id order by m.stamp),
        array_agg(m.parent_id order by m.stamp)
    into tail_stamps, tail_nodes, tail_parents
    from kerai_private.moves as m
    where m.stamp >= since;
    if tail_stamps is null then
        return;
    end if;

    -- Where each moved node stood before `since`: its last effective earlier move, else its insert.
    select array_agg(t.node), array_agg(p.parent_id) into moved, base_parents
    from (select distinct u.node from unnest(tail_nodes) as u (node)) as t
    cross join lateral (select b.parent_id from kerai_private.place_before(t.node, since) as b) as p;

    -- Every node that a replay can walk over: the ancestors, as of `since`, of moved nodes and of new parents.
    with recursive base as materialized (
        select b.node, b.parent from unnest(moved, base_parents) as b (node, parent)
    ),

    climb (node, parent) as (
        select b.node, b.parent from base as b
        union
        select n.id, case when b.node is null then n.parent_id else b.parent end
        from unnest(tail_parents) as u (node)
        inner join kerai.nodes as n on n.id = u.node
        left join base as b on b.node = n.id
        union
        select n.id, case when b.node is null then n.parent_id else b.parent end
        from climb as c
        inner join kerai.nodes as n on n.id = c.parent
        left join base as b on b.node = n.id
    )

    select array_agg(c.node), array_agg(c.parent) into closure_nodes, closure_parents from climb as c;

    voids := kerai_private.void_moves(closure_nodes, closure_parents, tail_nodes, tail_parents);

    update kerai_private.moves as m
    set void = t.void
    from unnest(tail_stamps, voids) as t (stamp, void)
    where m.stamp = t.stamp and m.void <> t.void;

    with place as materialized (
        select t.node, p.parent_id, p.position, p.stamp
        from unnest(moved) as t (node)
        cross join lateral (select b.* from kerai_private.place_before(t.node, null) as b) as p
    ),

    written as (
        update kerai.nodes as n
        set parent_id = p.parent_id, position = p.position, placed_stamp = p.stamp
        from place as p
        where n.id = p.node
            and (n.parent_id, n.position, n.placed_stamp) is distinct from (p.parent_id, p.position, p.stamp)
        returning n.id
    )

    select array_agg(w.id) into changed from written as w;
    perform kerai_private.refresh_paths(changed);
end
$$;

-- Where a node stands after all effective moves with a stamp below `before`, or all there are. `stamp` is NULL when
-- that is still where its insert put it.
create or replace function kerai_private.place_before(
    node uuid, before text, out parent_id uuid, out "position" text, out stamp text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select m.parent_id, m.position, m.stamp into place_before.parent_id, place_before."position", place_before.stamp
    from kerai_private.moves as m
    where m.node_id = place_before.node and not m.void
        and (place_before.before is null or m.stamp < place_before.before)
    order by m.stamp desc
    limit 1;
    if not found then
        select (o.payload ->> 'parent')::uuid, o.payload ->> 'position'
        into place_before.parent_id, place_before."position"
        from kerai.nodes as n
        inner join kerai.operations as o on o.author = substr(n.created_stamp, 18) and o.author_seq = n.created_seq
        where n.id = place_before.node;
    end if;
end
$$;

-- Rewrites the paths of these nodes and of everything below them, where they changed.
create or replace function kerai_private.refresh_paths(changed uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(changed) is null or cardinality(changed) = 0 then
        return;
    end if;

    with recursive climb (origin, id) as (
        select n.id, n.parent_id from kerai.nodes as n where n.id = any(changed)
        union
        select c.origin, n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.id
    ),

    -- A changed node below another changed one is reached from there.
    tops as (
        select u.id from unnest(changed) as u (id)
        except
        select c.origin from climb as c where c.id = any(changed)
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

-- Moves: the one kind of operation whose effect depends on others. A move that would put a node below itself, at
-- its place in the order of stamps, is void. Kleppmann, Mulligan, Gomes, Beresford: "A highly-available move operation
-- for replicated trees" (2022): undo the later moves, apply, redo them. Here for a batch at once, and only where it
-- matters. Take the graph of the edges before the batch's first stamp, and of all moves since: a move can be void only
-- when it lies on a cycle there. So only strongly connected components are replayed; every other node takes its last
-- move.

create or replace function kerai_private.void_moves(
    base_children uuid[], base_parents uuid[], nodes uuid[], parents uuid[], rings boolean default false
) returns boolean[]
language plpython3u immutable
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].moves.void_moves(
    base_children, base_parents, nodes, parents, rings=rings, pause=lambda: plpy.execute("select"))
$$;

-- The stamps of the moves from `since` on that are judged otherwise than before. Given are the new ones, and those that
-- were void.
--
-- A node is looked up by its id, and where it stood only when it was moved since: the setting and OFFSET 0 leave no
-- other plan. Ids come as their 16 bytes, one after the other. They go in hex with commas between them, since a list of
-- texts would cost more than all the rest. Flags is a character a move: r, to be a root; v, void; -, neither. A root
-- has its own id for its parent's.
create or replace function kerai_private.decide_moves(since text, nodes bytea, parents bytea, flags text) returns text[]
language plpython3u stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
if "look_up" not in SD:
    look_up = """%s
        select * from (
            select coalesce(string_agg(uuid_send(x.id), ''), '') as nodes,
                coalesce(string_agg(uuid_send(coalesce(x.parent_id, x.id)), ''), '') as parents,
                array_agg(x.id) filter (where x.placed_stamp >= $2) as moved,
                array_agg(x.created_parent_id) filter (where x.placed_stamp >= $2) as created
            from %s as x
        ) as n
        cross join lateral (
            select coalesce(string_agg(uuid_send(u.id), ''), '') as displaced,
                coalesce(string_agg(uuid_send(coalesce(
                    case when m.stamp is null then u.created_parent_id else m.parent_id end, u.id)), ''), '') as origins
            from unnest(n.moved, n.created) as u (id, created_parent_id)
            left join lateral (
                select t.stamp, t.parent_id from kerai_private.moves as t
                where t.node_id = u.id and t.stamp < $2 and not t.void
                order by t.stamp desc
                limit 1
            ) as m on true
        ) as b
        cross join lateral (
            select coalesce(string_agg(uuid_send(m.node_id), ''), '') as moved_nodes,
                coalesce(string_agg(uuid_send(coalesce(m.parent_id, m.node_id)), ''), '') as targets,
                coalesce(string_agg(case when m.parent_id is null then 'r' else '-' end, ''), '') as flags
            from unnest(case when $3 then n.moved end) as u (id)
            cross join lateral (
                select t.node_id, t.parent_id from kerai_private.moves as t
                where t.node_id = u.id and t.stamp >= $2
                offset 0
            ) as m
        ) as m"""
    asked = "(select n.* from kerai.nodes as n where n.id = any(string_to_array($1, ',')::uuid[]))"
    SD["look_up"] = plpy.prepare(look_up % ("", asked), ["text", "text", "bool"])
    SD["look_all_the_way_up"] = plpy.prepare(look_up % (f"""
        with recursive climb (id, parent_id, placed_stamp, created_parent_id) as (
            select a.id, a.parent_id, a.placed_stamp, a.created_parent_id from {asked} as a
            union
            select p.id, p.parent_id, p.placed_stamp, p.created_parent_id
            from climb as c
            cross join lateral (select n.* from kerai.nodes as n where n.id = c.parent_id offset 0) as p
        )
""", "climb"), ["text", "text", "bool"])
    moves = """
        select count(*) as found, string_agg(m.stamp, E'\\n') as stamps, string_agg(uuid_send(m.node_id), '') as moved,
            string_agg(uuid_send(coalesce(m.parent_id, m.node_id)), '') as targets,
            string_agg(case when m.void then 'v' when m.parent_id is null then 'r' else '-' end, '') as flags
        from (%s) as m"""
    SD["moves"] = plpy.prepare(moves % """
        select m.*
        from unnest(string_to_array($2, ',')::uuid[]) as u (id)
        cross join lateral (
            select t.* from kerai_private.moves as t where t.node_id = u.id and t.stamp >= $1 offset 0
        ) as m
        order by m.stamp""", ["text", "text"])
    SD["tail"] = plpy.prepare(moves % """
        select t.* from kerai_private.moves as t where t.stamp >= $1 order by t.stamp limit $2""", ["text", "int"])

def look_up(nodes, with_moves):
    # One question for what is above a few nodes, though some of it be known, takes less than one a level.
    plan = "look_all_the_way_up" if len(nodes) < 50 * 33 else "look_up"
    row = plpy.execute(SD[plan], [nodes, since, with_moves])[0]
    return (row["nodes"], row["parents"], row["displaced"], row["origins"], row["moved_nodes"], row["targets"], row["flags"])

def moves_of(nodes):
    row = plpy.execute(SD["moves"], [since, nodes])[0]
    return row["stamps"], row["moved"], row["targets"], row["flags"]

def tail(most):
    row = plpy.execute(SD["tail"], [since, most + 1])[0]
    return (row["stamps"], row["moved"], row["targets"], row["flags"]) if row["found"] <= most else None

return GD["kerai @version@"].moves.decide_moves(
    nodes, parents, flags, look_up=look_up, moves_of=moves_of, tail=tail, pause=lambda: plpy.execute("select"))
$$;

-- The moves of a batch, which are in kerai_private.moves already: decides which moves from the earliest of them on are
-- void, and puts the nodes where they belong. The caller has the tree lock for itself.
-- The settings: its joins look nodes and moves up, by index; IS TRUE keeps IN from being one of them.
create or replace function kerai_private.replay_moves(fresh kerai_private.moves[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    since constant text collate "C" := (select min(f.stamp) from unnest(fresh) as f);
    given record;
    judged text[];
    turned uuid[];
    changed uuid[];
begin
    if since is null then
        return;
    end if;

    select string_agg(uuid_send(u.node_id), '') as nodes, string_agg(uuid_send(coalesce(u.parent_id, u.node_id)), '') as parents,
        string_agg(case when u.void then 'v' when u.parent_id is null then 'r' else '-' end, '') as flags
    into given
    from (
        select f.node_id, f.parent_id, false as void from unnest(fresh) as f
        union all
        select m.node_id, m.parent_id, true from kerai_private.moves as m where m.void and m.stamp >= since
    ) as u;

    judged := kerai_private.decide_moves(since, given.nodes, given.parents, given.flags);
    with t as (
        update kerai_private.moves as m
        set void = not m.void
        from unnest(judged) as j (stamp)
        where m.stamp = j.stamp
        returning m.node_id
    )

    select array_agg(distinct t.node_id) into turned from t;

    -- A node none of whose moves is judged otherwise goes where the last of the fresh ones puts it, or stays.
    with place as materialized (
        select p.id, p.parent_id, p.position, p.stamp, true as is_turned
        from kerai_private.places_before(turned, null) as p
        union all
        (
            select distinct on (f.node_id) f.node_id, f.parent_id, f.position, f.stamp, false
            from unnest(fresh) as f
            where f.node_id not in (select t.id from unnest(turned) as t (id))
            order by f.node_id, f.stamp desc
        )
    ),

    written as (
        update kerai.nodes as n
        set parent_id = p.parent_id, position = p.position, placed_stamp = p.stamp,
            created_parent_id = case when n.placed_stamp is null then n.parent_id else n.created_parent_id end,
            created_position = case when n.placed_stamp is null then n.position else n.created_position end
        from place as p
        where n.id = p.id and n.placed_stamp is distinct from p.stamp
            and (p.is_turned or n.placed_stamp is null or n.placed_stamp < p.stamp)
        returning n.id, n.parent_id, n.name, n.path::text
    )

    select array_agg(w.id) into changed
    from (select w.* from written as w order by w.parent_id /* as in the index that finds the parents */) as w
    left join lateral (select p.path::text from kerai.nodes as p where p.id = w.parent_id offset 0) as p on true
    where w.path <> kerai_private.path_below(coalesce(p.path, ''), w.name);
    perform kerai_private.refresh_paths(changed);
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
-- A level of the tree is small beside the whole. The settings and OFFSET 0 leave no plan but to look it up by index,
-- and IS TRUE keeps IN from becoming a join.
create or replace function kerai_private.refresh_paths(changed uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    if cardinality(changed) is null or cardinality(changed) = 0 then
        return;
    end if;

    with recursive stale as materialized (
        select n.id, n.parent_id from kerai.nodes as n
        left join kerai.nodes as p on p.id = n.parent_id
        where n.id in (select u.id from unnest(changed) as u (id))
            and n.path::text <> kerai_private.path_below(coalesce(p.path::text, ''), n.name)
    ),

    climb (origin, id) as (
        select s.id, s.parent_id from stale as s
        union
        select c.origin, p.parent_id
        from climb as c
        cross join lateral (select n.parent_id from kerai.nodes as n where n.id = c.id offset 0) as p
    ),

    -- A stale node below another stale one is reached from there.
    tops as (
        select s.id from stale as s
        except
        select c.origin from climb as c where (c.id in (select s.id from stale as s)) is true
    ),

    walk (id, path) as (
        select n.id, kerai_private.path_below(coalesce(p.path::text, ''), n.name)
        from tops as t
        inner join kerai.nodes as n on n.id = t.id
        left join kerai.nodes as p on p.id = n.parent_id
        union all
        select c.id, case when c.name is null then w.path else kerai_private.path_below(w.path, c.name) end
        from walk as w
        cross join lateral (select n.id, n.name from kerai.nodes as n where n.parent_id = w.id offset 0) as c
    )

    update kerai.nodes as n
    set path = w.path::kerai_private.path
    from walk as w
    where n.id = w.id and n.path::text <> w.path;
end
$$;

-- Where nodes stood as of a version vector: see time-travel.sql.

-- The authors of whom a vector (NULL: now) has not seen everything. The last operation that is seen and its stamp (0
-- and '' when there is none), and the stamp of the first that is not.
create or replace function kerai_private.unseen_authors(at jsonb)
returns table (author text, seq bigint, stamp text, next_stamp text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if at is null then
        return;
    end if;
    return query
    select a.author::text, coalesce(e.seq, 0),
        coalesce(kerai_private.stamp(s.first_lamport + e.seq - s.first_seq, a.author), ''),
        kerai_private.stamp(f.first_lamport + coalesce(e.seq, 0) + 1 - f.first_seq, a.author)
    from kerai_private.authors as a
    left join kerai_private.vector_entries(at) as e on e.author = a.author
    left join lateral (
        select c.first_seq, c.first_lamport from kerai.changesets as c
        where c.author = a.author and c.first_seq <= e.seq
        order by c.first_seq desc limit 1
    ) as s on true
    cross join lateral (
        select c.first_seq, c.first_lamport from kerai.changesets as c
        where c.author = a.author and c.first_seq <= coalesce(e.seq, 0) + 1
        order by c.first_seq desc limit 1
    ) as f
    where a.seq > coalesce(e.seq, 0);
end
$$;

-- The parent of a node as of a vector and before a stamp that is no later than the first that the vector has not seen.
create or replace function kerai_private.parent_before(node uuid, since text, at jsonb) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    parent uuid;
begin
    select m.parent_id into parent from kerai_private.moves as m
    where m.node_id = parent_before.node and not m.void and m.stamp < since
    order by m.stamp desc limit 1;
    if not found then
        select (o.payload ->> 'parent')::uuid into parent
        from kerai.operations as o
        left join kerai_private.unseen_authors(at) as u on u.author = o.author
        where o.node_id = parent_before.node and o.op_type = 'node_insert'
            and (u.author is null or o.author_seq <= u.seq)
        order by o.lamport_ts, o.author limit 1;
    end if;
    return parent;
end
$$;

-- The nodes that a replay of moves can walk over, upwards from these. Each has its parent as of a vector before the
-- first of the moves. The parents come from the inserts that the vector names, and the moves that a compaction has
-- folded.
create or replace function kerai_private.parents_in_log(
    among uuid[], since text, at jsonb, out nodes uuid[], out parents uuid[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    with recursive inserted (node, parent) as (
        select distinct on (o.node_id) o.node_id, (o.payload ->> 'parent')::uuid
        from kerai_private.vector_entries(at) as e
        inner join kerai.operations as o
            on o.author = e.author and o.author_seq <= e.seq and o.op_type = 'node_insert'
        order by o.node_id, o.lamport_ts, o.author
    ),

    placed (node, parent) as (
        select i.node, case when m.stamp is null then i.parent else m.parent_id end
        from inserted as i
        left join kerai_private.moves as m on m.node_id = i.node and m.stamp < since
    ),

    climb (node, parent) as (
        select p.node, p.parent from unnest(among) as u (node)
        inner join placed as p on p.node = u.node
        union
        select p.node, p.parent from climb as c inner join placed as p on p.node = c.parent
    )

    select array_agg(c.node), array_agg(c.parent) into nodes, parents from climb as c;
end
$$;

-- The same for few moves. The parents are those of now, but for nodes that have moved since then or were not there.
create or replace function kerai_private.parents_in_tree(
    among uuid[], since text, at jsonb, out nodes uuid[], out parents uuid[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    with recursive unseen as materialized (
        select u.* from kerai_private.unseen_authors(at) as u
    ),

    -- A node that was moved since then does not stand where it stood, whether the vector has seen that or not.
    moved as materialized (
        select distinct m.node_id as node from kerai_private.moves as m where m.stamp >= since
    ),

    climb (node, parent) as (
        select null::uuid, u.id from unnest(among) as u (id)
        union
        select n.id, case when m.node is null and u.author is null then n.parent_id
            else kerai_private.parent_before(n.id, since, at) end
        from climb as c
        inner join kerai.nodes as n on n.id = c.parent
        left join moved as m on m.node = n.id
        left join unseen as u
            on u.author = kerai_private.stamp_author(n.created_stamp) and n.created_stamp > u.stamp collate "C"
    )

    select array_agg(c.node), array_agg(c.parent) into nodes, parents from climb as c where c.node is not null;
end
$$;

-- Where moves have put nodes as of a vector: the last move of each that is not void. among: of these nodes, and then
-- nothing is decided anew that is older than the first operation that the vector has not seen. What a compaction has
-- folded is decided for good.
create or replace function kerai_private.moves_at(at jsonb, among uuid[] default null)
returns table (node uuid, parent_id uuid, "position" text, stamp text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    floor constant text collate "C" := coalesce(
        (select c.floor from kerai.compactions as c order by c.id desc limit 1), '');
    -- From here on the moves that the vector has seen may have been followed by others than in the current state.
    since text collate "C" := case when among is null then floor
        else (select min(u.next_stamp collate "C") from kerai_private.unseen_authors(at) as u) end;
    stamps text[];
    nodes uuid[];
    parents uuid[];
    positions text[];
    first_places record;
    voids boolean[];
begin
    if since is not null then
        -- Nodes that the vector does not know are not moved.
        with unseen as materialized (
            select u.* from kerai_private.unseen_authors(at) as u
        ),

        seen as materialized (
            select m.* from kerai_private.moves as m
            left join unseen as u on u.author = kerai_private.stamp_author(m.stamp)
            where m.stamp >= since and (u.author is null or m.stamp <= u.stamp collate "C")
        )

        select array_agg(m.stamp order by m.stamp), array_agg(m.node_id order by m.stamp),
            array_agg(m.parent_id order by m.stamp), array_agg(m.position order by m.stamp)
        into stamps, nodes, parents, positions
        from seen as m
        where m.node_id in (
            select o.node_id
            from (select distinct s.node_id from seen as s) as t
            inner join kerai.operations as o on o.node_id = t.node_id and o.op_type = 'node_insert'
            left join unseen as u on u.author = o.author
            where u.author is null or o.author_seq <= u.seq);
    end if;

    if stamps is not null then
        first_places := case when among is null then kerai_private.parents_in_log(nodes || parents, since, at)
            else kerai_private.parents_in_tree(nodes || parents, since, at) end;
        voids := kerai_private.void_moves(first_places.nodes, first_places.parents, nodes, parents, rings => true);
    end if;

    return query
    with redone as materialized (
        select distinct on (m.node) m.node, m.parent, m.position, m.stamp
        from unnest(stamps, nodes, parents, positions, voids) as m (stamp, node, parent, position, void)
        where not m.void
        order by m.node, m.stamp collate "C" desc
    )

    select r.node, r.parent, r.position, r.stamp from redone as r
    where among is null or r.node = any(among)
    union all
    (select distinct on (m.node_id) m.node_id, m.parent_id, m.position::text, m.stamp::text
    from kerai_private.moves as m
    where (among is null or m.node_id = any(among)) and not m.void and (since is null or m.stamp < since)
        and m.node_id not in (select r.node from redone as r)
    order by m.node_id, m.stamp desc);
end
$$;

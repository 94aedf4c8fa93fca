-- Void moves, shown.

create or replace function kerai.void_moves(node uuid default null, max_rows int default 100)
returns table (
    node_id uuid, parent_id uuid, author text, lamport_ts bigint, stayed_below uuid,
    lost_to_node uuid, lost_to_parent uuid, lost_to_author text, lost_to_lamport bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if max_rows is null or max_rows not between 1 and 10000 then
        perform kerai_private.refuse('KR005', 'max_rows is 1 to 10,000', format('max_rows: %s', coalesce(max_rows::text, 'null')),
            'Leave it out for the latest 100.');
    end if;
    return query
    with recursive lost as materialized (
        select m.stamp, m.node_id, m.parent_id
        from kerai_private.moves as m
        where m.void and (node is null or m.node_id = node)
        order by m.stamp desc
        limit max_rows
    ),

    -- From the wanted parent up to the node itself, as everything stood then: the move that would have closed the circle
    -- lost against the latest of those that had made this chain, one of somebody else's if there is any: its author knew his own.
    chain (stamp, node_id, id, parent_id, placed) as (
        select l.stamp, l.node_id, p.id, p.parent_id, p.stamp
        from lost as l
        cross join lateral kerai_private.places_before(array[l.parent_id], l.stamp) as p
        where l.parent_id <> l.node_id
        union all
        select c.stamp, c.node_id, p.id, p.parent_id, p.stamp
        from chain as c
        cross join lateral kerai_private.places_before(array[c.parent_id], c.stamp) as p
        where c.parent_id <> c.node_id
    ),

    winner as (
        select distinct on (c.stamp) c.stamp, c.id, c.parent_id, c.placed from chain as c
        where c.placed is not null
        order by c.stamp, kerai_private.stamp_author(c.placed) <> kerai_private.stamp_author(c.stamp) desc, c.placed desc
    )

    select l.node_id, l.parent_id, kerai_private.stamp_author(l.stamp), kerai_private.stamp_lamport(l.stamp), p.parent_id,
        w.id, w.parent_id, kerai_private.stamp_author(w.placed), kerai_private.stamp_lamport(w.placed)
    from lost as l
    cross join lateral kerai_private.places_before(array[l.node_id], l.stamp) as p
    left join winner as w on w.stamp = l.stamp
    order by l.stamp desc;
end
$$;

comment on function kerai.void_moves(uuid, int) is
'The latest moves (of one node, or of all) that count for nothing, because they would have put a node below itself. A row says where the node was to go, where it stayed, and the earlier move in the order that won. The columns lost_to_... are NULL when no move is to blame: the node was asked to go below a node that had been inserted below it.';

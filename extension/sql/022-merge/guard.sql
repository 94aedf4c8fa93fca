-- Guards, and the nodes that a changeset names: what others have touched, and what is here.

-- Has an operation of another author, not covered by base, touched the subtree? Another member's counts, when the
-- author is a swarm that groups its members. An operation touches it on a node that is below the guard now, or was
-- placed below it by an earlier insert or move. So does the deletion, restoration or move of an ancestor of the guard.
-- Too much rather than too little: the price is one more test run. The setting: a generic plan takes six times as long.
create or replace function kerai_private.touched_since(guard uuid, author text, member text, base jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = auto
as $$
begin
    return (
    with recursive unseen as materialized (
        select distinct t.node_id, o.op_type in ('node_move', 'node_delete', 'node_restore') as reshapes,
            o.op_type = 'node_move' as moves
        from kerai_private.authors as a
        left join kerai_private.vector_entries(touched_since.base) as e on e.author = a.author
        inner join kerai.operations as o on o.author = a.author and o.author_seq > coalesce(e.seq, 0)
        -- A relation touches both its ends.
        cross join lateral (values
            (o.node_id), ((o.payload ->> 'target')::uuid), ((o.payload ->> 'context')::uuid)) as t (node_id)
        where t.node_id is not null and a.seq > coalesce(e.seq, 0) and (
            a.author <> touched_since.author
            or touched_since.member <> (select c.member from kerai.changesets as c where c.id = o.changeset_id))
    ),

    below (id) as (
        select u.node_id from unseen as u
        union
        select m.parent_id from unseen as u inner join kerai_private.moves as m on m.node_id = u.node_id where u.moves
        union
        select (o.payload ->> 'parent')::uuid from unseen as u
        inner join kerai.operations as o on o.node_id = u.node_id and o.op_type = 'node_insert'
        where u.moves
    ),

    climb (id) as (
        select b.id from below as b
        union
        select n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.id
    ),

    above (id) as (
        select n.parent_id from kerai.nodes as n where n.id = touched_since.guard
        union
        select n.parent_id from above as a inner join kerai.nodes as n on n.id = a.id
    )

    select exists (select from climb as c where c.id = touched_since.guard)
        or exists (select from unseen as u inner join above as a on a.id = u.node_id where u.reshapes));
end
$$;

-- The guard of a change that was made from, and tested on, the whole state: a second tree beside the first counts too.
create or replace function kerai_private.whole_state() returns uuid
language sql immutable parallel safe
return uuid 'ffffffff-ffff-ffff-ffff-ffffffffffff';

-- Is there any operation of another author, or of another member, that base does not cover?
create or replace function kerai_private.merged_since(author text, member text, base jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from kerai_private.authors as a
        left join kerai_private.vector_entries(merged_since.base) as e on e.author = a.author
        where a.seq > coalesce(e.seq, 0) and (
            a.author <> merged_since.author
            or exists (
                select from kerai.operations as o
                inner join kerai.changesets as c on c.id = o.changeset_id
                where o.author = a.author and o.author_seq > coalesce(e.seq, 0) and c.member <> merged_since.member)));
end
$$;

-- Which nodes the operations name, and whether it is by inserting them. Inlined: it has no settings of its own. UNNEST
-- stands where its rows are not copied first.
create or replace function kerai_private.named_nodes(ops kerai_private.operation[])
returns table (c int, n int, node uuid, born boolean)
language sql immutable parallel safe
begin atomic
    select (u.o).c as c, (u.o).n as n, (u.o).node as node, (u.o).op = 'node_insert' as born
    from (select unnest(ops) as o) as u
    where (u.o).node is not null
    union all
    select (u.o).c as c, (u.o).n as n, (u.o).parent as node, false as born
    from (select unnest(ops) as o) as u
    where (u.o).parent is not null
    union all
    select (u.o).c as c, (u.o).n as n, x.node, false as born
    from (select unnest(ops) as o) as u
    cross join lateral (values ((u.o).source), ((u.o).target), ((u.o).context)) as x (node)
    where not starts_with((u.o).op, 'node_') and x.node is not null;
end;

-- Refuses KR006 or KR004 unless the author had seen the insert of every node that an operation names. It is earlier in
-- this changeset, earlier by the same author, or covered by base. Only so do all instances, in whatever order they
-- receive the changesets, take and refuse the same ones.
create or replace function kerai_private.require_known_nodes(
    ops kerai_private.operation[], author text, base jsonb
) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    nodes uuid[];
    bad record;
begin
    -- But not those that this changeset inserts before it names them. Sorted as in the index that finds them.
    if exists (select from (select unnest(ops) as o) as u where (u.o).op = 'node_insert') then
        nodes := array(
            select r.node from kerai_private.named_nodes(ops) as r
            group by r.node
            having min(r.n) filter (where not r.born) <= coalesce(min(r.n) filter (where r.born), 2147483647)
            order by r.node);
    else
        nodes := array(select distinct r.node from kerai_private.named_nodes(ops) as r order by r.node);
    end if;
    if cardinality(nodes) = (
        select count(*) from kerai.nodes as n
        where n.id = any(nodes)
            and kerai_private.has_seen(require_known_nodes.author, base, n.created_stamp, n.created_seq)) then
        return;
    end if;

    -- Two authors may have inserted one node; then the one that was seen need not be the one that counts. Asked apart:
    -- it locks all partitions of the log.
    select e.node, e.n, x.created_stamp is not null as known,
        kerai_private.stamp_author(x.created_stamp) as creator, x.created_seq into bad
    from (
        select r.node, min(r.n) filter (where not r.born) as n from kerai_private.named_nodes(ops) as r
        where r.node in (select u.id from unnest(nodes) as u (id))
        group by r.node
        order by n
        offset 0
    ) as e
    left join lateral (
        select k.created_stamp, k.created_seq from kerai.nodes as k where k.id = e.node offset 0
    ) as x on true
    where kerai_private.has_seen(require_known_nodes.author, base, x.created_stamp, x.created_seq) is not true
    -- What is not here at all nobody has inserted.
    and (x.created_stamp is null or not exists (
        select from kerai.operations as o
        where o.node_id = e.node and o.op_type = 'node_insert'
            and (o.author = require_known_nodes.author or o.author_seq <= coalesce((base ->> o.author)::bigint, 0))))
    order by e.n
    limit 1;

    if found then
        if bad.known then
            perform kerai_private.refuse('KR004', 'an operation names a node that base does not cover',
                format('operation %s names node %s; missing in base: %s %s', bad.n, bad.node, bad.creator, bad.created_seq),
                'Take base from kerai.version_vector() after reading the node, and lamport with it.');
        end if;
        perform kerai_private.refuse('KR006', 'no such node', format('operation %s names node %s', bad.n, bad.node),
            'Insert a node before naming it; SELECT id, path FROM kerai.nodes shows what there is.');
    end if;
end
$$;

create or replace function kerai_private.require_node(node uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from kerai.nodes as n where n.id = node) then
        perform kerai_private.refuse('KR006', 'no such node', format('node: %s', coalesce(node::text, 'null')),
            'SELECT id, path FROM kerai.nodes shows what there is.');
    end if;
end
$$;

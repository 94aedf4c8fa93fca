-- Merge: applies the operations of a batch of changesets to the tree, set by set.
--
-- Every register is last-writer-wins by stamp, so a set can be applied whenever it arrives; only moves need order
-- (moves.sql). Locks are taken in one order everywhere: the authors' rows by author, the tree lock, new rows by id,
-- existing rows by id. So pushes wait for each other but never deadlock.

create or replace function kerai_private.lock_tree(exclusive boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if kerai_private.has_one_snapshot() then
        perform kerai_private.lock_tree_with_one_snapshot();
    elsif exclusive then
        lock table kerai_private.tree_lock in exclusive mode;
    else
        lock table kerai_private.tree_lock in row exclusive mode;
    end if;
end
$$;

-- A path's text below another's: the name with what ltree does not take replaced. A path of more than 400 bytes, or of
-- 32 levels, goes no deeper. An inner page of the GiST index has to hold several pairs of paths, and ltree stores up to
-- 9 bytes a level more than its text. The arithmetic is in docs/decisions/003-paths-have-a-bound.md.
create or replace function kerai_private.path_below(parent text, name text) returns text
language sql immutable parallel safe
return case when name = '' or name is null or length(parent) > 400
        or length(parent) - length(replace(parent, '.', '')) >= 31 then parent
    else parent || case when parent = '' then '' else '.' end
        || left(regexp_replace(name, '[^A-Za-z0-9_]', '_', 'g'), 200) end;

create or replace function kerai_private.merge_operations(
    ops kerai_private.operation[], exclusive boolean
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    kinds constant text[] := array(select distinct (unnest(ops)).op);
    moves kerai_private.moves[];
begin
    if 'node_insert' = any(kinds) and kerai_private.merge_inserts(ops, exclusive) then
        perform kerai_private.merge_duplicate_inserts(ops);
    end if;
    -- Writing the registers locks by id what it writes; where more than that is to be written, this does.
    if kinds && '{node_delete,node_restore}' or 'node_update' = any(kinds) and exists (
        select from (select unnest(ops) as o) as u where (u.o).op = 'node_update' and (u.o).metadata <> '{}') then
        perform from kerai.nodes as n
        where n.id in (
            select o.node from unnest(ops) as o where o.op in ('node_update', 'node_delete', 'node_restore'))
        order by n.id
        for no key update;
    end if;
    if 'node_update' = any(kinds) then
        perform kerai_private.merge_updates(ops);
    end if;
    if kinds && '{node_delete,node_restore}' then
        update kerai.nodes as n
        set deleted = d.deleted, deleted_stamp = d.stamp
        from (
            select distinct on (o.node) o.node, o.op = 'node_delete' as deleted, o.stamp
            from unnest(ops) as o
            where o.op in ('node_delete', 'node_restore')
            order by o.node, o.n desc
        ) as d
        where n.id = d.node and d.stamp > coalesce(n.deleted_stamp, n.created_stamp);
    end if;
    if 'node_move' = any(kinds) then
        moves := array(
            select row(o.stamp, o.node, o.parent, o.position, false)::kerai_private.moves
            from unnest(ops) as o where o.op = 'node_move');
        insert into kerai_private.moves select * from unnest(moves);
        perform kerai_private.replay_moves(moves);
    end if;
    if kinds && '{edge_insert,edge_delete,perspective_set,perspective_delete,association_set,association_delete}' then
        perform kerai_private.merge_relations(ops);
    end if;
end
$$;

-- Returns whether any of the nodes was here already: it is inserted again only by an author who had not seen it. A push
-- that shares the tree lock does not look for them: a unique violation tells, and it is merged again with the lock for
-- itself. (Only what is here can be inserted below what is inserted below it, and so have no place.)
create or replace function kerai_private.merge_inserts(ops kerai_private.operation[], exclusive boolean) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    known uuid[] := '{}';
begin
    if exclusive then
        known := array(
            select k.id
            from (select distinct o.node from unnest(ops) as o where o.op = 'node_insert') as u
            cross join lateral (select n.id from kerai.nodes as n where n.id = u.node offset 0) as k);
    end if;

    with recursive fresh as materialized (
        select distinct on (o.node)
            o.node, o.parent, o.position, o.kind, o.name, o.language, o.content, o.metadata, o.stamp, o.seq
        from unnest(ops) as o
        where o.op = 'node_insert' and o.node not in (select u.id from unnest(known) as u (id))
        order by o.node, o.n
    ),

    -- What is inserted below nodes that are here. Many have the same parent.
    top as materialized (
        select u.parent, p.path
        from (
            select distinct f.parent from fresh as f where f.parent not in (select i.node from fresh as i)
        ) as u
        cross join lateral (select n.path::text from kerai.nodes as n where n.id = u.parent offset 0) as p
    ),

    placed (node, path) as (
        select f.node, kerai_private.path_below(coalesce(t.path, ''), f.name)
        from fresh as f
        left join top as t on t.parent = f.parent
        -- NOT IN is hashed whatever the planner believes about the size of the batch.
        where f.parent is null or f.parent not in (select i.node from fresh as i)
        union all
        select f.node, case when f.name is null then p.path else kerai_private.path_below(p.path, f.name) end
        from placed as p
        inner join fresh as f on f.parent = p.node
    )

    insert into kerai.nodes
        (id, parent_id, position, kind, name, language, content, path, metadata, created_stamp, created_seq)
    select f.node, f.parent, f.position, f.kind, f.name, f.language, f.content, coalesce(p.path, '')::kerai_private.path,
        case when f.metadata is null then '{}' else kerai_private.without_nulls(f.metadata) end, f.stamp, f.seq
    from fresh as f
    left join placed as p on p.node = f.node
    order by f.node;
    return known <> '{}';
end
$$;

-- Of the inserts of one node the earliest counts. When one that is here already is inserted by an earlier stamp than
-- its own, this changes what earlier moves started from.
create or replace function kerai_private.merge_duplicate_inserts(ops kerai_private.operation[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    rebased text collate "C";
    rebased_nodes uuid[];
begin
    with changed as (
        update kerai.nodes as n
        set created_stamp = f.stamp,
            created_seq = f.seq,
            kind = case when n.kind_stamp is null then f.kind else n.kind end,
            name = case when n.name_stamp is null then f.name else n.name end,
            language = case when n.language_stamp is null then f.language else n.language end,
            content = case when n.content_stamp is null then f.content else n.content end,
            metadata = kerai_private.rebase_metadata(n.metadata, n.metadata_stamps, coalesce(f.metadata, '{}')),
            parent_id = case when n.placed_stamp is null then f.parent else n.parent_id end,
            position = case when n.placed_stamp is null then f.position else n.position end,
            created_parent_id = case when n.placed_stamp is null then null else f.parent end,
            created_position = case when n.placed_stamp is null then null else f.position end
        from (
            select distinct on (o.node) o.* from unnest(ops) as o where o.op = 'node_insert' order by o.node, o.n
        ) as f
        where n.id = f.node and f.stamp < n.created_stamp
        returning n.id, n.created_stamp
    )

    select min(c.created_stamp), array_agg(c.id) into rebased, rebased_nodes from changed as c;
    -- The moves first: until they are replayed, a node may stand below itself.
    if rebased is not null then
        -- Any of them may count now, or no longer.
        update kerai_private.moves as m set void = false where m.stamp >= rebased and m.void;
        perform kerai_private.replay_moves(array(select m from kerai_private.moves as m where m.stamp >= rebased));
        perform kerai_private.refresh_paths(rebased_nodes);
    end if;
end
$$;

-- The settings: rows are written, and so locked, in the order in which the batch is sorted.
create or replace function kerai_private.merge_updates(ops kerai_private.operation[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_hashagg = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    renamed uuid[];
begin
    -- The last write of each field in this batch, one row a node, against the register's stamp.
    update kerai.nodes as n
    set kind = case when u.kind_stamp > coalesce(n.kind_stamp, n.created_stamp) then u.kind else n.kind end,
        kind_stamp = greatest(n.kind_stamp, u.kind_stamp),
        name = case when u.name_stamp > coalesce(n.name_stamp, n.created_stamp) then u.name else n.name end,
        name_stamp = greatest(n.name_stamp, u.name_stamp),
        language = case when u.language_stamp > coalesce(n.language_stamp, n.created_stamp) then u.language
            else n.language end,
        language_stamp = greatest(n.language_stamp, u.language_stamp),
        content = case when u.content_stamp > coalesce(n.content_stamp, n.created_stamp) then u.content
            else n.content end,
        content_stamp = greatest(n.content_stamp, u.content_stamp)
    from (
        select s.node,
            (array_agg(s.set ->> 'kind') filter (where s.set ? 'kind'))[1] as kind,
            max(s.stamp) filter (where s.set ? 'kind') as kind_stamp,
            (array_agg(s.set ->> 'name') filter (where s.set ? 'name'))[1] as name,
            max(s.stamp) filter (where s.set ? 'name') as name_stamp,
            (array_agg(s.set ->> 'language') filter (where s.set ? 'language'))[1] as language,
            max(s.stamp) filter (where s.set ? 'language') as language_stamp,
            (array_agg(s.set ->> 'content') filter (where s.set ? 'content'))[1] as content,
            max(s.stamp) filter (where s.set ? 'content') as content_stamp
        from (
            select o.node, o.set, o.stamp
            from unnest(ops) as o
            where o.op = 'node_update' and o.set <> '{}'
            order by o.node, o.n desc -- once, and not by every aggregate
        ) as s
        group by s.node
    ) as u
    where n.id = u.node;

    if exists (
        select from (select unnest(ops) as o) as u where (u.o).op = 'node_update' and (u.o).metadata <> '{}') then
        update kerai.nodes as n
        set (metadata, metadata_stamps) = (
            select m.metadata, m.metadata_stamps
            from kerai_private.merge_metadata(n.metadata, n.metadata_stamps, n.created_stamp, u.written, u.stamps) as m)
        from (
            select l.node, jsonb_object_agg(l.key, l.value) as written, jsonb_object_agg(l.key, l.stamp) as stamps
            from (
                select distinct on (o.node, e.key collate "C") o.node, e.key, e.value, o.stamp
                from unnest(ops) as o
                cross join lateral jsonb_each(o.metadata) as e
                where o.op = 'node_update'
                order by o.node, e.key collate "C", o.n desc
            ) as l
            group by l.node
        ) as u
        where n.id = u.node;
    end if;

    select array_agg(distinct o.node) into renamed from unnest(ops) as o where o.op = 'node_update' and o.set ? 'name';
    perform kerai_private.refresh_paths(renamed);
end
$$;

create or replace function kerai_private.merge_relations(ops kerai_private.operation[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    insert into kerai.edges as e (source, target, relation, metadata, deleted, stamp)
    select distinct on (o.source, o.target, o.relation)
        o.source, o.target, o.relation, coalesce(o.metadata, '{}'), o.op = 'edge_delete', o.stamp
    from unnest(ops) as o
    where o.op in ('edge_insert', 'edge_delete')
    order by o.source, o.target, o.relation, o.n desc
    on conflict (source, target, relation) do update
    set metadata = excluded.metadata, deleted = excluded.deleted, stamp = excluded.stamp
    where excluded.stamp > e.stamp;

    insert into kerai.perspectives as p (author, node_id, context_id, weight, reasoning, deleted, stamp)
    select distinct on (o.node, o.context, o.writer)
        o.writer, o.node, o.context, o.weight, o.reasoning, o.op = 'perspective_delete', o.stamp
    from unnest(ops) as o
    where o.op in ('perspective_set', 'perspective_delete')
    order by o.node, o.context, o.writer, o.n desc
    on conflict (node_id, author, context_id) do update
    set weight = excluded.weight, reasoning = excluded.reasoning, deleted = excluded.deleted, stamp = excluded.stamp
    where excluded.stamp > p.stamp;

    insert into kerai.associations as a (author, source, target, relation, weight, reasoning, deleted, stamp)
    select distinct on (o.source, o.target, o.relation, o.writer)
        o.writer, o.source, o.target, o.relation, o.weight, o.reasoning,
        o.op = 'association_delete', o.stamp
    from unnest(ops) as o
    where o.op in ('association_set', 'association_delete')
    order by o.source, o.target, o.relation, o.writer, o.n desc
    on conflict (source, target, relation, author) do update
    set weight = excluded.weight, reasoning = excluded.reasoning, deleted = excluded.deleted, stamp = excluded.stamp
    where excluded.stamp > a.stamp;
end
$$;

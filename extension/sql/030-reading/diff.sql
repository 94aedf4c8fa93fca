-- Diff: what differs between two states, and the operations that undo a changeset.

-- Whether these nodes are visible as of a vector (NULL: now), and whether they lie in the scope. Then in which file
-- they lie: of a file in a file, the outer one. The path is that of the file, or of the node where it lies in none. A
-- path is made of entries as kerai.checkout() has them; equal ones are not numbered.
create or replace function kerai_private.node_states(nodes uuid[], at jsonb, scope uuid)
returns table (id uuid, is_visible boolean, file uuid, path text, is_inside boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with recursive above as materialized (
        select a.*, kerai_private.entry(a.kind, a.name, a.id) as entry from kerai_private.ancestry(nodes, at) as a
    ),

    walk (id, is_visible, file, path, is_inside) as (
        select a.id, not a.deleted, case when a.kind = 'file' then a.id end, a.entry, scope is null or a.id = scope
        from above as a
        where a.parent_id is null
        union all
        select a.id, w.is_visible and not a.deleted, coalesce(w.file, case when a.kind = 'file' then a.id end),
            case when w.file is null then concat_ws('/', nullif(w.path, ''), nullif(a.entry, '')) else w.path end,
            w.is_inside or a.id = scope
        from walk as w
        inner join above as a on a.parent_id = w.id
    )

    select w.* from walk as w where w.id in (select u.id from unnest(nodes) as u (id));
end
$$;

-- The nodes that operations may have made differ between two vectors (NULL: now). These are operations that one of the
-- two names and the other does not, and moves that may have become void or valid by them.
create or replace function kerai_private.touched_between(a jsonb, b jsonb) returns uuid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    both_seen constant jsonb := case when a is not null and b is not null then kerai.vector_merge(a, b) end;
begin
    return array(
        with ranges as materialized (
            select h.author, least(x.seq, y.seq) as seq, greatest(x.seq, y.seq) as last_seq
            from kerai_private.authors as h
            left join kerai_private.vector_entries(coalesce(a, '{}')) as e on e.author = h.author
            left join kerai_private.vector_entries(coalesce(b, '{}')) as f on f.author = h.author
            cross join lateral (select case when a is null then h.seq else coalesce(e.seq, 0) end as seq) as x
            cross join lateral (select case when b is null then h.seq else coalesce(f.seq, 0) end as seq) as y
            where x.seq <> y.seq
        ),

        since as materialized (
            select min(kerai_private.stamp(c.first_lamport + r.seq + 1 - c.first_seq, r.author) collate "C") as stamp
            from ranges as r
            cross join lateral (
                select c.first_seq, c.first_lamport from kerai.changesets as c
                where c.author = r.author and c.first_seq <= r.seq + 1
                order by c.first_seq desc limit 1
            ) as c
        )

        select o.node_id
        from ranges as r
        cross join lateral (
            select o.node_id, o.op_type from kerai.operations as o
            where o.author = r.author and o.author_seq > r.seq and o.author_seq <= r.last_seq
            offset 0 -- by the index
        ) as o
        where o.op_type like 'node%'
        union
        select m.node_id
        from kerai_private.moves as m
        left join kerai_private.unseen_authors(both_seen) as u on u.author = kerai_private.stamp_author(m.stamp)
        where m.stamp >= (select s.stamp from since as s) and (u.author is null or m.stamp <= u.stamp collate "C"));
end
$$;

-- kerai.diff with both of the files and paths that a node has, before and after.
create or replace function kerai_private.differences(a jsonb, b jsonb, scope uuid)
returns table (
    node_id uuid, changes text[], kind text, old_file uuid, new_file uuid, old_path text, new_path text,
    before jsonb, after jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    every constant bigint := 9223372036854775806;
    touched uuid[] := kerai_private.touched_between(a, b);
    shown uuid[];
    hidden uuid[];
begin
    -- What has become visible, or no longer is, has taken along what lies below it.
    -- (What is new, too: a vector that is not closed may name what lies below it and not the node itself.)
    select array_agg(n.id) filter (where n.is_visible and o.is_visible is not true),
        array_agg(o.id) filter (where o.is_visible and n.is_visible is not true)
    into shown, hidden
    from kerai_private.node_states(touched, a, null) as o
    full join kerai_private.node_states(touched, b, null) as n on n.id = o.id;
    if shown is not null or hidden is not null then
        touched := array(
            select u.id from unnest(touched) as u (id)
            union
            select u.id from unnest(kerai_private.members(shown, b, kerai_private.folds_forward(b), every)) as u (id)
            where shown is not null
            union
            select u.id from unnest(kerai_private.members(hidden, a, kerai_private.folds_forward(a), every)) as u (id)
            where hidden is not null);
    end if;

    return query
    with old as materialized (
        select n.id, n.kind, s.file, s.path, s.is_inside, jsonb_build_object('parent', n.parent_id, 'position', n.position,
            'kind', n.kind, 'name', n.name, 'language', n.language, 'content', n.content, 'metadata', n.metadata) as fields
        from kerai_private.nodes_at(a, touched) as n
        inner join kerai_private.node_states(touched, a, scope) as s on s.id = n.id and s.is_visible
    ),

    new as materialized (
        select n.id, n.kind, s.file, s.path, s.is_inside, jsonb_build_object('parent', n.parent_id, 'position', n.position,
            'kind', n.kind, 'name', n.name, 'language', n.language, 'content', n.content, 'metadata', n.metadata) as fields
        from kerai_private.nodes_at(b, touched) as n
        inner join kerai_private.node_states(touched, b, scope) as s on s.id = n.id and s.is_visible
    )

    select coalesce(n.id, o.id),
        case when o.id is null then '{added}' when n.id is null then '{removed}' else d.changes end,
        coalesce(n.kind, o.kind), o.file, n.file, o.path, n.path,
        case when n.id is null then o.fields else d.before end,
        case when o.id is null then n.fields else d.after end
    from old as o
    full join new as n on n.id = o.id
    left join lateral (
        select jsonb_object_agg(x.key, x.value) as before, jsonb_object_agg(x.key, y.value) as after,
            array_agg(distinct case when x.key in ('parent', 'position') then 'moved' else x.key end) as changes
        from jsonb_each(o.fields) as x
        inner join jsonb_each(n.fields) as y on y.key = x.key
        where x.value <> y.value
    ) as d on true
    where (o.is_inside or n.is_inside) and (o.id is null or n.id is null or d.changes is not null);
end
$$;

create or replace function kerai.diff(a jsonb, b jsonb default null, scope uuid default null)
returns table (
    node_id uuid, changes text[], kind text, file_id uuid, path text, before jsonb, after jsonb
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
#variable_conflict use_column
begin
    perform from kerai_private.vector_entries(a);
    if scope is not null then
        perform kerai_private.require_node(scope);
    end if;
    return query
    select d.node_id, d.changes, d.kind, case when d.new_path is null then d.old_file else d.new_file end,
        coalesce(d.new_path, d.old_path), d.before, d.after
    from kerai_private.differences(kerai_private.past_vector(a), kerai_private.past_vector(b), scope) as d
    order by 5, 4, 1;
end
$$;

comment on function kerai.diff(jsonb, jsonb, uuid) is
'The nodes that differ between the states as of two version vectors (b NULL: now), or in a scope of them. In changes: added or removed (from what is visible), else what differs: moved, kind, name, language, content, metadata. In before and after: those fields, of an added or removed node all. In file_id and path: the file that the node lies in, or the path of the node itself.';

create or replace function kerai.diff_files(a jsonb, b jsonb default null, scope uuid default null)
returns table (
    file_id uuid, old_path text, new_path text, old_source text, new_source text, old_metadata jsonb, new_metadata jsonb
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
#variable_conflict use_column
declare
    every constant bigint := 9223372036854775806;
    old_at constant jsonb := kerai_private.past_vector(a);
    new_at constant jsonb := kerai_private.past_vector(b);
    old_folded constant boolean := kerai_private.folds_forward(old_at);
    new_folded constant boolean := kerai_private.folds_forward(new_at);
    changed uuid[];
    moved uuid[];
    swallowed uuid[];
begin
    perform from kerai_private.vector_entries(a);
    if scope is not null then
        perform kerai_private.require_node(scope);
    end if;
    select array_agg(distinct u.id) filter (where u.id is not null),
        array_agg(distinct d.node_id) filter (where d.new_file is null and d.changes && '{moved,name,kind}'),
        array_agg(distinct d.node_id) filter (where d.old_file is null and d.new_file is not null and d.changes && '{moved,kind}')
    into changed, moved, swallowed
    from kerai_private.differences(old_at, new_at, scope) as d
    cross join lateral (values (d.old_file), (d.new_file)) as u (id);
    -- A directory that has another place or name gives another path to every file in it.
    if moved is not null then
        changed := changed || array(
            select n.id from kerai_private.nodes_at(new_at, kerai_private.members(moved, new_at, new_folded, every)) as n
            where n.kind = 'file');
    end if;
    -- In one that has become a part of a file they are files no longer.
    if swallowed is not null then
        changed := changed || array(
            select n.id from kerai_private.nodes_at(old_at, kerai_private.members(swallowed, old_at, old_folded, every)) as n
            where n.kind = 'file');
    end if;
    changed := array(select distinct u.id from unnest(changed) as u (id));
    if changed = '{}' then
        return;
    end if;

    return query
    with old as (
        select t.*, n.metadata
        from kerai_private.files(changed, old_at, old_folded) as t
        inner join kerai_private.nodes_at(old_at, changed) as n on n.id = t.file
    ),

    new as (
        select t.*, n.metadata
        from kerai_private.files(changed, new_at, new_folded) as t
        inner join kerai_private.nodes_at(new_at, changed) as n on n.id = t.file
    )

    select coalesce(n.file, o.file), o.path, n.path, o.source, n.source, o.metadata, n.metadata
    from old as o
    full join new as n on n.file = o.file
    where (o.path, o.source, o.metadata) is distinct from (n.path, n.source, n.metadata)
    order by coalesce(n.path, o.path), coalesce(n.file, o.file);
end
$$;

comment on function kerai.diff_files(jsonb, jsonb, uuid) is
'The files that differ between the states as of two version vectors (b NULL: now). Each has path, text and metadata before and after, NULL where the file is not there. Paths are as in kerai.checkout(). What a text diff needs, in one call.';

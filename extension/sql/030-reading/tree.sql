-- Tree: the visible nodes in order, now or as of a vector.

create or replace function kerai_private.is_below(node uuid, scope uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive climb (id) as (
        select node
        union
        select n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.id
    )

    select exists (select from climb as c where c.id = scope)
$$;

-- The place of a node among its siblings as bytes that sort like the numbers; of a number and a higher one neither
-- begins the other. One byte for most, so that the sort of whole paths of them seldom needs more than the first eight.
create or replace function kerai_private.rank_key(rank bigint) returns bytea
language sql immutable parallel safe
return case
    when rank < 128 then substr(int4send(rank::int), 4)
    when rank < 16384 then substr(int4send(32768 + rank::int), 3)
    else int4send((rank - 1073741824)::int)
end;

-- The visible nodes among these roots and below them, now or as of a vector. NULL when there are so many of them that
-- it takes less time to read the whole tree than to go from node to node; or more than at_most.
create or replace function kerai_private.members(
    roots uuid[], at jsonb, folded boolean, at_most bigint default null
) returns uuid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- How far a recursion goes is not to be estimated: from node to node it is the index, however small the tree was once.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    deepest constant int := 500;
    most constant bigint := coalesce(at_most, (
        select greatest(1000, c.reltuples / 10)::bigint from pg_class as c where c.oid = 'kerai.nodes'::regclass));
    visible uuid[];
    found_nodes uuid[];
begin
    with recursive above as materialized (
        select a.* from kerai_private.ancestry(roots, at) as a
    ),

    climb (root, parent_id, deleted) as (
        select a.id, a.parent_id, a.deleted from above as a where a.id = any(roots)
        union
        select c.root, a.parent_id, a.deleted from climb as c inner join above as a on a.id = c.parent_id
    ),

    -- Nothing below a tombstone is visible, and nothing that does not hang from the top.
    shown as (
        select c.root from climb as c group by c.root having not bool_or(c.deleted) and bool_or(c.parent_id is null)
    )

    select array_agg(s.root) into visible from shown as s;
    if visible is null then
        return '{}';
    end if;

    with recursive past as materialized (
        select p.id, p.parent_id, p.is_there and not p.deleted as stands
        from kerai_private.changed_since(at, folded) as p
        where at is not null
    ),

    altered as materialized (
        select p.parent_id, array_agg(p.id) as ids from past as p where p.stands group by p.parent_id
    ),

    walk (id, depth) as (
        select v.id, 0 from unnest(visible) as v (id)
        union all
        select c.id, w.depth + 1
        from walk as w
        left join altered as a on a.parent_id = w.id
        cross join lateral (
            select n.id from kerai.nodes as n
            where not folded and n.parent_id = w.id and not n.deleted
                and (at is null or n.id not in (select p.id from past as p))
            union all
            select u.id from unnest(a.ids) as u (id)
        ) as c
        where w.depth < deepest
    )

    select array_agg(w.id) into found_nodes from (select w.id from walk as w limit most + 1) as w;
    return case when cardinality(found_nodes) <= most then found_nodes end;
end
$$;

create or replace function kerai.tree(root uuid default null, at jsonb default null)
returns table (
    id uuid, parent_id uuid, "position" text, depth int, kind text, name text, language text, content text,
    path kerai.nodes.path%type, metadata jsonb -- noqa: LT01
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
#variable_conflict use_column
declare
    -- `place` grows with the depth, so that a chain of nodes would cost its length squared. No code is this deep.
    deepest constant int := 500;
    past constant jsonb := kerai_private.past_vector(at);
    folded constant boolean := kerai_private.folds_forward(past);
    members uuid[];
    root_path text;
begin
    if root is not null then
        perform kerai_private.require_node(root);
        members := kerai_private.members(array[root], past, folded);
        if members = '{}' then
            return;
        end if;
    end if;
    if root is not null and past is not null then
        with recursive above as materialized (
            select a.* from kerai_private.ancestry(array[root], past) as a
        ),

        walk (id, path) as (
            select a.id, kerai_private.path_below('', a.name) from above as a where a.parent_id is null
            union all
            select a.id, kerai_private.path_below(w.path, a.name)
            from walk as w inner join above as a on a.parent_id = w.id
        )

        select w.path into root_path from walk as w where w.id = root;
    end if;

    return query
    with recursive state as materialized (
        select s.* from kerai_private.state(past, folded, members) as s
    ),

    ranked as materialized (
        select s.id, s.parent_id, s.name, s.path,
            kerai_private.rank_key(row_number() over (
                partition by s.parent_id order by s."position" collate "C", s.place collate "C", s.id)) as rank
        from state as s
    ),

    -- place: the ranks among the siblings from the root down; it sorts in pre-order. renamed: the path where it is
    -- not, or may not be, the stored one.
    walk (id, depth, place, stored, renamed) as (
        select r.id, 0, r.rank, r.path, case
            when past is null then null
            when root is null then case when r.path is null then kerai_private.path_below('', r.name) end
            when root_path is distinct from r.path::text then root_path
        end
        from ranked as r
        where case when root is null then r.parent_id is null else r.id = root end
        union all
        select r.id, w.depth + 1, w.place || r.rank, r.path, case when w.renamed is not null or r.path is null
            then kerai_private.path_below(coalesce(w.renamed, w.stored::text), r.name) end
        from walk as w
        inner join ranked as r on r.parent_id = w.id
        where w.depth < deepest
    )

    select s.id, s.parent_id, s."position", w.depth, s.kind, s.name, s.language, s.content,
        coalesce(w.renamed::kerai_private.path, w.stored), s.metadata
    from walk as w
    inner join state as s on s.id = w.id
    order by w.place;
end
$$;

comment on function kerai.tree(uuid, jsonb) is
'The visible nodes from root (NULL: the whole tree) down, parents before children, siblings in order; at: as of that version vector. What lies more than 500 levels below is left out.';

create or replace function kerai.source(file uuid, at jsonb default null) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
declare
    past constant jsonb := kerai_private.past_vector(at);
    folded constant boolean := kerai_private.folds_forward(past);
    members uuid[];
begin
    perform kerai_private.require_node(file);
    members := kerai_private.members(array[file], past, folded);
    if members = '{}' then
        return null;
    end if;
    return (select t.text from kerai_private.texts(array[file], array[0], past, folded, members) as t);
end
$$;

comment on function kerai.source(uuid, jsonb) is
'The text of a file, or of any node: the contents of the node and of everything below it, in order; NULL when the node is not visible. Base64 when the node''s metadata says encoding = base64.';

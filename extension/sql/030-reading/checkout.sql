-- Checkout: files, as paths and texts.

-- What stands for a node in a directory. A tree may hold names that no directory can: those are escaped, all others
-- stay as they are. The client lays files out by the same rule (client/kerai_client/source/tree/layout.py).
create or replace function kerai_private.entry(kind text, name text, id uuid) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    escaped constant text := case when name in ('.', '..', '.git', '.kerai') then replace(name, '.', '%2E')
        else replace(name, '/', '%2F') end;
begin
    if name = '' or name is null then
        return case when kind = 'file' then 'unnamed-' || id else '' end;
    end if;
    return case when octet_length(escaped) <= 255 then escaped else left(escaped, 50) || '~' || id end;
end
$$;

-- The directories as of a vector, and whatever lies directly in one: in which directory it is, and as what. Inside:
-- whether that is in one of these scopes (NULL: everything is). Numbers are those of the order of the tree. Only
-- directories are looked into whose names may clash with those on the way to a scope.
create or replace function kerai_private.entries(scopes uuid[], at jsonb, folded boolean)
returns table (id uuid, kind text, directory text, entry text, inside boolean, depth int, n bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- From directory to directory it is the index: see kerai_private.members.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    deepest constant int := 500;
    longest constant int := 2000;
begin
    return query
    with recursive above as materialized (
        select a.* from kerai_private.ancestry(scopes, at) as a where scopes is not null
    ),

    -- (As far as anything is shown: above a node that does not hang from the top there may be a ring.)
    climb (scope, id, parent_id, kind, entry, level) as (
        select a.id, a.id, a.parent_id, a.kind, kerai_private.entry(a.kind, a.name, a.id), 0
        from above as a where a.id = any(scopes)
        union all
        select c.scope, a.id, a.parent_id, a.kind, kerai_private.entry(a.kind, a.name, a.id), c.level + 1
        from climb as c
        inner join above as a on a.id = c.parent_id
        where c.level < deepest
    ),

    -- The directory of a scope that is a file, or the one that it is itself.
    targets as materialized (
        select distinct coalesce(string_agg(nullif(c.entry, ''), '/' order by c.level desc)
            filter (where c.kind <> 'file'), '') as path, not bool_or(c.kind = 'file') as below
        from climb as c
        group by c.scope
        having not bool_or(c.kind = 'file' and c.level > 0)
    ),

    past as materialized (
        select p.id, p.parent_id, p.kind, p.name, p.position, p.place, p.is_there and not p.deleted as stands
        from kerai_private.changed_since(at, folded) as p
        where at is not null
    ),

    altered as materialized (
        select p.parent_id, array_agg(p.id) as ids, array_agg(p.kind) as kinds, array_agg(p.name) as names,
            array_agg(p.position) as positions, array_agg(p.place) as places
        from past as p
        where p.stands
        group by p.parent_id
    ),

    -- The directories, and whatever lies directly in one: in which directory it is, and as what.
    folders (id, kind, directory, entry, inside, depth, place) as (
        select t.id, t.kind, '', kerai_private.entry(t.kind, t.name, t.id), scopes is null or t.id = any(scopes), 0,
            kerai_private.rank_key(row_number() over (order by t."position" collate "C", t.place collate "C", t.id))
        from kerai_private.state(at, folded, null) as t
        where t.parent_id is null
        union all
        select s.id, s.kind, p.path, kerai_private.entry(s.kind, s.name, s.id), f.inside or s.id = any(scopes),
            f.depth + 1, f.place || s.rank
        from folders as f
        cross join lateral (select concat_ws('/', nullif(f.directory, ''), nullif(f.entry, '')) as path) as p
        left join altered as a on a.parent_id = f.id
        cross join lateral (
            select c.id, c.kind, c.name, kerai_private.rank_key(row_number() over (
                order by c."position" collate "C", c.place collate "C", c.id)) as rank
            from (
                select n.id, n.kind, n.name, n.position, coalesce(n.placed_stamp, n.created_stamp) as place
                from kerai.nodes as n
                where not folded and n.parent_id = f.id and not n.deleted
                    and (at is null or n.id not in (select o.id from past as o))
                union all
                select u.* from unnest(a.ids, a.kinds, a.names, a.positions, a.places) as u
            ) as c
        ) as s
        where f.kind <> 'file' and octet_length(p.path) <= longest and f.depth < deepest
            and (scopes is null or p.path = '' or exists (
                select from targets as t
                where starts_with(t.path || '/', p.path || '/')
                    or t.below and (t.path = '' or starts_with(p.path || '/', t.path || '/'))))
    )

    select f.id, f.kind, f.directory, f.entry, f.inside, f.depth, row_number() over (order by f.place) from folders as f;
end
$$;

-- The files as of a vector, or those in these scopes: the path of each, how deep it lies, and its number in the order
-- of the tree.
create or replace function kerai_private.listing(scopes uuid[], at jsonb, folded boolean)
returns table (file uuid, path text, depth int, n bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    longest constant int := 2000;
begin
    return query
    with ordered as materialized (
        select e.* from kerai_private.entries(scopes, at, folded) as e
    ),

    -- Of the files with one entry the first keeps it, unless a directory has it.
    ranked as (
        select f.*,
            row_number() over (partition by f.directory, f.entry order by f.n) > 1 or exists (
                select from ordered as d
                where d.kind <> 'file' and d.directory = f.directory and d.entry = f.entry) as again,
            case when octet_length(f.entry) <= 240 then f.entry else left(f.entry, 50) || '~' || f.id end as stem
        from ordered as f
        where f.kind = 'file'
    ),

    numbered as (
        select r.*, row_number() over (partition by r.directory, r.stem, r.again order by r.n) as turn from ranked as r
    ),

    -- The others get the free ones of stem~2, stem~3, ..., in order.
    free as (
        select s.directory, s.stem, i.number,
            row_number() over (partition by s.directory, s.stem order by i.number) as turn
        from (
            select u.directory, u.stem, max(u.turn) as files from numbered as u
            where u.again group by u.directory, u.stem
        ) as s
        cross join lateral (
            select count(*) as entries from ordered as e
            where e.directory = s.directory and starts_with(e.entry, s.stem || '~')
        ) as t
        cross join lateral generate_series(2, s.files + t.entries + 1) as i (number)
        where (s.directory, s.stem || '~' || i.number) not in (select e.directory, e.entry from ordered as e)
    )

    select u.id, q.path, u.depth, u.n
    from numbered as u
    left join free as f on u.again and f.directory = u.directory and f.stem = u.stem and f.turn = u.turn
    cross join lateral (
        select concat_ws('/', nullif(u.directory, ''), case when u.again then u.stem || '~' || f.number else u.entry end)
            as path
    ) as q
    where u.inside and octet_length(q.path) <= longest;
end
$$;

-- The texts of these files, of which none lies in another: the contents of each and of all below it, in order. Depths:
-- how deep each of them lies. members: the nodes that this needs, NULL when it is best to read the whole tree.
--
-- Most nodes of a tree are leaves among leaves. They are put together parent by parent, so that only what is left goes
-- through the recursion and the sort that the order of a tree asks for. The setting: what is left is hashed once, not
-- sorted at every level.
create or replace function kerai_private.texts(files uuid[], depths int[], at jsonb, folded boolean, members uuid[])
returns table (file uuid, text text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    deepest constant int := 500;
begin
    return query
    with recursive state as materialized (
        select s.id, s.parent_id, s."position" collate "C" as "position", s.place collate "C" as place, s.content
        from kerai_private.state(at, folded, members) as s
    ),

    parents as materialized (
        select distinct s.parent_id as id from state as s where s.parent_id is not null
    ),

    -- Parents of parents: among their children the order of leaves and subtrees matters.
    mixed as materialized (
        select distinct s.parent_id as id from state as s
        where s.parent_id is not null and s.id in (select p.id from parents as p)
    ),

    below as materialized (
        select l.parent_id as id, string_agg(l.content, '') as content
        from (
            select s.parent_id, s.content from state as s
            where s.parent_id is not null and s.parent_id not in (select m.id from mixed as m)
            order by s.parent_id, s."position", s.place, s.id
        ) as l
        group by l.parent_id
    ),

    rest as materialized (
        select s.id, s.parent_id, s.content, b.content as below,
            kerai_private.rank_key(row_number() over (
                partition by s.parent_id order by s."position", s.place, s.id)) as rank
        from state as s
        left join below as b on b.id = s.id
        where s.parent_id in (select m.id from mixed as m) or s.id = any(files)
    ),

    walk (file, id, depth, place, content) as (
        select r.id, r.id, f.depth, ''::bytea,
            case when f.depth < deepest then concat(r.content, r.below) else r.content end
        from unnest(files, depths) as f (id, depth)
        inner join rest as r on r.id = f.id
        union all
        select w.file, r.id, w.depth + 1, w.place || r.rank,
            case when w.depth + 1 < deepest then concat(r.content, r.below) else r.content end
        from walk as w
        inner join rest as r on r.parent_id = w.id
        where w.depth < deepest
    )

    select w.file, coalesce(string_agg(w.content, '' order by w.place), '') from walk as w group by w.file;
end
$$;

-- The files in these scopes (NULL: all), as (path, source), and their numbers in the order of the tree.
create or replace function kerai_private.files(scopes uuid[], at jsonb, folded boolean)
returns table (file uuid, path text, source text, n bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    files uuid[];
    paths text[];
    depths int[];
    numbers bigint[];
begin
    select array_agg(l.file), array_agg(l.path), array_agg(l.depth), array_agg(l.n)
    into files, paths, depths, numbers
    from kerai_private.listing(scopes, at, folded) as l;
    if files is not null then
        return query
        select f.id, f.path, t.text, f.n
        from unnest(files, paths, numbers) as f (id, path, n)
        inner join kerai_private.texts(files, depths, at, folded,
            case when scopes is not null then kerai_private.members(files, at, folded) end) as t on t.file = f.id;
    end if;
end
$$;

create or replace function kerai.checkout(scope uuid default null, at jsonb default null)
returns table (path text, source text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
declare
    past constant jsonb := kerai_private.past_vector(at);
begin
    if scope is not null then
        perform kerai_private.require_node(scope);
    end if;
    return query
    select f.path, f.source
    from kerai_private.files(
        case when scope is not null then array[scope] end, past, kerai_private.folds_forward(past)) as f
    order by f.n;
end
$$;

comment on function kerai.checkout(uuid, jsonb) is
'Every file below scope (NULL: all) as (path, source), paths from the root of the tree; at: as of that version vector. Names that no directory can hold are escaped, equal ones numbered: every path can be written, and no two are the same.';

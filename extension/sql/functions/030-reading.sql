-- 030 reading: the tree as of now or as of a vector, source text, whole checkouts, the digest, the log.

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

-- The nodes as of a vector: the fold of the operations that it names. `place` is the stamp of what placed the node.
create or replace function kerai_private.nodes_at(at jsonb)
returns table (
    id uuid, parent_id uuid, "position" text, kind text, name text, language text, content text, metadata jsonb,
    deleted boolean, place text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    move_stamps text[];
    move_nodes uuid[];
    move_parents uuid[];
    move_positions text[];
    base_nodes uuid[];
    base_parents uuid[];
    voids boolean[];
    -- Below it, which moves count has been decided for good; the others are not here any more.
    floor constant text collate "C" := coalesce(
        (select c.floor from kerai.compactions as c order by c.id desc limit 1), '');
begin
    select array_agg(m.stamp order by m.stamp), array_agg(m.node_id order by m.stamp),
        array_agg(m.parent_id order by m.stamp), array_agg(m.position order by m.stamp)
    into move_stamps, move_nodes, move_parents, move_positions
    from kerai_private.vector_entries(at) as e
    inner join kerai.operations as o on o.author = e.author and o.author_seq <= e.seq and o.op_type = 'node_move'
    inner join kerai_private.moves as m on m.stamp = lpad(to_hex(o.lamport_ts), 16, '0') || ':' || o.author
    where m.stamp >= floor;

    -- Which moves are void depends on which moves there are: it is decided anew for those that the vector names.
    if move_stamps is not null then
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
            left join kerai_private.moves as m on m.node_id = i.node and m.stamp < floor
        ),

        climb (node, parent) as (
            select p.node, p.parent from unnest(move_nodes || move_parents) as u (node)
            inner join placed as p on p.node = u.node
            union
            select p.node, p.parent from climb as c inner join placed as p on p.node = c.parent
        )

        select array_agg(c.node), array_agg(c.parent) into base_nodes, base_parents from climb as c;
        voids := kerai_private.void_moves(base_nodes, base_parents, move_nodes, move_parents);
    end if;

    return query
    with log as materialized (
        select o.node_id, o.op_type, o.payload, lpad(to_hex(o.lamport_ts), 16, '0') || ':' || o.author collate "C" as stamp
        from kerai_private.vector_entries(at) as e
        inner join kerai.operations as o on o.author = e.author and o.author_seq <= e.seq
        where o.op_type like 'node%'
    ),

    inserts as (
        select distinct on (l.node_id) l.node_id, l.payload, l.stamp from log as l
        where l.op_type = 'node_insert'
        order by l.node_id, l.stamp
    ),

    -- The last write of each field and of each metadata key.
    written as (
        select w.node_id, w.part, jsonb_object_agg(w.key, w.value) as fields
        from (
            select distinct on (l.node_id, p.part, s.key) l.node_id, p.part, s.key, s.value
            from log as l
            cross join (values ('set'), ('metadata')) as p (part)
            cross join lateral jsonb_each(l.payload -> p.part) as s
            where l.op_type = 'node_update'
            order by l.node_id, p.part, s.key, l.stamp desc
        ) as w
        group by w.node_id, w.part
    ),

    tombs as (
        select distinct on (l.node_id) l.node_id, l.op_type = 'node_delete' as deleted from log as l
        where l.op_type in ('node_delete', 'node_restore')
        order by l.node_id, l.stamp desc
    ),

    places as (
        select distinct on (m.node) m.node, m.parent, m.position, m.stamp
        from (
            select u.* from unnest(move_stamps, move_nodes, move_parents, move_positions, voids) as u
            union all
            select k.stamp, k.node_id, k.parent_id, k.position, k.void from kerai_private.moves as k where k.stamp < floor
        ) as m (stamp, node, parent, position, void)
        where not m.void
        order by m.node, m.stamp collate "C" desc
    )

    select
        i.node_id,
        case when p.node is null then (i.payload ->> 'parent')::uuid else p.parent end,
        coalesce(p.position, i.payload ->> 'position'),
        coalesce(f.fields ->> 'kind', i.payload ->> 'kind'),
        case when f.fields ? 'name' then f.fields ->> 'name' else i.payload ->> 'name' end,
        case when f.fields ? 'language' then f.fields ->> 'language' else i.payload ->> 'language' end,
        case when f.fields ? 'content' then f.fields ->> 'content' else i.payload ->> 'content' end,
        case when k.node_id is null and not i.payload ? 'metadata' then '{}'
            else kerai_private.without_nulls(
                case jsonb_typeof(i.payload -> 'metadata') when 'object' then i.payload -> 'metadata' else '{}' end
                || coalesce(k.fields, '{}')) end,
        coalesce(t.deleted, false),
        coalesce(p.stamp, i.stamp)
    from inserts as i
    left join written as f on f.node_id = i.node_id and f.part = 'set'
    left join written as k on k.node_id = i.node_id and k.part = 'metadata'
    left join tombs as t on t.node_id = i.node_id
    left join places as p on p.node = i.node_id;
end
$$;

-- A result column needs ltree itself, which a pinned search_path cannot name; an assignment can make it.
create or replace function kerai_private.as_path(path text) returns kerai.nodes.path%type
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return path;
end
$$;

create or replace function kerai.tree(root uuid default null, at jsonb default null)
returns table (
    id uuid, parent_id uuid, "position" text, depth int, kind text, name text, language text, content text,
    path kerai.nodes.path%type, metadata jsonb
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    -- `place` grows with the depth, so that a chain of nodes would cost its length squared. No code is this deep.
    deepest constant int := 500;
begin
    if root is not null then
        perform kerai_private.require_node(root);
    end if;

    if at is null or kerai.vector_compare(at, kerai.version_vector()) = 'equal' then
        -- Nothing below a tombstone is visible, the root's own ancestors included.
        if root is not null and exists (
            with recursive climb (id, parent_id, deleted) as (
                select n.id, n.parent_id, n.deleted from kerai.nodes as n where n.id = root
                union all
                select n.id, n.parent_id, n.deleted from climb as c inner join kerai.nodes as n on n.id = c.parent_id
            )

            select from climb as c where c.deleted) then
            return;
        end if;

        -- `place` is the ranks among the siblings from the root down, four bytes each: it sorts in pre-order.
        return query
        with recursive walk (id, depth, place) as (
            select t.id, 0, int4send(t.rank::int)
            from (
                select n.id, row_number() over (order by n.position, coalesce(n.placed_stamp, n.created_stamp), n.id) as rank
                from kerai.nodes as n
                where (root is not null and n.id = root or root is null and n.parent_id is null) and not n.deleted
            ) as t
            union all
            select c.id, w.depth + 1, w.place || int4send(c.rank::int)
            from walk as w
            cross join lateral (
                select n.id, row_number() over (order by n.position, coalesce(n.placed_stamp, n.created_stamp), n.id) as rank
                from kerai.nodes as n
                where n.parent_id = w.id and not n.deleted
            ) as c
            where w.depth < deepest
        )

        select n.id, n.parent_id, n.position::text, w.depth, n.kind, n.name, n.language, n.content, n.path, n.metadata
        from walk as w
        inner join kerai.nodes as n on n.id = w.id
        order by w.place;
        return;
    end if;

    perform kerai_private.require_covered(at);
    perform kerai_private.require_above_horizon(at,
        'SELECT horizon FROM kerai.compactions ORDER BY id DESC LIMIT 1 is the earliest state that can be read.');
    return query
    with recursive state as materialized (
        select s.*, row_number() over (
            partition by s.parent_id order by s."position" collate "C", s.place collate "C", s.id) as rank
        from kerai_private.nodes_at(at) as s
        where not s.deleted
    ),

    walk (id, depth, place, path) as (
        select s.id, 0, int4send(s.rank::int), kerai_private.path_below('', s.name)
        from state as s
        where s.parent_id is null
        union all
        select s.id, w.depth + 1, w.place || int4send(s.rank::int),
            case when s.name is null then w.path else kerai_private.path_below(w.path, s.name) end
        from walk as w
        inner join state as s on s.parent_id = w.id
        where w.depth < deepest
    ),

    -- The root's place is a prefix of the places of all that is below it.
    chosen as (select w.place, w.depth from walk as w where w.id = root)

    select s.id, s.parent_id, s."position", w.depth - coalesce(c.depth, 0), s.kind, s.name, s.language, s.content,
        kerai_private.as_path(w.path), s.metadata
    from walk as w
    inner join state as s on s.id = w.id
    left join chosen as c on true
    where root is null or substr(w.place, 1, length(c.place)) = c.place
    order by w.place;
end
$$;

comment on function kerai.tree(uuid, jsonb) is
'The visible nodes from root (NULL: the whole tree) down, parents before children, siblings in order; at: as of that version vector. What lies more than 500 levels below is left out.';

create or replace function kerai.source(file uuid, at jsonb default null) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.require_node(file);
    return (
        select case when count(*) > 0 then coalesce(string_agg(t.content, '' order by t.n), '') end
        from kerai.tree(file, at) with ordinality as t (
            id, parent_id, "position", depth, kind, name, language, content, path, metadata, n));
end
$$;

comment on function kerai.source(uuid, jsonb) is
'The text of a file, or of any node: the contents of the node and of everything below it, in order; NULL when the node is not visible. Base64 when the node''s metadata says encoding = base64.';

-- What stands for a node in a directory. A tree may hold names that no directory can: those are escaped, all others
-- stay as they are. The client lays files out by the same rule (client/kerai_client/source/layout.py).
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

create or replace function kerai.checkout(scope uuid default null, at jsonb default null)
returns table (path text, source text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    longest constant int := 2000;
begin
    if scope is not null then
        perform kerai_private.require_node(scope);
    end if;
    return query
    with recursive listing as materialized (
        select t.*
        from kerai.tree(null, at) with ordinality as t (
            id, parent_id, "position", depth, kind, name, language, content, path, metadata, n)
    ),

    -- The directories, and whatever lies directly in one: in which directory it is, and as what.
    folders (id, n, kind, directory, entry, inside) as (
        select l.id, l.n, l.kind, '', kerai_private.entry(l.kind, l.name, l.id), scope is null or l.id = scope
        from listing as l
        where l.parent_id is null
        union all
        select l.id, l.n, l.kind, p.path, kerai_private.entry(l.kind, l.name, l.id), f.inside or l.id = scope
        from folders as f
        inner join listing as l on l.parent_id = f.id
        cross join lateral (select concat_ws('/', nullif(f.directory, ''), nullif(f.entry, '')) as path) as p
        where f.kind <> 'file' and octet_length(p.path) <= longest
    ),

    -- Of the files with one entry the first keeps it, unless a directory has it.
    ranked as (
        select f.*,
            row_number() over (partition by f.directory, f.entry order by f.n) > 1 or exists (
                select from folders as d
                where d.kind <> 'file' and d.directory = f.directory and d.entry = f.entry) as again,
            case when octet_length(f.entry) <= 240 then f.entry else left(f.entry, 50) || '~' || f.id end as stem
        from folders as f
        where f.kind = 'file'
    ),

    numbered as (
        select r.*, row_number() over (partition by r.directory, r.stem, r.again order by r.n) as turn from ranked as r
    ),

    -- The others get the free ones of stem~2, stem~3, …, in order.
    free as (
        select s.directory, s.stem, i.number,
            row_number() over (partition by s.directory, s.stem order by i.number) as turn
        from (
            select u.directory, u.stem, max(u.turn) as files from numbered as u
            where u.again group by u.directory, u.stem
        ) as s
        cross join lateral (
            select count(*) as entries from folders as e
            where e.directory = s.directory and starts_with(e.entry, s.stem || '~')
        ) as t
        cross join lateral generate_series(2, s.files + t.entries + 1) as i (number)
        where (s.directory, s.stem || '~' || i.number) not in (select e.directory, e.entry from folders as e)
    ),

    files as (
        select u.n, concat_ws('/', nullif(u.directory, ''),
            case when u.again then u.stem || '~' || f.number else u.entry end) as path
        from numbered as u
        left join free as f on u.again and f.directory = u.directory and f.stem = u.stem and f.turn = u.turn
        where u.inside
    ),

    -- In pre-order everything up to the next of the folders' nodes is a part of it.
    parts as (
        select max(f.n) over (order by l.n) as folder_n, l.n, l.content
        from listing as l
        left join folders as f on f.id = l.id
    )

    select f.path, coalesce(string_agg(p.content, '' order by p.n), '')
    from files as f
    inner join parts as p on p.folder_n = f.n
    where octet_length(f.path) <= longest
    group by f.n, f.path
    order by f.n;
end
$$;

comment on function kerai.checkout(uuid, jsonb) is
'Every file below scope (NULL: all) as (path, source), paths from the root of the tree; at: as of that version vector. Names that no directory can hold are escaped, equal ones numbered: every path can be written, and no two are the same.';

create or replace function kerai.state_digest() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
set extra_float_digits = 1
as $$
    -- Rows are hashed, then sorted and hashed in 256 buckets by their id, so that no value grows with the whole.
    with rows as (
        select get_byte(uuid_send(n.id), 0) as bucket, sha256(convert_to(jsonb_build_array(
            'node', n.id, n.parent_id, n.position, n.kind, n.name, n.language, n.content, n.metadata, n.deleted,
            n.created_stamp, n.created_seq, n.placed_stamp, n.kind_stamp, n.name_stamp, n.language_stamp,
            n.content_stamp, n.metadata_stamps, n.deleted_stamp)::text, 'UTF8')) as hash
        from kerai.nodes as n
        union all
        select get_byte(uuid_send(e.source), 0), sha256(convert_to(jsonb_build_array(
            'edge', e.source, e.target, e.relation, e.metadata, e.deleted, e.stamp)::text, 'UTF8'))
        from kerai.edges as e
        union all
        select get_byte(uuid_send(p.node_id), 0), sha256(convert_to(jsonb_build_array(
            'perspective', p.author, p.node_id, p.context_id, p.weight, p.reasoning, p.deleted, p.stamp)::text, 'UTF8'))
        from kerai.perspectives as p
        union all
        select get_byte(uuid_send(a.source), 0), sha256(convert_to(jsonb_build_array(
            'association', a.author, a.source, a.target, a.relation, a.weight, a.reasoning, a.deleted, a.stamp)::text,
            'UTF8'))
        from kerai.associations as a
    ),

    buckets as (
        select r.bucket, sha256(string_agg(r.hash, '' order by r.hash)) as hash from rows as r group by r.bucket
    )

    select encode(sha256(coalesce(string_agg(b.hash, '' order by b.bucket), '')), 'hex') from buckets as b
$$;

comment on function kerai.state_digest() is
'SHA-256 over the whole replicated state, tombstones and registers'' stamps included: equal exactly when two instances hold the same state.';

create or replace function kerai.changesets_since(vector jsonb, max_ops int default 10000)
returns table (changeset json, signature bytea, public_key bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if max_ops is null or max_ops < 1 then
        perform kerai_private.refuse('KR005', 'max_ops is at least 1', format('max_ops: %s', coalesce(max_ops::text, 'null')),
            'Leave it out for pages of 10,000 operations.');
    end if;
    -- A join would not look at it while there are no changesets.
    perform from kerai_private.vector_entries($1);
    perform kerai_private.require_above_horizon($1, 'Clone this instance with pg_dump, then sync from there on.');
    return query
    select p.document, p.signature, a.public_key
    from kerai_private.page_since($1, max_ops) as p
    inner join kerai_private.authors as a on a.author = p.author
    order by p.arrival;
end
$$;

comment on function kerai.changesets_since(jsonb, int) is
'The changesets that a vector has not seen, byte for byte and in a causal order: push them one by one into another instance with kerai.push_ops(changeset, signature, public_key). At most max_ops operations, at least one changeset; call again with the new vector until nothing comes.';

-- Time travel: the nodes as of a version vector.
--
-- What a vector has not seen is what happened since. So a past state is the current one but for the nodes that those
-- operations touched, and these are folded again from their own operations (kerai_private.changed_since). When less
-- was seen than was not, all of it is folded from the beginning (kerai_private.replay_nodes).
--
-- The functions here get by with plans that are made once: they go by index from what is given, however much that is.
--
-- A vector need not be causally closed. Its state is then that of all inserts that it names, followed by all else that
-- it names, in the order of the stamps. An operation on a node that none of these inserts is left out. A node may be
-- inserted more than once, and such a vector may name only the insert below a node that had come to lie below it. A
-- node that hangs from such a ring of inserts does not hang from the top, and is not visible until a move opens the
-- ring.

-- The nodes that a vector (NULL: now) names as the fold of its operations makes them, in the form of kerai.nodes. A
-- register's stamp is NULL while it holds what the insert gave it. among: these nodes, from their own operations.
-- without: leaves out this changeset and all moves.
create or replace function kerai_private.replay_nodes(at jsonb, among uuid[] default null, without bytea default null)
returns table (
    id uuid, parent_id uuid, "position" text, kind text, name text, language text, content text, metadata jsonb,
    deleted boolean, created_stamp text, created_seq bigint, placed_stamp text, kind_stamp text, name_stamp text,
    language_stamp text, content_stamp text, metadata_stamps jsonb, deleted_stamp text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with log as materialized (
        select o.node_id, o.op_type, o.payload, o.author_seq,
            lpad(to_hex(o.lamport_ts), 16, '0') || ':' || o.author collate "C" as stamp
        from kerai_private.vector_entries(at) as e
        inner join kerai.operations as o on o.author = e.author and o.author_seq <= e.seq
        where among is null and o.op_type like 'node%'
        union all
        select o.node_id, o.op_type, o.payload, o.author_seq,
            lpad(to_hex(o.lamport_ts), 16, '0') || ':' || o.author collate "C"
        from kerai.operations as o
        left join kerai_private.unseen_authors(at) as u on u.author = o.author
        where among is not null and o.node_id = any(among) and o.op_type like 'node%'
            and (u.author is null or o.author_seq <= u.seq) and (without is null or o.changeset_id <> without)
    ),

    inserts as (
        select distinct on (l.node_id) l.node_id, l.payload, l.stamp, l.author_seq from log as l
        where l.op_type = 'node_insert'
        order by l.node_id, l.stamp
    ),

    -- The last write of each field and of each metadata key.
    written as (
        select w.node_id, w.part, jsonb_object_agg(w.key, w.value) as fields, jsonb_object_agg(w.key, w.stamp) as stamps
        from (
            select distinct on (l.node_id, p.part, s.key) l.node_id, p.part, s.key, s.value, l.stamp
            from log as l
            cross join (values ('set'), ('metadata')) as p (part)
            cross join lateral jsonb_each(l.payload -> p.part) as s
            where l.op_type = 'node_update'
            order by l.node_id, p.part, s.key, l.stamp desc
        ) as w
        group by w.node_id, w.part
    ),

    tombs as (
        select distinct on (l.node_id) l.node_id, l.op_type = 'node_delete' as deleted, l.stamp from log as l
        where l.op_type in ('node_delete', 'node_restore')
        order by l.node_id, l.stamp desc
    ),

    places as (
        select p.* from kerai_private.moves_at(at, among) as p where without is null
    )

    select
        i.node_id,
        case when p.node is null then (i.payload ->> 'parent')::uuid else p.parent_id end,
        coalesce(p.position, i.payload ->> 'position'),
        coalesce(f.fields ->> 'kind', i.payload ->> 'kind'),
        case when f.fields ? 'name' then f.fields ->> 'name' else i.payload ->> 'name' end,
        case when f.fields ? 'language' then f.fields ->> 'language' else i.payload ->> 'language' end,
        case when f.fields ? 'content' then f.fields ->> 'content' else i.payload ->> 'content' end,
        case when k.node_id is null and not i.payload ? 'metadata' then '{}'
            else kerai_private.without_nulls(
                case jsonb_typeof(i.payload -> 'metadata') when 'object' then i.payload -> 'metadata' else '{}' end
                || coalesce(k.fields, '{}')) end,
        coalesce(t.deleted, false), i.stamp, i.author_seq, p.stamp, f.stamps ->> 'kind', f.stamps ->> 'name',
        f.stamps ->> 'language', f.stamps ->> 'content', k.stamps, t.stamp
    from inserts as i
    left join written as f on f.node_id = i.node_id and f.part = 'set'
    left join written as k on k.node_id = i.node_id and k.part = 'metadata'
    left join tombs as t on t.node_id = i.node_id
    left join places as p on p.node = i.node_id;
end
$$;

-- These nodes as of a vector (NULL: now). A node is what it is now when the last write of each of its registers is
-- seen, and no move could have come in between. Only the others are folded from their operations.
create or replace function kerai_private.nodes_at(at jsonb, among uuid[])
returns table (
    id uuid, parent_id uuid, "position" text, kind text, name text, language text, content text, metadata jsonb,
    deleted boolean, place text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    since text collate "C";
    stale uuid[] := '{}';
begin
    select min(u.next_stamp collate "C") into since from kerai_private.unseen_authors(at) as u;
    if since is not null then
        stale := array(
            select n.id
            from kerai.nodes as n
            cross join lateral (
                select s.stamp from unnest(array[n.created_stamp, n.placed_stamp, n.kind_stamp, n.name_stamp,
                    n.language_stamp, n.content_stamp, n.deleted_stamp]) as s (stamp)
                union all
                select m.value from jsonb_each_text(n.metadata_stamps) as m
            ) as s
            inner join kerai_private.unseen_authors(at) as u
                on u.author = kerai_private.stamp_author(s.stamp) and s.stamp > u.stamp collate "C"
            where n.id = any(among)
            union
            select m.node_id from kerai_private.moves as m where m.stamp >= since and m.node_id = any(among));
    end if;

    return query
    select n.id, n.parent_id, n.position::text, n.kind, n.name, n.language, n.content, n.metadata, n.deleted,
        coalesce(n.placed_stamp, n.created_stamp)::text
    from kerai.nodes as n
    where n.id = any(among) and n.id not in (select u.id from unnest(stale) as u (id))
    union all
    select f.id, f.parent_id, f.position, f.kind, f.name, f.language, f.content, f.metadata, f.deleted,
        coalesce(f.placed_stamp, f.created_stamp)
    from kerai_private.replay_nodes(at, stale) as f
    where stale <> '{}';
end
$$;

-- These nodes and all their ancestors as of a vector (NULL: now), each once; what is not there is left out.
create or replace function kerai_private.ancestry(nodes uuid[], at jsonb)
returns table (id uuid, parent_id uuid, kind text, name text, deleted boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    frontier uuid[] := array(select distinct u.id from unnest(nodes) as u (id));
    known uuid[] := frontier;
begin
    while frontier <> '{}' loop
        if at is null then
            return query
            select n.id, n.parent_id, n.kind, n.name, n.deleted from kerai.nodes as n where n.id = any(frontier);
            frontier := array(
                select n.parent_id from kerai.nodes as n where n.id = any(frontier) and n.parent_id is not null
                except
                select u.id from unnest(known) as u (id));
        else
            declare
                step record;
            begin
                select array_agg(n.id) as ids, array_agg(n.parent_id) as parents, array_agg(n.kind) as kinds,
                    array_agg(n.name) as names, array_agg(n.deleted) as deletions
                into step
                from kerai_private.nodes_at(at, frontier) as n;
                return query select * from unnest(step.ids, step.parents, step.kinds, step.names, step.deletions);
                frontier := array(
                    select u.id from unnest(step.parents) as u (id) where u.id is not null
                    except
                    select u.id from unnest(known) as u (id));
            end;
        end if;
        known := known || frontier;
    end loop;
end
$$;

-- What a reading function is to read as of: NULL when that is now. Refuses KR004 for what is not here.
create or replace function kerai_private.past_vector(at jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if at is null or kerai.vector_compare(at, kerai.version_vector()) = 'equal' then
        return null;
    end if;
    perform kerai_private.require_covered(at);
    perform kerai_private.require_above_horizon(at,
        'SELECT horizon FROM kerai.compactions ORDER BY id DESC LIMIT 1 is the earliest state that can be read.');
    return at;
end
$$;

-- Whether folding what a vector names is less work than taking back what it does not.
create or replace function kerai_private.folds_forward(at jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return at is not null and (
        select coalesce(sum(a.seq), 0) > 2 * coalesce(sum(e.seq), 0)
        from kerai_private.authors as a
        left join kerai_private.vector_entries(at) as e on e.author = a.author);
end
$$;

-- The nodes that may be other than they are now as of a vector, some with exists false: they are not there yet. Path:
-- NULL unless the node itself has kept its name and parent. folded: all of them.
create or replace function kerai_private.changed_since(at jsonb, folded boolean)
returns table (
    id uuid, parent_id uuid, "position" text, kind text, name text, language text, content text, metadata jsonb,
    deleted boolean, place text, path kerai.nodes.path%type, is_there boolean -- noqa: LT01
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    since text collate "C";
    touched uuid[];
begin
    if not folded then
        select min(u.next_stamp collate "C") into since from kerai_private.unseen_authors(at) as u;
        touched := array(
            select o.node_id
            from kerai_private.unseen_authors(at) as u
            cross join lateral (
                select o.node_id, o.op_type from kerai.operations as o
                where o.author = u.author and o.author_seq > u.seq
                offset 0 -- by the index: a few authors' latest, not a scan of all that all have written
            ) as o
            where o.op_type like 'node%'
            union
            select m.node_id from kerai_private.moves as m where m.stamp >= since);
    end if;

    return query
    with fold as materialized (
        select f.* from kerai_private.replay_nodes(at, touched) as f
    )

    select f.id, f.parent_id, f.position, f.kind, f.name, f.language, f.content, f.metadata, f.deleted,
        coalesce(f.placed_stamp, f.created_stamp),
        case when (f.parent_id, f.name) is not distinct from (n.parent_id, n.name) then n.path end, true
    from fold as f
    inner join kerai.nodes as n on n.id = f.id
    union all
    select u.id, null, null, null, null, null, null, null, null, null, null, false
    from unnest(touched) as u (id)
    where u.id not in (select f.id from fold as f);
end
$$;

-- The nodes that are not deleted themselves, now or as of a vector: of all, or of those named. The path is NULL when it
-- follows from the name and the parent's path, and may be another than it is now. (The body is SQL, and there is
-- nothing to pin: so it becomes a part of the query that calls it, and no row is copied on the way.)
create or replace function kerai_private.state(at jsonb, folded boolean, members uuid[])
returns table (
    id uuid, parent_id uuid, "position" text, kind text, name text, language text, content text, metadata jsonb,
    place text, path kerai.nodes.path%type -- noqa: LT01
)
language sql stable
begin atomic
    with past as materialized (
        select p.* from kerai_private.changed_since(at, folded) as p where at is not null
    )

    select n.id, n.parent_id, n."position", n.kind, n.name, n.language, n.content, n.metadata,
        coalesce(n.placed_stamp, n.created_stamp) as place, n.path
    from kerai.nodes as n
    where not folded and (members is null or n.id = any(members)) and not n.deleted
        and (at is null or n.id not in (select p.id from past as p))
    union all
    select p.id, p.parent_id, p."position", p.kind, p.name, p.language, p.content, p.metadata, p.place, p.path
    from past as p
    where p.is_there and not p.deleted and (members is null or p.id = any(members));
end;

-- Log: what was pushed, for another instance and for a reader.

-- The author ids that a name or an author id stands for.
create or replace function kerai_private.authors_named(author text) returns text[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select array(
        select a.author from kerai_private.authors as a
        where a.author = authors_named.author
            or starts_with(a.author, authors_named.author || '.') and length(a.author) = length(authors_named.author) + 17)
$$;

-- The arrivals of the latest changesets before one. Scope and authors: only those that touch this node or what lies
-- below it now, and only these authors' (NULL: all).
create or replace function kerai_private.latest_arrivals(scope uuid, authors text[], max_rows int, before bigint)
returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    most_members constant int := 10000;
    members uuid[];
begin
    if scope is not null then
        -- Tombstoned nodes too: the log tells of what was deleted as well.
        with recursive below (id) as (
            select scope
            union all
            select n.id from below as b inner join kerai.nodes as n on n.parent_id = b.id
        )

        select array_agg(b.id) into members from (select b.id from below as b limit most_members + 1) as b;
    end if;

    if authors is not null and scope is null then
        -- An author's changesets arrive in their own order: the latest of each, and of those the latest.
        return array(
            select c.arrival
            from unnest(authors) as a (author)
            cross join lateral (
                (select c.arrival from kerai.changesets as c
                where c.author = a.author and c.member is null and (before is null or c.arrival < before)
                order by c.first_seq desc limit max_rows)
                union all
                (select c.arrival from kerai.changesets as c
                where c.member = a.author and (before is null or c.arrival < before)
                order by c.arrival desc limit max_rows)
            ) as c
            order by c.arrival desc limit max_rows);
    elsif cardinality(members) <= most_members then
        return array(
            select c.arrival
            from (
                select distinct o.changeset_id from kerai.operations as o where o.node_id = any(members)
            ) as o
            inner join kerai.changesets as c on c.id = o.changeset_id
            where (before is null or c.arrival < before)
                and (authors is null or coalesce(c.member, c.author) = any(authors))
            order by c.arrival desc limit max_rows);
    end if;
    -- Much of the tree: sooner or later most changesets touch it, so they are looked at one by one.
    return array(
        select c.arrival
        from kerai.changesets as c
        where (before is null or c.arrival < before)
            and (authors is null or coalesce(c.member, c.author) = any(authors))
            and (scope is null or kerai_private.touches(c.author, c.first_seq, c.last_seq, scope))
        order by c.arrival desc limit max_rows);
end
$$;

create or replace function kerai.log(
    scope uuid default null, author text default null, max_rows int default 100, before bigint default null
)
returns table (
    changeset_id bytea, author_id text, received_at timestamptz, message text, operations bigint, task_id uuid,
    files bigint, paths text[], first_seq bigint, last_seq bigint, arrival bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    named_paths constant int := 20;
    arrivals bigint[];
begin
    if max_rows is null or max_rows not between 1 and 10000 then
        perform kerai_private.refuse('KR005', 'max_rows is between 1 and 10000',
            format('max_rows: %s', coalesce(max_rows::text, 'null')),
            'For more, call again with before = the lowest arrival so far.');
    end if;
    if scope is not null then
        perform kerai_private.require_node(scope);
    end if;
    arrivals := kerai_private.latest_arrivals(scope,
        case when author is not null then kerai_private.authors_named(author) end, max_rows, before);

    return query
    with recursive page as materialized (
        select c.* from kerai.changesets as c where c.arrival = any(arrivals)
    ),

    -- From each node upwards, each once a changeset.
    climb (arrival, id) as (
        select p.arrival, o.node_id
        from page as p
        cross join lateral (
            select o.node_id from kerai.operations as o
            where o.author = p.author and o.author_seq between p.first_seq and p.last_seq
            offset 0 -- by the index
        ) as o
        union
        select c.arrival, n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.id
        where n.parent_id is not null
    ),

    touched as (
        select c.arrival, count(*) as files, (array_agg(f.id order by f.id))[:named_paths] as some
        from climb as c
        inner join kerai.nodes as f on f.id = c.id and f.kind = 'file'
        group by c.arrival
    )

    select p.id, coalesce(p.member, p.author)::text, p.received_at, p.message, p.last_seq - p.first_seq + 1, p.task_id,
        coalesce(t.files, 0),
        array(
            select s.path from kerai_private.node_states(t.some, null, null) as s order by s.path collate "C"),
        p.first_seq, p.last_seq, p.arrival
    from page as p
    left join touched as t on t.arrival = p.arrival
    order by p.arrival desc;
end
$$;

comment on function kerai.log(uuid, text, int, bigint) is
'The changesets, latest first: of all nodes or of those that lie in a scope now, of all authors or of one (by name or author id). The column files counts the files that it touched; paths has up to twenty of them, as they are called now. The next page: before = the lowest arrival so far.';

-- Whether one of an author's operations is on a node that lies in the scope now.
create or replace function kerai_private.touches(author text, first_seq bigint, last_seq bigint, scope uuid)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        with recursive climb (id) as (
            select o.node_id from kerai.operations as o
            where o.author = touches.author and o.author_seq between touches.first_seq and touches.last_seq
            union
            select n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.id
        )

        select from climb as c where c.id = scope);
end
$$;

create or replace function kerai.changeset_vectors(changeset bytea, out before jsonb, out after jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    item kerai.changesets;
    seen jsonb;
begin
    select c.* into item from kerai.changesets as c where c.id = changeset;
    if item.id is null then
        perform kerai_private.refuse('KR006', 'no such changeset',
            format('changeset: %s', coalesce(encode(changeset, 'hex'), 'null')), 'SELECT * FROM kerai.log() shows them.');
    end if;

    seen := item.base;
    -- Of a swarm's writer a vector also names what other members have pushed between the base and this changeset, which
    -- was made from what their bases name.
    if item.member is not null then
        select coalesce(jsonb_object_agg(b.author, b.seq), '{}') into seen
        from (
            select e.author, max(e.seq) as seq
            from kerai.changesets as c
            cross join lateral kerai_private.vector_entries(c.base) as e
            where c.author = item.author and c.first_seq <= item.first_seq
                and (c.id = item.id or c.first_seq > coalesce((item.base ->> item.author)::bigint, 0))
            group by e.author
        ) as b;
    end if;
    before := kerai.vector_merge(seen, jsonb_build_object(item.author, item.first_seq - 1));
    after := kerai.vector_merge(seen, jsonb_build_object(item.author, item.last_seq));
end
$$;

comment on function kerai.changeset_vectors(bytea) is
'The vectors just before and just after a changeset: what its author had seen, without and with it. What it did: SELECT * FROM kerai.changeset_vectors(id) AS v, kerai.diff(v.before, v.after).';

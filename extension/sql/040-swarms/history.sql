-- History: where a swarm has been busy, and how a node came to be what it is.

create or replace function kerai.swarm_hotspots(since interval default '1 hour')
returns table (
    path text, kind text, name text, node_id uuid, operations bigint, authors bigint, last_changed_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if since is null or since not between interval '0' and interval '1000 years' then
        perform kerai_private.refuse('KR005', 'hotspots are counted since a time ago',
            format('since: %s', coalesce(since::text, 'null')), 'Pass an interval such as ''1 hour'', at most 1000 years.');
    end if;

    return query
    with recent as (
        select c.author, coalesce(c.member, c.author) as writer, c.first_seq, c.last_seq, c.received_at,
            sum(c.last_seq - c.first_seq + 1) over (order by c.received_at desc, c.arrival desc) as so_far
        from kerai.changesets as c
        where c.received_at >= now() - since
    ),

    changed as (
        select o.node_id, c.writer as author, count(*) as operations, max(c.received_at) as last_at
        from recent as c
        cross join lateral (
            select o.node_id from kerai.operations as o
            where o.author = c.author and o.author_seq between c.first_seq and c.last_seq
            offset 0
        ) as o
        where c.so_far <= 100000 + c.last_seq - c.first_seq
        group by o.node_id, c.writer
    ),

    -- An unnamed node has the path of its nearest named ancestor: so each operation is counted where its node's path
    -- points to, and at each step above it.
    places as (
        select string_to_array(n.path::text, '.') as labels, h.author, sum(h.operations) as operations,
            max(h.last_at) as last_at, min(n.id::text) as example
        from changed as h
        inner join kerai.nodes as n on n.id = h.node_id
        group by n.path::text, h.author
    ),

    steps as (
        select u.path, count(*) as authors, sum(u.operations)::bigint as operations, max(u.last_at) as last_at,
            min(u.example) as example
        from (
            select array_to_string(p.labels[:k], '.') as path, p.author, sum(p.operations) as operations,
                max(p.last_at) as last_at, min(p.example) as example
            from places as p
            cross join lateral generate_series(1, cardinality(p.labels)) as k
            group by 1, 2
        ) as u
        group by u.path
    ),

    ranked as (
        select s.* from steps as s order by s.operations desc, s.path
    )

    select n.path::text, n.kind, n.name, n.id, r.operations, r.authors, r.last_at
    from ranked as r
    cross join lateral (
        with recursive climb as (
            select x.id, x.parent_id, x.path, x.kind, x.name from kerai.nodes as x where x.id = r.example::uuid
            union all
            select x.id, x.parent_id, x.path, x.kind, x.name
            from climb as c inner join kerai.nodes as x on x.id = c.parent_id
        )

        select c.* from climb as c
        where c.path::text = r.path and c.name is not null and c.kind <> 'directory' limit 1
    ) as n
    limit 100;
end
$$;

comment on function kerai.swarm_hotspots(interval) is
'The 100 files, and named things in files, that were changed most in the time before now. Operations below a place count for it, so a file counts at least what its functions do. Of a long time the newest 100,000 operations are counted.';

create or replace function kerai.lineage(node uuid)
returns table (
    author text, author_seq bigint, lamport_ts bigint, op_type text, node_id uuid, payload jsonb, changeset_id bytea,
    task_id uuid, agent_id uuid, agent text, created_at timestamptz, passed boolean, passes bigint,
    first_passed_at timestamptz, test_result_id uuid
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform kerai_private.require_node(node);
    return query
    with recursive below as (
        select node as id
        union
        select n.id from below as b inner join kerai.nodes as n on n.parent_id = b.id
    ),

    done as materialized (
        select o.* from below as b inner join kerai.operations as o on o.node_id = b.id
    ),

    -- A passing result includes an author's operations up to its vector's entry. With each author's entries and
    -- operations in falling order, every operation has before it the results that include it.
    tested as (
        select d.author, (r.version_vector ->> d.author)::bigint as seq, r.number
        from (
            select t.version_vector || '{}' as version_vector, t.number
            from kerai_private.passing_results() as t
            offset 0 -- and || '{}': a long vector is fetched once, not once for each author
        ) as r
        cross join (select distinct d.author from done as d) as d
        where r.version_vector ? d.author
    ),

    included as (
        select u.author, u.seq, u.number is null as is_operation,
            count(u.number) over upward as passes, min(u.number) over upward as first_number
        from (
            select t.author, t.seq, t.number from tested as t
            union all
            select d.author, d.author_seq, null from done as d
        ) as u
        window upward as (partition by u.author order by u.seq desc range unbounded preceding)
    )

    select d.author, d.author_seq, d.lamport_ts, d.op_type, d.node_id, d.payload, d.changeset_id, c.task_id, a.id,
        a.name, d.created_at, case when r.are_here then i.passes > 0 end, case when r.are_here then i.passes end,
        f.created_at, f.id
    from done as d
    inner join included as i on i.author = d.author and i.seq = d.author_seq and i.is_operation
    inner join kerai.changesets as c on c.id = d.changeset_id
    left join kerai.agents as a on a.author = coalesce(c.member, d.author)
    left join kerai_private.passing_results() as f on f.number = i.first_number
    cross join (select kerai_private.has_reports() as are_here) as r
    order by d.lamport_ts, d.author;
end
$$;

comment on function kerai.lineage(uuid) is
'The operations on a node and on all below it, in the order of the fold. Each comes with the passing test results whose vector includes it: how many there are, and the first of them. The agent is the writer, also where author is that of a swarm that groups its members. On a standby, where no results are, what says something of them is NULL.';

create or replace function kerai.swarm_progress(task uuid)
returns table (minute timestamptz, attempts bigint, passes bigint, failures bigint, best_failing int)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.require_task(task);
    perform kerai_private.require_reports();
    return query
    select m.minute, m.attempts, m.passes, m.attempts - m.passes, min(m.failing) over (order by m.minute)
    from (
        select date_trunc('minute', r.created_at) as minute, count(*) as attempts,
            count(*) filter (where r.passed) as passes, min(r.failing) filter (where r.pushed) as failing
        from kerai.test_results as r
        where r.task_id = task
        group by 1
    ) as m
    order by m.minute;
end
$$;

comment on function kerai.swarm_progress(uuid) is
'How fast the tests of a task go green: results a minute, where minutes without any are left out. In best_failing: the fewest failing tests of a merged state, reported by then. Not on a standby (KR011).';

-- Tasks at a push: whether a task takes what its agents push.

-- The changesets of a run that a task does not take, or of which that cannot be said yet. Whether a node lies in a
-- scope is not known of nodes that the run itself brings, nor after moves in it. Moves are node_move, and inserts of
-- what is here already, since the earlier of two inserts counts. Budgets are counted from what is merged: an agent's
-- second changeset of a task waits for the first. Where nothing can be exceeded nothing is counted.
create or replace function kerai_private.find_outside_task(
    run kerai_private.verified_changeset[], ops kerai_private.operation[]
) returns int[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    moved int;
    unsure int[];
    bound record;
    item record;
    outside int[];
begin
    if exists (select from kerai.tasks as t where t.id in (select r.task from unnest(run) as r) and t.scope_node_id is not null) then
        select min(o.c) into moved
        from unnest(ops) as o
        where o.op = 'node_move'
            or o.op = 'node_insert' and exists (select from kerai.nodes as n where n.id = o.node offset 0);

        unsure := array(
            select distinct o.c
            from unnest(ops) as o
            cross join lateral (values (o.node), (o.parent), (o.source)) as x (node)
            inner join (
                select b.node, min(b.c) as c from unnest(ops) as b where b.op = 'node_insert' group by b.node
            ) as i on i.node = x.node
            where i.c < o.c);
    end if;
    select array_agg(u.c) filter (where not u.again) as places, coalesce(array_agg(u.c) filter (where u.again), '{}') as again
    into bound
    from (
        select r.c, r.nth > 1 or (r.c > moved or r.c = any(unsure)) is true and t.scope_node_id is not null as again
        from (
            select i.*, a.id as agent, row_number() over (partition by i.task, a.id order by i.c) as nth
            from (
                select row_number() over () as c, u.task, coalesce(u.member, u.author) as author from unnest(run) as u
            ) as i
            cross join lateral (select g.id from kerai.agents as g where g.author = i.author offset 0) as a
            where i.task is not null
        ) as r
        left join kerai.tasks as t on t.id = r.task
        where not coalesce(
            t.status in ('pending', 'running')
            and num_nonnulls(t.scope_node_id, t.budget_ops, t.budget_nkoi, t.budget_seconds) = 0
            and not exists (
                select from kerai.swarms as s
                inner join kerai.swarm_members as m on m.swarm_id = s.id and m.agent_id = r.agent
                where s.task_id = t.id and s.status = 'stopped'), false)
    ) as u;
    outside := bound.again;
    if bound.places is null then
        return outside;
    end if;

    for item in
        select r.c, r.task, a.agent, g.ops
        from (
            select row_number() over () as c, i.task, coalesce(i.member, i.author) as author from unnest(run) as i
        ) as r
        cross join lateral (select k as agent from kerai.agents as k where k.author = r.author offset 0) as a
        inner join (
            select o.c, array_agg(o order by o.n) as ops
            from unnest(ops) as o
            where (o.c in (select p.c from unnest(bound.places) as p (c))) is true
            group by o.c
        ) as g on g.c = r.c
    loop
        begin
            perform kerai_private.check_task(item.task, item.agent, item.ops);
        exception when others then
            outside := outside || item.c::int;  -- Named exactly when it is looked at alone.
        end;
    end loop;
    return outside;
end
$$;

-- Lets an agent into a task that counts its operations with one changeset at a time. Its own changesets and those of a
-- swarm's writer have different authors, whose locks do not keep them apart. Locked after the authors' rows and before
-- the tree.
create or replace function kerai_private.lock_budgets(items kerai_private.verified_changeset[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from kerai.agents as a
    where a.author in (
        select coalesce(i.member, i.author) from unnest(items) as i
        inner join kerai.tasks as t on t.id = i.task
        where t.budget_ops is not null)
    order by a.author
    for no key update;
end
$$;

-- Called by push_ops for the changesets of this instance's agents that name a task.
create or replace function kerai_private.check_task(
    task uuid, agent kerai.agents, ops kerai_private.operation[]
) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    job constant kerai.tasks := kerai_private.require_task(task);
    scope constant uuid := job.scope_node_id;
    used bigint;
    all_inside boolean;
    outside record;
begin
    if job.status = 'succeeded' then
        perform kerai_private.refuse('KR011', 'the task has succeeded',
            format('task %s: succeeded at %s', job.id, kerai_private.utc(job.finished_at)),
            'Stop working on it; push further changes without naming the task.');
    end if;
    perform kerai_private.require_open(job, agent);

    if job.spent_nkoi >= job.budget_nkoi then
        perform kerai_private.refuse('KR008', 'the task''s money is used up',
            format('task %s: %s of %s nKoi spent', job.id, job.spent_nkoi, job.budget_nkoi),
            'Stop working on it; ask the sponsor for a new task with a larger budget_nkoi.');
    end if;
    if job.budget_ops is not null then
        select coalesce(sum(c.last_seq - c.first_seq + 1), 0) into used
        from kerai.changesets as c where c.task_id = job.id and coalesce(c.member, c.author) = agent.author;
        if used + cardinality(ops) > job.budget_ops then
            perform kerai_private.refuse('KR008', 'the agent''s budget of operations is used up',
                format('agent %s, task %s: %s operations pushed, %s more given, at most %s are allowed', agent.name,
                    job.id, used, cardinality(ops), job.budget_ops),
                'Push fewer operations, or ask the sponsor for a task with a larger budget_ops.');
        end if;
    end if;
    if scope is null then
        return;
    end if;

    -- Each chain of parents ends at the scope or at a root. Nodes that only this changeset inserts are not in the tree
    -- yet: their parents are named, and so each hangs in the end on a node that is. Joins go by index: a push names few
    -- nodes of a large tree.
    with recursive named as materialized (
        select distinct r.node
        from unnest(ops) as o
        cross join lateral (values
            (coalesce(o.node, o.source), true), (o.parent, o.op in ('node_insert', 'node_move'))) as r (node, counts)
        where r.counts
    ),

    climb as (
        select n.id, n.parent_id from named as a inner join kerai.nodes as n on n.id = a.node
        union
        select n.id, n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.parent_id where c.id <> scope
    )

    select not exists (select from named as a where a.node is null)
        and not exists (select from climb as c where c.parent_id is null and c.id <> scope)
    into all_inside;

    if not all_inside then
        select r.n, r.op, r.node into outside
        from (
            select o.n, o.op, x.node
            from unnest(ops) as o
            cross join lateral (values
                (coalesce(o.node, o.source), true), (o.parent, o.op in ('node_insert', 'node_move'))) as x (node, counts)
            where x.counts
            order by o.n
            offset 0
        ) as r
        where r.node is null
            or exists (select from kerai.nodes as k where k.id = r.node)
            and not kerai_private.is_below(r.node, scope)
        limit 1;
        perform kerai_private.refuse('KR007', 'an operation lies outside of the task''s scope',
            format('operation %s (%s) names %s; the scope of task %s is %s', outside.n, outside.op,
                coalesce('node ' || outside.node, 'no parent'), job.id,
                (select concat(n.id, ' (' || nullif(n.path::text, '') || ')') from kerai.nodes as n where n.id = scope)));
    end if;
end
$$;

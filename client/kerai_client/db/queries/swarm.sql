-- Tasks, swarms, and what their agents report.

-- name: create_task
select *
from kerai.create_task(
    %(description)s,
    %(success_command)s,
    %(scope)s,
    %(budget_ops)s::int,
    %(budget_seconds)s::int,
    %(budget_nkoi)s::bigint,
    %(sponsor)s
);

-- name: tasks
select
    id,
    status,
    description,
    success_command,
    budget_ops,
    budget_seconds,
    budget_nkoi,
    spent_nkoi,
    created_at
from kerai.tasks
where %(status)s::text is null or status = %(status)s
order by created_at desc;

-- name: task
select
    t.*,
    a.name as converged_by,
    c.converged_at,
    c.reward,
    c.shares
from kerai.tasks as t
left join kerai.convergences as c on c.task_id = t.id
left join kerai.agents as a on a.id = c.agent_id
where t.id = %(id)s;

-- name: one_launch_at_a_time
-- Of two launches with the same words the second one finds the first one's task.
select pg_advisory_xact_lock(hashtextextended('kerai task ' || %(words)s, 0));

-- name: open_tasks
select
    t.id,
    t.status,
    t.created_at,
    t.success_command,
    t.scope_node_id as scope,
    t.budget_seconds as timeout,
    t.budget_nkoi as budget,
    t.budget_ops,
    t.sponsor_wallet as sponsor
from kerai.tasks as t
where t.id = %(id)s or (t.description = %(words)s and t.status in ('pending', 'running'))
order by t.created_at desc;

-- name: find_task
select id, description as label from kerai.tasks
where id::text like %(prefix)s || '%%' or description = %(name)s
order by created_at desc;

-- name: find_swarm
select id, name as label from kerai.swarms
where id::text like %(prefix)s || '%%' or name = %(name)s
order by created_at desc;

-- name: find_agent
select id, name as label from kerai.agents
where id::text like %(prefix)s || '%%' or %(name)s in (name, author)
order by name;

-- name: launch_swarm
select * from kerai.launch_swarm(%(task)s, %(name)s, %(max_agents)s::int, %(grouped)s);

-- name: stop_swarm
select * from kerai.stop_swarm(%(swarm)s);

-- name: swarm
select
    s.id,
    s.name,
    s.status,
    s.task_id,
    s.grouped,
    t.status as task_status,
    t.description,
    t.success_command,
    t.scope_node_id,
    coalesce(t.spent_nkoi >= t.budget_nkoi, false) as is_spent
from kerai.swarms as s
inner join kerai.tasks as t on t.id = s.task_id
where s.id = %(swarm)s;

-- name: join_swarm
select * from kerai.join_swarm(%(swarm)s, %(agent)s);

-- name: record_test_result
select
    id,
    failing
from kerai.record_test_result(
    %(task)s,
    %(agent)s,
    %(vector)s,
    %(passed)s,
    %(output)s,
    %(duration_ms)s,
    %(compute_cost)s,
    failing => %(failing)s,
    pushed => %(pushed)s
);

-- name: record_refused_attempt
select id
from kerai.record_refused_attempt(
    %(task)s, %(agent)s, %(vector)s, %(output)s, %(duration_ms)s, %(compute_cost)s, failing => %(failing)s
);

-- name: record_failed_attempt
select
    kerai.record_failed_attempt(
        %(task)s, %(agent)s, %(base)s, %(ops)s, %(reason)s, %(output)s, failing => %(failing)s
    ) as id;

-- name: attempts_of
select count(*) as attempts from kerai.test_results
where task_id = %(task)s and agent_id = %(agent)s;

-- name: result_at
-- The latest results are enough: a state that was tested before those is not the current one.
select
    r.passed,
    r.output,
    r.created_at
from (
    select
        passed,
        output,
        version_vector,
        created_at
    from kerai.test_results
    where task_id = %(task)s and pushed
    order by created_at desc
    limit 200
) as r
where r.version_vector = %(vector)s and r.output is not null
order by r.created_at desc
limit 1;

-- name: agents
select
    a.name,
    a.kind,
    a.model,
    a.capabilities,
    a.hosted,
    w.balance,
    a.created_at,
    a.author,
    a.id
from kerai.agents as a
inner join kerai.wallets as w on w.id = a.wallet_id
order by a.created_at;

-- name: swarm_status
select * from kerai.swarm_status(%(swarm)s);

-- name: swarm_agents
select * from kerai.swarm_agents(%(swarm)s);

-- name: swarm_leaderboard
select * from kerai.swarm_leaderboard(%(task)s);

-- name: swarm_hotspots
select * from kerai.swarm_hotspots(%(since)s);

-- name: swarm_progress
select * from kerai.swarm_progress(%(task)s);

-- name: agent_trace
select * from kerai.agent_trace(%(agent)s);

-- name: swarm_economics
select * from kerai.swarm_economics(%(task)s);

-- name: supply
select * from kerai.supply();

-- name: file_names
select distinct name from kerai.tree()
where kind = 'file';

-- name: wallet_of_agent
select wallet_id from kerai.agents
where id = %(id)s;

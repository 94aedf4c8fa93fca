-- Views: what a swarm is doing and has done. All of it is computed from results, changesets and the ledger when
-- it is asked for, so that reporting and pushing keep no counters that many sessions would wait for. On a standby what
-- comes from results is NULL, see 040-swarms/reports.sql.

-- What each agent did for a task in a span of time: the agents that reported, pushed or were paid. The reported values
-- are NULL on a standby.
create or replace function kerai_private.task_work(task uuid, since timestamptz, until timestamptz)
returns table (
    agent_id uuid, attempts bigint, passes bigint, total_cost numeric, best_failing int, pushed bigint,
    operations bigint, rewards_nkoi bigint, last_seen_at timestamptz
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select a.id, coalesce(r.attempts, n.none), coalesce(r.passes, n.none), coalesce(r.total_cost, n.none), r.best_failing,
        coalesce(c.pushed, 0), coalesce(c.operations, 0)::bigint, coalesce(l.nkoi, 0)::bigint,
        greatest(r.last_at, c.last_at)
    from kerai_private.result_counts(task_work.task, task_work.since, task_work.until) as r
    full join (
        select g.id as agent_id, count(*) as pushed, sum(s.last_seq - s.first_seq + 1) as operations,
            max(s.received_at) as last_at
        from kerai.changesets as s
        inner join kerai.agents as g on g.author = coalesce(s.member, s.author)
        where s.task_id = task_work.task and s.received_at between task_work.since and task_work.until
        group by g.id
    ) as c on c.agent_id = r.agent_id
    full join (
        select g.id as agent_id, sum(e.amount) as nkoi
        from kerai.ledger as e
        inner join kerai.agents as g on g.wallet_id = e.to_wallet
        where e.task_id = task_work.task and e.kind = 'mint' and e.created_at >= task_work.since
        group by g.id
    ) as l on l.agent_id = coalesce(r.agent_id, c.agent_id)
    inner join kerai.agents as a on a.id = coalesce(r.agent_id, c.agent_id, l.agent_id)
    cross join (select case when kerai_private.has_reports() then 0 end as none) as n
$$;

create or replace function kerai.swarm_agents(swarm uuid)
returns table (
    agent_id uuid, agent text, kind text, model text, status text, attempts bigint, passes bigint, failures bigint,
    pushed bigint, operations bigint, failing_tests int, rewards_nkoi bigint, joined_at timestamptz,
    last_seen_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    asked constant kerai.swarms := kerai_private.require_swarm(swarm);
    until constant timestamptz := case when asked.status = 'stopped' then asked.stopped_at else 'infinity' end;
    awake_since constant timestamptz := clock_timestamp()
        - kerai_private.setting('member_idle_seconds') * interval '1 second';
begin
    return query
    select a.id, a.name, a.kind, a.model,
        case
            when asked.status <> 'running' then 'done'
            when s.last_seen_at >= awake_since then 'active'
            else 'idle'
        end,
        coalesce(w.attempts, n.none), coalesce(w.passes, n.none), coalesce(w.attempts - w.passes, n.none),
        coalesce(w.pushed, 0), coalesce(w.operations, 0),
        case when w.attempts > 0 then kerai_private.last_failing(asked.task_id, m.agent_id, asked.created_at, until) end,
        coalesce(w.rewards_nkoi, 0), m.joined_at, s.last_seen_at
    from kerai.swarm_members as m
    inner join kerai.agents as a on a.id = m.agent_id
    left join kerai_private.task_work(asked.task_id, asked.created_at, until) as w on w.agent_id = m.agent_id
    cross join lateral (select greatest(m.last_seen_at, w.last_seen_at) as last_seen_at) as s
    cross join (select case when kerai_private.has_reports() then 0 end as none) as n
    where m.swarm_id = swarm
    order by m.joined_at, a.name;
end
$$;

comment on function kerai.swarm_agents(uuid) is
'The members of a swarm and what each has done: results reported (attempts, passes, failures), changesets pushed and their operations, failing tests in its last result, money earned. The status is active (seen within member_idle_seconds), idle, or done when the swarm does not run. On a standby what comes from results is NULL.';

create or replace function kerai.swarm_status(swarm uuid default null)
returns table (
    swarm_id uuid, name text, task_id uuid, task text, status text, task_status text, agents bigint, active bigint,
    idle bigint, max_agents int, attempts bigint, passes bigint, failures bigint, operations bigint, failing_tests int,
    rewards_nkoi bigint, started_at timestamptz, stopped_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if swarm is not null then
        perform kerai_private.require_swarm(swarm);
    end if;
    return query
    select s.id, s.name, t.id, t.description, s.status, t.status, w.agents, w.active, w.agents - w.active, s.max_agents,
        w.attempts, w.passes, w.attempts - w.passes, w.operations, kerai_private.failing_now(t.id, s.created_at),
        w.rewards_nkoi, s.created_at, s.stopped_at
    from kerai.swarms as s
    inner join kerai.tasks as t on t.id = s.task_id
    cross join (select case when kerai_private.has_reports() then 0 end as none) as n
    cross join lateral (
        select count(*) as agents, count(*) filter (where a.status = 'active') as active,
            coalesce(sum(a.attempts), n.none)::bigint as attempts, coalesce(sum(a.passes), n.none)::bigint as passes,
            coalesce(sum(a.operations), 0)::bigint as operations,
            coalesce(sum(a.rewards_nkoi), 0)::bigint as rewards_nkoi
        from kerai.swarm_agents(s.id) as a
    ) as w
    where s.id = coalesce(swarm, s.id)
    order by s.created_at desc, s.name;
end
$$;

comment on function kerai.swarm_status(uuid) is
'One swarm, or all of them, newest first: its task, its members (active: seen within member_idle_seconds), what they reported and pushed. In failing_tests: the failing tests in the shared state as far as the newest reports know. On a standby what comes from results is NULL.';

create or replace function kerai.swarm_leaderboard(task uuid)
returns table (
    rank bigint, agent_id uuid, agent text, kind text, model text, attempts bigint, passes bigint, failures bigint,
    pass_rate numeric, pushed bigint, operations bigint, best_failing int, total_cost bigint, cost_per_pass bigint,
    rewards_nkoi bigint, last_seen_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.require_task(task);
    return query
    select row_number() over (order by w.rate desc nulls last, w.passes desc, w.rewards_nkoi desc,
            w.operations desc, a.name),
        a.id, a.name, a.kind, a.model, w.attempts, w.passes, w.attempts - w.passes, w.rate, w.pushed, w.operations,
        w.best_failing, case when w.total_cost is not null then least(w.total_cost, 9223372036854775807)::bigint end,
        div(least(w.total_cost, 9223372036854775807), nullif(w.passes, 0))::bigint, w.rewards_nkoi, w.last_seen_at
    from (
        select k.*, round(100.0 * k.passes / nullif(k.attempts, 0), 1) as rate
        from kerai_private.task_work(task, '-infinity', 'infinity') as k
    ) as w
    inner join kerai.agents as a on a.id = w.agent_id
    order by 1;
end
$$;

comment on function kerai.swarm_leaderboard(uuid) is
'Which agents produce passing changes: everyone who worked on the task, best pass_rate (percent) first, with costs and rewards in nKoi. cost_per_pass is NULL before the first pass. On a standby what comes from results is NULL.';

create or replace function kerai.swarm_economics(task uuid)
returns table (
    task_id uuid, description text, status text, budget_nkoi bigint, spent_nkoi bigint, spent_percent numeric,
    agents bigint, active bigint, idle bigint, attempts bigint, passes bigint, rewards_minted bigint,
    convergence_events bigint, cost_per_pass bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    job constant kerai.tasks := kerai_private.require_task(task);
    awake_since constant timestamptz := clock_timestamp()
        - kerai_private.setting('member_idle_seconds') * interval '1 second';
begin
    return query
    with work as materialized (
        select k.* from kerai_private.task_work(job.id, '-infinity', 'infinity') as k
    ),

    seen as (
        select u.agent_id, max(u.last_seen_at) >= awake_since and job.status in ('pending', 'running') as awake
        from (
            select m.agent_id, m.last_seen_at from kerai.swarm_members as m
            inner join kerai.swarms as s on s.id = m.swarm_id
            where s.task_id = job.id
            union all
            select w.agent_id, w.last_seen_at from work as w
        ) as u
        group by u.agent_id
    ),

    totals as (
        select coalesce(sum(w.attempts), n.none)::bigint as attempts, coalesce(sum(w.passes), n.none)::bigint as passes,
            least(sum(w.total_cost), 9223372036854775807) as cost
        from (select case when kerai_private.has_reports() then 0 end as none) as n
        left join work as w on true
        group by n.none
    )

    select job.id, job.description, job.status, job.budget_nkoi, job.spent_nkoi,
        round(100.0 * job.spent_nkoi / job.budget_nkoi, 1),
        (select count(*) from seen as s),
        (select count(*) from seen as s where s.awake),
        (select count(*) from seen as s where s.awake is not true),
        t.attempts, t.passes,
        coalesce((select sum(m.amount) from kerai.mints as m where m.task_id = job.id), 0)::bigint,
        (select count(*) from kerai.convergences as c where c.task_id = job.id),
        div(t.cost, nullif(t.passes, 0))::bigint
    from totals as t;
end
$$;

comment on function kerai.swarm_economics(uuid) is
'A task''s money, in nKoi: budget, what its agents reported as spent while it was open, and what was minted for it. Also what a passing result cost on average, late reports included. On a standby what comes from results is NULL.';

create or replace function kerai.agent_trace(agent uuid)
returns table (
    at timestamptz, event text, task_id uuid, reference text, operations bigint, failing int, duration_ms int,
    nkoi bigint, message text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    traced kerai.agents;
begin
    select a.* into traced from kerai.agents as a where a.id = agent;
    if traced.id is null then
        perform kerai_private.refuse('KR006', 'no such agent', format('agent: %s', coalesce(agent::text, 'null')),
            'SELECT id, name FROM kerai.agents; or register one with kerai.register_agent(name, kind).');
    end if;
    return query
    select e.*
    from (
        select m.joined_at, 'joined', s.task_id, s.id::text, null::bigint, null::int, null::int, null::bigint, s.name
        from kerai.swarm_members as m
        inner join kerai.swarms as s on s.id = m.swarm_id
        where m.agent_id = agent
        union all
        select c.received_at, 'pushed', c.task_id, encode(c.id, 'hex'), c.last_seq - c.first_seq + 1, null, null, null,
            c.message
        from kerai.changesets as c
        where c.author = traced.author or c.member = traced.author
        union all
        select r.* from kerai_private.reports_of(agent) as r
        union all
        select l.created_at, 'rewarded', l.task_id, l.id::text, null, null, null, l.amount, l.memo
        from kerai.ledger as l
        where l.to_wallet = traced.wallet_id
    ) as e (at, event, task_id, reference, operations, failing, duration_ms, nkoi, message)
    order by e.at, e.event;
end
$$;

comment on function kerai.agent_trace(uuid) is
'All that an agent did, in order. The event is joined (a swarm), pushed (a changeset), passed or failed (a test result), discarded (an attempt that was not pushed) or rewarded. The nkoi are a result''s cost or a reward''s amount. The reference is the id of that row. On a standby without passed, failed and discarded.';

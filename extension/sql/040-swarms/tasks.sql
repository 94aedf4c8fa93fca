-- Tasks and swarms: goals, who works on them, and whether a push belongs to one. Locks are taken in one order
-- everywhere: the task's row, a swarm's row, wallets by id. Pushes take none of them.

create or replace function kerai_private.require_task(task uuid) returns kerai.tasks
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_task kerai.tasks;
begin
    select t.* into found_task from kerai.tasks as t where t.id = task;
    if found_task.id is null then
        perform kerai_private.refuse('KR006', 'no such task', format('task: %s', coalesce(task::text, 'null')),
            'SELECT id, description, status FROM kerai.tasks; or make one with kerai.create_task.');
    end if;
    return found_task;
end
$$;

create or replace function kerai_private.require_swarm(swarm uuid) returns kerai.swarms
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_swarm kerai.swarms;
begin
    select s.* into found_swarm from kerai.swarms as s where s.id = swarm;
    if found_swarm.id is null then
        perform kerai_private.refuse('KR006', 'no such swarm', format('swarm: %s', coalesce(swarm::text, 'null')),
            'SELECT id, name, status FROM kerai.swarms; or launch one with kerai.launch_swarm.');
    end if;
    return found_swarm;
end
$$;

-- Refuses KR011 or KR008 when the agent may no longer work on the task. A task that succeeded is the caller's to judge.
create or replace function kerai_private.require_open(task kerai.tasks, agent kerai.agents) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    member_of record;
    since timestamptz := coalesce(task.started_at, task.created_at);
begin
    if task.status = 'failed' then
        perform kerai_private.refuse('KR011', 'the task has failed',
            format('task %s was given up at %s', task.id, kerai_private.utc(task.finished_at)),
            'Stop working on it; ask the sponsor for a new task.');
    end if;

    select s.id, s.name, s.status, s.stopped_at into member_of
    from kerai.swarms as s
    inner join kerai.swarm_members as m on m.swarm_id = s.id
    where s.task_id = task.id and m.agent_id = agent.id
    order by s.status = 'running' desc, s.stopped_at desc
    limit 1;
    -- A converged swarm means that the task has succeeded since it was read.
    if member_of.status = 'stopped' then
        perform kerai_private.refuse('KR011', 'the swarm that this agent belongs to does not run',
            format('agent %s, swarm %s (%s): %s at %s', agent.name, member_of.name, member_of.id, member_of.status,
                kerai_private.utc(member_of.stopped_at)),
            'Stop working on it, or join a swarm of the task that runs.');
    end if;

    if clock_timestamp() > since + task.budget_seconds * interval '1 second' then
        perform kerai_private.refuse('KR008', 'the task''s time is used up',
            format('task %s: %s seconds, counted from %s', task.id, task.budget_seconds, kerai_private.utc(since)),
            'Stop working on it; ask the sponsor for a new task with a larger budget_seconds.');
    end if;
end
$$;

create or replace function kerai.create_task(
    description text,
    success_command text,
    scope uuid default null,
    budget_ops int default null,
    budget_seconds int default null,
    budget_nkoi bigint default null,
    sponsor_wallet uuid default null
) returns kerai.tasks
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    longest constant bigint := kerai_private.setting('max_output_bytes');
    hidden_by uuid;
    new_task kerai.tasks;
begin
    if description is null or description !~ '[^[:space:]]' or success_command is null or success_command !~ '[^[:space:]]' then
        perform kerai_private.refuse('KR005', 'a task needs a description and a success command',
            format('description: %s, success_command: %s', coalesce(quote_literal(left(description, 80)), 'null'),
                coalesce(quote_literal(left(success_command, 80)), 'null')),
            'For example kerai.create_task(''make all tests in pkg/auth pass'', ''pytest pkg/auth'').');
    end if;
    if octet_length(description) > longest or octet_length(success_command) > longest then
        perform kerai_private.refuse('KR005', 'the description or the success command is too long',
            format('%s and %s bytes, at most %s are taken', octet_length(description), octet_length(success_command),
                longest),
            'Put long instructions into a file of the codebase and name it.');
    end if;
    if least(budget_ops, budget_seconds, budget_nkoi) < 1 then
        perform kerai_private.refuse('KR005', 'a budget is at least 1',
            concat_ws(', ', 'budget_ops: ' || budget_ops, 'budget_seconds: ' || budget_seconds,
                'budget_nkoi: ' || budget_nkoi),
            'Leave a budget out, or NULL, for no limit.');
    end if;

    if scope is not null then
        perform kerai_private.require_node(scope);
        with recursive climb as (
            select n.id, n.parent_id, n.deleted from kerai.nodes as n where n.id = scope
            union
            select n.id, n.parent_id, n.deleted from climb as c inner join kerai.nodes as n on n.id = c.parent_id
        )

        select c.id into hidden_by from climb as c where c.deleted limit 1;
        if found then
            perform kerai_private.refuse('KR011', 'the scope is deleted',
                format('scope: %s, deleted with node %s', scope, hidden_by),
                'Take a visible node as the scope (kerai.tree() lists them), or restore it with node_restore.');
        end if;
    end if;
    if sponsor_wallet is not null then
        perform kerai.balance(sponsor_wallet);
    end if;

    insert into kerai.tasks as t
        (description, success_command, scope_node_id, budget_ops, budget_seconds, budget_nkoi, sponsor_wallet)
    values (description, success_command, scope, budget_ops, budget_seconds, budget_nkoi, sponsor_wallet)
    returning t.* into new_task;
    return new_task;
end
$$;

comment on function kerai.create_task(text, text, uuid, int, int, bigint, uuid) is
'Makes a task, pending until a swarm is launched. The scope is the node below which agents may change things (NULL: everywhere). Budgets: budget_ops, operations an agent may push; budget_seconds, wall clock since the first launch; budget_nkoi, sum of the reported compute costs. NULL is no limit.';

create or replace function kerai.launch_swarm(
    task uuid, name text default null, max_agents int default 100, grouped boolean default false
) returns kerai.swarms
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    job kerai.tasks := kerai_private.require_task(task);
    -- A draft names the swarm, and so the instance whose key signs for the writer: see kerai_private.check_changeset.
    new_id constant uuid := case when grouped then left(replace(gen_random_uuid()::text, '-', ''), 16)
        || left(encode(sha256(kerai_private.instance_public_key()), 'hex'), 16) else gen_random_uuid()::text end;
    new_swarm kerai.swarms;
    -- Names need not be unique, author ids must be.
    writer_name constant text := format('%s-%s', left(coalesce(name, 'swarm'), 180), left(new_id::text, 8));
    writer_author text;
begin
    if grouped is null then
        perform kerai_private.refuse('KR005', 'a swarm groups its members or does not', 'grouped: null',
            'Pass true or false, or leave it out.');
    end if;
    if max_agents is null or max_agents < 1 then
        perform kerai_private.refuse('KR005', 'a swarm takes at least one agent',
            format('max_agents: %s', coalesce(max_agents::text, 'null')), 'Pass 1 or more.');
    end if;
    if name !~ '^[^[:cntrl:]]{1,200}$' or name ~ '^[[:space:]]|[[:space:]]$' then
        perform kerai_private.refuse('KR005', 'a swarm''s name is 1 to 200 printable characters',
            format('name: %s', quote_literal(left(name, 200))), 'Use a name such as swarm-1, or none.');
    end if;

    -- Written and not only locked: a transaction that does not see it fails when it stops another swarm.
    update kerai.tasks as t set status = t.status where t.id = task returning t.* into job;
    if job.status in ('succeeded', 'failed') then
        perform kerai_private.refuse('KR011', 'the task is finished',
            format('task %s: %s at %s', task, job.status, kerai_private.utc(job.finished_at)), 'Make a new task with kerai.create_task.');
    end if;

    insert into kerai.swarms as s (id, name, task_id, max_agents, grouped)
    values (new_id, coalesce(name, 'swarm-' || left(new_id::text, 8)), task, max_agents, grouped)
    returning s.* into new_swarm;
    if grouped then
        writer_author := kerai_private.author_id(writer_name, kerai_private.instance_public_key());
        perform kerai_private.introduce_author(writer_author, kerai_private.instance_public_key());
        insert into kerai_private.writers (swarm_id, author) values (new_id, writer_author);
    end if;
    update kerai.tasks as t
    set status = 'running', started_at = coalesce(t.started_at, new_swarm.created_at)
    where t.id = task and (t.status <> 'running' or t.started_at is null);
    return new_swarm;
end
$$;

comment on function kerai.launch_swarm(uuid, text, int, boolean) is
'Opens a swarm of at most max_agents for a task and sets the task running. Agents are outside processes: each joins with kerai.join_swarm. If grouped, members push drafts that are merged under the swarm''s author id. So version vectors have an entry a swarm and not one an agent.';

create or replace function kerai.join_swarm(swarm uuid, agent uuid) returns kerai.swarm_members
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    joining kerai.agents := kerai_private.require_agent(agent);
    joined kerai.swarms := kerai_private.require_swarm(swarm);
    members bigint;
    membership kerai.swarm_members;
begin
    if joined.status = 'running' then
        update kerai.swarm_members as m set last_seen_at = clock_timestamp()
        where m.swarm_id = swarm and m.agent_id = joining.id
        returning m.* into membership;
        if membership.agent_id is not null then
            return membership;
        end if;
        -- One joins at a time, so that the count holds. Written and not only locked: a transaction that does not see
        -- the other's row fails here.
        update kerai.swarms as s set max_agents = s.max_agents where s.id = swarm returning s.* into joined;
    end if;
    if joined.status <> 'running' then
        perform kerai_private.refuse('KR011', 'the swarm does not run',
            format('swarm %s (%s): %s at %s', joined.name, joined.id, joined.status,
                kerai_private.utc(joined.stopped_at)),
            'Join another swarm, or launch one with kerai.launch_swarm.');
    end if;

    select count(*) into members from kerai.swarm_members as m where m.swarm_id = swarm and m.agent_id <> joining.id;
    if members >= joined.max_agents then
        perform kerai_private.refuse('KR011', 'the swarm is full',
            format('swarm %s (%s): %s of %s agents', joined.name, joined.id, members, joined.max_agents),
            'Join another swarm, or launch a larger one with kerai.launch_swarm.');
    end if;
    insert into kerai.swarm_members as m (swarm_id, agent_id) values (swarm, joining.id)
    on conflict (swarm_id, agent_id) do update set last_seen_at = clock_timestamp()
    returning m.* into membership;
    return membership;
end
$$;

comment on function kerai.join_swarm(uuid, uuid) is
'Makes your agent a member of a running swarm. Calling it again is a sign of life and changes nothing else.';

create or replace function kerai.stop_swarm(swarm uuid) returns kerai.swarms
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    stopped kerai.swarms := kerai_private.require_swarm(swarm);
    job kerai.tasks;
begin
    update kerai.tasks as t set status = t.status where t.id = stopped.task_id returning t.* into job;
    update kerai.swarms as s set status = 'stopped', stopped_at = clock_timestamp()
    where s.id = swarm and s.status = 'running'
    returning s.* into stopped;
    if not found then
        stopped := kerai_private.require_swarm(swarm);
        perform kerai_private.refuse('KR011', 'the swarm does not run',
            format('swarm %s (%s): %s at %s', stopped.name, stopped.id, stopped.status,
                kerai_private.utc(stopped.stopped_at)),
            'There is nothing left to stop.');
    end if;

    -- Without a swarm the task waits for the next one, unless it has nothing left to spend.
    if job.status = 'running'
        and not exists (select from kerai.swarms as s where s.task_id = job.id and s.status = 'running') then
        update kerai.tasks as t
        set (status, finished_at) = (
            select case when spent.up then 'failed' else 'pending' end,
                case when spent.up then clock_timestamp() end
            from (
                select coalesce(t.spent_nkoi >= t.budget_nkoi, false)
                    or coalesce(clock_timestamp() > t.started_at + t.budget_seconds * interval '1 second', false) as up
            ) as spent)
        where t.id = job.id;
    end if;
    return stopped;
end
$$;

comment on function kerai.stop_swarm(uuid) is
'Stops a running swarm: its agents'' pushes and reports for the task are refused from now on. The task returns to pending when no other swarm of it runs, or to failed when its time or money is used up.';

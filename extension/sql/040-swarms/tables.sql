-- Swarm: goals, the swarms that work on them, what the tests said, and what a payment rests on.

create table kerai.tasks (
    id uuid primary key default gen_random_uuid(),
    description text not null,
    success_command text not null,
    scope_node_id uuid,
    budget_ops int check (budget_ops > 0),
    budget_seconds int check (budget_seconds > 0),
    budget_nkoi bigint check (budget_nkoi > 0),
    sponsor_wallet uuid,
    status text not null default 'pending' check (status in ('pending', 'running', 'succeeded', 'failed')),
    spent_nkoi bigint not null default 0 check (spent_nkoi >= 0),
    created_by text not null default session_user,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz
) with (fillfactor = 50);

comment on table kerai.tasks is 'Goals: a description, the command that must succeed, the subtree to work in, and budgets (NULL: no limit).';
comment on column kerai.tasks.status is 'pending: nobody works on it; running: a swarm does; succeeded: the success command passed on the shared state; failed: stopped with its time or money used up.';
comment on column kerai.tasks.spent_nkoi is 'The compute_cost of all results that were reported while the task was open. Costs are told, not proved.';

create table kerai.swarms (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    task_id uuid not null,
    max_agents int not null check (max_agents > 0),
    grouped boolean not null default false,
    status text not null default 'running' check (status in ('running', 'stopped', 'converged')),
    created_at timestamptz not null default now(),
    stopped_at timestamptz
) with (fillfactor = 70);

create index swarms_task on kerai.swarms (task_id, created_at);
create index swarms_created on kerai.swarms (created_at);

comment on column kerai.swarms.grouped is 'Members write under the swarm''s author id, else each under its own.';

comment on table kerai.swarms is 'The agents launched against one task. Names need not be unique; ids are.';

-- Results say when a member was last at work, so that reporting writes no row here.
create table kerai.swarm_members (
    swarm_id uuid not null,
    agent_id uuid not null,
    joined_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    primary key (swarm_id, agent_id)
) with (fillfactor = 70);

create index swarm_members_agent on kerai.swarm_members (agent_id);

comment on table kerai.swarm_members is 'Which agents belong to which swarm. Joining again is a sign of life and sets last_seen_at.';

-- What is kept for a time only stands in a ring of partitions, each for one period, so that a week of reports goes by
-- TRUNCATE. All partitions are here from the start: those made at run time would not belong to the extension, and a
-- data-only restore would not find them. Periods begin at midnight UTC, whatever the session's time zone and datestyle.
create unlogged table kerai.test_results (
    id uuid not null default gen_random_uuid(),
    task_id uuid not null,
    agent_id uuid not null,
    version_vector jsonb not null,
    passed boolean not null,
    output text,
    duration_ms int check (duration_ms >= 0),
    compute_cost bigint not null default 0 check (compute_cost >= 0),
    created_at timestamptz not null default clock_timestamp(),
    failing int check (failing >= 0),
    pushed boolean not null default true,
    check (pushed or not passed)
) partition by list ((floor(extract(epoch from created_at at time zone 'UTC') / 604800)::int % 16));

-- Vectors and outputs are read one at a time: out of line when they are long, so that scans stay short.
alter table kerai.test_results alter column output set compression lz4, alter column version_vector set compression lz4;

create index test_results_task on kerai.test_results (task_id, created_at) include (passed, failing, pushed);
create index test_results_passed on kerai.test_results (created_at) where passed;
create index test_results_agent on kerai.test_results (agent_id, created_at);
create index test_results_task_agent on kerai.test_results (task_id, agent_id, created_at)
include (passed, failing, pushed, compute_cost);
create index test_results_created on kerai.test_results using brin (created_at);

do $$
begin
    for place in 0 .. 15 loop
        execute format('create unlogged table kerai.test_results_p%s partition of kerai.test_results for values in (%1$s) '
            'with (autovacuum_vacuum_insert_scale_factor = 0.02, toast_tuple_target = 256)', place);
        execute format('alter table kerai.test_results_p%s add primary key (id)', place);
        perform pg_extension_config_dump(format('kerai.test_results_p%s', place)::regclass, '');
    end loop;
end
$$;

comment on table kerai.test_results is 'What agents reported: one run of a task''s success command at a version vector. Unlogged: a crash of the server empties it; kept for test_results_ttl_seconds (kerai.settings) by kerai.maintain(); what a payment rests on is kept in kerai.convergences.';
comment on column kerai.test_results.failing is 'How many tests failed: 0 when the command passed, NULL when that is not known. The agent counts them, or the server in output when the result is recorded.';
comment on column kerai.test_results.pushed is 'Whether the state at version_vector was tested. False: an attempt that was not pushed was, and it started from that state.';
comment on column kerai.test_results.compute_cost is 'nKoi that the agent says this attempt has cost.';

create table kerai.convergences (
    task_id uuid primary key,
    agent_id uuid not null,
    test_result_id uuid not null,
    version_vector jsonb not null,
    result_digest bytea not null check (octet_length(result_digest) = 32),
    output_tail text,
    reward bigint not null check (reward >= 0),
    shares jsonb not null,
    converged_at timestamptz not null default clock_timestamp()
);

comment on table kerai.convergences is 'The first time that a task''s success command passed on the shared state, with all that the reward rests on.';
comment on column kerai.convergences.agent_id is 'The agent that reported the passing run.';
comment on column kerai.convergences.result_digest is 'sha256 of the test result as one line of JSON (kerai_private.result_digest), while test_results itself may be lost.';
comment on column kerai.convergences.shares is 'How the reward was split: [{"agent": uuid, "name": text, "operations": surviving operations, "nkoi": amount}].';

create unlogged table kerai.failed_operations (
    id uuid not null default gen_random_uuid(),
    -- Not ALWAYS: pg_dump --inserts --load-via-partition-root gives the value without OVERRIDING.
    arrival bigint not null generated by default as identity,
    task_id uuid not null,
    agent_id uuid not null,
    base jsonb not null,
    operations json not null,
    reason text not null,
    failing int,
    output_tail text,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
) partition by list ((floor(extract(epoch from created_at at time zone 'UTC') / 86400)::int % 16));

alter table kerai.failed_operations alter column operations set compression lz4;

create index failed_operations_task on kerai.failed_operations (task_id, created_at);
create index failed_operations_agent on kerai.failed_operations (agent_id, created_at);
create index failed_operations_expires on kerai.failed_operations (expires_at);

do $$
begin
    for place in 0 .. 15 loop
        execute format('create unlogged table kerai.failed_operations_p%s partition of kerai.failed_operations '
            'for values in (%1$s)', place);
        execute format('alter table kerai.failed_operations_p%s add primary key (id), add unique (arrival)', place);
        perform pg_extension_config_dump(format('kerai.failed_operations_p%s', place)::regclass, '');
    end loop;
end
$$;

comment on table kerai.failed_operations is 'Attempts that were not pushed, kept for study until expires_at. Unlogged, and bounded by max_failed_operations in kerai.settings.';

insert into kerai_private.default_settings (name, value, description) values
('max_failed_operations', 10000, 'most failed attempts kept; the oldest go first'),
('test_results_ttl_seconds', 7776000, 'how long a test result is kept');

select pg_extension_config_dump('kerai.tasks', '');
select pg_extension_config_dump('kerai.swarms', '');
select pg_extension_config_dump('kerai.swarm_members', '');
select pg_extension_config_dump('kerai.convergences', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.failed_operations', 'arrival')::regclass, '');

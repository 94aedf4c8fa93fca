-- 040 swarm: goals, the swarms that work on them, what the tests said, and what a payment rests on.

-- scope_node_id has no foreign key: it would lock the node's row, and pushes wait for nothing of a task's.
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
    task_id uuid not null references kerai.tasks (id),
    max_agents int not null check (max_agents > 0),
    lanes int check (lanes between 1 and 64),
    status text not null default 'running' check (status in ('running', 'stopped', 'converged')),
    created_at timestamptz not null default now(),
    stopped_at timestamptz
) with (fillfactor = 70);

create index swarms_task on kerai.swarms (task_id, created_at);
create index swarms_created on kerai.swarms (created_at);

comment on column kerai.swarms.lanes is 'NULL: every member writes under its own author id. Else members write under the swarm''s, in so many sequences.';

-- The author ids of swarms that group their members. Their key is the instance's.
create table kerai_private.lanes (
    swarm_id uuid not null references kerai.swarms (id),
    lane int not null check (lane > 0),
    author text collate "C" not null unique references kerai_private.authors (author),
    primary key (swarm_id, lane)
);

comment on table kerai.swarms is 'The agents launched against one task. Names need not be unique; ids are.';

-- Results say when a member was last at work, so that reporting writes no row here.
create table kerai.swarm_members (
    swarm_id uuid not null references kerai.swarms (id),
    agent_id uuid not null references kerai.agents (id),
    joined_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    primary key (swarm_id, agent_id)
) with (fillfactor = 70);

create index swarm_members_agent on kerai.swarm_members (agent_id);

comment on table kerai.swarm_members is 'Which agents belong to which swarm. Joining again is a sign of life and sets last_seen_at.';

-- What is kept for a time only is partitioned by it, so that a month of reports goes by dropping a table. Reports that
-- come before somebody called kerai.maintain() stand in the DEFAULT partition, which is the pattern for the others too:
-- it has the indexes, the parents have none. A dump could not be restored with those: partitions made at run time do
-- not belong to the extension and are dumped with indexes of their own, which the parents' would have made already.

-- No foreign keys: each report would leave a lock on the task's row, and a thousand agents at once would make
-- multixacts of it. record_test_result, the only way in, looks both up.
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
    failing int check (failing >= 0)
) partition by range (created_at);

-- Vectors and outputs are read one at a time: out of line when they are long, so that scans stay short.
alter table kerai.test_results alter column output set compression lz4, alter column version_vector set compression lz4;

create unlogged table kerai.test_results_default partition of kerai.test_results default
with (autovacuum_vacuum_insert_scale_factor = 0.02, toast_tuple_target = 256);

alter table kerai.test_results_default add primary key (id);
create index test_results_default_task on kerai.test_results_default (task_id, created_at)
include (passed, failing);
create index test_results_default_passed on kerai.test_results_default (created_at) where passed;
create index test_results_default_agent on kerai.test_results_default (agent_id, created_at);
create index test_results_default_task_agent on kerai.test_results_default (task_id, agent_id, created_at)
include (passed, failing, compute_cost);

comment on table kerai.test_results is 'What agents reported: one run of a task''s success command at a version vector. Unlogged: a crash of the server empties it; kept for test_results_ttl_seconds (kerai.settings) by kerai.maintain(); what a payment rests on is kept in kerai.convergences.';
comment on column kerai.test_results.failing is 'Failing tests as the runner counted them in output: 0 when the command passed, NULL when the count is not known.';
comment on column kerai.test_results.compute_cost is 'nKoi that the agent says this attempt has cost.';

create table kerai.convergences (
    task_id uuid primary key references kerai.tasks (id),
    agent_id uuid not null references kerai.agents (id),
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
    arrival bigint not null generated always as identity,
    task_id uuid not null,
    agent_id uuid not null,
    base jsonb not null,
    operations json not null,
    reason text not null,
    failing int,
    output_tail text,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
) partition by range (created_at);

alter table kerai.failed_operations alter column operations set compression lz4;

create unlogged table kerai.failed_operations_default partition of kerai.failed_operations default;

alter table kerai.failed_operations_default add primary key (id), add unique (arrival);
create index failed_operations_default_task on kerai.failed_operations_default (task_id, created_at);
create index failed_operations_default_agent on kerai.failed_operations_default (agent_id, created_at);
create index failed_operations_default_expires on kerai.failed_operations_default (expires_at);

comment on table kerai.failed_operations is 'Attempts that were not pushed, kept for study until expires_at. Unlogged, and bounded by max_failed_operations in kerai.settings.';

insert into kerai.settings (name, value, description) values
('max_failed_operations', 10000, 'most failed attempts kept; the oldest go first'),
('test_results_ttl_seconds', 7776000, 'how long a test result is kept');

-- Budgets and rewards count the operations of a task by author without reading the changesets themselves.
create index changesets_task_author on kerai.changesets (task_id, coalesce(member, author))
include (first_seq, last_seq, received_at) where task_id is not null;

select pg_extension_config_dump('kerai.tasks', '');
select pg_extension_config_dump('kerai.swarms', '');
select pg_extension_config_dump('kerai_private.lanes', '');
select pg_extension_config_dump('kerai.swarm_members', '');
select pg_extension_config_dump('kerai.test_results_default', '');
select pg_extension_config_dump('kerai.convergences', '');
select pg_extension_config_dump('kerai.failed_operations_default', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.failed_operations', 'arrival')::regclass, '');

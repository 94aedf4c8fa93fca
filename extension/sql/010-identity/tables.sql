-- Identity: what may be refused and why, limits, the instance's key, authors, agents.
--
-- No table has a foreign key: a restore may fill the tables in any order. The constraints of an extension's tables are
-- not in a dump, so pg_restore could not add them afterwards. The functions that write look up what they name, and
-- kerai.verify() checks each of kerai_private.named_rows().

create table kerai.errors (
    code text primary key check (code ~ '^KR[0-9]{3}$'),
    condition text not null unique,
    meaning text not null,
    hint text not null
);

comment on table kerai.errors is 'Every SQLSTATE that kerai raises, with what it means and what to do when a call gives no better hint.';

insert into kerai.errors (code, condition, meaning, hint) values
('KR001', 'bad_signature', 'a signature does not verify, or is missing where one is needed',
    'Sign kerai-changeset-v1, a newline and the exact UTF-8 text that is sent, with the key of the author.'),
('KR002', 'identity_clash', 'a name is taken with another key, or an author id does not match the key',
    'Use another name, or the key that the name was registered with.'),
('KR003', 'fork', 'the same author and sequence, or prev, with different content',
    'One author, one process: the evidence is in kerai.forks. Register a new agent to go on.'),
('KR004', 'dependency_missing', 'the base is not covered here, or the author''s sequence has a gap',
    'Push what is missing first, then push this again.'),
('KR005', 'malformed', 'bad shape, unknown operation, wrong type, out of range or too large',
    'Correct the document and push it again.'),
('KR006', 'not_found', 'no such node, agent, task, swarm or wallet',
    'Look the id up first; ids are not reused.'),
('KR007', 'out_of_scope', 'outside the scope of the task',
    'Change only what lies below the task''s scope.'),
('KR008', 'budget_exhausted', 'a budget of operations, seconds or nKoi is used up',
    'Ask the sponsor for a task with a larger budget.'),
('KR009', 'rate_limited', 'rate limited, or the circuit is open',
    'Wait, then try again.'),
('KR010', 'insufficient_funds', 'the wallet holds less than the amount',
    'Fund the wallet, or spend less.'),
('KR011', 'wrong_state', 'the wrong state for this call',
    'Look at the current state, then decide again.'),
('KR012', 'replayed', 'a nonce, nullifier or idempotency key was used before with other content',
    'Use a fresh one.'),
('KR013', 'not_permitted', 'not permitted for this role or agent',
    'Call as the role that owns the agent, or ask an operator.');

-- What a restore has made already by CREATE EXTENSION must not come again with the dumped rows. So defaults, constants
-- of the version, stand in tables that no dump has, and what an operator has changed in others. Users see one view of
-- both.
create table kerai_private.default_settings (
    name text primary key,
    value bigint not null,
    description text not null
);

create table kerai_private.changed_settings (
    name text primary key,
    value bigint not null check (value between 1 and 1000000000)
);

insert into kerai_private.default_settings (name, value, description) values
('max_changeset_bytes', 8388608, 'largest changeset document, in bytes of UTF-8'),
('max_changeset_ops', 50000, 'most operations in one changeset'),
('max_changeset_moves', 10000, 'most node_move operations in one changeset: nobody else pushes while they are merged'),
('max_metadata_keys', 10000, 'most metadata keys that one node has or had, or that one operation writes'),
('max_metadata_bytes', 1048576, 'largest metadata of one node or operation, in bytes of UTF-8'),
('max_nesting', 32, 'deepest nesting of a metadata value'),
('max_author_submissions', 200, 'most changesets of one author that may wait to be merged'),
('max_author_submission_bytes', 16777216, 'most bytes of changesets of one author that may wait to be merged'),
('max_role_submissions', 5000, 'most changesets that one role may have waiting to be merged'),
('max_role_submission_bytes', 268435456, 'most bytes of changesets that one role may have waiting to be merged'),
('max_lock_wait_ms', 30000, 'longest wait of a call for other pushes, in milliseconds; then it is refused (KR009)'),
('max_output_bytes', 1048576, 'largest test output that record_test_result takes, in bytes'),
('failed_operations_ttl_seconds', 604800, 'how long a failed attempt is kept for study'),
('member_idle_seconds', 120, 'a member that reported nothing for this long counts as idle');

-- The key itself is a 0600 file in the data directory; its name is the key's fingerprint.
create table kerai_private.instance (
    singleton boolean primary key default true check (singleton),
    public_key bytea not null check (octet_length(public_key) = 32),
    created_at timestamptz not null default now()
);

-- One row an author; `seq` is the author's entry in the version vector. A push locks its author's row.
create table kerai_private.authors (
    author text collate "C" primary key,
    public_key bytea not null check (octet_length(public_key) = 32),
    seq bigint not null default 0 check (seq >= 0),
    lamport bigint not null default 0 check (lamport >= 0),
    changeset_id bytea,
    introduced_at timestamptz not null default now()
) with (fillfactor = 70);

-- The author ids of swarms that group their members. Their key is the instance's.
create table kerai_private.writers (
    swarm_id uuid primary key,
    author text collate "C" not null unique
);

create table kerai.agents (
    id uuid primary key default gen_random_uuid(),
    name text not null unique,
    author text collate "C" not null unique,
    kind text not null check (kind in ('human', 'llm', 'tool', 'swarm')),
    model text,
    public_key bytea not null,
    hosted boolean not null,
    owner uuid not null,
    owner_role text not null,
    capabilities text[] not null default '{}',
    config jsonb not null default '{}',
    wallet_id uuid not null,
    created_at timestamptz not null default now()
);

create index agents_owner on kerai.agents (owner, created_at) where hosted;

comment on table kerai.agents is 'Worker identities. A hosted agent is bound to its owner''s role and the instance signs for it; any other signs with its own key.';
comment on column kerai.agents.owner_role is 'What the owner''s role was called when it got the agent. kerai.give_agent changes who owns it.';

-- The roles that own agents. A dump cannot name a role by its oid, and a regrole would fail to restore where the role
-- is missing. So true names are dumped, and oids are not.
create table kerai_private.owners (
    id uuid primary key default gen_random_uuid(),
    name text not null
);

create index owners_name on kerai_private.owners (name);

create table kerai_private.owner_roles (
    owner uuid primary key,
    role oid not null
);

create index owner_roles_role on kerai_private.owner_roles (role);

create function kerai_private.find_owner_role() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into kerai_private.owner_roles (owner, role)
    select new.id, p.oid from pg_roles as p where p.rolname = new.name;
    return new;
end
$$;

create trigger find_owner_role after insert on kerai_private.owners
for each row execute function kerai_private.find_owner_role();

select pg_extension_config_dump('kerai_private.changed_settings', '');
select pg_extension_config_dump('kerai_private.instance', '');
select pg_extension_config_dump('kerai_private.authors', '');
select pg_extension_config_dump('kerai_private.writers', '');
select pg_extension_config_dump('kerai.agents', '');
-- A name that a rename has made untrue would give the agents to another role.
select pg_extension_config_dump('kerai_private.owners', 'where not exists (select from kerai_private.owner_roles as r
where r.owner = id and not exists (select from pg_catalog.pg_roles as p where p.oid = r.role and p.rolname = name))');

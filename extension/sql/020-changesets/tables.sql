-- 020 changesets and merge: the signed truth, the log, and the merged state that folds from it.
--
-- A stamp is one text that sorts bytewise in the order of the fold: 16 hex digits of the Lamport
-- timestamp, a colon, the author. An author's Lamport timestamps only grow, so (lamport, author)
-- names one operation and the sequence number is not needed to break ties.

create table kerai.changesets (
    id bytea primary key,
    author text collate "C" not null,
    first_seq bigint not null,
    last_seq bigint not null,
    first_lamport bigint not null,
    last_lamport bigint not null,
    prev bytea,
    base jsonb not null,
    guard uuid,
    task_id uuid,
    message text,
    document json not null,
    signature bytea not null,
    arrival bigint not null generated always as identity unique,
    received_at timestamptz not null default now(),
    member text collate "C",
    member_signature bytea,
    draft_id bytea,
    unique (author, first_seq)
);

-- Source text compresses well and lz4 costs a tenth of pglz.
alter table kerai.changesets alter column document set compression lz4;
create index changesets_received on kerai.changesets using brin (received_at);
create index changesets_draft on kerai.changesets (draft_id) where draft_id is not null;
create index changesets_member on kerai.changesets (member, arrival) where member is not null;

comment on table kerai.changesets is 'The truth: every changeset as it was signed, byte for byte, in the order of arrival.';
comment on column kerai.changesets.member is 'Who wrote it, when its author is a swarm that groups its members.';
comment on column kerai.changesets.member_signature is 'The member''s own signature, over the draft inside the document.';
comment on column kerai.changesets.draft_id is 'SHA-256 of that draft''s text: a draft is merged once.';

create table kerai.operations (
    author text collate "C" not null,
    author_seq bigint not null,
    lamport_ts bigint not null,
    op_type text not null,
    node_id uuid not null,
    payload jsonb not null,
    changeset_id bytea not null,
    created_at timestamptz not null default now(),
    primary key (author, author_seq)
) partition by hash (author);

create index operations_node on kerai.operations (node_id);

comment on table kerai.operations is 'The log: one row an operation, as it was pushed. All of it stands in kerai.changesets too.';

do $$
begin
    for remainder in 0 .. 15 loop
        execute format(
            'create table kerai.operations_p%s partition of kerai.operations for values with (modulus 16, remainder %s)',
            remainder, remainder);
        perform pg_extension_config_dump(format('kerai.operations_p%s', remainder)::regclass, '');
    end loop;
end
$$;

-- ltree lives in a schema of the installer's choice; under a pinned search_path this domain stands for it.
do $$
begin
    execute format('create domain kerai_private.path as %I.ltree', (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'ltree'));
end
$$;

-- A register's stamp is NULL while it still holds what the insert gave it: then created_stamp counts. Where the insert
-- had put a node is kept in created_parent_id and created_position once it is moved.
-- What moves and pushes look up comes first: a row is taken apart from the left.
create table kerai.nodes (
    id uuid primary key,
    parent_id uuid,
    created_parent_id uuid,
    created_seq bigint not null,
    deleted boolean not null default false,
    created_stamp text collate "C" not null,
    placed_stamp text collate "C",
    path kerai_private.path not null,
    name text,
    position text collate "C" not null,
    kind text not null,
    language text,
    content text,
    metadata jsonb not null default '{}',
    kind_stamp text collate "C",
    name_stamp text collate "C",
    language_stamp text collate "C",
    content_stamp text collate "C",
    metadata_stamps jsonb,
    deleted_stamp text collate "C",
    created_position text collate "C"
) with (fillfactor = 90);

-- The column is ltree itself: users need not know the domain.
do $$
begin
    execute format('alter table kerai.nodes alter column path type %s', (
        select format_type(t.typbasetype, null) from pg_type as t where t.oid = 'kerai_private.path'::regtype));
end
$$;

create index nodes_parent on kerai.nodes (parent_id, position);
-- What has no name has the path of what it is in.
create index nodes_path on kerai.nodes using gist (path) where name is not null;

comment on table kerai.nodes is 'The merged tree: directories, files, classes, functions, statements. Tombstoned nodes stay; kerai.tree() shows what is visible.';
comment on column kerai.nodes.path is 'Names of the named ancestors and the node itself, other characters replaced by _; an unnamed node has its nearest named ancestor''s.';
comment on column kerai.nodes.deleted is 'Its own tombstone. A node below a tombstoned one is not visible either.';

create table kerai.edges (
    source uuid not null,
    target uuid not null,
    relation text not null,
    metadata jsonb not null default '{}',
    deleted boolean not null,
    stamp text collate "C" not null,
    primary key (source, target, relation)
);

create index edges_target on kerai.edges (target);

comment on table kerai.edges is 'Relations between nodes (calls, imports, tests ...), tombstoned when deleted.';

create table kerai.perspectives (
    author text collate "C" not null,
    node_id uuid not null,
    context_id uuid,
    weight double precision,
    reasoning text,
    deleted boolean not null,
    stamp text collate "C" not null,
    unique nulls not distinct (node_id, author, context_id)
);

comment on table kerai.perspectives is 'Each author''s weighted view (-1 ... 1) of a node, in a context or in none.';

create table kerai.associations (
    author text collate "C" not null,
    source uuid not null,
    target uuid not null,
    relation text not null,
    weight double precision,
    reasoning text,
    deleted boolean not null,
    stamp text collate "C" not null,
    primary key (source, target, relation, author)
);

create index associations_target on kerai.associations (target);

comment on table kerai.associations is 'Each author''s weighted relation between two nodes.';

-- Every move that was ever pushed, void ones too: a late one may change which of them count.
create table kerai_private.moves (
    stamp text collate "C" primary key,
    node_id uuid not null,
    parent_id uuid,
    position text collate "C" not null,
    void boolean not null default false
);

create index moves_node on kerai_private.moves (node_id, stamp);
-- A few nodes may have most of the moves: all the same a node's moves are looked up by the node.
alter table kerai_private.moves alter column node_id set (n_distinct = -0.5);
create index moves_void on kerai_private.moves (stamp) where void;

-- Empty: only its lock is used. Pushes that leave the shape of the tree alone share it, a push that
-- moves, renames or is guarded has it alone. A table and not an advisory lock, since anyone can take those.
create table kerai_private.merge_gate ();

-- One row. Whoever makes nodes stand elsewhere gives the shape of the tree a new name, so that a session knows whether
-- what it has looked up before still holds.
create table kerai_private.shapes (shape uuid not null);
insert into kerai_private.shapes values (gen_random_uuid());

create table kerai.forks (
    id bigint primary key generated always as identity,
    author text collate "C" not null,
    seq bigint not null,
    public_key bytea not null,
    first_id bytea not null,
    first_changeset json not null,
    first_signature bytea not null,
    second_id bytea not null,
    second_changeset json not null,
    second_signature bytea not null,
    detected_at timestamptz not null default now(),
    merged_elsewhere boolean not null default false,
    unique (first_id, second_id)
);

comment on table kerai.forks is 'Evidence: two changesets of one author that cannot both be in one history, each with its signature.';
comment on column kerai.forks.merged_elsewhere is 'Another instance has merged the second one: the author is frozen, nothing new of it is merged. False: it was refused here.';

-- A changeset whose text was looked at and whose signature was verified. A draft of a grouped swarm's member has no
-- author, sequence and document until it gets its envelope.
create type kerai_private.checked as (
    id bytea,
    author text collate "C",
    first_seq bigint,
    last_seq bigint,
    first_lamport bigint,
    last_lamport bigint,
    prev bytea,
    base jsonb,
    guard uuid,
    task uuid,
    message text,
    ops jsonb,
    document json,
    signature bytea,
    public_key bytea,
    swarm uuid,
    member text collate "C",
    member_signature bytea,
    member_key bytea,
    draft_id bytea
);

-- One operation, unpacked: the c-th changeset of a batch has it, and n is its place in the order of the fold among all
-- operations of the batch. Views are the writer's own: the member's where the author is a swarm.
create type kerai_private.operation as (
    n int,
    c int,
    seq bigint,
    op text,
    node uuid,
    parent uuid,
    position text collate "C",
    kind text,
    name text,
    language text,
    content text,
    metadata jsonb,
    set jsonb,
    source uuid,
    target uuid,
    relation text,
    context uuid,
    weight double precision,
    reasoning text,
    stamp text collate "C",
    writer text collate "C",
    payload jsonb
);

-- Nodes that a changeset names and no later move has placed, and the parents below which they stand, their own for
-- roots: ids of 16 bytes, one after the other. What was looked up to check the changeset need not be again to merge it.
-- And whether all nodes that it names have one path: then those without a name keep it below whichever of them it moves
-- them.
create type kerai_private.standing as (
    nodes bytea,
    parents bytea,
    is_one_path boolean
);

create type kerai.push_result as (
    changeset_id bytea,
    status text,
    applied int,
    first_seq bigint,
    last_seq bigint
);

-- A changeset as it comes from elsewhere, and what became of it: a push_result, or the refusal.
create type kerai_private.incoming as (
    document json,
    signature bytea,
    public_key bytea
);

create type kerai_private.outcome as (
    n int,
    changeset_id bytea,
    status text,
    applied int,
    first_seq bigint,
    last_seq bigint,
    code text,
    message text,
    detail text,
    hint text
);

-- What was submitted and waits to be settled, and what became of it. A crash empties both: whoever holds a ticket
-- submits again, and what had been merged is a duplicate.
create unlogged sequence kerai_private.arrivals;

create unlogged table kerai_private.submissions (
    -- In order of arrival, and not to be guessed.
    ticket uuid primary key,
    author text collate "C" not null,
    document json not null,
    -- Verified when it was submitted, with this key.
    signature bytea not null,
    public_key bytea not null,
    bytes int not null,
    submitted_by oid not null,
    submitted_at timestamptz not null default now(),
    -- Only its own ticket's session merges it: it is large, or failed.
    apart boolean not null,
    -- The error that it raised when it was merged by itself.
    failure kerai_private.outcome
) with (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index submissions_author on kerai_private.submissions (author, ticket);
create index submissions_apart on kerai_private.submissions (submitted_at) where apart;

alter table kerai_private.submissions alter column document set compression lz4;

create unlogged table kerai_private.settled (
    ticket uuid primary key,
    outcome kerai_private.outcome not null,
    settled_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index settled_at on kerai_private.settled (settled_at);

-- What waits is settled in turns, on each of two sides between which the authors are divided, so that two may merge at
-- the same time. A sequence has the number of the turn that runs, or ran last, and the lock of one of three rows, by
-- that number, is the right to a turn. Whoever has one takes the next too for a while, or whoever comes first; all others
-- wait for it, since it will merge what is theirs.
create unlogged sequence kerai_private.turns_0 maxvalue 2000000000 cycle;
create unlogged sequence kerai_private.turns_1 maxvalue 2000000000 cycle;
create table kerai_private.turn_locks (side int not null, place int not null, primary key (side, place));
insert into kerai_private.turn_locks
select s.side, t.place from generate_series(0, 1) as s (side) cross join generate_series(0, 2) as t (place);

select pg_extension_config_dump('kerai.changesets', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.changesets', 'arrival')::regclass, '');
select pg_extension_config_dump('kerai.nodes', '');
select pg_extension_config_dump('kerai.edges', '');
select pg_extension_config_dump('kerai.perspectives', '');
select pg_extension_config_dump('kerai.associations', '');
select pg_extension_config_dump('kerai_private.moves', '');
select pg_extension_config_dump('kerai.forks', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.forks', 'id')::regclass, '');

-- Changesets: the signed truth, and the log of their operations.
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
    document json,
    signature bytea not null,
    arrival bigint not null generated always as identity unique,
    received_at timestamptz not null default now(),
    member text collate "C",
    member_signature bytea,
    draft_id bytea,
    unique (author, first_seq)
);

-- A changeset whose document was dropped is a stub. Its place in the author's chain, its base and its signature stay.
-- So the chain can still be checked, and a holder of the document can check that too. Source text compresses well and
-- lz4 costs a tenth of pglz.
alter table kerai.changesets alter column document set compression lz4;
create index changesets_received on kerai.changesets using brin (received_at);
create index changesets_draft on kerai.changesets (draft_id) where draft_id is not null;
create index changesets_member on kerai.changesets (member, arrival) where member is not null;
create index changesets_stubs on kerai.changesets (author, last_seq) where document is null;
-- Budgets and rewards count the operations of a task by author without reading the changesets themselves.
create index changesets_task_author on kerai.changesets (task_id, coalesce(member, author))
include (first_seq, last_seq, received_at) where task_id is not null;

comment on table kerai.changesets is 'The truth: every changeset as it was signed, byte for byte, in the order of arrival.';
comment on column kerai.changesets.document is 'The exact text that was signed; NULL after kerai.compact().';
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

create table kerai.compactions (
    id bigint primary key generated always as identity,
    compacted_at timestamptz not null default now(),
    compacted_by text not null default session_user,
    before timestamptz not null,
    horizon jsonb not null,
    floor text collate "C" not null,
    changesets bigint not null,
    operations_dropped bigint not null,
    operations_kept bigint not null,
    bytes_dropped bigint not null,
    kept_digest bytea not null check (octet_length(kept_digest) = 32)
);

comment on table kerai.compactions is 'Each kerai.compact(): what it dropped. What the vector horizon names can be read as one state only, and no push may be based on less.';
comment on column kerai.compactions.floor is 'Operations with a stamp below this one have been folded: only those that still determine a register are here.';
comment on column kerai.compactions.kept_digest is 'sha256 over the operations below the floor, by which kerai.verify() knows that they are as they were left.';

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

create index forks_author on kerai.forks (author);

comment on table kerai.forks is 'Evidence: two changesets of one author that cannot both be in one history, each with its signature.';
comment on column kerai.forks.merged_elsewhere is 'Another instance has merged the second one: the author is frozen, nothing new of it is merged. False: it was refused here.';

-- A changeset as it comes from elsewhere.
create type kerai_private.incoming as (
    document json,
    signature bytea,
    public_key bytea
);

-- A changeset whose text was looked at and whose signature was verified. A draft of a grouped swarm's member has no
-- author, sequence and document until it gets its envelope.
create type kerai_private.verified_changeset as (
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

select pg_extension_config_dump('kerai.changesets', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.changesets', 'arrival')::regclass, '');
select pg_extension_config_dump('kerai.compactions', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.compactions', 'id')::regclass, '');
select pg_extension_config_dump('kerai.forks', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.forks', 'id')::regclass, '');

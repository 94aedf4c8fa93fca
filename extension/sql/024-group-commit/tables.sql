-- Group commit: what was submitted, and what became of it.

-- The submissions that wait to be merged, and their outcomes. A crash empties both: the holder of a ticket submits
-- again, and a merged changeset is then a duplicate.
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

create unlogged table kerai_private.push_outcomes (
    ticket uuid primary key,
    outcome kerai_private.outcome not null,
    decided_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index decided_at on kerai_private.push_outcomes (decided_at);

insert into kerai_private.default_settings (name, value, description) values
('max_batch_submissions', 200, 'most submissions of other authors that a leader merges in one batch');

-- The number of the batch that runs, or ran last: see group-commit.sql. The lock of one of three rows, by that number, is
-- the right to lead a batch.
create unlogged sequence kerai_private.batches maxvalue 2000000000 cycle;
create table kerai_private.batch_locks (place int primary key);
insert into kerai_private.batch_locks select p.place from generate_series(0, 2) as p (place);

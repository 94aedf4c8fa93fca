-- Group commit: what was submitted, and what became of it.

-- The submissions that wait to be settled, and their outcomes. A crash empties both: the holder of a ticket submits
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

create unlogged table kerai_private.settled (
    ticket uuid primary key,
    outcome kerai_private.outcome not null,
    settled_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index settled_at on kerai_private.settled (settled_at);

-- What waits is settled in turns, on each of two sides between which the authors are divided, so that two may merge at
-- the same time. A sequence has the number of the turn that runs, or ran last, and the lock of one of three rows, by
-- that number, is the right to a turn. The session that has one takes the next too for a while, else the first to come
-- does. All others wait for it, since it will merge what is theirs.
create unlogged sequence kerai_private.turns_0 maxvalue 2000000000 cycle;
create unlogged sequence kerai_private.turns_1 maxvalue 2000000000 cycle;
create table kerai_private.turn_locks (side int not null, place int not null, primary key (side, place));
insert into kerai_private.turn_locks
select s.side, t.place from generate_series(0, 1) as s (side) cross join generate_series(0, 2) as t (place);

-- 020 compaction: what was dropped of the history, when, and up to where.

-- A changeset whose document was dropped is a stub: its place in the author's chain, its base and its signature stay,
-- so that the chain can still be checked, and the document too by whoever has it.
alter table kerai.changesets alter column document drop not null;

comment on column kerai.changesets.document is 'The exact text that was signed; NULL after kerai.compact().';

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

select pg_extension_config_dump('kerai.compactions', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.compactions', 'id')::regclass, '');

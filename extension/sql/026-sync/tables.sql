-- Peers: other instances, how to reach them, and what is known of them.

-- An operator adds a peer by INSERT of the first two columns; added_by cannot be given, so that it says truly under
-- whose rights a connection was written down. Whether that was a superuser is noted at once: his name may be another's
-- later.
create table kerai.peer_connections (
    name text collate "C" primary key,
    connection text not null,
    added_by name not null default current_user,
    added_by_superuser boolean not null,
    added_at timestamptz not null default now(),
    acknowledged jsonb not null default '{}',
    agreed jsonb not null default '{}',
    skipped jsonb not null default '{}',
    schedule text,
    last_contact timestamptz,
    last_problem text,
    problem_at timestamptz
) with (fillfactor = 50);

comment on table kerai.peer_connections is 'How the other instances are reached. A connection may hold a password, so only operators read this; everybody else reads kerai.peers.';
comment on column kerai.peer_connections.connection is 'A libpq connection string, or the name of a foreign server of dblink_fdw with a user mapping.';
comment on column kerai.peer_connections.acknowledged is 'The version vector that the peer reported at the last contact.';
comment on column kerai.peer_connections.agreed is 'Up to where the two instances were found to hold the same changesets of each author.';
comment on column kerai.peer_connections.skipped is 'The changesets refused since the last pull that came to its end: not asked for again before the next one.';

-- What one side has and the other does not take. It comes again with every sync, until it is merged.
create table kerai.refusals (
    peer text collate "C" not null,
    direction text not null check (direction in ('pull', 'push')),
    changeset_id bytea not null,
    author text,
    last_seq bigint,
    code text not null,
    message text not null,
    detail text,
    hint text,
    times int not null default 1,
    first_at timestamptz not null default clock_timestamp(),
    last_at timestamptz not null default clock_timestamp(),
    primary key (peer, direction, changeset_id)
);

comment on table kerai.refusals is 'Changesets that a sync could not bring over, with the reason: pull, refused here; push, refused by the peer. A row goes when the changeset is merged after all; at most 1,000 are kept a peer.';

insert into kerai_private.default_settings (name, value, description) values
('max_page_bytes', 16777216, 'most bytes of changesets in one page of a sync, but for a page of one changeset'),
('sync_page_ops', 20000, 'most operations in one page of a sync, but for a page of one changeset'),
('max_fork_ops', 1000000, 'how many unknown operations of a frozen author a base may name');

create type kerai.sync_result as (
    peer text,
    pulled_changesets int,
    pulled_operations bigint,
    pushed_changesets int,
    pushed_operations bigint,
    bytes bigint,
    refused int,
    forks int,
    complete boolean,
    problem text
);

select pg_extension_config_dump('kerai.peer_connections', '');
select pg_extension_config_dump('kerai.refusals', '');

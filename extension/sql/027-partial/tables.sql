-- Scopes: an instance that holds one subtree of a peer's tree, and the peers that serve such instances.

-- Changesets that are here and have operations on late nodes.
create table kerai_private.late_changesets (changeset_id bytea primary key);

-- What a peer that serves scopes remembers of them. It all follows from the log, so a crash may empty it and no dump
-- has it: then the list gets another id, and is told anew.
create unlogged table kerai_private.served_scopes (
    scope uuid primary key,
    id uuid not null unique default gen_random_uuid(),
    seen jsonb,
    last_number bigint not null default 0,
    asked_at timestamptz not null default now()
);

create unlogged table kerai_private.served_nodes (
    scope uuid not null,
    node_id uuid not null,
    inside boolean not null,
    number bigint not null,
    primary key (scope, node_id)
);

create index served_nodes_number on kerai_private.served_nodes (scope, number);

-- Where the inserts of nodes that were inserted more than once have put them: kerai.nodes knows one of them only.
create unlogged table kerai_private.repeated_inserts (
    node_id uuid not null,
    parent_id uuid,
    unique nulls not distinct (node_id, parent_id)
);

create index repeated_inserts_parent on kerai_private.repeated_inserts (parent_id);

create unlogged table kerai_private.repeats_noted (
    singleton boolean primary key default true check (singleton),
    seen jsonb not null
);

insert into kerai_private.default_settings (name, value, description) values
('max_served_scopes', 1000, 'how many scopes of partial instances are remembered; of others the list is made anew');

select pg_extension_config_dump('kerai_private.late_changesets', '');

-- 020 scopes: an instance that holds one subtree of a peer's tree, and the peers that serve such instances.

-- One row where this instance is partial. served: the peer's own list of the scope's nodes, numbered as they came into
-- it; named: up to where it has been told here; whole: up to where all that the peer has of these nodes is here.
create table kerai_private.partial_scope (
    singleton boolean primary key default true check (singleton),
    scope uuid not null,
    peer text collate "C",
    served uuid,
    named bigint not null default 0,
    whole bigint not null default 0,
    -- Where the next page of what is late begins, in the peer's order of arrival.
    late_after bigint not null default 0
);

-- The nodes whose operations are merged here. inside: it was once placed below the scope. here: it was made here, and
-- the peer has not named it yet; late: the peer has named it, and what older changesets say of it is on its way.
create table kerai_private.scope_nodes (
    node_id uuid primary key,
    inside boolean not null,
    state text not null check (state in ('here', 'late', 'whole'))
);

create index scope_nodes_state on kerai_private.scope_nodes (state) where state <> 'whole';

-- Changesets that are here and have operations on late nodes.
create table kerai_private.late_changesets (changeset_id bytea primary key);

create index changesets_stubs on kerai.changesets (author, last_seq) where document is null;

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

select pg_extension_config_dump('kerai_private.partial_scope', '');
select pg_extension_config_dump('kerai_private.scope_nodes', '');
select pg_extension_config_dump('kerai_private.late_changesets', '');

-- Scopes: an instance that holds one subtree of a peer's tree, and the peers that serve such instances.

-- What an exchange knows so far. Each of its steps gets it, and returns what it knows then.
create type kerai_sync.conversation as (
    link text,
    step text,
    max_ops int,
    page_ops int,
    scope uuid,
    served uuid,
    pushed boolean,
    pulled boolean,
    theirs jsonb,
    agreed jsonb,
    skipped jsonb,
    not_pulled text [],
    "position" jsonb,
    stubs bigint,
    refused jsonb,
    result kerai.sync_result,
    problem text
);

comment on type kerai_sync.conversation is 'What kerai.sync knows of the peer and of what it has done, from step to step.';
comment on column kerai_sync.conversation.link is 'The name of the dblink connection.';
comment on column kerai_sync.conversation.step is 'What follows; end when nothing does.';
comment on column kerai_sync.conversation.page_ops is 'The operations of a page. Halved when one side''s pages are larger than the other takes at once.';
comment on column kerai_sync.conversation.scope is 'What this instance holds, where that is not everything.';
comment on column kerai_sync.conversation.served is 'The peer''s list of the nodes of the scope.';
comment on column kerai_sync.conversation.pushed is 'Whether nothing is left to push; pulled likewise.';
comment on column kerai_sync.conversation.theirs is 'The vector that the peer has acknowledged.';
comment on column kerai_sync.conversation.not_pulled is 'Authors of whom nothing is pulled, since they have forked.';
comment on column kerai_sync.conversation.position is 'The vector after which the next page begins.';
comment on column kerai_sync.conversation.stubs is 'How many changesets of a scope came. They count as one operation each, besides their own.';
comment on column kerai_sync.conversation.problem is 'What has ended it early.';

-- Changesets that are here and have operations on nodes that are backfilling.
create table kerai_private.backfilled_changesets (changeset_id bytea primary key);

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

select pg_extension_config_dump('kerai_private.backfilled_changesets', '');

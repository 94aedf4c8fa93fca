-- Merge: the state that folds from the log, and what is needed to keep it so.

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
create index nodes_deleted on kerai.nodes (id) where deleted;

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

create index perspectives_author on kerai.perspectives (author) where not deleted;

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
create index associations_author on kerai.associations (author) where not deleted;

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

-- Empty: only its lock is used. Pushes that leave the shape of the tree as it is share it, a push that
-- moves, renames or is guarded has it for itself. A table and not an advisory lock, since anyone can take those.
create table kerai_private.tree_lock ();

-- One row, which a change of the state without a changeset writes: see kerai_private.is_overtaken.
create table kerai_private.state_changes (singleton boolean primary key default true check (singleton));
insert into kerai_private.state_changes default values;

-- A frozen author's branch may still be followed up to here: as far as a peer with the same branch had merged it.
create table kerai_private.followed_branches (
    author text collate "C" primary key,
    last_seq bigint not null
);

-- One row where this instance is partial. served: the peer's own list of the scope's nodes, numbered as they came into
-- it. named: up to where it has been told here. complete: up to where all that the peer has of these nodes is here.
create table kerai_private.partial_scope (
    singleton boolean primary key default true check (singleton),
    scope uuid not null,
    peer text collate "C",
    served uuid,
    named bigint not null default 0,
    complete bigint not null default 0,
    -- Where the next page of the backfill begins, in the peer's order of arrival.
    backfilled_to bigint not null default 0
);

-- The nodes whose operations are merged here. inside: it was once placed below the scope. local: it was made here, and
-- the peer has not named it yet. backfilling: the peer has named it, and older changesets about it are on their way.
create table kerai_private.scope_nodes (
    node_id uuid primary key,
    inside boolean not null,
    state text not null check (state in ('local', 'backfilling', 'complete'))
);

create index scope_nodes_state on kerai_private.scope_nodes (state) where state <> 'complete';

create type kerai.push_result as (
    changeset_id bytea,
    status text,
    applied int,
    first_seq bigint,
    last_seq bigint
);

-- What became of a changeset: a push_result, or the refusal.
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

select pg_extension_config_dump('kerai.nodes', '');
select pg_extension_config_dump('kerai.edges', '');
select pg_extension_config_dump('kerai.perspectives', '');
select pg_extension_config_dump('kerai.associations', '');
select pg_extension_config_dump('kerai_private.moves', '');
select pg_extension_config_dump('kerai_private.followed_branches', '');
select pg_extension_config_dump('kerai_private.partial_scope', '');
select pg_extension_config_dump('kerai_private.scope_nodes', '');

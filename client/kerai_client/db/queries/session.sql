-- Reading states, and pushing changes.

-- name: pin_settings
-- What the client relies on. A pooler gives another process id than the server's process has. Behind it, only settings
-- that it hands on itself may be set: others would stay with a connection that other clients use next. The schema of
-- ltree comes last in the search path, where it hides nothing.
select pg_catalog.set_config(s.name, s.value, false)
from (
    values
    ('DateStyle', 'ISO', true),
    ('standard_conforming_strings', 'on', true),
    ('IntervalStyle', 'postgres', false),
    ('array_nulls', 'on', false),
    ('bytea_output', 'hex', false),
    ('extra_float_digits', '1', false),
    ('default_transaction_isolation', 'read committed', false),
    ('default_transaction_deferrable', 'off', false),
    (
        'search_path', (
            select pg_catalog.concat_ws(
                ', ', nullif(pg_catalog.current_setting('search_path'), ''), pg_catalog.quote_ident(n.nspname)
            )
            from pg_catalog.pg_extension as e
            inner join pg_catalog.pg_namespace as n on e.extnamespace operator (pg_catalog.=) n.oid
            where
                e.extname operator (pg_catalog.=) 'ltree'
                and not pg_catalog.current_schemas(true) operator (pg_catalog.@>) array[n.nspname]
        ), false
    )
) as s (name, value, pooled)
where
    s.value is not null
    and (s.pooled or pg_catalog.pg_backend_pid() operator (pg_catalog.=) %(pid)s::pg_catalog.int4);

-- name: begin_snapshot
set transaction isolation level repeatable read, read only;

-- name: version_vector
select kerai.version_vector() as vector;

-- name: tree
select
    id,
    parent_id,
    position,
    depth,
    kind,
    name,
    language,
    content,
    path::text as path,
    metadata
from kerai.tree(null, %(at)s);

-- name: register_agent
select * from kerai.register_agent(%(name)s, %(kind)s, %(public_key)s, %(model)s, %(capabilities)s);

-- name: instance_key
select kerai.instance_key() as key;

-- name: agent_by_name
select * from kerai.agents
where name = %(name)s;

-- name: pushes_under_way
select
    exists(
        select from pg_stat_activity
        where application_name = %(name)s and pid <> pg_backend_pid() and state = 'active'
            and datname = current_database()
    ) as busy;

-- name: next_changeset
select
    seq,
    lamport,
    prev
from kerai.next_changeset(%(author)s, %(base)s);

-- name: push_batched
-- application_name tells an agent's next process that this one is still under way.
call kerai.push_batched(%(document)s, %(signature)s, %(public_key)s, %(name)s);

-- name: withdraw
select kerai.withdraw(%(agent)s);

-- name: name_this_push
select set_config('application_name', %(name)s, true);

-- name: push_ops
select
    encode(changeset_id, 'hex') as changeset_id,
    status
from kerai.push_ops(%(document)s, %(signature)s, %(public_key)s);

-- name: has_changeset
select id from kerai.changesets
where id = %(changeset)s;

-- name: changeset_operations
-- In the order in which they are named.
select c.document -> 'ops' as ops
from unnest(cast(%(changesets)s as bytea[])) with ordinality as w (id, number)
inner join kerai.changesets as c on c.id = w.id
order by w.number;

-- name: work_of_others
-- Who else has worked on these nodes, and on how many of them.
select
    author,
    count(distinct node_id) as nodes
from kerai.operations
where node_id = any(cast(%(nodes)s as uuid[])) and author <> %(author)s
group by author
order by count(distinct node_id) desc, author;

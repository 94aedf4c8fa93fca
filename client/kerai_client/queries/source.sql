-- The log, and nodes by their place.

-- name: log
with recursive below (id) as (
    select %(node)s::uuid
    union
    select n.id from below as b
    inner join kerai.nodes as n on n.parent_id = b.id
)

select
    c.received_at as received,
    c.author,
    c.last_seq - c.first_seq + 1 as operations,
    c.message,
    encode(c.id, 'hex') as changeset,
    c.first_seq,
    c.last_seq,
    c.task_id as task
from kerai.changesets as c
where
    (%(author)s::text is null or %(author)s in (c.author, regexp_replace(c.author, '\.[0-9a-f]{16}$', '')))
    and (
        %(node)s::uuid is null
        or exists (
            select from kerai.operations as o
            inner join below as b on b.id = o.node_id
            where o.author = c.author and o.author_seq between c.first_seq and c.last_seq
        )
    )
order by c.arrival desc
limit %(limit)s::bigint;

-- name: node_at_path
with recursive walk (id, depth) as (
    select
        n.id,
        0
    from kerai.nodes as n
    where n.parent_id is null and n.kind = 'directory' and n.name is null and not n.deleted
    union all
    select
        n.id,
        w.depth + 1
    from walk as w
    inner join kerai.nodes as n
        on n.parent_id = w.id and n.name = (cast(%(parts)s as text[]))[w.depth + 1]
    where n.kind in ('directory', 'file') and not n.deleted
)

select id from walk
where depth = cardinality(cast(%(parts)s as text[]))
limit 1;

-- name: node_by_id
select id from kerai.nodes
where id = %(id)s;

-- name: nodes_by_labels
-- A node without a name has the path of its nearest named ancestor.
select
    n.id,
    n.kind
from kerai.nodes as n
where n.path = %(path)s and n.name is not null and not n.deleted
order by n.id
limit 5;

-- Nodes by their place.

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

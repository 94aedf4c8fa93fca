-- name: verify
select what, subject, problem from kerai.verify(%(deep)s);

-- name: rebuild
select changesets, operations, nodes, digest, changed from kerai.rebuild();

-- name: compact
select
    c.id, c.compacted_at, c.before, c.horizon, c.changesets, c.operations_dropped, c.operations_kept, c.bytes_dropped
from kerai.compact(pg_catalog.now() - %(seconds)s * interval '1 second') as c;

-- name: maintain
select action, relation, row_count from kerai.maintain();

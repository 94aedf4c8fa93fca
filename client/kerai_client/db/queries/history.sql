-- The changes, and how to undo them.

-- name: log
select
    arrival,
    received_at as received,
    author_id as author,
    operations,
    files,
    paths,
    message,
    encode(changeset_id, 'hex') as changeset,
    first_seq,
    last_seq,
    task_id as task
from kerai.log(%(scope)s, %(author)s, cast(%(limit)s as int), %(before)s);

-- name: diff
select
    d.node_id as node,
    d.changes,
    d.kind,
    d.file_id as file,
    d.path,
    d.before,
    d.after
from kerai.diff(coalesce(%(old)s::jsonb, kerai.version_vector()), %(new)s::jsonb, %(scope)s) as d;

-- name: diff_files
select
    d.file_id as file,
    d.old_path,
    d.new_path,
    d.old_source,
    d.new_source,
    d.old_metadata,
    d.new_metadata
from kerai.diff_files(coalesce(%(old)s::jsonb, kerai.version_vector()), %(new)s::jsonb, %(scope)s) as d;

-- name: latest_changeset
select encode(id, 'hex') as changeset from kerai.changesets
order by arrival desc
limit 1;

-- name: changesets_like
select id from kerai.changesets
where id between decode(rpad(%(prefix)s, 64, '0'), 'hex') and decode(rpad(%(prefix)s, 64, 'f'), 'hex')
limit 2;

-- name: changeset_vectors
select
    v.before,
    v.after
from kerai.changeset_vectors(%(changeset)s) as v;

-- name: revert_ops
select
    kerai.revert_ops(%(changeset)s, %(author)s) as ops,
    kerai.version_vector() as vector;

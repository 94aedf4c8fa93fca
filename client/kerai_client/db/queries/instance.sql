-- name: database_exists
select 1 as found
from pg_catalog.pg_database
where datname = %(name)s;

-- name: extension_versions
select installed_version, default_version
from pg_catalog.pg_available_extensions
where name = 'kerai';

-- name: database_status
select
    pg_catalog.current_setting('server_version') as server_version,
    (select extversion from pg_catalog.pg_extension where extname = 'kerai') as extension_version,
    pg_catalog.pg_postmaster_start_time() as started_at,
    pg_catalog.pg_database_size(pg_catalog.current_database()) as size;

-- name: counts
select
    (select pg_catalog.count(*) from kerai.changesets) as changesets,
    (select pg_catalog.count(*) from kerai.nodes) as nodes;

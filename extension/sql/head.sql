-- Who may hold kerai's objects, before any is made.

do $$
declare
    taken text;
begin
    if current_setting('server_encoding') <> 'UTF8' then
        raise exception using
            errcode = 'KR011',
            message = 'kerai needs a database in the encoding UTF8',
            detail = format('This database is in %s.', current_setting('server_encoding')),
            hint = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0, then CREATE EXTENSION kerai CASCADE there.';
    end if;

    -- CREATE SCHEMA IF NOT EXISTS would adopt a schema whose owner could then replace our functions.
    select string_agg(format('%I (owner %I)', n.nspname, pg_get_userbyid(n.nspowner)), ', ')
    into taken
    from pg_namespace as n
    where n.nspname in ('kerai', 'kerai_sync', 'kerai_private');

    if taken is not null then
        raise exception using
            errcode = 'KR011',
            message = 'kerai makes its own schemas and does not take over existing ones',
            detail = format('Already here: %s.', taken),
            hint = 'Look at what they hold, then DROP or rename them, and CREATE EXTENSION kerai CASCADE again.';
    end if;
end
$$;

create schema kerai;
create schema kerai_sync;
create schema kerai_private;

comment on schema kerai is E'kerai: a codebase as a replicated tree, and the swarm that works on it. Start with \\df+ kerai.*';
comment on schema kerai_sync is 'What the instances'' own conversation calls: No promises: kerai.pull, kerai.push and kerai.sync are the way in.';
comment on schema kerai_private is 'kerai''s internals: no promises, no grants.';

-- Roles belong to the cluster, so another database may have made them already.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['kerai_reader', 'kerai_agent', 'kerai_peer', 'kerai_operator'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I nologin', wanted);
        end if;
    end loop;
    grant kerai_reader to kerai_agent;
    grant kerai_reader to kerai_peer;
    grant kerai_agent, kerai_peer to kerai_operator;
end
$$;

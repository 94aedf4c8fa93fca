-- Schedule: syncs that pg_cron runs, where the server has it.

-- The job is made with the caller's own rights and runs with them: pg_cron notes who has asked for it.
create or replace function kerai.schedule_sync(peer text, schedule text) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    job bigint;
begin
    perform kerai_sync.note_schedule(peer, schedule);
    execute 'select cron.schedule($1, $2, $3)' into job
    using 'kerai sync ' || peer, schedule, format('select kerai.sync(%L, 100000)', peer);
    return job;
end
$$;

comment on function kerai.schedule_sync(text, text) is
'Lets pg_cron run kerai.sync with a peer, by a cron expression such as ''*/5 * * * *'', as the calling role; returns the job''s id. Calling it again changes the schedule. Without pg_cron in this database: KR011; run kerai sync from the system''s own cron then.';

create or replace function kerai.unschedule_sync(peer text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    gone boolean;
begin
    perform kerai_sync.note_schedule(peer, null);
    execute 'select cron.unschedule($1)' into gone using 'kerai sync ' || peer;
    return gone;
end
$$;

comment on function kerai.unschedule_sync(text) is
'Ends what kerai.schedule_sync began. Call it as the role that scheduled the sync.';

create or replace function kerai_sync.note_schedule(peer text, schedule text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    before text;
begin
    -- A schema of that name that somebody else has made would run his code with the rights of whoever schedules.
    if not exists (
        select from pg_namespace as n
        inner join pg_roles as r on r.oid = n.nspowner
        where n.nspname = 'cron' and r.rolsuper
    ) then
        perform kerai_private.refuse('KR011', 'pg_cron is not in this database',
            format('database: %s', current_database()),
            'CREATE EXTENSION pg_cron here (Debian: postgresql-15-cron, and cron.database_name), or let the system''s cron '
            || 'run kerai sync.');
    end if;
    update kerai.peer_connections as p set schedule = note_schedule.schedule
    from kerai.peer_connections as o
    where p.name = peer and o.name = p.name
    returning coalesce(o.schedule, '') into before;
    if before is null then
        perform kerai_private.refuse('KR006', 'no such peer', format('peer: %s', coalesce(peer, 'null')),
            'SELECT name FROM kerai.peers; or add it with kerai.add_peer(name, connection).');
    end if;
    if schedule is null and before = '' then
        perform kerai_private.refuse('KR011', 'no sync with this peer is scheduled', format('peer: %s', peer),
            'SELECT name, schedule FROM kerai.peers;');
    end if;
end
$$;

comment on function kerai_sync.note_schedule(text, text) is
'A part of kerai.schedule_sync: checks that pg_cron is here and the peer is known, and notes the schedule.';

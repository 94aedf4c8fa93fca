-- Ephemera: what is kept for a time only, in a ring of 16 partitions that are emptied when all in them has expired.
--
-- Nothing here waits for a lock. A session that waits for a strong one blocks all that come after it, may be in a
-- deadlock with them, and makes the workers of a parallel pg_dump fail.

-- What is partitioned by time, how many seconds one partition is for, and which rows are still wanted.
create or replace function kerai_private.ephemera()
returns table (relation text, period int, alive text)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    values
    ('failed_operations', 86400, 'expires_at > now()'),
    ('test_results', 604800,
        'created_at > now() - kerai_private.setting(''test_results_ttl_seconds'') * interval ''1 second''')
$$;

-- Deletes expired rows of earlier rounds where the ring has come round, and says which. Partitions that hold only
-- expired rows are left alone, and returned without an action. The present partition and the next one are never among
-- these: others are adding to them.
create or replace function kerai_private.delete_expired(relation text)
returns table (action text, partition text, row_count bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    kind constant record := (select e from kerai_private.ephemera() as e where e.relation = delete_expired.relation);
    present constant int := floor(extract(epoch from now() at time zone 'UTC') / kind.period)::int % 16;
    wanted boolean;
begin
    for place in 0 .. 15 loop
        partition := format('kerai.%I', relation || '_p' || place);
        execute format('select exists (select from %s where %s)', partition, kind.alive) into wanted;
        if wanted or place in (present, (present + 1) % 16) then
            -- Rows that another session is deleting are left to it.
            execute format(
                'delete from %s as p using ('
                    'select o.ctid as place from %1$s as o '
                    'where not (%s) and o.created_at < now() - $1 * interval ''1 second'' for update skip locked'
                ') as e where p.ctid = e.place', partition, kind.alive)
            using 15 * kind.period;
            get diagnostics row_count = row_count;
            action := 'deleted';
        else
            execute format('select count(*) from %s', partition) into row_count;
            action := null;
        end if;
        if row_count > 0 then
            return next;
        end if;
    end loop;
end
$$;

-- Is a row of a partition still wanted? The caller has locked it. The one snapshot of REPEATABLE READ or SERIALIZABLE
-- does not show rows that others have committed since, and TRUNCATE takes them too. So a constraint that there is no
-- such row is tried, for which PostgreSQL reads the table as it is now, and taken back.
create or replace function kerai_private.holds_wanted(partition text, alive text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted boolean;
begin
    execute format('select exists (select from %s where %s)', partition, alive) into wanted;
    if not wanted and kerai_private.has_one_snapshot() then
        execute format('alter table %s add constraint nothing_wanted check ((%s) is not true)', partition, alive);
        raise exception using errcode = 'KR999', message = 'this takes the constraint back';
    end if;
    return wanted;
exception
    when check_violation then
        return true;
    when sqlstate 'KR999' then
        return false;
end
$$;

-- Empties those of the partitions that nobody is using, and returns them.
create or replace function kerai_private.truncate_unused(partitions text[], alive text) returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    partition text;
begin
    foreach partition in array partitions loop
        begin
            execute format('lock table %s in access exclusive mode nowait', partition);
            if not kerai_private.holds_wanted(partition, alive) then
                execute format('truncate %s', partition);
                return next partition;
            end if;
        exception when lock_not_available then
            continue;
        end;
    end loop;
end
$$;

create or replace function kerai_private.drop_expired(relation text)
returns table (action text, partition text, row_count bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    alive constant text := (select e.alive from kerai_private.ephemera() as e where e.relation = drop_expired.relation);
    deadline constant timestamptz := clock_timestamp() + interval '2 seconds';
    sizes jsonb := '{}';
    emptied text[] := '{}';
begin
    for action, partition, row_count in select d.* from kerai_private.delete_expired(relation) as d loop
        if action is null then
            sizes := sizes || jsonb_build_object(partition, row_count);
        else
            return next;
        end if;
    end loop;

    -- Looking again is all the waiting there is, and only while nothing is locked.
    while sizes <> '{}' and emptied = '{}' and clock_timestamp() < deadline loop
        emptied := array(
            select kerai_private.truncate_unused(array(select s.key from jsonb_each(sizes) as s order by s.key), alive));
        if emptied = '{}' then
            perform pg_sleep(0.02);
        end if;
    end loop;
    return query select 'emptied', u.place, (sizes ->> u.place)::bigint from unnest(emptied) as u (place);
end
$$;

create or replace function kerai.maintain()
returns table (action text, relation text, row_count bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select d.* from kerai_private.ephemera() as e cross join lateral kerai_private.drop_expired(e.relation) as d;
    perform kerai_private.refresh_owners();
end
$$;

comment on function kerai.maintain() is
'Call it once a day, by pg_cron or any other clock: removes what has expired of kerai.test_results and kerai.failed_operations, partition by partition. Returns what it did: emptied (a whole partition) or deleted (rows, where the ring of partitions has come round), and how many rows. It waits for no lock: a partition that others use for two seconds on end is left for the next call. Nothing fails when nobody calls it.';

create or replace function kerai.expire_failed_operations() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    dropped bigint;
    removed bigint;
begin
    select coalesce(sum(d.row_count), 0) into dropped from kerai_private.drop_expired('failed_operations') as d;

    delete from kerai.failed_operations as f
    where (f.tableoid, f.id) in (
        select e.tableoid, e.id from kerai.failed_operations as e where e.expires_at <= now() for update skip locked);
    get diagnostics removed = row_count;
    return dropped + removed;
end
$$;

comment on function kerai.expire_failed_operations() is
'Removes all failed attempts that have expired, at once, and says how many. kerai.maintain() removes those of whole days, every day.';

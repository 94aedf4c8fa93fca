-- 040 ephemera: what is kept for a time only, in partitions by time that are dropped when all in them has expired.
--
-- Partitions are made ahead, by kerai.maintain() and by each launch of a swarm; what comes without one stands in the
-- DEFAULT partition. A report or a push never makes or drops any: that takes locks that others would wait for.

-- What is partitioned by time: in partitions of which unit, how many of them ahead, and which rows are still wanted.
create or replace function kerai_private.ephemera()
returns table (relation regclass, pattern regclass, unit text, step interval, ahead int, alive text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    values
    ('kerai.failed_operations'::regclass, 'kerai.failed_operations_default'::regclass, 'day', interval '24 hours', 7,
        'expires_at > now()'),
    ('kerai.test_results', 'kerai.test_results_default', 'week', interval '168 hours', 4,
        $alive$created_at > now() - kerai_private.setting('test_results_ttl_seconds') * interval '1 second'$alive$)
$$;

-- The partitions of a table but for the DEFAULT one.
create or replace function kerai_private.partitions_of(relation regclass)
returns table (partition regclass, starts timestamptz, ends timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
    select c.oid::regclass, b.bounds[1]::timestamptz, b.bounds[2]::timestamptz
    from pg_inherits as i
    inner join pg_class as c on c.oid = i.inhrelid
    cross join lateral (
        select regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$FROM \('([^']+)'\) TO \('([^']+)'\)$re$) as bounds
    ) as b
    where i.inhparent = relation and b.bounds is not null
$$;

-- Makes the partitions that are missing for now and the coming time, and says which. Rows that came before theirs was
-- made stay in the DEFAULT partition until they expire, so the partition begins with the first period without any.
-- Somebody's long transaction may be in the way: what is made stays, and there is a next time for the rest.
create or replace function kerai_private.make_partitions(relation regclass) returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
declare
    kind record;
    period record;
    schema_name name;
    table_name name;
    options text;
    occupied boolean;
begin
    select e.* into kind from kerai_private.ephemera() as e where e.relation = make_partitions.relation;
    select n.nspname, c.relname into schema_name, table_name
    from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace where c.oid = make_partitions.relation;
    select array_to_string(c.reloptions, ', ') into options from pg_class as c where c.oid = kind.pattern;

    for period in
        select s.starts, s.starts + kind.step as ends,
            table_name || to_char(s.starts at time zone 'UTC', '_YYYYMMDD') as name
        from generate_series(
            date_trunc(kind.unit, now(), 'UTC'), date_trunc(kind.unit, now(), 'UTC') + kind.ahead * kind.step, kind.step
        ) as s (starts)
        where not exists (
            select from kerai_private.partitions_of(make_partitions.relation) as p
            where p.starts < s.starts + kind.step and p.ends > s.starts)
        order by s.starts
    loop
        begin
            execute format('lock table only %s in share update exclusive mode', relation);
            execute format('lock table %s in access exclusive mode', kind.pattern);
            execute format('select exists (select from %s where created_at >= $1 and created_at < $2)', kind.pattern)
            into occupied using period.starts, period.ends;
            continue when occupied or to_regclass(format('%I.%I', schema_name, period.name)) is not null;

            execute format('create unlogged table %I.%I (like %s including all)',
                schema_name, period.name, kind.pattern);
            if options is not null then
                execute format('alter table %I.%I set (%s)', schema_name, period.name, options);
            end if;
            execute format('alter table %s attach partition %I.%I for values from (%L) to (%L)',
                relation, schema_name, period.name, period.starts, period.ends);
        exception when lock_not_available or deadlock_detected then
            return;
        end;
        return next format('%I.%I', schema_name, period.name);
    end loop;
end
$$;

-- Drops the partitions that are over and in which nothing is wanted any more, and says which. From the DEFAULT
-- partition rows have to be deleted, unless none of them is wanted.
create or replace function kerai_private.drop_partitions(relation regclass)
returns table (action text, partition text, row_count bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
#variable_conflict use_variable
declare
    kind record;
    old record;
    wanted boolean;
    unwanted boolean;
begin
    select e.* into kind from kerai_private.ephemera() as e where e.relation = drop_partitions.relation;
    -- One session at a time, before it looks at anything: the locks that follow are stronger ones on what it looked at.
    begin
        execute format('lock table only %s in share update exclusive mode', relation);
    exception when lock_not_available or deadlock_detected then
        return;
    end;
    for old in
        select p.partition::text as name, false as is_default
        from kerai_private.partitions_of(drop_partitions.relation) as p
        where p.ends <= now()
        union all
        select kind.pattern::text, true
    loop
        partition := old.name;
        execute format('select exists (select from %s where %s)', old.name, kind.alive) into wanted;
        continue when wanted and not old.is_default;
        begin
            if not old.is_default then
                execute format('lock table only %s in access exclusive mode', relation);
                execute format('select count(*) from %s', old.name) into row_count;
                execute format('drop table %s', old.name);
                action := 'dropped';
            else
                execute format('select exists (select from %s where not (%s))', old.name, kind.alive) into unwanted;
                continue when not unwanted;
                if not wanted then
                    execute format('lock table %s in access exclusive mode', old.name);
                    execute format('select exists (select from %s where %s)', old.name, kind.alive) into wanted;
                end if;
                if not wanted then
                    execute format('select count(*) from %s', old.name) into row_count;
                    execute format('truncate %s', old.name);
                    action := 'emptied';
                else
                    execute format('delete from %s where not (%s)', old.name, kind.alive);
                    get diagnostics row_count = row_count;
                    action := 'deleted';
                end if;
            end if;
        exception when lock_not_available or deadlock_detected then
            return;
        end;
        return next;
    end loop;
end
$$;

create or replace function kerai.maintain()
returns table (action text, relation text, row_count bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select d.* from kerai_private.ephemera() as e cross join lateral kerai_private.drop_partitions(e.relation) as d;
    return query
    select 'made', m.name, 0::bigint
    from kerai_private.ephemera() as e cross join lateral kerai_private.make_partitions(e.relation) as m (name);
    perform kerai_private.refresh_owners();
end
$$;

comment on function kerai.maintain() is
'Call it once a day, by pg_cron or any other clock: makes the coming partitions of kerai.test_results and kerai.failed_operations and drops those in which all has expired. Returns what it did: made, dropped, emptied or deleted (rows of the DEFAULT partition). It waits at most two seconds for a lock and leaves the rest for the next call; nothing fails when nobody calls it.';

create or replace function kerai.expire_failed_operations() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    dropped bigint;
    removed bigint;
begin
    select coalesce(sum(d.row_count), 0) into dropped
    from kerai_private.drop_partitions('kerai.failed_operations'::regclass) as d;

    with gone as (delete from kerai.failed_operations as f where f.expires_at <= now() returning 1)

    select count(*) into removed from gone;
    return dropped + removed;
end
$$;

comment on function kerai.expire_failed_operations() is
'Removes all failed attempts that have expired, at once, and says how many: whole partitions are dropped, rows of others deleted. kerai.maintain() does the former every day.';

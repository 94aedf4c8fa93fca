begin;
\ir 010-helpers.psql
select no_plan();

select id as agent from kerai.register_agent('ann', 'llm') \gset
select id as task from kerai.create_task('t', 'true') \gset

-- Where the period begins in which now is; periods are counted in UTC.
create function pg_temp.start(seconds int) returns timestamptz
language sql as $$ select to_timestamp(floor(extract(epoch from now()) / seconds) * seconds) $$;
-- The partition for a time.
create function pg_temp.place(relation text, seconds int, at timestamptz) returns text
language sql as $$ select format('kerai.%s_p%s', relation, floor(extract(epoch from at) / seconds)::int % 16) $$;
create function pg_temp.report(at timestamptz) returns void
language sql as $$
    insert into kerai.test_results (task_id, agent_id, version_vector, passed, created_at)
    select t.id, a.id, '{}', false, at from kerai.tasks as t cross join kerai.agents as a
$$;
create function pg_temp.attempt(reason text) returns uuid
language sql as $$
    select kerai.record_failed_attempt(t.id, a.id, '{}', '[]', reason)
    from kerai.tasks as t cross join kerai.agents as a
$$;
create function pg_temp.maintained() returns text
language sql as $$
    select string_agg(format('%s %s %s', m.action, m.relation, m.row_count), ', ' order by m.relation)
    from kerai.maintain() as m
$$;

select is((select concat(relpersistence, relkind) from pg_class where oid = r::regclass), 'up', r || ' is unlogged, in partitions')
from unnest('{kerai.test_results,kerai.failed_operations}'::text[]) as r;
select is(count(*) filter (where c.relpersistence = 'u'), 16::bigint, i.inhparent::regclass || ' has a ring of them')
from pg_inherits as i inner join pg_class as c on c.oid = i.inhrelid
where i.inhparent in ('kerai.test_results'::regclass, 'kerai.failed_operations'::regclass) group by i.inhparent;
select is(pg_temp.maintained(), null, 'at first there is nothing to do');

-- the week and the day of UTC, whatever the session says
select kerai.record_test_result(:'task', :'agent', '{}', false) is not null, pg_temp.attempt('one') is not null;
select is((select r.tableoid::regclass::text from kerai.test_results as r), pg_temp.place('test_results', 604800, now()),
    'a report stands in the partition of its week');
select is((select f.tableoid::regclass::text from kerai.failed_operations as f), pg_temp.place('failed_operations', 86400, now()),
    'an attempt in the partition of its day');
delete from kerai.test_results;
create function pg_temp.places_under(zone text, style text) returns text
language plpgsql as $$
declare
    places text;
begin
    perform set_config('timezone', zone, true), set_config('datestyle', style, true);
    perform pg_temp.report(pg_temp.start(604800) - interval '1008 hours' + i * interval '1 microsecond')
    from generate_series(-1, 0) as i;
    select string_agg(r.tableoid::regclass::text, ' ' order by r.created_at) into places from kerai.test_results as r;
    delete from kerai.test_results;
    return places;
end
$$;
select is(
    pg_temp.places_under(z.zone, s.style),
    pg_temp.place('test_results', 604800, pg_temp.start(604800) - interval '1176 hours') || ' '
    || pg_temp.place('test_results', 604800, pg_temp.start(604800) - interval '1008 hours'),
    format('a week begins at midnight UTC under %s and %s', z.zone, s.style))
from unnest('{Asia/Kolkata,America/Chicago,UTC}'::text[]) as z (zone)
cross join unnest('{"SQL, DMY",German,"Postgres, MDY",ISO}'::text[]) as s (style);
set local timezone = 'Asia/Kolkata';
set local datestyle = 'SQL, DMY';

-- emptied when all in it has expired
insert into kerai.failed_operations (task_id, agent_id, base, operations, reason, created_at, expires_at)
select :'task', :'agent', '{}', '[]', 'old', pg_temp.start(86400) - d * interval '24 hours', now() - interval '1 second'
from generate_series(9, 10) as d cross join generate_series(1, 3);
update kerai.failed_operations set expires_at = now() + interval '1 second'
where arrival = (select max(f.arrival) from kerai.failed_operations as f where f.created_at < now() - interval '235 hours');
select is(pg_temp.maintained(),
    format('emptied %s 3', pg_temp.place('failed_operations', 86400, now() - interval '216 hours')),
    'a partition is emptied when all in it has expired');
select is(pg_temp.maintained(), null, 'one that holds something to keep stays whole');
select is(count(*), 4::bigint, 'as it is') from kerai.failed_operations;
update kerai.failed_operations set expires_at = now();
select is(kerai.expire_failed_operations(), 4::bigint, 'expiring removes rows and partitions, and counts both');
select is_empty('select from kerai.failed_operations', 'then all are gone');

select pg_temp.report(pg_temp.start(604800) - w * interval '168 hours') from generate_series(1, 3, 2) as w;
select is(pg_temp.maintained(), null, 'test results are kept for months');
update kerai.settings set value = 15 * 86400 where name = 'test_results_ttl_seconds';
select is(pg_temp.maintained(),
    format('emptied %s 1', pg_temp.place('test_results', 604800, now() - interval '504 hours')),
    'or for as long as test_results_ttl_seconds says');

-- the ring has come round: what is new and what has expired stand in one partition
select pg_temp.report(now()), pg_temp.report(now() - interval '2688 hours');
select is(pg_temp.maintained(), format('deleted %s 1', pg_temp.place('test_results', 604800, now())),
    'where the ring has come round, expired rows are deleted');
delete from kerai.test_results;
select pg_temp.report(now() - interval '2688 hours');
select is(pg_temp.maintained(), format('deleted %s 1', pg_temp.place('test_results', 604800, now())),
    'the present partition is not emptied, as others may just add to it');

insert into kerai.failed_operations (task_id, agent_id, base, operations, reason, created_at, expires_at)
select :'task', :'agent', '{}', '[]', 'older', now() - interval '240 hours', now() - interval '1 second' from generate_series(1, 6);
select is(pg_temp.attempt('two') is not null and pg_temp.attempt('three') is not null, true, 'two more attempts');
select is(count(*), 0::bigint, 'remove what has expired, some at a time')
from kerai.failed_operations where reason = 'older';

select * from finish();
rollback;

begin;
\ir 010-helpers.psql
select no_plan();

select id as agent from kerai.register_agent('ann', 'llm') \gset
select id as task from kerai.create_task('t', 'true') \gset

-- Reports, and says in which partition that is.
create function pg_temp.report() returns text
language plpgsql as $$
declare
    made constant uuid := (kerai.record_test_result((select t.id from kerai.tasks as t), (select a.id from kerai.agents as a),
        '{}', false)).id;
begin
    return (select r.tableoid::regclass from kerai.test_results as r where r.id = made);
end
$$;
create function pg_temp.attempt(reason text) returns text
language plpgsql as $$
declare
    made constant uuid := kerai.record_failed_attempt((select t.id from kerai.tasks as t),
        (select a.id from kerai.agents as a), '{}', '[]', reason);
begin
    return (select f.tableoid::regclass from kerai.failed_operations as f where f.id = made);
end
$$;
create function pg_temp.today(relation text, unit text) returns text
language sql as $$ select relation || to_char(date_trunc(unit, now(), 'UTC') at time zone 'UTC', '_YYYYMMDD') $$;

-- What time does to a partition.
create function pg_temp.past(relation text, days int, length int) returns void
language plpgsql as $$
begin
    execute format('create unlogged table %s_old%s (like %1$s_default including all)', relation, days);
    execute format('alter table %s attach partition %1$s_old%s for values from (%L) to (%L)', relation, days,
        date_trunc('day', now(), 'UTC') - days * interval '24 hours',
        date_trunc('day', now(), 'UTC') - (days - length) * interval '24 hours');
end
$$;

select is((select concat(relpersistence, relkind) from pg_class where oid = r::regclass), 'up', r || ' is unlogged, in partitions')
from unnest('{kerai.test_results,kerai.failed_operations}'::text[]) as r;
select is(pg_temp.report(), 'kerai.test_results_default', 'a report needs no partition');

select set_eq('select action, relation from kerai.maintain()', $$
    select 'made' as action, 'kerai.failed_operations' || to_char(now() at time zone 'UTC' + i * interval '1 day', '_YYYYMMDD') as name
    from generate_series(0, 7) as i
    union all
    select 'made', 'kerai.test_results' || to_char(date_trunc('week', now() at time zone 'UTC') + i * interval '7 days', '_YYYYMMDD')
    from generate_series(1, 4) as i$$, 'partitions are made ahead; the week that has rows already goes on in the DEFAULT one');
select is_empty('select * from kerai.maintain()', 'then there is nothing to do');
select is(pg_temp.report(), 'kerai.test_results_default', 'a report of this week stands with the others');
select is(pg_temp.attempt('one'), pg_temp.today('kerai.failed_operations', 'day'), 'an attempt in the partition of today');

select bag_eq(
    format($$select regexp_replace(indexdef, '^.* USING', '') from pg_indexes where tablename = %L$$, made.relname),
    $$select regexp_replace(indexdef, '^.* USING', '') from pg_indexes where tablename = 'test_results_default'$$,
    'a new partition has the indexes of the DEFAULT one')
from pg_class as made where made.relname like E'test\\_results\\_2%' order by made.relname limit 1;
select is(made.reloptions, (select c.reloptions from pg_class as c where c.relname = 'test_results_default'),
    'and its storage options')
from pg_class as made where made.relname like E'test\\_results\\_2%' and made.relkind = 'r' order by made.relname limit 1;

-- dropped when all in it has expired
select pg_temp.past('kerai.failed_operations', 9, 1), pg_temp.past('kerai.failed_operations', 10, 1);
insert into kerai.failed_operations (task_id, agent_id, base, operations, reason, created_at, expires_at)
select :'task', :'agent', '{}', '[]', 'old', now() - i * interval '1 day', now() - interval '1 second'
from generate_series(9, 10) as i cross join generate_series(1, 3);
update kerai.failed_operations set expires_at = now() + interval '1 second'
where arrival = (select max(f.arrival) from kerai.failed_operations as f where f.created_at < now() - interval '9.5 days');
select results_eq('select action, relation, row_count from kerai.maintain()',
    $$values ('dropped', 'kerai.failed_operations_old9', 3::bigint)$$, 'a partition goes when all in it has expired');
select is(count(*), 3::bigint, 'one that holds something to keep stays whole') from kerai.failed_operations_old10;
update kerai.failed_operations set expires_at = now();
select is(kerai.expire_failed_operations(), 4::bigint, 'expiring counts the rows of dropped partitions too');
select is(array[to_regclass('kerai.failed_operations_old9'), to_regclass('kerai.failed_operations_old10')]::text[],
    '{NULL,NULL}', 'both are gone');

select pg_temp.past('kerai.test_results', 21, 7), pg_temp.past('kerai.test_results', 14, 7);
insert into kerai.test_results (task_id, agent_id, version_vector, passed, created_at)
select :'task', :'agent', '{}', false, now() - i * interval '1 day' from generate_series(10, 18, 4) as i;
select is_empty('select * from kerai.maintain()', 'test results are kept for months');
update kerai.settings set value = 12 * 86400 where name = 'test_results_ttl_seconds';
select results_eq('select action, relation, row_count from kerai.maintain()',
    $$values ('dropped', 'kerai.test_results_old21', 1::bigint)$$, 'or for as long as test_results_ttl_seconds says');

-- the DEFAULT partition cannot be dropped
insert into kerai.test_results (task_id, agent_id, version_vector, passed, created_at)
values (:'task', :'agent', '{}', true, now() - interval '50 days');
select results_eq('select action, relation, row_count from kerai.maintain()',
    $$values ('deleted', 'kerai.test_results_default', 1::bigint)$$, 'what has expired in the DEFAULT partition is deleted');
update kerai.test_results_default set created_at = now() - interval '60 days';
select results_eq('select action, relation, row_count from kerai.maintain() where action <> $$made$$',
    $$values ('emptied', 'kerai.test_results_default', 2::bigint)$$, 'or truncated when nothing else is there');
select is(pg_temp.report(), pg_temp.today('kerai.test_results', 'week'), 'now this week has its partition');

insert into kerai.failed_operations (task_id, agent_id, base, operations, reason, created_at, expires_at)
select :'task', :'agent', '{}', '[]', 'older', now() - interval '20 days', now() - interval '1 second' from generate_series(1, 6);
select is(pg_temp.attempt('two') is not null and pg_temp.attempt('three') is not null, true, 'two more attempts');
select is(count(*), 0::bigint, 'remove what has expired in the DEFAULT partition, some at a time')
from kerai.failed_operations where reason = 'older';

select * from finish();
rollback;

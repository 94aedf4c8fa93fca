-- What the swarm does and did: status, agents, leaderboard, progress, economics, trace, hotspots, lineage.
begin;
\ir 040-helpers.psql
select no_plan();

-- unknown ids
select pg_temp.refuses(format('select * from kerai.%s(pg_temp.node(99))', f.name), 'KR006', f.message,
    '000000000099', 'SELECT', f.name || ' of an unknown id')
from (values ('swarm_status', 'no such swarm'), ('swarm_agents', 'no such swarm'), ('swarm_leaderboard', 'no such task'),
    ('swarm_progress', 'no such task'), ('swarm_economics', 'no such task'), ('agent_trace', 'no such agent'),
    ('lineage', 'no such node')) as f (name, message);
select pg_temp.refuses(format('select * from kerai.%s(null)', f), 'KR006', 'no such task', 'task: null', 'kerai.tasks',
    f || ' of nothing')
from unnest('{swarm_leaderboard,swarm_progress,swarm_economics}'::text[]) as f;
select pg_temp.refuses(format('select * from kerai.swarm_hotspots(%s)', f.since), 'KR005',
    'hotspots are counted since a time ago', f.detail, '1 hour', 'hotspots since ' || f.since)
from (values ('null', 'null'), ('interval ''-1 hour''', '-01:00'), ('interval ''1000000 years''', '1000000 years')) as f (since, detail);
select is((select count(*) from kerai.swarm_status()), 0::bigint, 'no swarms, no status');

-- a swarm at work: ann reports 5, 3 and a pass of an old state; bob reports 4, pushes two changesets; cy does nothing
select id from kerai.register_agent('cy', 'tool') \g /dev/null
select id as t from kerai.create_task('repair', 'pytest', null, null, null, 1000) \gset
select id as swarm from kerai.launch_swarm(:'t', 'menders', 5) \gset
select is(count(*), 3::bigint, 'three join')
from unnest('{ann,bob,cy}'::text[]) as n, kerai.join_swarm(:'swarm', pg_temp.agent(n));
update kerai.swarm_members set last_seen_at = now() - interval '1 hour' where agent_id = pg_temp.agent('cy');
select kerai.version_vector() as old \gset
select count(*) from (values
    ('ann', '5 failed in 1s', 100), ('bob', '4 failed in 1s', 50), ('ann', '3 failed in 1s', 10)) as r (name, output, cost),
    kerai.record_test_result(:'t', pg_temp.agent(r.name), :'old', false, r.output, 7, r.cost) \g /dev/null
select pg_temp.push('bob', json_build_array(pg_temp.set_op(12, 'content', 'x = 2'), pg_temp.set_op(13, 'content', 'r')),
    :'t') \g /dev/null
select pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'y = 9')), :'t') \g /dev/null
select pg_temp.push('ann', json_build_array(pg_temp.set_op(30, 'content', 'not for the task'))) \g /dev/null
select count(*) from kerai.record_test_result(:'t', pg_temp.agent('ann'), :'old', true, null, 7, 0) \g /dev/null
select kerai.version_vector() as fresh \gset
select count(*) from kerai.record_test_result(:'t', pg_temp.agent('bob'), :'fresh', false, '2 failed in 1s', 7, 40) \g /dev/null
select count(*) from kerai.record_test_result(:'t', pg_temp.agent('bob'), :'fresh', false, '6 failed in 1s', 7, 0) \g /dev/null
select kerai.record_failed_attempt(:'t', pg_temp.agent('bob'), :'fresh', '[]', 'worse') as attempt \gset

select results_eq($$select s.swarm_id, s.name, s.task_id, s.task, s.status, s.task_status, s.agents, s.active, s.idle,
        s.max_agents, s.attempts, s.passes, s.failures, s.operations, s.failing_tests, s.rewards_nkoi
    from kerai.swarm_status() as s$$,
    format($$values (%L::uuid, 'menders', %L::uuid, 'repair', 'running', 'running', 3::bigint, 2::bigint, 1::bigint, 5,
        6::bigint, 1::bigint, 5::bigint, 3::bigint, 2, 0::bigint)$$, :'swarm', :'t'),
    'the status of a running swarm; failing tests are those of the newest state, at best');
select results_eq(format('select * from kerai.swarm_status(%L)', :'swarm'), 'select * from kerai.swarm_status()',
    'the status of one swarm is its line of all');
select results_eq(format($$select a.agent, a.kind, a.model, a.status, a.attempts, a.passes, a.failures, a.pushed,
        a.operations, a.failing_tests, a.rewards_nkoi from kerai.swarm_agents(%L) as a order by a.agent$$, :'swarm'),
    $$values ('ann', 'llm', 'm1', 'active', 3::bigint, 1::bigint, 2::bigint, 0::bigint, 0::bigint, 0, 0::bigint),
        ('bob', 'tool', null, 'active', 3, 0, 3, 2, 3, 6, 0), ('cy', 'tool', null, 'idle', 0, 0, 0, 0, 0, null, 0)$$,
    'what each member did, and its last result');
select is((b.last_seen_at > b.joined_at)::text || ' ' || (c.last_seen_at < c.joined_at), 'true true',
    'who reports is seen')
from kerai.swarm_agents(:'swarm') as b, kerai.swarm_agents(:'swarm') as c where b.agent = 'bob' and c.agent = 'cy';
select results_eq(format($$select l.rank, l.agent, l.attempts, l.passes, l.failures, l.pass_rate, l.pushed, l.operations,
        l.best_failing, l.total_cost, l.cost_per_pass, l.rewards_nkoi from kerai.swarm_leaderboard(%L) as l$$, :'t'),
    $$values (1::bigint, 'ann', 3::bigint, 1::bigint, 2::bigint, 33.3, 0::bigint, 0::bigint, 0, 110::bigint, 110::bigint,
        0::bigint), (2, 'bob', 3, 0, 3, 0.0, 2, 3, 2, 90, null, 0)$$,
    'the leaderboard: who passes comes first, who only looks on is not on it');
select results_eq(format($$select e.description, e.status, e.budget_nkoi, e.spent_nkoi, e.spent_percent, e.agents, e.active,
        e.idle, e.attempts, e.passes, e.rewards_minted, e.convergence_events, e.cost_per_pass
    from kerai.swarm_economics(%L) as e$$, :'t'),
    $$values ('repair', 'running', 1000::bigint, 200::bigint, 20.0, 3::bigint, 2::bigint, 1::bigint, 6::bigint, 1::bigint,
        0::bigint, 0::bigint, 200::bigint)$$, 'the economics before the success');
select id as boundless from kerai.create_task('d', 'true') \gset
select is(e.spent_percent, null, 'without a budget no share of it is spent')
from kerai.swarm_economics(:'boundless') as e;

-- progress
update kerai.test_results set created_at = date_trunc('minute', now()) - interval '2 minutes' where failing in (5, 4);
update kerai.test_results set created_at = date_trunc('minute', now()) - interval '50 seconds' where failing = 3;
update kerai.test_results set created_at = date_trunc('minute', now()) + interval '5 seconds' where failing in (0, 2, 6);
select results_eq(format($$select p.minute - date_trunc('minute', now()), p.attempts, p.passes, p.failures, p.best_failing
    from kerai.swarm_progress(%L) as p$$, :'t'),
    $$values (interval '-2 minutes', 2::bigint, 0::bigint, 2::bigint, 4), ('-1 minute', 1, 0, 1, 3), ('0', 3, 1, 2, 0)$$,
    'progress, minute by minute, with the best so far');
update kerai.test_results set created_at = clock_timestamp();

-- an attempt that was not pushed says nothing of a merged state
savepoint unpushed;
select count(*) from kerai.record_test_result(:'t', pg_temp.agent('bob'), :'fresh', false, '1 failed in 1s', pushed => false),
    kerai.record_refused_attempt(:'t', pg_temp.agent('bob'), :'fresh', 'refused', failing => 1) \g /dev/null
select is((s.attempts, s.failing_tests)::text, '(8,2)', 'it counts as an attempt, and its failing tests are not the state''s')
from kerai.swarm_status(:'swarm') as s;
select is(l.best_failing, 2, 'nor are they the agent''s best') from kerai.swarm_leaderboard(:'t') as l where l.agent = 'bob';
select id as alone from kerai.create_task('d', 'true') \gset
select count(*) from kerai.record_test_result(:'alone', pg_temp.agent('bob'), :'fresh', false, failing => 5, pushed => false) \g /dev/null
select is((p.attempts, p.failures, p.best_failing)::text, '(1,1,)', 'nor a step of the progress')
from kerai.swarm_progress(:'alone') as p;
select is(a.failing_tests, 1, 'they are those of its last result') from kerai.swarm_agents(:'swarm') as a where a.agent = 'bob';
rollback to unpushed;

-- success, and a second swarm of other agents
select count(*) from kerai.record_test_result(:'t', pg_temp.agent('bob'), kerai.version_vector(), true, null, 7, 0) \g /dev/null
select is((s.status, s.task_status, s.active, s.idle, s.attempts, s.passes, s.failing_tests, s.rewards_nkoi,
    s.stopped_at is not null)::text, '(converged,succeeded,0,3,7,2,0,1000000000,t)', 'the status after the success')
from kerai.swarm_status(:'swarm') as s;
select is(string_agg(a.agent || ' ' || a.status || ' ' || a.rewards_nkoi, ', ' order by a.agent),
    'ann done 0, bob done 1000000000, cy done 0', 'its members are done') from kerai.swarm_agents(:'swarm') as a;
select is((e.status, e.active, e.rewards_minted, e.convergence_events, e.cost_per_pass)::text,
    '(succeeded,0,1000000000,1,100)', 'the economics after it')
from kerai.swarm_economics(:'t') as e;
select is(l.agent || ' ' || l.rewards_nkoi, 'bob 1000000000', 'the leaderboard shows rewards')
from kerai.swarm_leaderboard(:'t') as l where l.rewards_nkoi > 0;
select id as t2 from kerai.create_task('again', 'true') \gset
select id as early from kerai.launch_swarm(:'t2', 'early') \gset
select count(*) from kerai.join_swarm(:'early', pg_temp.agent('ann')), kerai.record_test_result(:'t2', pg_temp.agent('ann'), '{}', false) \g /dev/null
select count(*) from kerai.stop_swarm(:'early') \g /dev/null
select id as late from kerai.launch_swarm(:'t2', 'late') \gset
update kerai.swarms set created_at = now() + interval '1 minute' where id = :'late';
select count(*) from kerai.join_swarm(:'late', pg_temp.agent('ann')) \g /dev/null
select is(string_agg(s.name || ' ' || s.attempts, ', ' order by s.name), 'early 1, late 0, menders 7',
    'a swarm does not count what its members did for the same task in an earlier one') from kerai.swarm_status() as s;
select is((array_agg(s.name))[1], 'late', 'the newest swarm comes first') from kerai.swarm_status() as s;

-- trace
select results_eq($$select e.event, e.operations, e.failing, e.duration_ms, e.nkoi, e.message
    from kerai.agent_trace(pg_temp.agent('bob')) as e order by e.event, e.nkoi, e.operations desc$$,
    $$values ('discarded', 0::bigint, null::int, null::int, null::bigint, 'worse'),
        ('failed', null, 6, 7, 0, null), ('failed', null, 2, 7, 40, null), ('failed', null, 4, 7, 50, null),
        ('joined', null, null, null, null, 'menders'), ('passed', null, 0, 7, 0, null),
        ('pushed', 2, null, null, null, 'test'), ('pushed', 1, null, null, null, 'test'),
        ('rewarded', null, null, null, 1000000000, 'swarm_convergence')$$, 'all that bob did');
select is(count(*) filter (where e.reference = :'attempt' and e.event = 'discarded') || ' '
    || count(*) filter (where e.reference = :'swarm' and e.event = 'joined') || ' '
    || count(c.id) || ' ' || count(r.id), '1 1 2 4', 'each event names its row')
from kerai.agent_trace(pg_temp.agent('bob')) as e
left join kerai.changesets as c on encode(c.id, 'hex') = e.reference
left join kerai.test_results as r on r.id::text = e.reference;
select is(array_agg(e.at), array_agg(e.at order by e.at), 'in the order of time')
from kerai.agent_trace(pg_temp.agent('bob')) as e;

-- hotspots
select results_eq($$select h.path, h.kind, h.name, h.node_id, h.operations, h.authors from kerai.swarm_hotspots() as h$$,
    $$values ('src.a_py', 'file', 'a.py', pg_temp.node(10), 6::bigint, 2::bigint),
        ('src.a_py.go', 'function_definition', 'go', pg_temp.node(11), 5, 2),
        ('src.b_py', 'file', 'b.py', pg_temp.node(20), 3, 2), ('docs.readme', 'file', 'readme', pg_temp.node(30), 2, 2)$$,
    'files and functions by the operations on them and below, no directories');
update kerai.changesets set received_at = now() - interval '2 hours' where author like 'setup.%';
select is((select sum(h.operations) from kerai.swarm_hotspots() as h where h.kind = 'file') || ' '
    || (select sum(h.operations) from kerai.swarm_hotspots('3 hours') as h where h.kind = 'file'), '4 11',
    'only what is new enough');

-- lineage
select results_eq($$select l.node_id, l.op_type, l.agent, l.task_id, l.passed, l.passes
    from kerai.lineage(pg_temp.node(11)) as l$$,
    format($$values (pg_temp.node(11), 'node_insert', 'setup', null::uuid, true, 2::bigint),
        (pg_temp.node(12), 'node_insert', 'setup', null, true, 2), (pg_temp.node(13), 'node_insert', 'setup', null, true, 2),
        (pg_temp.node(12), 'node_update', 'bob', %L, true, 1), (pg_temp.node(13), 'node_update', 'bob', %1$L, true, 1)$$,
        :'t'), 'the lineage of a function: its own operations and those below, with the passes that include them');
select is((l.test_result_id, l.first_passed_at)::text, (r.id, r.created_at)::text, 'and the first of these')
from kerai.lineage(pg_temp.node(12)) as l
inner join kerai.test_results as r on r.task_id = :'t' and r.passed and r.agent_id = pg_temp.agent('bob')
where l.op_type = 'node_update';
select is((l.passed, l.passes, l.test_result_id)::text, '(t,1,)', 'no result lost')
from kerai.lineage(pg_temp.node(30)) as l where l.op_type = 'node_update' and l.test_result_id is null;
select pg_temp.push('ann', json_build_array(pg_temp.set_op(30, 'content', 'untested'))) \g /dev/null
select is((l.passed, l.passes, l.test_result_id, l.first_passed_at)::text, '(f,0,,)', 'an operation that no pass includes')
from kerai.lineage(pg_temp.node(30)) as l where l.payload #>> '{set,content}' = 'untested';

-- who may call
select is(string_agg(p.proname, ' ' order by p.proname), 'agent_trace balance create_task expire_failed_operations '
    || 'join_swarm launch_swarm lineage record_failed_attempt record_refused_attempt record_test_result stop_swarm supply swarm_agents '
    || 'swarm_economics swarm_hotspots swarm_leaderboard swarm_progress swarm_status',
    'every function has a comment and a fixed search_path')
from pg_proc as p
where p.pronamespace = 'kerai'::regnamespace and p.prosecdef and p.proconfig @> '{"search_path=pg_catalog, pg_temp"}'
    and obj_description(p.oid, 'pg_proc') is not null
    and p.proname ~ '^(swarm_|agent_trace|lineage|.*_swarm|create_task|record_|balance|supply|expire_)';
create role reader in role kerai_reader;
set session authorization reader;
select (select count(*) from kerai.swarm_status()) + (select count(*) from kerai.swarm_agents(:'swarm'))
    + (select count(*) from kerai.swarm_leaderboard(:'t')) + (select count(*) from kerai.swarm_progress(:'t'))
    + (select count(*) from kerai.swarm_economics(:'t')) + (select count(*) from kerai.swarm_hotspots())
    + (select count(*) from kerai.supply()) + (select count(*) from kerai.reward_schedule) as rows \gset
reset session authorization;
select cmp_ok(:rows, '>', 10, 'a reader may read it all');

select * from finish();
rollback;

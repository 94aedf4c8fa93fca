-- Test results, what runners print, budgets of money and time, the log of failed attempts.
begin;
\ir 040-helpers.psql
select no_plan();

select id as task from kerai.create_task('work', 'pytest', null, null, 100, 1000) \gset
select id as swarm from kerai.launch_swarm(:'task', 'first') \gset
select lives_ok(format($$select kerai.join_swarm(%L, pg_temp.agent('ann'))$$, :'swarm'), 'ann joins');
select kerai.version_vector() as vector \gset

-- record_test_result
select is((r.task_id, r.agent_id, r.version_vector, r.passed, r.output, r.duration_ms, r.compute_cost, r.failing)::text,
    (:'task'::uuid, pg_temp.agent('ann'), :'vector'::jsonb, false, '=== 3 failed in 0.10s ===', 12, 400::bigint, 3)::text,
    'a result is kept as it was reported, with the number of failing tests')
from kerai.record_test_result(:'task', pg_temp.agent('ann'), :'vector', false, '=== 3 failed in 0.10s ===', 12, 400) as r;
select is(t.spent_nkoi, 400::bigint, 'its cost is counted') from kerai.tasks as t where t.id = :'task';
select is((r.output, r.duration_ms, r.compute_cost, r.failing)::text, '(,,0,)', 'output, duration and cost are optional')
from kerai.record_test_result(:'task', pg_temp.agent('bob'), '{}', false) as r;
select is(r.compute_cost, 0::bigint, 'a cost of NULL is none')
from kerai.record_test_result(:'task', pg_temp.agent('bob'), '{}', false, null, null, null) as r;
select is(relpersistence, 'u'::"char", 'test_results is unlogged') from pg_class where oid = 'kerai.test_results'::regclass;

create function pg_temp.record(arguments text) returns text
language sql as $$ select 'select kerai.record_test_result(' || arguments || ')' $$;

select pg_temp.refuses(pg_temp.record($$pg_temp.node(99), pg_temp.agent('ann'), '{}', true$$), 'KR006', 'no such task',
    '000000000099', 'kerai.tasks', 'unknown task');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.node(99), '{}', true$$, :'task')), 'KR006', 'no such agent',
    '000000000099', 'register', 'unknown agent');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', null$$, :'task')), 'KR005',
    'a test result says whether it passed', 'passed: null', 'true', 'neither passed nor failed');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '[]', true$$, :'task')), 'KR005',
    'a version vector is a JSON object', E'\\[\\]', 'highest sequence', 'a vector that is a list');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{"a": -1}', true$$, :'task')), 'KR005',
    'a version vector names sequence numbers', 'author a: -1', 'whole number', 'a vector with a negative number');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), null, true$$, :'task')), 'KR005',
    'a version vector is a JSON object', 'null', 'highest sequence', 'no vector');
select pg_temp.refuses(
    pg_temp.record(format($$%L, pg_temp.agent('ann'), '{"nobody.0123456789abcdef": 3}', true$$, :'task')), 'KR004',
    'operations that the vector names are not here', 'nobody.0123456789abcdef', '.', 'a vector that is not covered here');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', true, repeat('x', 1048577)$$, :'task')),
    'KR005', 'the output is too long', '1048577 bytes, at most 1048576', 'end of it', 'too much output');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', true, null, -1$$, :'task')), 'KR005',
    'durations and costs are not negative', 'duration_ms: -1', 'milliseconds', 'a negative duration');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', true, null, 1, -5$$, :'task')), 'KR005',
    'durations and costs are not negative', 'duration_ms: 1, compute_cost: -5', 'nKoi', 'a negative cost');

-- money
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false, null, 1, 601$$, :'task')), 'KR008',
    'the task''s money is used up', 'task .*: 400 of 1000 nKoi spent, this result cost 601', 'larger budget_nkoi',
    'a cost beyond the budget');
select pg_temp.refuses(
    pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false, null, 1, 9223372036854775807$$, :'task')), 'KR008',
    'the task''s money is used up', 'this result cost 9223372036854775807', 'larger budget_nkoi', 'an absurd cost');
select lives_ok(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false, null, 1, 600$$, :'task')),
    'a cost that uses the budget up to the last nKoi');
select is(t.spent_nkoi, 1000::bigint, 'all is spent') from kerai.tasks as t where t.id = :'task';
select lives_ok(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false$$, :'task')),
    'what costs nothing can still be reported');
select id as rich from kerai.create_task('no limit', 'true') \gset
savepoint spent;
select is(s.status, 'stopped', 'the swarm is stopped') from kerai.stop_swarm(:'swarm') as s;
select is(t.status, 'failed', 'a task that is stopped with its money spent has failed')
from kerai.tasks as t where t.id = :'task';
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('bob'), '{}', false$$, :'task')), 'KR011',
    'the task has failed', 'given up at', 'new task', 'a result of a failed task');
rollback to spent;
select lives_ok(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false, null, 1, 9223372036854775807$$, :'rich')),
    'without a budget any cost is taken');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false, null, 1, 1$$, :'rich')), 'KR008',
    'the task''s money is used up', '9223372036854775807 of 9223372036854775807', 'budget_nkoi', 'until bigint is full');

-- time and membership
update kerai.tasks set started_at = now() - interval '101 seconds' where id = :'task';
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('bob'), '{}', false$$, :'task')), 'KR008',
    'the task''s time is used up', '100 seconds, counted from', 'larger budget_seconds', 'a result after the time is up');
rollback to spent;
select is(s.status, 'running', 'another swarm of the task runs') from kerai.launch_swarm(:'task', 'other') as s;
select is(s.status, 'stopped', 'the first is stopped') from kerai.stop_swarm(:'swarm') as s;
select is(t.status, 'running', 'the task goes on') from kerai.tasks as t where t.id = :'task';
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false$$, :'task')), 'KR011',
    'the swarm that this agent belongs to does not run', 'agent ann, swarm first', 'join a swarm',
    'a result by a member of a stopped swarm');

-- what runners print
select is(kerai_private.failing_tests(f.output), f.failing, f.about)
from (values
    (E'F..\n=== short ===\nFAILED t.py::a\n========= 3 failed, 2 passed, 1 warning in 0.12s =========\n', 3, 'pytest'),
    (E'3 failed, 2 passed, 2 errors in 75.10s (0:01:15)\n', 5, 'pytest -q with errors'),
    (E'1 error in 0.05s', 1, 'pytest, an error only'),
    (E'\x1b[31m===== \x1b[31m\x1b[1m2 failed\x1b[0m, \x1b[32m1 passed\x1b[0m\x1b[31m in 0.01s\x1b[0m =====', 2,
        'pytest in colour'),
    (E'!!! Interrupted: 1 error during collection !!!\n=== 1 error in 0.10s ===', null, 'pytest that could not collect'),
    (E'1 passed in 0.01s', null, 'pytest that found no fault'),
    (E'Ran 5 tests in 0.001s\n\nFAILED (failures=2, errors=1)\n', 3, 'unittest'),
    (E'FAILED (errors=4)', 4, 'unittest with errors'),
    (E'Ran 5 tests in 0.001s\n\nFAILED (failures=1, expected failures=1)\n', 1, 'unittest with an expected failure'),
    (E'FAILED (failures=1, expected failures=2)', 1, 'unittest with expected failures, cut off'),
    (E'Ran 5 tests in 0.001s\n\nFAILED (failures=2)\nRan 3 tests in 0.001s\n\nFAILED (errors=1)', 3, 'unittest twice'),
    (E'1 failed, 2 passed in 0.1s\n2 failed, 3 subtests passed in 0.1s\n', 3, 'pytest twice, with subtests'),
    (E'1 failed in 0.1s\n--- FAIL: TestA (0.00s)\nFAIL\tx\t0.1s\n--- FAIL: TestA (0.00s)\nFAIL\ty\t0.1s', 3,
        'pytest, and two packages of go'),
    (repeat('x', 100) || E'\nkerai read: [["pytest", 3, 1, 4, "", false, ""], ["go", 2, null, null, "x", false, ""]]', 5,
        'an output that was cut, with what it said'),
    (E'test a ... FAILED\ntest result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n'
        || E'test result: FAILED. 0 passed; 1 failed; 0 ignored', 3, 'cargo, two binaries'),
    (E'test result: ok. 3 passed; 0 failed; 0 ignored\nerror: could not compile', null, 'cargo that did not compile'),
    (E'--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/sub (0.00s)\n--- FAIL: TestB (0.00s)\nFAIL\nFAIL\tx\t0.1s', 2, 'go'),
    (E'Test Suites: 1 failed, 3 passed, 4 total\nTests:       12 failed, 5 passed, 17 total\nTime: 1 s', 12, 'jest'),
    (E'Tests:       1 skipped, 2 failed, 5 passed, 8 total', 2, 'jest with skipped tests'),
    (E' Test Files  1 failed (1)\n      Tests  2 failed | 5 passed (7)\n', 2, 'vitest'),
    (E'  7 passing (12ms)\n  2 failing\n\n  1) a', 2, 'mocha'),
    (E'TAP version 13\n1..4\nok 1\nnot ok 2 - x\n    not ok 1 - sub\nnot ok 3 # TODO later\nnot ok 4', 2, 'TAP'),
    (E'2 tests failed out of 10', 2, 'ctest'),
    (E'2 failed', 2, 'as short as can be'),
    (E'segmentation fault', null, 'no count'),
    (E'99999999999999999999 failed in 1.0s', null, 'a number that no runner prints'),
    ('', null, 'nothing'),
    (null, null, 'no output')
) as f (output, failing, about);
select is(r.failing, 0, 'a command that passed fails no test, whatever it printed')
from kerai.record_test_result(:'rich', pg_temp.agent('bob'), '{}', true, '3 failed in 0.1s') as r;

select is((r.failing, r.pushed)::text, '(7,t)', 'a count that is given is kept, and the output is not read')
from kerai.record_test_result(:'rich', pg_temp.agent('bob'), '{}', false, '3 failed in 0.1s', failing => 7) as r;
select is(r.failing, 0, 'a command that passed fails no test, whatever it is told')
from kerai.record_test_result(:'rich', pg_temp.agent('bob'), '{}', true, failing => 7) as r;
select is(r.failing, null, 'a command that failed without a failing test has no count')
from kerai.record_test_result(:'rich', pg_temp.agent('bob'), '{}', false, failing => 0) as r;
select is((r.passed, r.failing, r.pushed)::text, '(f,3,f)', 'an attempt that was not pushed is recorded as such')
from kerai.record_test_result(:'rich', pg_temp.agent('bob'), '{}', false, '3 failed in 0.1s', pushed => false) as r;
select is(r.pushed, true, 'NULL is the default') from kerai.record_test_result(:'rich', pg_temp.agent('bob'), '{}', false, pushed => null) as r;
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', true, pushed => false$$, :'rich')), 'KR005',
    'only a merged state passes', 'passed: true, pushed: false', 'Push the change', 'a pass of what is in no tree');
select pg_temp.refuses(pg_temp.record(format($$%L, pg_temp.agent('ann'), '{}', false, failing => -1$$, :'rich')), 'KR005',
    'a count of failing tests is not negative', 'failing: -1', 'not known', 'a negative count');
select throws_ok($$update kerai.test_results set passed = true where not pushed$$, '23514', null, 'the table says the same');

-- failed attempts
select kerai.record_failed_attempt(:'task', pg_temp.agent('ann'), :'vector',
    json_build_array(pg_temp.set_op(12, 'content', 'x')), 'more tests failed', '4 failed in 0.1s') as attempt \gset
select is((f.task_id, f.agent_id, f.base, f.operations #>> '{0,op}', f.reason, f.failing, f.output_tail)::text,
    (:'task'::uuid, pg_temp.agent('ann'), :'vector'::jsonb, 'node_update', 'more tests failed', 4, '4 failed in 0.1s')::text,
    'a failed attempt is kept, also when the swarm does not run')
from kerai.failed_operations as f where f.id = :'attempt';
select kerai.record_failed_attempt(:'task', pg_temp.agent('ann'), '{}', '[]', 'counted', '4 failed in 0.1s', 9) as counted \gset
select is(f.failing, 9, 'with the count that is given') from kerai.failed_operations as f where f.id = :'counted';
delete from kerai.failed_operations where id = :'counted';
select is(f.expires_at, f.created_at + interval '7 days', 'for a week') from kerai.failed_operations as f;

create function pg_temp.attempt(arguments text) returns text
language sql as $$ select 'select kerai.record_failed_attempt(' || arguments || ')' $$;

select pg_temp.refuses(pg_temp.attempt($$pg_temp.node(99), pg_temp.agent('ann'), '{}', '[]', 'r'$$), 'KR006',
    'no such task', '000000000099', 'kerai.tasks', 'an attempt at an unknown task');
select pg_temp.refuses(pg_temp.attempt(format($$%L, pg_temp.node(99), '{}', '[]', 'r'$$, :'task')), 'KR006',
    'no such agent', '000000000099', 'register', 'an attempt by an unknown agent');
select pg_temp.refuses(pg_temp.attempt(format($$%L, pg_temp.agent('ann'), '3', '[]', 'r'$$, :'task')), 'KR005',
    'a version vector is a JSON object', '3', 'highest', 'an attempt on no vector');
select pg_temp.refuses(pg_temp.attempt(format($$%L, pg_temp.agent('ann'), '{}', '{}', 'r'$$, :'task')), 'KR005',
    'an attempt is an array of operations', 'given: object', 'operations', 'operations that are no array');
select pg_temp.refuses(pg_temp.attempt(format($$%L, pg_temp.agent('ann'), '{}', '[]', ''$$, :'task')), 'KR005',
    'a failed attempt has a reason of 1 to 1000 characters', '0 characters', 'timeout', 'no reason');
select pg_temp.refuses(pg_temp.attempt(format(
    $$%L, pg_temp.agent('ann'), '{}', ('[' || repeat('0,', 50000) || '0]')::json, 'r'$$, :'task')), 'KR005',
    'the attempt is too large', '50001 operations, at most 8388608 and 50000', 'study', 'too many operations');
select pg_temp.refuses(pg_temp.attempt(format(
    $$%L, pg_temp.agent('ann'), '{}', '[]', 'r', repeat('x', 1048577)$$, :'task')), 'KR005',
    'the output is too long', '1048577 bytes', 'end of it', 'too much output of an attempt');
select pg_temp.refuses(pg_temp.attempt(format($$%L, pg_temp.agent('ann'), '{}', '[]', 'r', failing => -2$$, :'task')), 'KR005',
    'a count of failing tests is not negative', 'failing: -2', 'not known', 'a negative count of an attempt');

select lives_ok(pg_temp.attempt(format($$%L, pg_temp.agent('ann'), '{}', '[]', 'second'$$, :'task')), 'another attempt');
update kerai.failed_operations set expires_at = now() - interval '1 second' where reason <> 'second';
select is(kerai.expire_failed_operations(), 1::bigint, 'all that have expired are removed at once, and counted');
select is(array_agg(f.reason), '{second}', 'the others stay') from kerai.failed_operations as f;
select is(kerai.expire_failed_operations(), 0::bigint, 'then there are none');

update kerai.settings set value = 2 where name = 'max_failed_operations';
select lives_ok(pg_temp.attempt(format($$%L, pg_temp.agent('ann'), '{}', '[]', 'r%s'$$, :'task', i)), 'attempt ' || i)
from generate_series(1, 4) as i;
select is(array_agg(f.reason order by f.arrival), '{r3,r4}', 'no more than max_failed_operations are kept, the newest')
from kerai.failed_operations as f;

-- attempts that were refused
update kerai.tasks set started_at = now() - interval '1 hour' where id = :'task';
select is((r.passed, r.failing, r.pushed, r.output, r.duration_ms, r.compute_cost)::text, '(f,,f,"refused: 2 failed",7,500)',
    'a refused attempt is taken after the time is up, and no tests are counted in its output')
from kerai.record_refused_attempt(:'task', pg_temp.agent('ann'), :'vector', 'refused: 2 failed', 7, 500) as r;
select is(r.failing, 2, 'it has the count that is given')
from kerai.record_refused_attempt(:'task', pg_temp.agent('ann'), :'vector', 'refused', failing => 2) as r;
select is(t.spent_nkoi, 1500::bigint, 'its cost is counted beyond the budget')
from kerai.tasks as t where t.id = :'task';
select lives_ok(format($$select kerai.record_refused_attempt(%L, pg_temp.agent('ann'), '{}', 'r', 1, 9223372036854775807)$$, :'task'),
    'a cost that no number holds is taken');
select is(t.spent_nkoi, 9223372036854775807, 'as far as a number holds it') from kerai.tasks as t where t.id = :'task';
create function pg_temp.refused(arguments text) returns text
language sql as $$ select 'select kerai.record_refused_attempt(' || arguments || ')' $$;
select pg_temp.refuses(pg_temp.refused($$pg_temp.node(99), pg_temp.agent('ann'), '{}', 'r'$$), 'KR006', 'no such task',
    '000000000099', 'kerai.tasks', 'a refused attempt at an unknown task');
select pg_temp.refuses(pg_temp.refused(format($$%L, pg_temp.agent('ann'), '[]', 'r'$$, :'task')), 'KR005',
    'a version vector is a JSON object', E'\\[\\]', 'highest sequence', 'a refused attempt on no vector');
select pg_temp.refuses(pg_temp.refused(format($$%L, pg_temp.agent('ann'), '{}', null$$, :'task')), 'KR005',
    'a refused attempt has an output that begins with the reason', 'output: null', 'first line', 'no reason of the refusal');
select pg_temp.refuses(pg_temp.refused(format($$%L, pg_temp.agent('ann'), '{}', 'r', 1, -5$$, :'task')), 'KR005',
    'durations and costs are not negative', 'compute_cost: -5', 'nKoi', 'a negative cost of a refused attempt');
select pg_temp.refuses(pg_temp.refused(format($$%L, pg_temp.agent('ann'), '{}', 'r', failing => -3$$, :'task')), 'KR005',
    'a count of failing tests is not negative', 'failing: -3', 'not known', 'a negative count of a refused attempt');

-- another role's agent
create function pg_temp.refusal(statement text) returns text
language plpgsql as $$
declare
    detail text;
begin
    execute statement;
    return 'none';
exception when others then
    get stacked diagnostics detail = pg_exception_detail;
    return sqlstate || ' ' || sqlerrm || ': ' || regexp_replace(detail, '[0-9a-f]{8}-[-0-9a-f]{27}', 'id');
end
$$;
create role stranger in role kerai_agent;
select pg_temp.agent('ann') as ann \gset
set session authorization stranger;
select pg_temp.refusal(format($$select kerai.record_test_result(%L, %L, '{}', false)$$, :'task', :'ann')) as result,
    pg_temp.refusal(format($$select kerai.record_failed_attempt(%L, %L, '{}', '[]', 'r')$$, :'task', :'ann')) as attempt,
    pg_temp.refusal(format($$select kerai.record_refused_attempt(%L, %L, '{}', 'r')$$, :'task', :'ann')) as refused,
    pg_temp.refusal(format($$select kerai.join_swarm(%L, %L)$$, :'swarm', :'ann')) as membership \gset
reset session authorization;
select is(f.refusal, 'KR013 this agent belongs to another role: agent ann (id) belongs to ' || session_user
    || ', the caller is stranger', f.about)
from (values (:'result', 'a result for another role''s agent'), (:'attempt', 'an attempt for another role''s agent'),
    (:'refused', 'a refused attempt for another role''s agent'),
    (:'membership', 'another role''s agent joins')) as f (refusal, about);

select * from finish();
rollback;

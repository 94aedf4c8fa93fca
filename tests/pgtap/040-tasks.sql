-- Tasks, swarms, members, and what check_task lets pass.
begin;
\ir 040-helpers.psql
select no_plan();

-- create_task
select is(t.status || ' ' || t.spent_nkoi || ' ' || t.created_by, 'pending 0 ' || session_user,
    'a new task is pending, has spent nothing and says who made it')
from kerai.create_task('fix it', 'pytest') as t;
select is((t.scope_node_id, t.budget_ops, t.budget_seconds, t.budget_nkoi, t.sponsor_wallet)::text,
    (pg_temp.node(2), 5, 60, 700, a.wallet_id)::text, 'a task keeps its scope, budgets and sponsor')
from kerai.agents as a, kerai.create_task('fix it', 'pytest', pg_temp.node(2), 5, 60, 700, a.wallet_id) as t
where a.name = 'ann';
select is(t.description, $$'); drop table kerai.tasks; --$$, 'SQL in a description is text')
from kerai.create_task($$'); drop table kerai.tasks; --$$, 'true') as t;

select pg_temp.refuses($$select kerai.create_task(' ', 'pytest')$$, 'KR005',
    'a task needs a description and a success command', 'description: '' ''', 'kerai.create_task', 'no description');
select pg_temp.refuses($$select kerai.create_task('d', null)$$, 'KR005',
    'a task needs a description and a success command', 'success_command: null', 'kerai.create_task', 'no command');
select pg_temp.refuses($$select kerai.create_task(repeat('x', 1048577), 'true')$$, 'KR005',
    'the description or the success command is too long', '1048577 and 4 bytes, at most 1048576', 'file', 'too long');
select pg_temp.refuses($$select kerai.create_task('d', 'true', budget_ops => 0)$$, 'KR005', 'a budget is at least 1',
    '^budget_ops: 0$', 'NULL', 'no operations at all');
select pg_temp.refuses($$select kerai.create_task('d', 'true', budget_seconds => -1, budget_nkoi => 5)$$, 'KR005',
    'a budget is at least 1', '^budget_seconds: -1, budget_nkoi: 5$', 'NULL', 'negative time');
select pg_temp.refuses($$select kerai.create_task('d', 'true', pg_temp.node(99))$$, 'KR006', 'no such node',
    '000000000099', 'kerai.nodes', 'unknown scope');
select pg_temp.refuses($$select kerai.create_task('d', 'true', sponsor_wallet => pg_temp.node(99))$$, 'KR006',
    'no such wallet', '000000000099', 'wallet_id', 'unknown sponsor');
savepoint before_delete;
select is(pg_temp.push('setup', json_build_array(pg_temp.op('node_delete', 2))), 'merged', 'src is deleted');
select pg_temp.refuses($$select kerai.create_task('d', 'true', pg_temp.node(12))$$, 'KR011', 'the scope is deleted',
    'scope: .*0012, deleted with node .*0002', 'node_restore', 'a scope below a deleted directory');
rollback to before_delete;

-- launch_swarm
select id as task from kerai.create_task('work', 'pytest', pg_temp.node(2), 6, 100, 1000) \gset
select id as swarm from kerai.launch_swarm(:'task', 'first', 2) \gset
select is((s.name, s.max_agents, s.status, s.stopped_at)::text, '(first,2,running,)', 'a swarm runs from its launch')
from kerai.swarms as s where s.id = :'swarm';
select is(t.status || ' ' || (t.started_at is not null), 'running true', 'the launch sets the task running')
from kerai.tasks as t where t.id = :'task';
select matches(s.name, '^swarm-[0-9a-f]{8}$', 'a swarm without a name gets one')
from kerai.launch_swarm((kerai.create_task('d', 'true')).id) as s;
select pg_temp.refuses(format($$select kerai.launch_swarm(%L, 'x', 0)$$, :'task'), 'KR005',
    'a swarm takes at least one agent', 'max_agents: 0', '1 or more', 'room for nobody');
select pg_temp.refuses(format($$select kerai.launch_swarm(%L, E'a\nb')$$, :'task'), 'KR005',
    'a swarm''s name is 1 to 200 printable characters', 'name:', 'swarm-1', 'a name of two lines');
select pg_temp.refuses($$select kerai.launch_swarm(pg_temp.node(99))$$, 'KR006', 'no such task', '000000000099',
    'kerai.create_task', 'launch for an unknown task');
select pg_temp.refuses($$select kerai.launch_swarm(null)$$, 'KR006', 'no such task', 'null', 'kerai.create_task',
    'launch for no task');

-- join_swarm
select is((m.swarm_id, m.agent_id)::text, (:'swarm'::uuid, pg_temp.agent('ann'))::text, 'an agent joins')
from kerai.join_swarm(:'swarm', pg_temp.agent('ann')) as m;
select is(count(*), 1::bigint, 'and joins again without becoming two')
from kerai.join_swarm(:'swarm', pg_temp.agent('ann')) as j
inner join kerai.swarm_members as m on m.swarm_id = j.swarm_id;
select ok(m.last_seen_at > m.joined_at, 'joining again is a sign of life')
from kerai.swarm_members as m where m.swarm_id = :'swarm';
select lives_ok(format($$select kerai.join_swarm(%L, pg_temp.agent('bob'))$$, :'swarm'), 'a second agent joins');
select pg_temp.refuses(format($$select kerai.join_swarm(%L, pg_temp.agent('setup'))$$, :'swarm'), 'KR011',
    'the swarm is full', 'first .*: 2 of 2 agents', 'launch a larger one', 'a third agent');
select lives_ok(format($$select kerai.join_swarm(%L, pg_temp.agent('bob'))$$, :'swarm'),
    'a member of a full swarm may join again');
select pg_temp.refuses($$select kerai.join_swarm(pg_temp.node(99), pg_temp.agent('ann'))$$, 'KR006', 'no such swarm',
    '000000000099', 'kerai.launch_swarm', 'join an unknown swarm');
select pg_temp.refuses(format($$select kerai.join_swarm(%L, pg_temp.node(99))$$, :'swarm'), 'KR006', 'no such agent',
    '000000000099', 'register', 'an unknown agent joins');

-- check_task: scope
select is(pg_temp.push('ann', json_build_array(pg_temp.set_op(12, 'content', 'x = 2')), :'task'), 'merged',
    'a change below the scope is merged');
select is(pg_temp.push('ann', json_build_array(pg_temp.insert_op(14, 11, 'block'), pg_temp.insert_op(15, 14, 'leaf'),
    json_build_object('op', 'edge_insert', 'source', pg_temp.node(15), 'target', pg_temp.node(30), 'relation', 'cites')),
    :'task'), 'merged', 'nodes inserted below the scope, and an edge from there to outside of it');
select pg_temp.refuses(
    format($$select pg_temp.push('ann', json_build_array(pg_temp.set_op(12, 'content', 'x'), %s), %L)$$, f.op, :'task'),
    'KR007', 'an operation lies outside of the task''s scope', f.detail, 'below the task''s scope', f.about)
from (values
    ($$pg_temp.set_op(30, 'content', 'x')$$, E'^operation 1 \\(node_update\\) names node .*0030; the scope of task .*0002',
        'update outside'),
    ($$pg_temp.op('node_delete', 1)$$, E'operation 1 \\(node_delete\\) names node .*0001', 'delete an ancestor'),
    ($$pg_temp.insert_op(40, 3, 'leaf')$$, E'operation 1 \\(node_insert\\) names node .*0003', 'insert outside'),
    ($$json_build_object('op', 'node_insert', 'node', pg_temp.node(40), 'parent', null, 'position', 'b', 'kind', 'x')$$,
        E'operation 1 \\(node_insert\\) names no parent', 'insert a root'),
    ($$pg_temp.insert_op(30, 2, 'leaf')$$, E'operation 1 \\(node_insert\\) names node .*0030',
        'insert again what is outside'),
    ($$pg_temp.move_op(12, 3)$$, E'operation 1 \\(node_move\\) names node .*0003', 'move out'),
    ($$pg_temp.move_op(30, 2)$$, E'operation 1 \\(node_move\\) names node .*0030', 'move in'),
    ($$json_build_object('op', 'edge_insert', 'source', pg_temp.node(30), 'target', pg_temp.node(12), 'relation', 'r')$$,
        E'operation 1 \\(edge_insert\\) names node .*0030', 'an edge from outside'),
    ($$json_build_object('op', 'perspective_set', 'node', pg_temp.node(30), 'weight', 1)$$,
        E'operation 1 \\(perspective_set\\) names node .*0030', 'a perspective on what is outside')
) as f (op, detail, about);

-- check_task: operations
select pg_temp.refuses(format($$select pg_temp.push('ann',
        json_build_array(pg_temp.set_op(12, 'content', '3'), pg_temp.set_op(13, 'content', '3'),
        pg_temp.set_op(12, 'content', '4')), %L)$$, :'task'),
    'KR008', 'the agent''s budget of operations is used up', 'agent ann, task .*: 4 operations pushed, 3 more given, at most 6',
    'Push fewer', 'seven of six operations');
select is(pg_temp.push('ann', json_build_array(pg_temp.set_op(12, 'content', '3'), pg_temp.set_op(13, 'content', '3')),
    :'task'), 'merged', 'six of six operations');
select is(pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'y = 3')), :'task'), 'merged',
    'each agent has operations of its own');
select is(pg_temp.push('ann', json_build_array(pg_temp.set_op(30, 'content', 'z'))), 'merged',
    'without the task neither scope nor budget counts');
select pg_temp.refuses($$select pg_temp.push('ann', json_build_array(pg_temp.set_op(12, 'content', 'x')), pg_temp.node(99))$$,
    'KR006', 'no such task', '000000000099', 'kerai.create_task', 'a push under an unknown task');

-- check_task: money
savepoint before_money;
update kerai.tasks set budget_nkoi = 700, spent_nkoi = 699 where id = :'task';
select is(pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'y = 4')), :'task'), 'merged',
    'a push while one nKoi is left');
update kerai.tasks set spent_nkoi = 700 where id = :'task';
select pg_temp.refuses(format($$select pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'x')), %L)$$,
    :'task'), 'KR008', 'the task''s money is used up', 'task .*: 700 of 700 nKoi spent', 'larger budget_nkoi',
    'a push after the money is spent');
rollback to savepoint before_money;

-- check_task: time
savepoint before_time;
update kerai.tasks set started_at = now() - interval '101 seconds' where id = :'task';
select pg_temp.refuses(format($$select pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'x')), %L)$$,
    :'task'), 'KR008', 'the task''s time is used up', 'task .*: 100 seconds, counted from', 'larger budget_seconds',
    'a push after the time is up');

-- stop_swarm, with the time up: the task has failed
select is(s.status || ' ' || (s.stopped_at is not null), 'stopped true', 'a swarm is stopped')
from kerai.stop_swarm(:'swarm') as s;
select is(t.status || ' ' || (t.finished_at is not null), 'failed true', 'a task that is stopped with its time up failed')
from kerai.tasks as t where t.id = :'task';
select pg_temp.refuses(format($$select pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'x')), %L)$$,
    :'task'), 'KR011', 'the task has failed', 'given up at', 'new task', 'a push under a failed task');
select pg_temp.refuses(format($$select kerai.launch_swarm(%L)$$, :'task'), 'KR011', 'the task is finished',
    'task .*: failed at', 'kerai.create_task', 'a swarm for a failed task');
rollback to before_time;

-- stop_swarm, with time left: the task waits
select is(s.status, 'stopped', 'a swarm is stopped') from kerai.stop_swarm(:'swarm') as s;
select is((t.status, t.finished_at, t.started_at is not null)::text, '(pending,,t)', 'its task waits for the next swarm')
from kerai.tasks as t where t.id = :'task';
select pg_temp.refuses(format($$select kerai.stop_swarm(%L)$$, :'swarm'), 'KR011', 'the swarm does not run',
    'first .*: stopped at', 'nothing left to stop', 'stop twice');
select pg_temp.refuses($$select kerai.stop_swarm(pg_temp.node(99))$$, 'KR006', 'no such swarm', '000000000099',
    'kerai.swarms', 'stop an unknown swarm');
select pg_temp.refuses(format($$select kerai.join_swarm(%L, pg_temp.agent('ann'))$$, :'swarm'), 'KR011',
    'the swarm does not run', 'first .*: stopped at', 'Join another', 'join a stopped swarm');
select pg_temp.refuses(format($$select pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'x')), %L)$$,
    :'task'), 'KR011', 'the swarm that this agent belongs to does not run', 'agent bob, swarm first .*: stopped at',
    'join a swarm', 'a push by a member of a stopped swarm');
select is(pg_temp.push('setup', json_build_array(pg_temp.set_op(21, 'content', 'y = 4')), :'task'), 'merged',
    'an agent that was never a member may push');
select id as second from kerai.launch_swarm(:'task', 'second') \gset
select is(t.status, 'running', 'a stopped task can be launched again') from kerai.tasks as t where t.id = :'task';
select is(t.started_at, (select s.created_at from kerai.swarms as s where s.id = :'swarm'), 'its clock goes on')
from kerai.tasks as t where t.id = :'task';
select lives_ok(format($$select kerai.join_swarm(%L, pg_temp.agent('bob'))$$, :'second'), 'a member joins the next swarm');
select is(pg_temp.push('bob', json_build_array(pg_temp.set_op(21, 'content', 'y = 5')), :'task'), 'merged',
    'and may push again');

select * from finish();
rollback;

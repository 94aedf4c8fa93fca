-- When a task succeeds, what survives, how the reward is split, and that it is paid once.
begin;
\ir 040-helpers.psql
select no_plan();

-- How many of an agent's operations under a task survive.
create function pg_temp.survivors(task uuid) returns text
language sql as $$
    select coalesce(string_agg(format('%s %s', split_part(s.author, '.', 1), s.operations), ', ' order by s.author), 'none')
    from kerai_private.surviving_operations(task) as s
$$;

-- survival, one kind of operation after the other
select id as t from kerai.create_task('survival', 'true') \gset
select is(pg_temp.survivors(:'t'), 'none', 'a task without changesets');
select pg_temp.push('ann', json_build_array(pg_temp.insert_op(40, 11, 'statement', null, 'a'),
    pg_temp.insert_op(41, 11, 'statement', null, 'b')), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 2', 'inserts of visible nodes survive');
select pg_temp.push('ann', json_build_array(pg_temp.set_op(40, 'content', 'a2'), pg_temp.set_op(40, 'content', 'a3'),
    pg_temp.set_op(41, 'kind', 'k')), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 4', 'of two updates of a field the last survives');
select pg_temp.push('ann', json_build_array(json_build_object('op', 'node_update', 'node', pg_temp.node(41),
    'set', json_build_object('content', 'c', 'kind', 'k2'), 'metadata', json_build_object('m', 1))), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 4', 'an update whose only field is written again is gone, the new one counts once');
select pg_temp.push('bob', json_build_array(json_build_object('op', 'node_update', 'node', pg_temp.node(41),
    'set', json_build_object('content', 'd', 'kind', 'k3'))), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 4, bob 1', 'an update survives while one of its metadata keys does');
select pg_temp.push('setup', json_build_array(json_build_object('op', 'node_update', 'node', pg_temp.node(41),
    'metadata', json_build_object('m', null)))) \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 3, bob 1', 'also a change outside of the task overwrites');
select pg_temp.push('bob', json_build_array(pg_temp.move_op(41, 10), pg_temp.move_op(41, 20)), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 3, bob 2', 'of two moves of a node the last survives');
savepoint placed;
select pg_temp.push('bob', json_build_array(pg_temp.op('node_delete', 20)), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 2, bob 1',
    'below a deleted node nothing survives, neither inserts nor updates nor moves; the deletion does');
select pg_temp.push('bob', json_build_array(pg_temp.op('node_delete', 41)), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 2, bob 1', 'to delete what is hidden already does not show');
select pg_temp.push('ann', json_build_array(pg_temp.op('node_restore', 20)), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 3, bob 1', 'a restoration replaces the deletion; what it hid and another hides now stays hidden');
rollback to placed;
select pg_temp.push('ann', json_build_array(
    json_build_object('op', 'edge_insert', 'source', pg_temp.node(40), 'target', pg_temp.node(12), 'relation', 'uses'),
    json_build_object('op', 'perspective_set', 'node', pg_temp.node(40), 'context', pg_temp.node(10), 'weight', 1),
    json_build_object('op', 'perspective_set', 'node', pg_temp.node(40), 'weight', 1),
    json_build_object('op', 'association_set', 'source', pg_temp.node(40), 'target', pg_temp.node(12), 'relation', 'r',
        'weight', 1)), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 7, bob 2', 'relations survive');
select pg_temp.push('bob', json_build_array(
    json_build_object('op', 'edge_delete', 'source', pg_temp.node(40), 'target', pg_temp.node(12), 'relation', 'uses'),
    json_build_object('op', 'perspective_set', 'node', pg_temp.node(40), 'weight', 0.5)), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 6, bob 4', 'an edge has one last word, a perspective one an author');
select pg_temp.push('ann', json_build_array(
    json_build_object('op', 'perspective_delete', 'node', pg_temp.node(40), 'context', pg_temp.node(10)),
    json_build_object('op', 'association_delete', 'source', pg_temp.node(40), 'target', pg_temp.node(12),
        'relation', 'r')), :'t') \g /dev/null
select is(pg_temp.survivors(:'t'), 'ann 6, bob 4', 'to take back a relation counts in its place');

-- how a reward is split
create function pg_temp.split(task uuid, reward bigint) returns text
language sql as $$
    select string_agg(format('%s %s for %s', s.name, s.nkoi, s.operations), ', ' order by s.name)
    from kerai.agents as bob, kerai_private.split_reward(task, reward, bob) as s where bob.name = 'bob'
$$;
select is(pg_temp.split(:'t', 1000), 'ann 600 for 6, bob 400 for 4', 'by surviving operations');
select is(pg_temp.split(:'t', 1009), 'ann 605 for 6, bob 404 for 4', 'rounded down, the remainder to the reporter');
select is(pg_temp.split(:'t', 1), 'ann 0 for 6, bob 1 for 4', 'one nKoi');
select is(pg_temp.split(:'t', 0), 'ann 0 for 6, bob 0 for 4', 'nothing');
select is(pg_temp.split(:'t', 9223372036854775807), 'ann 5534023222112865484 for 6, bob 3689348814741910323 for 4',
    'without overflow');
select is(pg_temp.split(pg_temp.node(99), 1000), 'bob 1000 for 0', 'all to the reporter when nothing survives');
savepoint foreigner;
update kerai.changesets set task_id = :'t' where author like 'setup.%' and message = 'test' and last_seq = 11;
select is(pg_temp.split(:'t', 1100), 'ann 600 for 6, bob 400 for 4, setup 100 for 1', 'a third agent has a part');
insert into kerai_private.authors (author, public_key) values ('else.0123456789abcdef', sha256('else'));
update kerai.agents set author = 'else.0123456789abcdef' where name = 'setup';
select is(pg_temp.split(:'t', 1100), 'ann 600 for 6, bob 500 for 4',
    'the part of an author who is no agent here goes to the reporter');
rollback to foreigner;

-- success on the shared state of the whole tree
select lives_ok(format($$select kerai.record_test_result(%L, pg_temp.agent('bob'), '{}', true)$$, :'t'),
    'a pass on an old state is recorded');
select is((select t.status from kerai.tasks as t where t.id = :'t') || ' ' || (select count(*) from kerai.mints),
    'pending 0', 'and nothing else');
select kerai.version_vector() as seen \gset
select pg_temp.push('setup', json_build_array(pg_temp.set_op(30, 'content', 'later'))) \g /dev/null
select lives_ok(format($$select kerai.record_test_result(%L, pg_temp.agent('bob'), %L, true)$$, :'t', :'seen'),
    'one operation behind');
select is(t.status, 'pending', 'is not the shared state') from kerai.tasks as t where t.id = :'t';
select lives_ok(format($$select kerai.record_test_result(%L, pg_temp.agent('bob'), kerai.version_vector(), false)$$, :'t'),
    'a failure on the shared state');
select is(t.status, 'pending', 'is no success') from kerai.tasks as t where t.id = :'t';

select id as swarm from kerai.launch_swarm(:'t') \gset
select lives_ok(format($$select kerai.join_swarm(%L, pg_temp.agent(%L))$$, :'swarm', n), n || ' joins')
from unnest('{ann,bob}'::text[]) as n;
select * from kerai.record_test_result(:'t', pg_temp.agent('bob'), kerai.version_vector(), true,
    repeat('x', 5000) || ' 9 passed in 0.1s', 5, 7) \gset pass_
select is(t.status || ' ' || (t.finished_at is not null) || ' ' || t.spent_nkoi, 'succeeded true 7', 'the task succeeds')
from kerai.tasks as t where t.id = :'t';
select is(s.status || ' ' || (s.stopped_at is not null), 'converged true', 'its swarm has converged')
from kerai.swarms as s where s.id = :'swarm';
select is((m.work_type, m.amount)::text, '(swarm_convergence,1000000000)', 'the reward is minted')
from kerai.mints as m where m.task_id = :'t';
select is(string_agg(format('%s %s %s %s', a.name, l.kind, l.amount, l.memo), ', ' order by a.name),
    'ann mint 600000000 swarm_convergence, bob mint 400000000 swarm_convergence', 'and paid out by the ledger')
from kerai.ledger as l inner join kerai.agents as a on a.wallet_id = l.to_wallet where l.task_id = :'t';
select is(pg_temp.balance('ann') || ' ' || pg_temp.balance('bob'), '600000000 400000000', 'into the wallets');
select is((c.agent_id, c.test_result_id, c.version_vector, c.reward, length(c.output_tail))::text,
    (pg_temp.agent('bob'), :'pass_id'::uuid, kerai.version_vector(), 1000000000, 4000)::text, 'the ground is kept')
from kerai.convergences as c where c.task_id = :'t';
select is(c.shares, jsonb_build_array(
    jsonb_build_object('agent', pg_temp.agent('ann'), 'name', 'ann', 'operations', 6, 'nkoi', 600000000),
    jsonb_build_object('agent', pg_temp.agent('bob'), 'name', 'bob', 'operations', 4, 'nkoi', 400000000)), 'with the shares')
from kerai.convergences as c where c.task_id = :'t';
set local timezone = 'Asia/Tokyo';
select is(c.result_digest, kerai_private.result_digest(r), 'and the digest of the result, in any time zone')
from kerai.convergences as c inner join kerai.test_results as r on r.id = c.test_result_id where c.task_id = :'t';
reset timezone;
select is(relpersistence, 'p'::"char", 'in a logged table') from pg_class where oid = 'kerai.convergences'::regclass;

-- after that
select is(r.failing, 0, 'a late pass is recorded')
from kerai.record_test_result(:'t', pg_temp.agent('ann'), kerai.version_vector(), true, null, 1, 5) as r;
select is(r.passed, false, 'a late failure too, also by who is no member')
from kerai.record_test_result(:'t', pg_temp.agent('setup'), '{}', false) as r;
select is(t.spent_nkoi, 7::bigint, 'free of charge') from kerai.tasks as t where t.id = :'t';
select is((select count(*) from kerai.mints) || ' ' || (select count(*) from kerai.ledger)
    || ' ' || (select count(*) from kerai.convergences), '1 2 1', 'nothing is paid twice');
update kerai.tasks set status = 'running' where id = :'t';
select lives_ok(format($$select kerai.record_test_result(%L, pg_temp.agent('setup'), kerai.version_vector(), true)$$, :'t'),
    'not even when somebody sets the task back');
select is((select count(*) from kerai.mints) || ' ' || (select count(*) from kerai.ledger) || ' ' || t.status,
    '1 2 succeeded', 'the ledger remembers') from kerai.tasks as t where t.id = :'t';
delete from kerai.convergences;
update kerai.tasks set status = 'running' where id = :'t';
select lives_ok(format($$select kerai.record_test_result(%L, pg_temp.agent('setup'), kerai.version_vector(), true)$$, :'t'),
    'and when the ground is lost');
select is((select count(*) from kerai.mints) || ' ' || (select count(*) from kerai.ledger) || ' ' || pg_temp.balance('setup'),
    '1 2 0', 'the mint remembers');
select pg_temp.refuses(format($$select kerai.stop_swarm(%L)$$, :'swarm'), 'KR011', 'the swarm does not run',
    'converged at', 'nothing left', 'stop a converged swarm');
select pg_temp.refuses(format($$select kerai.join_swarm(%L, pg_temp.agent('setup'))$$, :'swarm'), 'KR011',
    'the swarm does not run', 'converged at', 'another swarm', 'join a converged swarm');
select pg_temp.refuses(format($$select kerai.launch_swarm(%L)$$, :'t'), 'KR011', 'the task is finished', 'succeeded at',
    'kerai.create_task', 'launch for a task that succeeded');
select pg_temp.refuses(format($$select pg_temp.push('ann', json_build_array(pg_temp.set_op(12, 'content', 'x')), %L)$$, :'t'),
    'KR011', 'the task has succeeded', 'succeeded at', 'without naming the task', 'a push under a task that succeeded');

-- scope: what the vector lacks lies outside
select id as scoped from kerai.create_task('scoped', 'true', pg_temp.node(10)) \gset
savepoint seen;
select kerai.version_vector() as seen \gset
create function pg_temp.status_after(ops json, task uuid, vector jsonb) returns text
language plpgsql as $$
begin
    perform pg_temp.push('setup', ops);
    perform kerai.record_test_result(task, pg_temp.agent('ann'), vector, true);
    return (select t.status from kerai.tasks as t where t.id = task);
end
$$;
savepoint before;
select is(pg_temp.status_after(json_build_array(pg_temp.set_op(30, 'content', 'z'), pg_temp.insert_op(50, 3, 'file', 'n'),
    pg_temp.set_op(21, 'content', 'z')), :'scoped', :'seen'), 'succeeded', 'changes elsewhere do not matter');
rollback to before;
select is(pg_temp.status_after(json_build_array(pg_temp.set_op(12, 'content', 'z')), :'scoped', :'seen'), 'pending',
    'a change in the scope does');
rollback to before;
select is(pg_temp.status_after(json_build_array(pg_temp.insert_op(50, 11, 'leaf')), :'scoped', :'seen'), 'pending',
    'an insert into the scope does');
rollback to before;
select is(pg_temp.status_after(json_build_array(pg_temp.move_op(12, 20)), :'scoped', :'seen'), 'pending',
    'a move out of the scope does');
rollback to before;
select is(pg_temp.status_after(json_build_array(pg_temp.op('node_delete', 2)), :'scoped', :'seen'), 'pending',
    'the deletion of an ancestor does');
rollback to before;
select is(pg_temp.status_after(json_build_array(pg_temp.set_op(30, 'content', 'z')), :'scoped', '{}'), 'pending',
    'a vector that lacks the scope itself never is the shared state');
rollback to seen;

-- rewards that are off, none, or too large
update kerai.reward_schedule set enabled = false where work_type = 'swarm_convergence';
select id as free from kerai.create_task('free', 'true') \gset
select lives_ok(format($$select kerai.record_test_result(%L, pg_temp.agent('ann'), kerai.version_vector(), true)$$, :'free'),
    'a pass while the reward is off');
select is((t.status, c.reward, c.shares #>> '{0,nkoi}', (select count(*) from kerai.mints))::text, '(succeeded,0,0,1)',
    'is a success that pays nothing')
from kerai.tasks as t inner join kerai.convergences as c on c.task_id = t.id where t.id = :'free';
update kerai.reward_schedule set enabled = true, reward = 9223372036854775807 where work_type = 'swarm_convergence';
select id as dear from kerai.create_task('dear', 'true') \gset
select pg_temp.refuses(format($$select kerai.record_test_result(%L, pg_temp.agent('ann'), kerai.version_vector(), true)$$,
    :'dear'), 'KR005', 'the amount is too large for the wallet',
    'holds 600000000 nKoi and would get 9223372036854775807', 'Lower the reward', 'a reward beyond bigint');
select is(t.status, 'pending', 'the task waits until it can be paid') from kerai.tasks as t where t.id = :'dear';

select * from finish();
rollback;

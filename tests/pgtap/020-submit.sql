-- What is submitted, settled and withdrawn, and the guard of the whole state. Two transactions play in tests/client.
begin;
\ir 010-helpers.psql
select no_plan();

create function pg_temp.submitting(document text, name text) returns text
language sql as $$ select replace(pg_temp.sending(document, name), 'push_ops', 'submit_push') $$;

create function pg_temp.submit(document text, name text) returns uuid
language plpgsql as $$
declare
    ticket uuid;
begin
    execute pg_temp.submitting(document, name) into ticket;
    return ticket;
end
$$;

select is(pg_temp.push('ann', pg_temp.ins(1), pg_temp.ins(2, 1)), 'merged', 'a tree');
select id as ann from kerai.register_agent('ann', 'tool', pg_temp.key('ann')) \gset

-- the whole state
\set whole '{"guard": "ffffffff-ffff-ffff-ffff-ffffffffffff"}'
select pg_temp.document('ann', to_jsonb(array[pg_temp.upd(2, '{"name": "n"}')]), :'whole') as early \gset
select is(pg_temp.push('bob', pg_temp.ins(9)), 'merged', 'bob makes a second tree');
select is(s.status, 'stale', 'which is not below the root, and makes a guard of the whole state stale')
from kerai.push_ops(:'early', pg_temp.sign(:'early', 'ann'), pg_temp.key('ann')) as s;
select pg_temp.document('ann', to_jsonb(array[pg_temp.upd(2, '{"name": "n"}')]), :'whole') as late \gset
select is(s.status, 'merged', 'on a base that covers it, the same is merged')
from kerai.push_ops(:'late', pg_temp.sign(:'late', 'ann'), pg_temp.key('ann')) as s;
select is(s.status, 'duplicate', 'and is a duplicate when it comes again')
from kerai.push_ops(:'late', pg_temp.sign(:'late', 'ann'), pg_temp.key('ann')) as s;
select is(pg_temp.push('ann', pg_temp.upd(2, '{"name": "m"}')), 'merged', 'one''s own later change');
select pg_temp.document('ann', to_jsonb(array[pg_temp.upd(2, '{"name": "o"}')]),
    :'whole'::jsonb || jsonb_build_object('base', :'late'::jsonb -> 'base')) as own \gset
select is(s.status, 'merged', 'need not be in the base')
from kerai.push_ops(:'own', pg_temp.sign(:'own', 'ann'), pg_temp.key('ann')) as s;
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[pg_temp.upd(2, '{}')]),
    jsonb_build_object('guard', pg_temp.node(77))), 'KR006', 'no such node', '000000000077', 'kerai.nodes', 'a guard that is not here');

-- withdrawing
select pg_temp.document('ann', to_jsonb(array[pg_temp.upd(2, '{"name": "p"}')])) as document \gset
select pg_temp.submit(:'document', 'ann') as ticket \gset
select pg_temp.submit(pg_temp.document('bob', to_jsonb(array[pg_temp.upd(9, '{"name": "p"}')])), 'bob') as his \gset
select is(kerai.withdraw(:'ann'), 1, 'one changeset waits, and is taken back');
select is(kerai.withdraw(:'ann'), 0, 'then none');
select pg_temp.refuses(format('select kerai.await_push(%L)', :'ticket'), 'KR006', 'no such ticket', :'ticket', 'Submit', 'a ticket withdrawn');
select is(s.status, 'merged', 'others'' stay') from kerai.await_push(:'his') as s;
select pg_temp.submit(:'document', 'ann') as ticket \gset
select is(s.status, 'merged', 'and it may be submitted again') from kerai.await_push(:'ticket') as s;
select pg_temp.refuses(format('select kerai.withdraw(%L)', a), 'KR006', 'no such agent', coalesce(a::text, 'null'), 'kerai.agents',
    'withdrawing for nobody')
from unnest(array[null, pg_temp.node(5)]) as a;

create role test_rival;
grant kerai_agent to test_rival;
create temporary table attempt as select pg_temp.submit(
    pg_temp.document('ann', to_jsonb(array[pg_temp.upd(2, '{"name": "q"}')])), 'ann') as ticket;
set session authorization test_rival;
select throws_ok(format('select kerai.withdraw(%L)', :'ann'), 'KR013', 'this agent belongs to another role');
reset session authorization;
select is(s.status, 'merged', 'nobody withdraws what is another''s') from attempt as a, kerai.await_push(a.ticket) as s;

select * from finish();
rollback;

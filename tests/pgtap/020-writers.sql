-- Swarms that group their members: the arguments of launch_swarm, drafts that are refused, and what is kept of one.
begin;
\ir 010-helpers.psql
select no_plan();

select is(pg_temp.push('ann', pg_temp.ins(1), pg_temp.ins(2, 1)), 'merged', 'a tree');
select id as task from kerai.create_task('d', 'true') \gset
select id as ann from kerai.register_agent('ann', 'tool', pg_temp.key('ann')) \gset
select id as bob from kerai.register_agent('bob', 'tool', pg_temp.key('bob')) \gset

-- launch_swarm
select pg_temp.refuses(format('select kerai.launch_swarm(%L, grouped => null)', :'task'), 'KR005',
    'a swarm groups its members or does not', 'grouped: null', 'Pass true or false', 'grouped null');
select is((s.grouped, l.author)::text, '(f,)', 'by default members write under their own author ids')
from kerai.launch_swarm(:'task', 'plain') as s left join kerai_private.writers as l on l.swarm_id = s.id;
select id as plain from kerai.swarms where name = 'plain' \gset
select is(s.grouped, true, 'grouped')
from generate_series(1, 2) as n cross join lateral kerai.launch_swarm(:'task', 'crew', 9 + n, true) as s;
select is(count(distinct l.author), 2::bigint, 'each swarm has an author id of its own') from kerai_private.writers as l;
select is(count(*), 2::bigint, 'whose key is the instance''s')
from kerai_private.writers as l inner join kerai_private.authors as a on a.author = l.author
where a.public_key = kerai.instance_key() and right(a.author, 16) = left(encode(sha256(a.public_key), 'hex'), 16);
select is(bool_and(right(replace(s.id::text, '-', ''), 16) = left(encode(sha256(kerai.instance_key()), 'hex'), 16)), true,
    'a grouped swarm''s id names that key') from kerai.swarms as s where s.grouped;
select is(pg_temp.author('ann') = any(array(select jsonb_object_keys(kerai.version_vector()))), true, 'and ann is in the vector');
select is(count(*), 1::bigint, 'alone: writers without changesets are not') from jsonb_object_keys(kerai.version_vector());
select id as swarm from kerai.swarms where grouped and max_agents = 10 \gset
select author as writer from kerai_private.writers where swarm_id = :'swarm' \gset
select agent_id from kerai.join_swarm(:'swarm', :'ann') \g /dev/null
select agent_id from kerai.join_swarm(:'plain', :'ann') \g /dev/null

-- drafts
create function pg_temp.draft(name text, swarm uuid, ops jsonb, changes jsonb default '{}', without text[] default '{}') returns text
language sql as $$
    select ((jsonb_build_object('v', 1, 'author', pg_temp.author(name), 'swarm', swarm, 'base', kerai.version_vector(),
        'guard', null, 'task', null, 'message', 'test', 'ops', ops) || changes) - without)::text
$$;
create function pg_temp.one(n int default 2) returns jsonb
language sql as $$ select to_jsonb(array[pg_temp.upd(n, '{"content": "x"}')]) $$;

select pg_temp.refuses(statement, 'KR005', message, detail, hint, format('%s: %s', message, detail))
from (values
    ('the changeset lacks a key', 'missing: base', 'It has v, author, swarm, base', '{}'::jsonb, '{base}'::text[]),
    ('the changeset lacks a key', 'missing: ops', 'It has', '{}', '{ops}'),
    ('the changeset has a key that it does not take', 'unknown: seq', 'It has', '{"seq": 1}', '{}'),
    ('the changeset has a key that it does not take', 'unknown: (prev, lamport|lamport, prev)', 'It has', '{"lamport": 1, "prev": null}', '{}'),
    ('the changeset has a key that it does not take', 'unknown: draft', 'It has', '{"draft": {}}', '{}'),
    ('the changeset has a malformed value', 'swarm: null, is a swarm''s uuid', 'Correct', '{"swarm": null}', '{}'),
    ('the changeset has a malformed value', 'swarm: 7, is', 'Correct', '{"swarm": 7}', '{}'),
    ('the changeset has a malformed value', 'guard: ', 'Correct', '{"guard": "x"}', '{}'),
    ('too few or too many operations', '0 operations', 'Split', '{"ops": []}', '{}')) as v (message, detail, hint, changes, without)
cross join lateral pg_temp.sending(pg_temp.draft('ann', :'swarm', pg_temp.one(), v.changes, v.without), 'ann') as statement;
select pg_temp.refuses(pg_temp.sending(pg_temp.draft('ann', :'swarm', pg_temp.one()) || E'\n', 'ann'), 'KR005',
    'the changeset has a malformed value', 'a draft starts with { and ends with }', 'Strip', 'white space around it');
update kerai.settings set value = 3000 where name = 'max_changeset_bytes';
select pg_temp.refuses(pg_temp.sending(d, 'ann'), 'KR005', 'the changeset is too large', '1001 bytes, a draft has at most 1000', 'Split',
    'no room for the envelope')
from (select pg_temp.draft('ann', :'swarm', pg_temp.one(), jsonb_build_object('message', repeat('x', 1001 - length(x)))) as d
    from pg_temp.draft('ann', :'swarm', pg_temp.one(), '{"message": ""}') as x) as w;
update kerai.settings set value = 8388608 where name = 'max_changeset_bytes';

select pg_temp.refuses(pg_temp.sending(pg_temp.draft(name, swarm, pg_temp.one()), name), code, message, detail, hint, message)
from (values
    ('bob', :'swarm'::uuid, 'KR013', 'not a member of the swarm', 'author: bob', 'kerai.join_swarm'),
    ('zoe', :'swarm', 'KR013', 'not a member of the swarm', 'author: zoe', 'kerai.join_swarm'),
    ('ann', :'plain', 'KR011', 'the swarm does not group its members', 'plain', 'kerai.next_changeset'),
    ('ann', pg_temp.node(7), 'KR006', 'no such swarm', 'swarm: ', E'kerai\\.')) as v (name, swarm, code, message, detail, hint);
select pg_temp.refuses(pg_temp.sending(pg_temp.draft('ann', :'swarm', pg_temp.one(9)), 'ann'), 'KR006', 'no such node',
    'operation 0', 'kerai.nodes', 'a draft that names an unknown node');
select pg_temp.refuses(pg_temp.sending(pg_temp.draft('ann', :'swarm', pg_temp.one(), '{"base": {"x": 3}}'), 'ann'), 'KR004',
    'operations that the vector names are not here', 'missing: x 1-3', 'first', 'a draft whose base is not here');
select pg_temp.refuses(pg_temp.sending(pg_temp.draft('ann', :'swarm', pg_temp.one(), '{"base": {}}'), 'ann'), 'KR004',
    'an operation names a node that base does not cover', 'missing in base: ann', 'base', 'a draft that has not seen the node');

select pg_temp.draft('ann', :'swarm', pg_temp.one()) as draft \gset
select is((r.status, r.applied, r.first_seq, r.last_seq)::text, '(merged,1,1,1)', 'a draft')
from kerai.push_ops(:'draft', pg_temp.sign(:'draft', 'ann')) as r;
select is((c.author, c.first_seq, c.first_lamport, c.prev, c.member, c.member_signature, c.draft_id)::text,
    (:'writer'::text, 1, 3, null, pg_temp.author('ann'), pg_temp.sign(:'draft', 'ann'), sha256(convert_to(:'draft', 'UTF8')))::text,
    'is the writer''s changeset, with the member and the signature on the row') from kerai.changesets as c where c.author = :'writer';
select is((c.document -> 'draft')::text, :'draft', 'its exact text is inside') from kerai.changesets as c where c.author = :'writer';
select is(c.document ->> 'member_key', encode(pg_temp.key('ann'), 'hex'), 'with the member''s key') from kerai.changesets as c where c.author = :'writer';
select is(kerai_private.verify_signature(c.document::text, c.signature, kerai.instance_key()), true, 'the instance has signed the envelope')
from kerai.changesets as c where c.author = :'writer';
select is((r.status, r.applied, r.first_seq)::text, '(duplicate,0,1)', 'again it is a duplicate')
from kerai.push_ops(:'draft', pg_temp.sign(:'draft', 'ann')) as r;
select is(kerai.version_vector() ->> :'writer', '1', 'the vector has one entry for the writer');

select pg_temp.refuses(format('select kerai.register_agent(%L, ''human'')', regexp_replace(:'writer', E'\\.[0-9a-f]{16}$', '')), 'KR002',
    'this name belongs to a swarm', 'author: crew', 'another name', 'nobody takes the writer''s author id');
select pg_temp.refuses(pg_temp.sending(jsonb_build_object('v', 1, 'author', pg_temp.author('eve'), 'seq', 1, 'lamport', 3, 'prev', null,
    'draft', :'draft'::jsonb, 'member_key', encode(pg_temp.key('ann'), 'hex'),
    'member_signature', encode(pg_temp.sign(:'draft', 'ann'), 'hex'))::text, 'eve'), 'KR013',
    'the draft is not for this author to merge', 'author: eve', 'fingerprint', 'nobody else merges a draft');

select status from kerai.stop_swarm(:'swarm') \g /dev/null
select is((kerai.push_ops(:'draft', pg_temp.sign(:'draft', 'ann'))).status, 'duplicate', 'of a stopped swarm too');
select pg_temp.refuses(pg_temp.sending(pg_temp.draft('ann', :'swarm', pg_temp.one()), 'ann'), 'KR011', 'the swarm does not run',
    'crew.*stopped', 'Stop working', 'a new one of a stopped swarm');
select pg_temp.refuses(format('select kerai.await_push(%L)', kerai.submit_push(d::json, pg_temp.sign(d, 'ann'), pg_temp.key('ann'))), 'KR011', 'the swarm does not run', 'stopped',
    'Stop working', 'submitted, too') from pg_temp.draft('ann', :'swarm', pg_temp.one()) as d;

select finish();
rollback;

-- Pushes that are taken: every operation, registers, results, the psql way, text that means nothing to us.
begin;
\ir 010-helpers.psql
select no_plan();

-- 1 root / 2 src / 3 a.py / 4, 5 leaves
select is((r.status, r.applied, r.first_seq, r.last_seq)::text, '(merged,5,1,5)', 'the first changeset')
from kerai.push_ops(pg_temp.document('ann', to_jsonb(array[
    pg_temp.ins(1, null, '{"kind": "directory"}'), pg_temp.ins(2, 1, '{"kind": "directory", "name": "src"}'),
    pg_temp.ins(3, 2, '{"name": "a.b-c.py", "language": "python", "metadata": {"k": 1, "gone": null}}'),
    pg_temp.ins(4, 3, E'{"position": "a", "kind": "s", "content": "x = 1\\n"}'),
    pg_temp.ins(5, 3, E'{"position": "B", "kind": "s", "content": "y = 1\\n"}')]))::json,
    pg_temp.sign(pg_temp.document('ann', to_jsonb(array[
    pg_temp.ins(1, null, '{"kind": "directory"}'), pg_temp.ins(2, 1, '{"kind": "directory", "name": "src"}'),
    pg_temp.ins(3, 2, '{"name": "a.b-c.py", "language": "python", "metadata": {"k": 1, "gone": null}}'),
    pg_temp.ins(4, 3, E'{"position": "a", "kind": "s", "content": "x = 1\\n"}'),
    pg_temp.ins(5, 3, E'{"position": "B", "kind": "s", "content": "y = 1\\n"}')])), 'ann'), pg_temp.key('ann')) as r;
select is((n.path::text, n.metadata, n.language)::text, '(src.a_b_c_py,"{""k"": 1}",python)',
    'a path of cleaned names, metadata without nulls') from kerai.nodes as n where n.id = pg_temp.node(3);
select is(kerai.source(pg_temp.node(3)), E'y = 1\nx = 1\n', 'siblings order bytewise: B before a');
select is((c.id, c.signature, c.prev, c.message)::text,
    (sha256(convert_to(c.document::text, 'UTF8')), pg_temp.sign(c.document::text, 'ann'), null, 'test')::text,
    'the changeset is kept as it was signed') from kerai.changesets as c;
select is((o.author, o.author_seq, o.lamport_ts, o.op_type, o.node_id, o.changeset_id)::text,
    (pg_temp.author('ann'), 4, 4, 'node_insert', pg_temp.node(4), c.id)::text, 'the log has the operation')
from kerai.operations as o, kerai.changesets as c where o.author_seq = 4;
select is(kerai.version_vector(), jsonb_build_object(pg_temp.author('ann'), 5), 'the vector names it');

select document::text as again, signature, public_key from kerai.changesets_since('{}') as s (document, signature, public_key) \gset
select is((r.status, r.applied, r.first_seq, r.last_seq)::text, '(duplicate,0,1,5)', 'the same changeset again')
from kerai.push_ops(:'again', :'signature', :'public_key') as r;
select is((r.status, r.changeset_id)::text, ('duplicate'::text, sha256(convert_to(:'again', 'UTF8')))::text,
    'nobody needs to be introduced twice') from kerai.push_ops(:'again', :'signature') as r;

-- operations
select is(pg_temp.push('bob', pg_temp.upd(4, E'{"content": "x = 2\\n", "kind": "t", "name": "n", "language": "py"}')
    || '{"metadata": {"a": [1, {"b": null}], "k": null}}'), 'merged', 'an update');
select is((n.kind, n.name, n.language, n.content, n.metadata)::text,
    ('t'::text, 'n'::text, 'py'::text, E'x = 2\n'::text, '{"a": [1, {"b": null}]}'::jsonb)::text, 'all fields are set')
from kerai.nodes as n where n.id = pg_temp.node(4);
select is(pg_temp.push('ann', pg_temp.upd(4, '{"name": null, "content": null, "language": null}'),
    '{"op": "node_update", "node": "00000000-0000-4000-8000-000000000003", "metadata": {"k": null}}'), 'merged', 'nulls');
select is((n.kind, n.name, n.language, n.content)::text, '(t,,,)', 'fields are emptied')
from kerai.nodes as n where n.id = pg_temp.node(4);
select is(n.metadata, '{}', 'a key is removed') from kerai.nodes as n where n.id = pg_temp.node(3);
select is(pg_temp.push('ann', pg_temp.upd(4, '{"content": "1"}'), pg_temp.upd(4, '{"content": "2"}')), 'merged', 'twice');
select is(n.content, '2', 'the last of one changeset wins') from kerai.nodes as n where n.id = pg_temp.node(4);

select is(pg_temp.push('ann', pg_temp.mov(4, 2, 'q'), pg_temp.mov(2, 4), pg_temp.mov(3, 3)), 'merged', 'moves');
select is((n.parent_id, n.position)::text, (pg_temp.node(2), 'q')::text, 'one has moved') from kerai.nodes as n where n.id = pg_temp.node(4);
select is(n.parent_id, pg_temp.node(1), 'a move below itself is void') from kerai.nodes as n where n.id = pg_temp.node(2);
select is(n.parent_id, pg_temp.node(2), 'and so is one onto itself') from kerai.nodes as n where n.id = pg_temp.node(3);
select is(pg_temp.push('ann', pg_temp.mov(4, null)), 'merged', 'a node becomes a root');
select is(count(*), 2::bigint, 'then there are two') from kerai.tree() where parent_id is null;
select is(pg_temp.push('ann', pg_temp.mov(4, 3, 'a')), 'merged', 'and back');

select is(pg_temp.push('ann', jsonb_build_object('op', 'node_delete', 'node', pg_temp.node(2))), 'merged', 'a delete');
select is(array_agg(t.id), array[pg_temp.node(1)], 'hides what is below too') from kerai.tree() as t;
select is(kerai.source(pg_temp.node(3)), null, 'source too');
select is(pg_temp.push('bob', pg_temp.upd(5, E'{"content": "late\\n"}')), 'merged', 'a write below a tombstone');
select is(pg_temp.push('ann', jsonb_build_object('op', 'node_restore', 'node', pg_temp.node(2))), 'merged', 'a restore');
select is(kerai.source(pg_temp.node(5)), E'late\n', 'shows what was written meanwhile');

select is(pg_temp.push('ann', pg_temp.rel('edge_insert', 4, 5, '{"metadata": {"n": null}}'),
    pg_temp.rel('edge_insert', 5, 5), pg_temp.rel('edge_delete', 5, 5), pg_temp.rel('edge_delete', 5, 4)), 'merged', 'edges');
select results_eq('select source, target, metadata, deleted from kerai.edges order by source, target', format(
    'values (%1$L::uuid, %2$L::uuid, ''{"n": null}''::jsonb, false), (%2$L, %1$L, ''{}'', true), (%2$L, %2$L, ''{}'', true)',
    pg_temp.node(4), pg_temp.node(5)), 'are there, or tombstoned');
select is(pg_temp.push('bob', pg_temp.rel('association_set', 4, 5, '{"weight": -1, "reasoning": "r"}'),
    pg_temp.rel('association_set', 5, 4, '{"weight": 1e0}'), pg_temp.rel('association_delete', 5, 4)), 'merged', 'associations');
select results_eq('select source, weight, reasoning, deleted from kerai.associations order by source', format(
    'values (%L::uuid, -1::float8, ''r'', false), (%L, null, null, true)', pg_temp.node(4), pg_temp.node(5)),
    'are set, or tombstoned');
select is(array_agg(distinct a.author::text), array[pg_temp.author('bob')], 'and the author''s own') from kerai.associations as a;
select is(pg_temp.push('bob', jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(4), 'weight', 1),
    jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(4), 'weight', 0.5, 'context', null),
    jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(4), 'weight', 0, 'context', pg_temp.node(5))),
    'merged', 'perspectives');
select results_eq('select node_id, context_id, weight, deleted from kerai.perspectives order by weight', format(
    'values (%1$L::uuid, %2$L::uuid, 0::float8, false), (%1$L, null, 0.5, false)', pg_temp.node(4), pg_temp.node(5)),
    'one a context, and no context is one too');

-- text is text
create temp table texts as select n, t from unnest(array[
    $q$'; drop table kerai.nodes; --$q$, '"quoted"', E'\\x00 \\n \\u0041 %s %I', E'tab\t nl\n', E'😀 é \\ $$ $q$',
    '${jndi}', '{"op": "node_delete"}', '../../etc/passwd']) with ordinality as u (t, n);
select is(pg_temp.push('ann', pg_temp.ins(100 + n::int, 1, jsonb_build_object('name', t, 'content', t, 'language', t,
        'kind', t, 'position', t, 'metadata', jsonb_build_object(t, t))),
    pg_temp.rel('edge_insert', 4, 5, jsonb_build_object('relation', t, 'metadata', jsonb_build_object(t, t))),
    pg_temp.rel('association_set', 4, 5, jsonb_build_object('relation', t, 'weight', 0, 'reasoning', t)),
    jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(4), 'weight', 0, 'reasoning', t)),
    'merged', format('the text %L in every field', t)) from texts;
select is(count(*), 8::bigint, 'it is kept as it is') from texts as x
inner join kerai.nodes as n on n.id = pg_temp.node(100 + x.n::int)
    and (n.name, n.content, n.language, n.kind, n.position) = (t, t, t, t, t) and n.metadata = jsonb_build_object(t, t);
select is(count(*), 8::bigint, 'in relations too') from texts as x
inner join kerai.edges as e on e.relation = t and e.metadata = jsonb_build_object(t, t)
inner join kerai.associations as a on a.relation = t and a.reasoning = t;
select lives_ok(pg_temp.pushing(t, to_jsonb(array[pg_temp.upd(4, '{}')]), jsonb_build_object('message', t)),
    format('the author and the message %L', t)) from texts where t !~ '[[:cntrl:]]';
select is(count(*), 7::bigint, 'are kept as they are') from texts as x inner join kerai.changesets as c
on c.author = pg_temp.author(t) and c.message = t;
select throws_ok(pg_temp.pushing(t, to_jsonb(array[pg_temp.upd(4, '{}')])), 'KR005', 'the changeset has a malformed value',
    'an author''s name is printable') from texts where t ~ '[[:cntrl:]]';
select is(count(*), 7::bigint, 'and the vector names them') from jsonb_object_keys(kerai.version_vector()) as k
inner join texts as x on k = pg_temp.author(t);

-- what a document may leave out, and how it may be written
select lives_ok(pg_temp.pushing('ann', to_jsonb(array[pg_temp.upd(4, '{}')]), '{}', '{guard,task,message}'),
    'guard, task and message may be left out');
select lives_ok(pg_temp.sending(E'\n' || replace(pg_temp.document('ann', to_jsonb(array[pg_temp.upd(4, '{"name": "A"}')])),
    '"A"', E'"\\u0041"') || E' \n', 'ann'), 'white space and escapes are the author''s own choice');
select is(n.name, 'A', 'and mean what they mean') from kerai.nodes as n where n.id = pg_temp.node(4);
select lives_ok(pg_temp.pushing('fresh', to_jsonb(array[pg_temp.ins(50)]), '{"base": {}, "lamport": 1}', '{prev}'),
    'a first changeset may leave out prev');
select lives_ok(pg_temp.sending(replace(pg_temp.document('ann', to_jsonb(array[pg_temp.upd(4, '{"name": "B"}')])),
    '"name": "B"', '"name": "C", "name": "D"'), 'ann'), 'of a key that is there twice');
select is(n.name, 'D', 'the last counts') from kerai.nodes as n where n.id = pg_temp.node(4);
select lives_ok(pg_temp.pushing('ann', to_jsonb(array[pg_temp.ins(60, 1, jsonb_build_object(
    'metadata', ('{"d": ' || repeat('[', 30) || repeat(']', 30) || '}')::jsonb, 'content', repeat('é', 100000)))])),
    'nesting and length within the limits');

-- the psql way
select is((kerai.register_agent('shell', 'human')).hosted, true, 'a hosted agent');
select is((r.status, r.applied)::text, '(merged,2)', 'operations alone are signed for it')
from kerai.push_ops(to_json(array[pg_temp.ins(70, 1), pg_temp.upd(70, '{"name": "seventy"}')])) as r;
select ok(kerai_private.verify_signature(c.document::text, c.signature, kerai.instance_key()), 'with the instance''s key')
from kerai.changesets as c inner join kerai.agents as a on a.author = c.author and a.name = 'shell';
select is((kerai.register_agent('second', 'human')).hosted, true, 'another one of the same role');
set local kerai.agent = 'shell';
select is((r.status, r.first_seq)::text, '(merged,3)', 'SET kerai.agent chooses')
from kerai.push_ops(to_json(array[pg_temp.upd(70, '{"name": "71"}')])) as r;
reset kerai.agent;
select is((r.status, r.first_seq)::text, '(merged,1)', 'without it the newest acts')
from kerai.push_ops(to_json(array[pg_temp.upd(70, '{"name": "72"}')])) as r;

-- drafts: what else a hosted agent may say about its operations
select kerai.version_vector() as before \gset
select id as job from kerai.create_task('a draft''s task', 'true') \gset
select is(r.status, 'merged', 'a draft')
from kerai.push_ops(json_build_object('ops', array[pg_temp.upd(70, '{"name": "73"}')], 'task', :'job',
    'guard', pg_temp.node(70), 'base', :'before'::json, 'message', 'why')) as r;
select is((c.task_id, c.guard, c.base, c.message)::text,
    (:'job'::uuid, pg_temp.node(70), :'before'::jsonb, 'why'::text)::text, 'carries task, guard, base and message')
from kerai.changesets as c order by c.arrival desc limit 1;
select is(pg_temp.push('bob', pg_temp.upd(70, '{"name": "74"}')), 'merged', 'somebody else changes the node');
select is(r.status, 'stale', 'a draft''s guard holds')
from kerai.push_ops(json_build_object('ops', array[pg_temp.upd(70, '{"name": "75"}')],
    'guard', pg_temp.node(70), 'base', :'before'::json)) as r;
select is(n.name, '74', 'and merges nothing') from kerai.nodes as n where n.id = pg_temp.node(70);

select is((r.status, r.applied)::text, '(merged,1)', 'a draft is an object of ops')
from kerai.push_ops(json_build_object('ops', json_build_array(pg_temp.ins(80)))) as r;
select is((r.status, r.applied)::text, '(merged,1)', 'and of a guard, a base, a task and a message, if wanted')
from kerai.push_ops(json_build_object('ops', json_build_array(pg_temp.upd(80, '{"name": "80"}')), 'guard', pg_temp.node(80),
    'base', kerai.version_vector(), 'task', null, 'message', 'é "why"')) as r;
select is((c.message, c.guard)::text, ('é "why"'::text, pg_temp.node(80))::text, 'which the changeset then says')
from kerai.changesets as c order by c.arrival desc limit 1;
select is((r.status, r.applied)::text, '(stale,0)', 'the guard of a draft holds')
from kerai.push_ops(json_build_object('ops', json_build_array(pg_temp.ins(81)), 'guard', pg_temp.node(2), 'base', '{}'::json)) as r;

-- guards
select kerai.version_vector() as seen \gset
select is(pg_temp.push('bob', pg_temp.upd(5, '{"content": "bob"}')), 'merged', 'another author touches src');
select pg_temp.document('ann', to_jsonb(array[pg_temp.upd(4, '{"name": "late"}')]), to_jsonb(n)
    || jsonb_build_object('guard', pg_temp.node(2))) as late
from kerai.next_changeset(pg_temp.author('ann'), :'seen') as n \gset
select is((r.status, r.applied)::text, '(stale,0)', 'a push that has not seen it is stale')
from kerai.push_ops(:'late', pg_temp.sign(:'late', 'ann'), pg_temp.key('ann')) as r;
select is(n.name, 'D', 'and merges nothing') from kerai.nodes as n where n.id = pg_temp.node(4);
select lives_ok(pg_temp.pushing('ann', to_jsonb(array[pg_temp.upd(4, '{"name": "seen"}')]),
    jsonb_build_object('guard', pg_temp.node(2))), 'having seen it, it is merged');
select is(n.name, 'seen', 'now') from kerai.nodes as n where n.id = pg_temp.node(4);

select kerai.version_vector() as seen \gset
select is(pg_temp.push('bob', pg_temp.rel('edge_insert', 70, 4, '{"relation": "calls"}')), 'merged', 'a relation into the subtree');
select pg_temp.document('ann', to_jsonb(array[pg_temp.upd(4, '{"name": "late"}')]), to_jsonb(n)
    || jsonb_build_object('guard', pg_temp.node(2))) as late
from kerai.next_changeset(pg_temp.author('ann'), :'seen') as n \gset
select is(r.status, 'stale', 'touches it with its target')
from kerai.push_ops(:'late', pg_temp.sign(:'late', 'ann'), pg_temp.key('ann')) as r;
select kerai.version_vector() as seen \gset
select is(pg_temp.push('bob', jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(70), 'context', pg_temp.node(4),
    'weight', 0)), 'merged', 'a view in the context of the subtree');
select pg_temp.document('ann', to_jsonb(array[pg_temp.upd(4, '{"name": "late"}')]), to_jsonb(n)
    || jsonb_build_object('guard', pg_temp.node(2))) as late
from kerai.next_changeset(pg_temp.author('ann'), :'seen') as n \gset
select is(r.status, 'stale', 'touches it too')
from kerai.push_ops(:'late', pg_temp.sign(:'late', 'ann'), pg_temp.key('ann')) as r;

select * from finish();
rollback;

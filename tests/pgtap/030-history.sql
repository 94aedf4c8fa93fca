-- Diff, log, and undoing: what they answer, and what they refuse. The laws over random histories are in tests/merge.
begin;
\ir 010-helpers.psql
select no_plan();

create function pg_temp.latest() returns bytea
language sql as $$ select c.id from kerai.changesets as c order by c.arrival desc limit 1 $$;

-- 1 root / 2 src / 3 a.py (4, 5); 6 docs / 7 readme
select is(pg_temp.push('ann', pg_temp.ins(1, null, '{"kind": "directory"}'), pg_temp.ins(2, 1, '{"kind": "directory", "name": "src"}'),
    pg_temp.ins(3, 2, '{"name": "a.py"}'), pg_temp.ins(4, 3, E'{"kind": "s", "content": "4\\n"}'),
    pg_temp.ins(5, 3, E'{"kind": "s", "content": "5\\n", "position": "b"}'), pg_temp.ins(6, 1, '{"kind": "directory", "name": "docs", "position": "b"}'),
    pg_temp.ins(7, 6, E'{"name": "readme", "content": "7\\n", "metadata": {"k": 1}}')), 'merged', 'a tree');
select kerai.version_vector() as first, pg_temp.latest() as import \gset
select is(pg_temp.push('bob', pg_temp.upd(4, E'{"content": "bob\\n"}'), pg_temp.mov(5, 3, 'A'), pg_temp.upd(2, '{"name": "lib"}'),
    '{"op": "node_update", "node": "00000000-0000-4000-8000-000000000007", "metadata": {"k": null, "m": 2}}',
    pg_temp.rel('edge_insert', 3, 7), '{"op": "perspective_set", "node": "00000000-0000-4000-8000-000000000003", "weight": 1}'),
    'merged', 'which bob changes');
select kerai.version_vector() as second, pg_temp.latest() as bobs \gset
select is(pg_temp.push('ann', jsonb_build_object('op', 'node_delete', 'node', pg_temp.node(6))), 'merged', 'and ann, too');
select pg_temp.latest() as deletion \gset

-- diff
select results_eq(format('select right(node_id::text, 1)::int, changes, path, before, after from kerai.diff(%L, %L)', :'first', :'second'),
    $$values (7, '{metadata}'::text[], 'docs/readme', '{"metadata": {"k": 1}}'::jsonb, '{"metadata": {"m": 2}}'::jsonb),
    (2, '{name}', 'lib', '{"name": "src"}', '{"name": "lib"}'), (4, '{content}', 'lib/a.py', E'{"content": "4\\n"}', E'{"content": "bob\\n"}'),
    (5, '{moved}', 'lib/a.py', '{"position": "b"}', '{"position": "A"}')$$, 'what bob did, node by node');
select results_eq(format('select right(node_id::text, 1)::int, changes, kind, path, before ->> %L, after from kerai.diff(%L)', 'name', :'second'),
    $$values (6, '{removed}'::text[], 'directory', 'docs', 'docs'::text, null::jsonb), (7, '{removed}', 'file', 'docs/readme', 'readme', null)$$,
    'what is below a tombstone is removed with it');
select results_eq(format('select right(node_id::text, 1)::int, changes from kerai.diff(kerai.version_vector(), %L)', :'second'),
    $$values (6, '{added}'::text[]), (7, '{added}')$$, 'backwards it is added');
select results_eq(format('select right(node_id::text, 1)::int from kerai.diff(%L, null, %L)', :'first', pg_temp.node(3)),
    'values (4), (5)', 'in a scope');
select is(count(*), 7::bigint, 'from nothing') from kerai.diff('{}', :'first');
select is_empty('select from kerai.diff(kerai.version_vector())', 'of now and now');
select results_eq(format('select old_path, new_path, old_source, new_source from kerai.diff_files(%L)', :'first'),
    $$values ('docs/readme', null, E'7\n', null), ('src/a.py', 'lib/a.py', E'4\n5\n', E'5\nbob\n')$$, 'file by file, a renamed directory''s too');
select results_eq(format('select new_path, new_metadata from kerai.diff_files(%L, %L)', :'first', :'second'),
    $$values ('docs/readme', '{"m": 2}'::jsonb), ('lib/a.py', '{}')$$, 'also when only the metadata differ');
select is((v.before, v.after)::text, (:'first'::jsonb, :'second'::jsonb)::text, 'a changeset lies between two vectors')
from kerai.changeset_vectors(:'bobs') as v;

-- log
select results_eq('select author_id, operations, files, paths from kerai.log()', format(
    'values (%L, 1::bigint, 0::bigint, %L::text[]), (%L, 6, 2, %L), (%L, 7, 2, %L)', pg_temp.author('ann'), '{}', pg_temp.author('bob'),
    '{docs/readme,lib/a.py}', pg_temp.author('ann'), '{docs/readme,lib/a.py}'), 'the log, latest first');
select results_eq('select changeset_id from kerai.log(author => ''ann'', max_rows => 1)', format('values (%L::bytea)', :'deletion'), 'of an author');
select is(count(*), 2::bigint, 'by the full id, too') from kerai.log(author => pg_temp.author('ann'));
select is_empty('select from kerai.log(author => ''an'')', 'not by a part of the name');
select is_empty('select from kerai.log(author => ''%'')', 'which is no pattern');
select is(array_agg(l.changeset_id), array[:'bobs', :'import']::bytea[], 'of a file') from kerai.log(pg_temp.node(3)) as l;
select is(array_agg(l.changeset_id), array[:'import']::bytea[], 'the next page')
from kerai.log(before => (select min(p.arrival) from kerai.log(max_rows => 2) as p)) as l;
select is(array_agg(l.changeset_id), array[:'deletion', :'import']::bytea[], 'of a directory and an author')
from kerai.log(pg_temp.node(6), 'ann') as l;

-- revert
select kerai.register_agent('me', 'human') \g /dev/null
select is((kerai.push_ops(kerai.revert_ops(:'deletion'))).status, 'merged', 'a deletion is undone');
select is_empty(format('select from kerai.diff(%L)', :'second'), 'so that all is as before');
select pg_temp.refuses(format('select kerai.revert_ops(%L)', :'deletion'), 'KR011', 'there is nothing left to undo', 'changeset: [0-9a-f]{64}',
    'written over', 'only once');
select is(pg_temp.push('cid', pg_temp.upd(4, E'{"content": "cid\\n"}')), 'merged', 'cid writes over bob');
select is((kerai.push_ops(kerai.revert_ops(:'bobs'))).applied, 4, 'the rest of bob''s goes back');
select results_eq(format('select right(node_id::text, 1)::int, after from kerai.diff(%L)', :'first'),
    $$values (4, E'{"content": "cid\\n"}'::jsonb)$$, 'what cid wrote stays');
select is(array_agg(e.deleted), '{t}', 'the edge is gone') from kerai.edges as e;
select is(array_agg(p.deleted), '{f}', 'the view is bob''s own') from kerai.perspectives as p;
select is(o ->> 'op', 'perspective_delete', 'and for him to take back')
from json_array_elements(kerai.revert_ops(:'bobs', pg_temp.author('bob'))) as o where o ->> 'op' like 'persp%';
select is((kerai.push_ops(kerai.revert_ops(:'import'))).status, 'merged', 'an import is undone');
select is_empty('select from kerai.tree()', 'by deletion');

-- refusals
select pg_temp.refuses(format(call, 'decode(''00'', ''hex'')'), 'KR006', 'no such changeset', 'changeset: 00', 'kerai.log', call)
from unnest(array['select kerai.revert_ops(%s)', 'select kerai.changeset_vectors(%s)']) as call;
select pg_temp.refuses(format(call, 'null'), 'KR006', 'no such changeset', 'changeset: null', 'kerai.log', call || ' of null')
from unnest(array['select kerai.revert_ops(%s)', 'select kerai.changeset_vectors(%s)']) as call;
select pg_temp.refuses(format('select * from kerai.%s(%s)', f, arguments), code, message, detail, hint, f || ' ' || arguments)
from unnest(array['diff', 'diff_files']) as f
cross join (values
    ('null', 'KR005', 'a version vector is a JSON object', 'given: null', 'highest'),
    ('''[]''', 'KR005', 'a version vector is a JSON object', E'given: \\[\\]', 'highest'),
    ('''{}'', ''{"x": -1}''', 'KR005', 'a version vector names sequence numbers', 'author x: -1', 'whole number'),
    ('''{"x": 7}''', 'KR004', 'operations that the vector names are not here', 'missing: x 1-7', 'sync'),
    ('''{}'', null, pg_temp.node(99)', 'KR006', 'no such node', 'node: .*0099', 'kerai.nodes')) as r (arguments, code, message, detail, hint);
select pg_temp.refuses(format('select * from kerai.log(max_rows => %s)', n), 'KR005', 'max_rows is between 1 and 10000', 'max_rows: ',
    'lowest arrival', 'max_rows of ' || n) from unnest(array['0', '-1', '10001', 'null']) as n;
select pg_temp.refuses('select * from kerai.log(pg_temp.node(99))', 'KR006', 'no such node', 'node: .*0099', 'kerai.nodes', 'log of nothing');

select * from finish();
rollback;

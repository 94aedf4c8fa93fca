-- Vectors, tree, source, checkout, the digest and the log: what they answer, and what they refuse.
begin;
\ir 010-helpers.psql
select no_plan();

-- vectors
select pg_temp.refuses('select * from kerai.changesets_since(''[]'')', 'KR005', 'a version vector is a JSON object',
    E'given: \\[\\]', 'highest sequence', 'a bad vector is refused also where nothing can be missing');
select is(kerai.version_vector(), '{}', 'an empty instance has seen nothing');
select is(kerai.state_digest(), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    'and its digest is that of nothing');
select is(kerai.vector_compare(v.a::jsonb, v.b::jsonb), v.answer, format('compare %s with %s', v.a, v.b))
from (values
    ('{}', '{}', 'equal'), ('{"x": 0}', '{}', 'equal'), ('{"x": 1}', '{"x": 1}', 'equal'), ('{}', '{"x": 1}', 'before'),
    ('{"x": 2}', '{"x": 1}', 'after'), ('{"x": 1}', '{"y": 1}', 'concurrent'), ('{"x": 1, "y": 2}', '{"x": 2, "y": 1}', 'concurrent'),
    ('{"x": 1}', '{"x": 1, "y": 1}', 'before'), ('{"x": 999999999999999999}', '{"x": 1, "y": 0}', 'after'),
    ('{"''; --": 1}', E'{"\\"": 1}', 'concurrent')) as v (a, b, answer);
select is(kerai.vector_merge('{"x": 1, "y": 5, "n": 0}', '{"x": 3, "z": 1}'), '{"x": 3, "y": 5, "z": 1}', 'merge is the pointwise maximum');
select is(kerai.vector_merge('{}', '{}'), '{}', 'of nothing it is nothing');
select is(kerai.vector_contains(v::jsonb, 'x', n), answer, format('%s contains x %s', v, n))
from (values ('{"x": 3}', 3, true), ('{"x": 3}', 4, false), ('{}', 1, false), ('{}', 0, true), ('{"y": 9}', 1, false)) as v (v, n, answer);
select results_eq($$select author::text, first_seq, last_seq from kerai.vector_missing('{"x": 2, "z": 9}', '{"x": 5, "B": 1, "a": 2, "z": 9}')$$,
    $$values ('B'::text, 1::bigint, 1::bigint), ('a', 1, 2), ('x', 3, 5)$$, 'missing: what is wanted and not had');
select is_empty($$select from kerai.vector_missing('{"x": 2}', '{"x": 1}')$$, 'nothing is missing');

-- 1 root / 2 src / 3 a.py (4, 5), 6 empty; 7 docs (8 readme, a leaf by itself), 9 a loose leaf
select is(pg_temp.push('ann', pg_temp.ins(1, null, '{"kind": "directory"}'), pg_temp.ins(2, 1, '{"kind": "directory", "name": "src"}'),
    pg_temp.ins(3, 2, '{"name": "a.py"}'), pg_temp.ins(4, 3, E'{"kind": "s", "content": "4\\n", "position": "b"}'),
    pg_temp.ins(5, 3, E'{"kind": "s", "content": "5\\n", "position": "B"}'), pg_temp.ins(6, 2, '{"name": "empty", "position": "b"}'),
    pg_temp.ins(7, 1, '{"kind": "directory", "name": "docs", "position": "b"}'),
    pg_temp.ins(8, 7, '{"name": "read me", "content": "8"}'), pg_temp.ins(9, 7, '{"kind": "s", "content": "9", "position": "b"}')),
    'merged', 'a tree');
select kerai.version_vector() as before, kerai.state_digest() as digest \gset
select is(pg_temp.push('bob', pg_temp.upd(4, E'{"content": "bob\\n"}'), pg_temp.mov(5, 6), pg_temp.upd(2, '{"name": "lib"}'),
    jsonb_build_object('op', 'node_delete', 'node', pg_temp.node(7))), 'merged', 'which bob changes');

-- tree
select results_eq('select id, depth, path::text from kerai.tree()', format('values (%L::uuid, 0, %L), (%L, 1, %L), (%L, 2, %L), (%L, 3, %L), (%L, 2, %L), (%L, 3, %L)',
    pg_temp.node(1), '', pg_temp.node(2), 'lib', pg_temp.node(3), 'lib.a_py', pg_temp.node(4), 'lib.a_py', pg_temp.node(6),
    'lib.empty', pg_temp.node(5), 'lib.empty'), 'the tree now: in pre-order, with depths and paths');
select results_eq(format('select id, depth, path::text from kerai.tree(null, %L)', :'before'), format(
    'values (%L::uuid, 0, %L), (%L, 1, %L), (%L, 2, %L), (%L, 3, %L), (%L, 3, %L), (%L, 2, %L), (%L, 1, %L), (%L, 2, %L), (%L, 2, %L)',
    pg_temp.node(1), '', pg_temp.node(2), 'src', pg_temp.node(3), 'src.a_py', pg_temp.node(5), 'src.a_py', pg_temp.node(4),
    'src.a_py', pg_temp.node(6), 'src.empty', pg_temp.node(7), 'docs', pg_temp.node(8), 'docs.read_me', pg_temp.node(9), 'docs'),
    'and as ann had left it');
select is(array_agg(t.id), array[pg_temp.node(3), pg_temp.node(4)], 'from a node down') from kerai.tree(pg_temp.node(3)) as t;
select is(array_agg(t.depth), array[0, 1, 1], 'depth counts from there') from kerai.tree(pg_temp.node(3), :'before') as t;
select is_empty(format('select from kerai.tree(%L)', pg_temp.node(8)), 'nothing of what is below a tombstone');
select is_empty(format('select from kerai.tree(%L, ''{}'')', pg_temp.node(3)), 'nothing of what was not there yet');
select is_empty($$select from kerai.tree(null, '{}')$$, 'in the beginning there was nothing');
select is(count(*), 3::bigint, 'a vector may end within a changeset')
from kerai.tree(null, jsonb_build_object(pg_temp.author('ann'), 3));

-- source and checkout
select is(kerai.source(pg_temp.node(3)), E'bob\n', 'source now');
select is(kerai.source(pg_temp.node(3), :'before'), E'5\n4\n', 'source before');
select is(kerai.source(pg_temp.node(6), :'before'), '', 'an empty file is empty text');
select is(kerai.source(pg_temp.node(8)), null, 'a deleted one is none');
select results_eq('select * from kerai.checkout()', $$values ('lib/a.py', E'bob\n'), ('lib/empty', E'5\n')$$, 'checkout now');
select results_eq(format('select * from kerai.checkout(null, %L)', :'before'),
    $$values ('src/a.py', E'5\n4\n'), ('src/empty', ''), ('docs/read me', '8')$$, 'checkout before; what lies beside a file is not in it');
select results_eq(format('select * from kerai.checkout(%L)', pg_temp.node(3)), $$values ('lib/a.py', E'bob\n')$$, 'checkout of a file');
select results_eq(format('select path from kerai.checkout(%L, %L)', pg_temp.node(7), :'before'), $$values ('docs/read me')$$,
    'checkout of a directory, paths from the root');
select is_empty(format('select from kerai.checkout(%L)', pg_temp.node(4)), 'a statement holds no file');

-- digest and log
select isnt(kerai.state_digest(), :'digest', 'another state has another digest');
select matches(kerai.state_digest(), '^[0-9a-f]{64}$', 'it is a sha256');
select is(count(*), 2::bigint, 'the log has both changesets') from kerai.changesets_since('{}');
select is(array_agg(s.changeset ->> 'author'), array[pg_temp.author('bob')], 'or the one that is missing')
from kerai.changesets_since(:'before') as s;
select is(array_agg(s.changeset ->> 'author'), array[pg_temp.author('ann')], 'a page holds at least one') from kerai.changesets_since('{}', 1) as s;
select is(array_agg(s.changeset ->> 'author'), array[pg_temp.author('ann')], 'a page ends at its limit') from kerai.changesets_since('{}', 12) as s;
select is(count(*), 2::bigint, 'and not before') from kerai.changesets_since('{}', 13) as s;
select is_empty('select from kerai.changesets_since(kerai.version_vector())', 'nothing is missing of everything');
select is((n.seq, n.lamport, n.base)::text, (10, 14, kerai.version_vector())::text, 'what ann''s next changeset must carry')
from kerai.next_changeset(pg_temp.author('ann')) as n;
select is((n.seq, n.lamport, n.prev, n.base)::text, (1, 10, null, :'before')::text, 'and the first of somebody who saw only hers')
from kerai.next_changeset('nobody.0123456789abcdef', :'before') as n;

-- refusals
select pg_temp.refuses(format(call, format('%L::jsonb', vector)), 'KR005', message, detail, 'highest sequence seen|whole number', format(call, quote_nullable(vector)))
from unnest(array[
    'select kerai.vector_compare(%s, ''{}'')', 'select kerai.vector_compare(''{}'', %s)', 'select kerai.vector_merge(%s, ''{}'')',
    'select kerai.vector_merge(''{}'', %s)', 'select kerai.vector_contains(%s, ''x'', 1)', 'select * from kerai.vector_missing(%s, ''{}'')',
    'select * from kerai.vector_missing(''{}'', %s)', 'select * from kerai.changesets_since(%s)',
    'select * from kerai.tree(null, %s)', 'select kerai.source(pg_temp.node(3), %s)', 'select * from kerai.checkout(null, %s)',
    'select * from kerai.next_changeset(''x.0123456789abcdef'', %s)']) as call
cross join (values
    (null, 'a version vector is a JSON object', 'given: null'), ('null', 'a version vector is a JSON object', 'given: null'),
    ('[]', 'a version vector is a JSON object', E'given: \\[\\]'), ('"x"', 'a version vector is a JSON object', 'given: "x"'),
    ('5', 'a version vector is a JSON object', 'given: 5'),
    ('{"x": -1}', 'a version vector names sequence numbers', 'author x: -1'),
    ('{"x": 1.5}', 'a version vector names sequence numbers', 'author x: 1.5'),
    ('{"x": "1"}', 'a version vector names sequence numbers', 'author x: "1"'),
    ('{"x": null}', 'a version vector names sequence numbers', 'author x: '),
    ('{"x": [1]}', 'a version vector names sequence numbers', E'author x: \\[1\\]'),
    ('{"x": 9223372036854775808}', 'a version vector names sequence numbers', 'author x: 9223372036854775808'),
    ('{"x": 1e100000}', 'a version vector names sequence numbers', 'author x: 10000')) as v (vector, message, detail)
where vector is not null or call ~ 'vector_|since';
select pg_temp.refuses(call, 'KR004', 'operations that the vector names are not here', 'missing: x 1-7', 'sync', call)
from unnest(array['select * from kerai.tree(null, ''{"x": 7}'')', 'select kerai.source(pg_temp.node(3), ''{"x": 7}'')',
    'select * from kerai.checkout(null, ''{"x": 7}'')', 'select * from kerai.next_changeset(''y.0123456789abcdef'', ''{"x": 7}'')']) as call;
select pg_temp.refuses(call, 'KR006', 'no such node', 'node: (null|.*0099)', 'kerai.nodes', call)
from unnest(array['select * from kerai.tree(pg_temp.node(99))', 'select * from kerai.tree(pg_temp.node(99), ''{}'')',
    'select kerai.source(pg_temp.node(99))', 'select kerai.source(null)', 'select * from kerai.checkout(pg_temp.node(99))']) as call;
select pg_temp.refuses(format('select * from kerai.changesets_since(''{}'', %s)', n), 'KR005', 'max_ops is at least 1',
    'max_ops: ', 'Leave it out', 'max_ops of ' || n) from unnest(array['0', '-1', 'null']) as n;
select lives_ok('select kerai.vector_contains(''{"x": 1}'', null, null), kerai.vector_contains(''{}'', null, 1)', 'a NULL author is nobody');

-- what must not depend on the caller, or on what others have put into the tree
select is(pg_temp.push('ann', jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(3), 'weight', 0.1234567890123456)),
    'merged', 'a weight with many digits');
select kerai.state_digest() as digest \gset
set extra_float_digits = 0;
select is(kerai.state_digest(), :'digest', 'the digest does not depend on a setting of the session');
reset extra_float_digits;
select is(pg_temp.push('ann', variadic array(
        select pg_temp.ins(1000 + n, case when n > 0 then 999 + n end, '{"kind": "directory", "content": "."}')
        from generate_series(0, 600) as n)), 'merged', 'a chain of 601 nodes');
select is(count(*), 501::bigint, 'is shown down to a depth of 500') from kerai.tree(pg_temp.node(1000));
select is(count(*), 501::bigint, 'also as of a vector') from kerai.tree(null, kerai.version_vector()) as t
where t.id >= pg_temp.node(1000) and t.id <= pg_temp.node(1600);

select is(pg_temp.push('ann', pg_temp.ins(2000, null, '{"kind": "project", "name": "app"}'),
    pg_temp.ins(2001, 2000, '{"kind": "package", "name": "core"}'), pg_temp.ins(2002, 2001, E'{"name": "x.py", "content": "x\\n"}')),
    'merged', 'files need not lie in directories');
select results_eq('select * from kerai.checkout(pg_temp.node(2000))', $$values ('app/core/x.py'::text, E'x\n'::text)$$,
    'to be checked out');

select * from finish();
rollback;

-- Pushes that are refused: each with its code, DETAIL and HINT, and without a trace.
begin;
\ir 010-helpers.psql
select no_plan();

-- 1 root / 2 src / 3 a.py / 4, 5 leaves, by ann
select is(pg_temp.push('ann', pg_temp.ins(1), pg_temp.ins(2, 1), pg_temp.ins(3, 2), pg_temp.ins(4, 3), pg_temp.ins(5, 3)),
    'merged', 'a tree');
create function pg_temp.one() returns jsonb language sql as $$ select to_jsonb(array[pg_temp.upd(4, '{"name": "n"}')]) $$;

-- KR001: who signed it?
select pg_temp.document('ann', pg_temp.one()) as document, pg_temp.key('ann') as key \gset
select pg_temp.refuses(format('select kerai.push_ops(%L)', :'document'), 'KR001', 'a changeset must be signed', 'author: ann',
    'kerai-changeset-v1', 'no signature');
select pg_temp.refuses(format('select kerai.push_ops(%L, %L)', :'document', bad), 'KR001', 'the signature does not verify',
    E'author: ann\\..*, changeset: [0-9a-f]{64}', 'kerai-changeset-v1', format('a signature of %s bytes', octet_length(bad)))
from unnest(array['', E'\\x00', decode(repeat('00', 64), 'hex'), pg_temp.sign(:'document', 'ann') || E'\\x00',
    substr(pg_temp.sign(:'document', 'ann'), 1, 63), pg_temp.sign(:'document', 'bob'), pg_temp.sign(:'document' || ' ', 'ann'),
    set_byte(pg_temp.sign(:'document', 'ann'), 0, get_byte(pg_temp.sign(:'document', 'ann'), 0) # 1)]::bytea[]) as bad;
select pg_temp.refuses(format('select kerai.push_ops(%L, %L, %L)', edited, pg_temp.sign(:'document', 'ann'), :'key'), 'KR001',
    'the signature does not verify', 'author: ann', 'kerai-changeset-v1', 'an edited document')
from unnest(array[replace(:'document', '"n"', '"m"'), :'document' || ' ', replace(:'document', '"test"', '"tesT"'),
    :'document'::jsonb::text || E'\n']) as edited;
select pg_temp.refuses(format('select kerai.push_ops(%L, %L, %L)', d, pg_temp.sign(d, 'ann'), pg_temp.key('new')), 'KR001',
    'the signature does not verify', 'author: new', 'kerai-changeset-v1', 'somebody new, signed by another')
from pg_temp.document('new', to_jsonb(array[pg_temp.ins(9)])) as d;
select pg_temp.refuses(format('select kerai.push_ops(%L, %L)', pg_temp.one(), pg_temp.sign(pg_temp.one()::text, 'ann')), 'KR005',
    'a changeset is a JSON object', 'given: array', 'an array of operations', 'an array with a signature');

-- KR002, KR006: who is that?
select pg_temp.refuses(format('select kerai.push_ops(%L, %L, %L)', :'document', pg_temp.sign(:'document', 'ann'), k), 'KR002',
    'the author id does not match the public key', E'author: ann\\..*, key: [0-9a-f]*', 'sha256', 'the key of another')
from unnest(array[pg_temp.key('bob'), '', substr(pg_temp.key('ann'), 2), pg_temp.key('ann') || E'\\x00']::bytea[]) as k;
select pg_temp.refuses(format('select kerai.push_ops(%L, %L)', d, pg_temp.sign(d, 'new')), 'KR006', 'no such author',
    'author: new', 'public_key', 'somebody new, not introduced')
from pg_temp.document('new', to_jsonb(array[pg_temp.ins(9)])) as d;
select pg_temp.refuses($$select kerai.push_ops('[{"op": "node_delete", "node": "00000000-0000-4000-8000-000000000001"}]')$$,
    'KR006', 'you have no hosted agent to act for you', 'role: ', 'register_agent', 'the psql way without an agent');

-- KR004: what it follows on
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), changes), 'KR004', message, detail, 'first|prev is', message)
from (values
    ('{"seq": 7}', 'a gap in the author''s sequence', 'missing: 6-6'),
    ('{"seq": 999999999999999999}', 'a gap in the author''s sequence', 'missing: 6-999999999999999998'),
    (jsonb_build_object('prev', repeat('0', 64)), 'prev names a changeset that is not here', 'prev: 0{64}, the latest here: [0-9a-f]{64}'),
    (jsonb_build_object('base', jsonb_build_object(pg_temp.author('ann'), 6)), 'operations that the vector names are not here',
        E'missing: ann\\.[0-9a-f]{16} 6-6'),
    ('{"base": {"nobody.0123456789abcdef": 3, "zz": 1}}', 'operations that the vector names are not here',
        'missing: nobody.0123456789abcdef 1-3, zz 1-1'),
    ('{"base": {"'';drop table kerai.nodes;--": 999999999999999999}}', 'operations that the vector names are not here',
        'drop table kerai.nodes;-- 1-999999999999999999')
) as c (changes, message, detail);
select pg_temp.refuses(pg_temp.pushing('new', to_jsonb(array[pg_temp.ins(9)]), jsonb_build_object('prev', repeat('a', 64))), 'KR004',
    'prev names a changeset that is not here', 'the latest here: null', 'null for the first', 'a first changeset with a prev');
select pg_temp.refuses(pg_temp.pushing('new', pg_temp.one(), '{"base": {}, "lamport": 1}'), 'KR004',
    'an operation names a node that base does not cover', E'operation 0 names node .*0004; missing in base: ann\\.[0-9a-f]{16} 4',
    'base', 'a node that the author says he has not seen');

-- KR003: forks. The evidence needs a committed rival: tests/concurrency.
select is(pg_temp.push('ann', pg_temp.upd(5, '{"name": "a"}')), 'merged', 'a second changeset');
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), changes), 'KR003',
    'fork: this author has signed another changeset at the same place',
    E'author: ann\\..*, seq: [0-9]+, merged here: [0-9a-f]{64}, refused: [0-9a-f]{64}', 'kerai.forks', about)
from (values
    (jsonb_build_object('seq', 6, 'prev', (select encode(id, 'hex') from kerai.changesets where first_seq = 1)), 'the same seq and prev'),
    ('{"seq": 6}', 'the same seq'),
    ('{"seq": 1, "prev": null}', 'the first seq'),
    ('{"seq": 3, "prev": null}', 'a seq in the middle of a changeset'),
    ('{"prev": null}', 'the same prev'),
    (jsonb_build_object('prev', (select encode(id, 'hex') from kerai.changesets where first_seq = 1)), 'another''s prev')
) as c (changes, about);

-- KR005: clocks
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), jsonb_build_object('lamport', l)), 'KR005',
    'the lamport timestamp is out of bounds', format('lamport: %s, must be: 7', l), 'highest lamport', format('lamport %s', l))
from unnest('{1,6,8,1000000,999999999999999999}'::bigint[]) as l;
select pg_temp.refuses(pg_temp.pushing('new', to_jsonb(array[pg_temp.ins(9)]), '{"base": {}, "lamport": 2}'), 'KR005',
    'the lamport timestamp is out of bounds', 'lamport: 2, must be: 1', 'highest lamport', 'a first lamport is 1');

-- KR005: the envelope
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), '{}', array[k]), 'KR005', 'the changeset lacks a key',
    'missing: ' || k, 'v, author, seq', 'without ' || k)
from unnest('{v,seq,lamport,base,ops,author}'::text[]) as k;
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), jsonb_build_object(k, 1)), 'KR005',
    'the changeset has a key that it does not take', 'unknown: ', 'v, author, seq', format('with the key %L', k))
from unnest(array['x', 'V', '', $q$'; drop table kerai.nodes; --$q$]) as k;
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), jsonb_build_object(k, v)), 'KR005',
    'the changeset has a malformed value', '^' || k, 'Correct the value', format('%s: %s', k, left(v::text, 40)))
from (
    select 'v' as k, u.v from unnest(array['0', '2', '"1"', 'null', '[]', '{}', 'true', '1e9']::jsonb[]) as u (v)
    union all
    select k, u.v from unnest('{seq,lamport}'::text[]) as k, unnest(
        array['0', '-1', '"1"', 'null', '[]', '{}', 'true', '1.5', '1.0', '9223372036854775807', '9223372036854775808', '1e30', '1000000000000000000']::jsonb[]) as u (v)
    union all
    select 'author', u.v from unnest(array['1', 'null', '[]', '""', '"ann"', '".0123456789abcdef"', '"ann.0123456789abcde"',
        '"ann.0123456789ABCDEF"', '"ann.0123456789abcdef "', E'"ann.0123456789abcdef\\n"']::jsonb[]) as u (v)
    union all
    select 'author', to_jsonb(repeat('n', 210) || '.0123456789abcdef')
    union all
    select 'prev', u.v from unnest(array['0', '""', '"abc"', '[]', '{}', 'true']::jsonb[]) as u (v)
    union all
    select 'prev', to_jsonb(t) from unnest(array[repeat('A', 64), repeat('a', 65), repeat('a', 64) || E'\n']) as t
    union all
    select k, u.v from unnest('{guard,task}'::text[]) as k, unnest(array['0', '""', '"abc"', '[]', '{}', 'true']::jsonb[]) as u (v)
    union all
    select k, to_jsonb(t) from unnest('{guard,task}'::text[]) as k, unnest(array[pg_temp.node(1) || ' ',
        replace(pg_temp.node(1)::text, '-', ''), '{' || pg_temp.node(1) || '}', 'g' || substr(pg_temp.node(1)::text, 2)]) as t
    union all
    select 'base', u.v from unnest(array['0', '""', 'null', '[]', 'true']::jsonb[]) as u (v)
    union all
    select 'message', u.v from unnest(array['0', '[]', '{}', 'true']::jsonb[]) as u (v)
    union all
    select 'message', to_jsonb(repeat('é', 32769))
    union all
    select 'ops', u.v from unnest(array['0', '""', 'null', '{}', 'true']::jsonb[]) as u (v)
) as c (k, v);
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), jsonb_build_object('base', jsonb_build_object('zz', v))), 'KR005',
    'a version vector names sequence numbers', 'author zz: ', 'whole number', format('a base of %s', left(v::text, 40)))
from unnest(array['-1', '1.5', '1.0', '"1"', 'null', '[]', '{}', 'true', '1e18', '9223372036854775807', '1e400']::jsonb[]) as u (v);
select pg_temp.refuses(pg_temp.pushing('ann', pg_temp.one(), jsonb_build_object('guard', pg_temp.node(99))), 'KR006', 'no such node',
    'node: .*0099', 'kerai.nodes', 'an unknown guard');

-- KR005: documents that are none
select pg_temp.refuses(format('select kerai.push_ops(%s)', d), 'KR005', message, detail, hint, d)
from (values
    ('null', 'a changeset is needed', 'given: null', 'JSON object'),
    ($$'null'$$, 'a changeset is a JSON object', 'given: null', 'JSON object'),
    ($$'5'$$, 'a changeset is a JSON object', 'given: number', 'JSON object'),
    ($$'"{}"'$$, 'a changeset is a JSON object', 'given: string', 'JSON object'),
    ($$'true', E'\\x00', E'\\x00'$$, 'a changeset is a JSON object', 'given: boolean', 'JSON object'),
    ($$'{}'$$, 'the changeset lacks a key', 'missing: v, author, seq, lamport, base, ops', 'v, author'),
    ($$'[]'$$, 'too few or too many operations', '0 operations, 1 to 50000', 'Split'),
    ($$'[5]'$$, 'an operation is malformed', 'operation 0 is not an object', 'count from 0'),
    ($$'[{}]'$$, 'an operation is malformed', 'operation 0 lacks the key op', 'count from 0'),
    ($$E'{"v": "\\u0000"}'$$, 'the changeset holds what cannot be stored', 'u0000', 'NUL'),
    ($$E'["\\ud800"]'$$, 'the changeset holds what cannot be stored', 'surrogate', 'surrogates'),
    ($$E'["\\udc00\\ud800"]'$$, 'the changeset holds what cannot be stored', 'surrogate', 'surrogates'),
    ($$'{"v": 1e200000}'$$, 'the changeset holds what cannot be stored', 'overflow', 'numbers')
) as c (d, message, detail, hint);

-- KR005: drafts of a hosted agent
select is((kerai.register_agent('shell', 'human')).hosted, true, 'a hosted agent');
select pg_temp.refuses(format('select kerai.push_ops(%L)', jsonb_build_object('ops', pg_temp.one()) || draft), code, message, detail,
    '.', draft::text)
from (values
    ('{"ops": []}'::jsonb, 'KR005', 'too few or too many operations', '0 operations'),
    ('{"ops": [1]}', 'KR005', 'an operation is malformed', 'operation 0 is not an object'),
    ('{"ops": {}}', 'KR005', 'the changeset lacks a key', 'missing: v'),
    ('{"seq": 1}', 'KR005', 'the changeset lacks a key', 'missing: v'),
    ('{"base": []}', 'KR005', 'a version vector is a JSON object', E'given: \\[\\]'),
    ('{"base": {"x": -1}}', 'KR005', 'a version vector names sequence numbers', 'author x: -1'),
    ('{"base": {"x": 1}}', 'KR004', 'operations that the vector names are not here', 'missing: x 1-1'),
    ('{"base": {}}', 'KR004', 'an operation names a node that base does not cover', 'operation 0 names node'),
    ('{"guard": 5}', 'KR005', 'the changeset has a malformed value', '^guard: 5'),
    ('{"guard": "00000000-0000-4000-8000-000000000099"}', 'KR006', 'no such node', '000000000099'),
    ('{"task": "x"}', 'KR005', 'the changeset has a malformed value', '^task: "x"'),
    ('{"task": "00000000-0000-4000-8000-000000000099"}', 'KR006', 'no such task', '000000000099'),
    ('{"message": {}}', 'KR005', 'the changeset has a malformed value', '^message')
) as c (draft, code, message, detail);

-- KR005: operations
create temp table bad_values as
select o.op, k.key, v.value
from (values
    ('node_insert', pg_temp.ins(9, 1, '{"name": "n", "language": "l", "content": "c", "metadata": {}}')),
    ('node_update', pg_temp.upd(4, '{}') || '{"metadata": {}}'),
    ('node_move', pg_temp.mov(4, 2)),
    ('node_delete', jsonb_build_object('op', 'node_delete', 'node', pg_temp.node(4))),
    ('node_restore', jsonb_build_object('op', 'node_restore', 'node', pg_temp.node(4))),
    ('edge_insert', pg_temp.rel('edge_insert', 4, 5, '{"metadata": {}}')),
    ('edge_delete', pg_temp.rel('edge_delete', 4, 5)),
    ('perspective_set', jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(4), 'context', null, 'weight', 0,
        'reasoning', 'r')),
    ('perspective_delete', jsonb_build_object('op', 'perspective_delete', 'node', pg_temp.node(4), 'context', null)),
    ('association_set', pg_temp.rel('association_set', 4, 5, '{"weight": 0, "reasoning": "r"}')),
    ('association_delete', pg_temp.rel('association_delete', 4, 5))
) as o (name, op)
cross join lateral jsonb_object_keys(o.op) as k (key)
cross join unnest(array['null', 'true', '5', '"text"', '""', '[]', '{}']::jsonb[]) as v (value)
where case
    when k.key in ('node', 'source', 'target') then true
    when k.key in ('parent', 'context') then v.value <> 'null'
    when k.key in ('kind', 'relation') then v.value <> '"text"'
    when k.key = 'position' then jsonb_typeof(v.value) <> 'string'
    when k.key in ('name', 'language', 'content', 'reasoning') then jsonb_typeof(v.value) not in ('string', 'null')
    when k.key = 'weight' then true
    when k.key = 'set' then v.value <> '{}'
    when k.key = 'metadata' then v.value <> '{}' and (v.value <> 'null' or o.name = 'node_update')
    when k.key = 'op' then true
end;
select cmp_ok(count(*), '>', 200::bigint, 'many wrong types') from bad_values;
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[pg_temp.upd(4, '{}'), b.op || jsonb_build_object(b.key, b.value)])),
    'KR005', 'an operation is malformed', 'operation 1 ', 'count from 0', format('%s: %s = %s', b.op ->> 'op', b.key, b.value))
from bad_values as b;
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[b.op - b.key])), 'KR005', 'an operation is malformed',
    'operation 0 .*' || b.key || '|lacks set or metadata', 'count from 0', format('%s without %s', b.op ->> 'op', b.key))
from (select distinct op, key from bad_values) as b
where b.key in ('op', 'node', 'parent', 'position', 'kind', 'source', 'target', 'relation')
    or b.key = 'weight' and b.op ->> 'op' like '%_set';
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[b.op || jsonb_build_object(k, 1)])), 'KR005',
    'an operation is malformed', 'operation 0 .* has a key that it does not take: ', 'count from 0',
    format('%s with the key %L', b.op ->> 'op', k))
from (select distinct op from bad_values) as b, unnest(array['Node', 'author_seq', $q$'; drop table kerai.nodes; --$q$]) as k;
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[op])), 'KR005', 'an operation is malformed', detail, 'count from 0', about)
from (values
    ('{"op": "node_upsert"}'::jsonb, 'unknown op: "node_upsert"', 'an unknown op'),
    ('{"op": "NODE_INSERT"}', 'unknown op', 'an op in capitals'),
    ('[]', 'is not an object', 'an array for an operation'),
    ('null', 'is not an object', 'null for an operation'),
    (jsonb_build_object('op', 'node_update', 'node', pg_temp.node(4)), 'lacks set or metadata', 'an update of nothing'),
    (pg_temp.upd(4, '{"position": "a"}'), 'sets position', 'an update of what is no field'),
    (pg_temp.upd(4, '{"kind": null}'), 'sets kind to null', 'no kind'),
    (pg_temp.upd(4, '{"kind": ""}'), 'empty kind', 'an empty kind'),
    (pg_temp.upd(4, '{"content": 5}'), 'sets content to 5', 'a number for content'),
    (pg_temp.upd(4, '{"name": []}'), E'sets name to \\[\\]', 'an array for a name'),
    (pg_temp.upd(4, jsonb_build_object('name', repeat('é', 501))), 'too long', 'a name of more than 1000 bytes'),
    (pg_temp.ins(9, 1, jsonb_build_object('name', repeat('n', 1001))), 'too long', 'a new name of more than 1000 bytes'),
    (pg_temp.ins(9, 1, jsonb_build_object('position', repeat('n', 1001))), 'too long', 'a position of more than 1000 bytes'),
    (pg_temp.ins(9, 1, jsonb_build_object('kind', repeat('n', 201))), 'too long', 'a kind of more than 200 characters'),
    (pg_temp.ins(9, 1, jsonb_build_object('language', repeat('n', 201))), 'too long', 'a language of more than 200 bytes'),
    (pg_temp.mov(4, 2, repeat('n', 1001)), 'too long', 'a move to a position of more than 1000 bytes'),
    (pg_temp.rel('edge_insert', 4, 5, jsonb_build_object('relation', repeat('n', 201))), 'too long', 'a long relation'),
    (pg_temp.rel('association_set', 4, 5, '{"weight": 1.0000001}'), 'weight outside', 'a weight above 1'),
    (pg_temp.rel('association_set', 4, 5, '{"weight": -1e30}'), 'weight outside', 'a weight below -1'),
    (pg_temp.rel('association_set', 4, 5, '{"weight": 1e400}'), 'weight outside', 'a weight beyond all'),
    (pg_temp.rel('association_set', 4, 5, '{"weight": "NaN"}'), 'wrong type in weight', 'NaN'),
    (pg_temp.rel('association_set', 4, 5, '{"weight": 1e-400}'), 'weight', 'a weight too small for a float'),
    (pg_temp.ins(9, 1, jsonb_build_object('metadata', ('{"d": ' || repeat('[', 40) || repeat(']', 40) || '}')::jsonb)),
        'nested deeper than 32', 'arrays in arrays'),
    (pg_temp.ins(9, 1, jsonb_build_object('metadata', (repeat('{"d": ', 40) || '1' || repeat('}', 40))::jsonb)),
        'nested deeper than 32', 'objects in objects'),
    (pg_temp.rel('edge_insert', 4, 5, jsonb_build_object('metadata', (repeat('{"d": [', 20) || '1' || repeat(']}', 20))::jsonb)),
        'nested deeper than 32', 'both, in an edge')
) as c (op, detail, about);
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[o || jsonb_build_object(k, id)])), 'KR005', 'an operation is malformed',
    'operation 0 ', 'count from 0', format('%s: %s = %L', o ->> 'op', k, id))
from unnest(array[pg_temp.ins(9, 1), pg_temp.ins(9, 1, '{"metadata": {}}'), pg_temp.upd(4, '{}'), pg_temp.mov(4, 2)]) as o
cross join unnest('{node,parent}'::text[]) as k
cross join unnest(array['0000000-00000-4000-8000-000000000001', '{00000000-000040008000-000000000001}', '0000-0000-0000-4000-8000000000000001',
    '00000000-0000-4000-8000-00000000000g', '00000000-0000-4000-8000-0000000000011', ' 0000000-0000-4000-8000-000000000001']) as id
where o ? k;

-- KR006: nodes that are not there
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[pg_temp.upd(4, '{}'), op])), 'KR006', 'no such node',
    'operation 1 names node .*0099', 'Insert a node before naming it', about)
from (values
    (pg_temp.ins(9, 99), 'an insert below it'), (pg_temp.upd(99, '{}'), 'an update'),
    (pg_temp.mov(99, 1), 'a move of it'), (pg_temp.mov(4, 99), 'a move below it'),
    (pg_temp.ins(99, 99), 'an insert below itself'),
    (jsonb_build_object('op', 'node_delete', 'node', pg_temp.node(99)), 'a delete'),
    (jsonb_build_object('op', 'node_restore', 'node', pg_temp.node(99)), 'a restore'),
    (pg_temp.rel('edge_insert', 99, 4), 'an edge from it'), (pg_temp.rel('edge_delete', 4, 99), 'an edge to it'),
    (jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(99), 'weight', 0), 'a view of it'),
    (jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(4), 'context', pg_temp.node(99), 'weight', 0), 'a context'),
    (pg_temp.rel('association_set', 99, 4, '{"weight": 0}'), 'an association')
) as c (op, about);
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array[pg_temp.ins(98, 99), pg_temp.ins(99, 1)])), 'KR006', 'no such node',
    'operation 0 names node .*0099', 'before naming it', 'a child before its parent');

-- KR005: sizes
select pg_temp.refuses(pg_temp.pushing('ann', '[]'), 'KR005', 'too few or too many operations', '0 operations, 1 to 50000',
    'max_changeset_ops', 'no operations');
update kerai.settings set value = 3 where name = 'max_changeset_ops';
select pg_temp.refuses(pg_temp.pushing('ann', to_jsonb(array_fill(pg_temp.upd(4, '{}'), array[4]))), 'KR005',
    'too few or too many operations', '4 operations, 1 to 3', 'max_changeset_ops', 'more than the limit');
select lives_ok(pg_temp.pushing('ann', to_jsonb(array_fill(pg_temp.upd(4, '{}'), array[3]))), 'as many as the limit');
update kerai.settings set value = octet_length(pg_temp.document('ann', pg_temp.one())) where name = 'max_changeset_bytes';
select pg_temp.refuses(pg_temp.sending(pg_temp.document('ann', pg_temp.one()) || ' ', 'ann'), 'KR005', 'the changeset is too large',
    '[0-9]+ bytes, at most [0-9]+ are taken', 'max_changeset_bytes', 'one byte too large');
select lives_ok(pg_temp.pushing('ann', pg_temp.one()), 'as large as the limit');
update kerai.settings set value = 8388608 where name = 'max_changeset_bytes';
select pg_temp.refuses(format('select kerai.push_ops(%L)', '[' || repeat('["x"],', 2000000) || '1]'), 'KR005',
    'the changeset is too large', 'at most 8388608 are taken', 'max_changeset_bytes', 'twelve megabytes');
select pg_temp.refuses(format('select kerai.push_ops(%L)', repeat('[', 5000) || repeat(']', 5000)), 'KR005',
    'an operation is malformed', 'operation 0 is not an object', 'count from 0', 'nested five thousand deep');
select pg_temp.refuses(pg_temp.sending(replace(pg_temp.document('ann', to_jsonb(array[pg_temp.ins(9, 1, '{"metadata": {"d": 5}}')])),
    '{"d": 5}', '{"d": ' || repeat('[', 1000) || repeat(']', 1000) || '}'), 'ann'), 'KR005', 'an operation is malformed',
    'nested deeper than 32', 'count from 0', 'metadata nested a thousand deep');
select pg_temp.refuses(pg_temp.sending(replace(pg_temp.document('ann', to_jsonb(array[pg_temp.ins(9, 1, '{"metadata": {"d": 5}}')])),
    '{"d": 5}', replace('{"d": [{"e": n}]}', 'n', n)), 'ann'), 'KR005', 'an operation is malformed',
    'operation 0 has a number in its metadata with too many digits: ', 'count from 0', 'the number ' || n)
from unnest('{1e100000,-1E+9999,0e-9999,1e-16000}'::text[]) as n;
select lives_ok(pg_temp.pushing('ann', to_jsonb(array[pg_temp.ins(9, 1, '{"metadata": {"d": [1e300, -1e-300, 0.1]}}')])),
    'any number that a double can hold');

select * from finish();
rollback;

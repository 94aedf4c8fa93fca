-- Scopes: what a peer lists and sends of one, and what a partial instance takes, refuses and merges late. Both are this
-- database, one after the other: a savepoint empties it, and psql's variables carry the pages over.
begin;
\ir 010-helpers.psql
select no_plan();

create function pg_temp.short(node uuid) returns int
language sql as $$ select right(node::text, 12)::int $$;
create function pg_temp.listed(served uuid, after bigint default 0, max_rows int default 100) returns text
language sql as $$
    select string_agg(concat(pg_temp.short(m.node_id), case when m.inside then '' else '^' end), ' ' order by pg_temp.short(m.node_id))
    from kerai_sync.scope_members(served, after, max_rows) as m
$$;
create function pg_temp.taken() returns text
language sql as $$
    select string_agg(concat(pg_temp.short(s.node_id), case when s.inside then '' else '^' end, ' ', s.state), ', '
        order by pg_temp.short(s.node_id))
    from kerai_private.scope_nodes as s
$$;
create function pg_temp.here() returns text
language sql as $$ select string_agg(pg_temp.short(n.id)::text, ' ' order by n.id) from kerai.nodes as n $$;

savepoint empty;
-- 2 is the scope. 6 is there by an insert below 1, and was inserted below 3 once more; with 7 and 8 it is the reverse.
select is(pg_temp.push('ann', pg_temp.ins(1), pg_temp.ins(2, 1), pg_temp.ins(3, 2)), 'merged', 'a tree, by ann');
select format('{%s: 3}', to_json(pg_temp.author('ann'))) as seen_ann \gset
select is(pg_temp.push('bob', pg_temp.ins(4, 1), pg_temp.ins(5, 4)), 'merged', 'what does not concern the scope, by bob');
select is(pg_temp.push('bob', pg_temp.ins(8), pg_temp.ins(6, 3), pg_temp.ins(7, 8)), 'merged', 'two nodes by bob');
select lives_ok(pg_temp.pushing('dan', to_jsonb(array[pg_temp.ins(6, 1), pg_temp.ins(7, 3)]),
    format('{"base": %s, "lamport": 4}', :'seen_ann')::jsonb), 'and again by dan, who has not seen bob''s');
select results_eq($$select pg_temp.short(n.id), pg_temp.short(n.parent_id) from kerai.nodes as n where pg_temp.short(n.id) in (6, 7)
    order by 1$$, 'values (6, 1), (7, 3)', 'of two inserts the earlier one counts');

-- serve_scope, scope_members
select pg_temp.refuses(format('select kerai_sync.serve_scope(%L)', scope), 'KR006', 'no such node', 'node: ', 'kerai.nodes', 'a scope that is not here')
from (values (null), (pg_temp.node(99))) as v (scope);
select served, vector from kerai_sync.serve_scope(pg_temp.node(2)) \gset
select is(:'vector'::jsonb, kerai.version_vector(), 'what is listed is up to the vector that is told');
select is(pg_temp.listed(:'served'), '1^ 2 3 6 7 8^', 'everything ever placed below the scope, and (^) everything that this was ever placed below');
select results_eq(format('select number from kerai_sync.scope_members(%L, 0, 100)', :'served'), 'select generate_series(1::bigint, 6)',
    'numbered without gaps, in that order');
select is(pg_temp.short(node_id), 2, 'the scope is the first') from kerai_sync.scope_members(:'served', 0, 1);
select results_eq(format('select number from kerai_sync.scope_members(%L, 2, 3)', :'served'), 'values (3::bigint), (4), (5)', 'after a number, so many');
select is_empty(format('select kerai_sync.scope_members(%L, 6, 100)', :'served'), 'after the last one none');
select is((s.served, s.vector)::text, (:'served'::uuid, :'vector'::jsonb)::text, 'asked again it is the same list') from kerai_sync.serve_scope(pg_temp.node(2)) as s;
select is(pg_temp.listed(:'served', 6), null, 'with nothing new');
select results_eq($$select pg_temp.short(p) from kerai_private.parents_ever(pg_temp.node(6)) as p where p is not null group by p order by 1$$,
    'values (1), (3)', 'parents by whatever insert');
select is_empty('select kerai_private.placements_since(null)', 'where nothing was listed nothing has changed since');

-- scope_page
select results_eq(format('select pg_temp.short(o.node_id), p.document is null from kerai_sync.scope_page(%L, %L, %L, 1000) as p
    inner join kerai.operations as o on o.author = p.author and o.author_seq = p.first_seq', :'served', '{}', :'vector'),
    'values (1, false), (4, true), (8, false), (6, false)', 'whole where an operation is on a listed node, else without the document');
select is(count(*), rows, format('at most %s operations a page, and one changeset', max_ops))
from (values (1, 1::bigint), (3, 1), (4, 2), (6, 2), (7, 3)) as v (max_ops, rows)
cross join lateral kerai_sync.scope_page(:'served', '{}', :'vector', v.max_ops) group by max_ops, rows;
select is(count(*), 2::bigint, 'beyond the one vector, up to the other') from kerai_sync.scope_page(:'served', :'seen_ann',
    :'seen_ann'::jsonb || jsonb_build_object(pg_temp.author('bob'), 5), 1000);
select is_empty(format('select kerai_sync.scope_page(%L, %L, %L, 1000)', :'served', :'vector', :'vector'), 'nothing beyond what it has');
select pg_temp.refuses(format('select * from kerai_sync.scope_page(%L, %L, %L, 10)', :'served', one, other), 'KR005', 'a version vector is a JSON object',
    'given: ', 'Use', format('vectors %s and %s', one, other)) from (values (null, '{}'), ('[]', '{}'), ('{}', '7')) as v (one, other);
select array_agg(changeset_id) as ids, array_agg(author) as authors, array_agg(first_seq) as first_seqs, array_agg(last_seq) as last_seqs,
    array_agg(first_lamport) as first_lamports, array_agg(prev) as prevs, array_agg(base) as bases, array_agg(document) as documents,
    array_agg(signature) as signatures, array_agg(public_key) as public_keys
from kerai_sync.scope_page(:'served', '{}', :'vector', 1000) \gset
select array_agg(node_id) as nodes, array_agg(inside) as inside, max(number) as named from kerai_sync.scope_members(:'served', 0, 100) \gset
select array_agg(id) as part_ids from kerai.changesets where author = pg_temp.author('bob') \gset

-- scope_backfill
select is_empty(format('select kerai_sync.scope_backfill(%L, %L, 0, 0, 1000)', :'served', '{}'), 'no backfill for an instance that has nothing');
select is_empty(format('select kerai_sync.scope_backfill(%L, %L, 6, 0, 1000)', :'served', :'vector'), 'nor for who knows all nodes');
select is(pg_temp.push('cid', pg_temp.mov(5, 3)), 'merged', 'a node comes into the scope');
select vector as next_vector from kerai_sync.serve_scope(pg_temp.node(2)) \gset
select is(pg_temp.listed(:'served', 6), '4^ 5', 'with what it lay below');
select results_eq(format('select pg_temp.short(o.node_id), l.document is not null from kerai_sync.scope_backfill(%L, %L, 6, 0, 1000) as l
    inner join kerai.operations as o on o.changeset_id = l.changeset_id', :'served', :'vector'), 'values (4, true), (5, true)',
    'its operations that were seen before are late');
select array_agg(arrival) as late_arrivals, array_agg(document) as late_documents, array_agg(signature) as late_signatures,
    array_agg(public_key) as late_keys, array_agg(changeset_id) as late_ids
from kerai_sync.scope_backfill(:'served', :'vector', 6, 0, 1000) \gset
select is_empty(format('select kerai_sync.scope_backfill(%L, %L, 6, %s, 1000)', :'served', :'vector', (:'late_arrivals'::bigint[])[1]),
    'after its arrival nothing more');
select array_agg(node_id) as late_nodes, array_agg(inside) as late_inside, max(number) as late_named
from kerai_sync.scope_members(:'served', 6, 100) \gset
select is(pg_temp.push('cid', pg_temp.mov(4, 2), pg_temp.mov(3, 5)), 'merged', 'one that was only above, and one that cannot go there');
select served as again from kerai_sync.serve_scope(pg_temp.node(2)) \gset
select is(pg_temp.listed(:'served', 8), '4', 'what comes to lie inside has another number; a void move of what is listed changes nothing');

-- scope_of_list, forget_scopes
select pg_temp.refuses(format('select * from kerai_sync.%s', call), 'KR011', 'the list of this scope is no longer here',
    'list: 00000000-0000-4000-8000-000000000099', 'Pull again', call)
from (values ('scope_members(%L, 0, 10)'), ('scope_backfill(%L, ''{}'', 0, 0, 10)'), ('scope_page(%L, ''{}'', ''{}'', 10)')) as v (template)
cross join lateral format(v.template, pg_temp.node(99)) as call;
update kerai.settings set value = 1 where name = 'max_served_scopes';
select served as other from kerai_sync.serve_scope(pg_temp.node(4)) \gset
select results_eq('select pg_temp.short(scope) from kerai_private.served_scopes', 'values (4)', 'so many scopes are remembered and no more');
select is_empty(format('select from kerai_private.served_nodes where scope = %L', pg_temp.node(2)), 'nor their nodes');
select is(pg_temp.push('fay', pg_temp.ins(20), pg_temp.ins(21), pg_temp.ins(22, 20)), 'merged', 'a node is inserted');
select served as again from kerai_sync.serve_scope(pg_temp.node(4)) \gset
select is(pg_temp.push('fay', pg_temp.ins(22, 21)), 'merged', 'and again after the log was looked through for such');
select is(pg_temp.listed(served), '20^ 21 22', 'that is noticed too') from kerai_sync.serve_scope(pg_temp.node(21));
select isnt(served, :'served'::uuid, 'another list has another id') from kerai_sync.serve_scope(pg_temp.node(2));

-- An instance that holds everything.
select is(kerai_private.is_partial(), false, 'this instance holds everything');
select is(s::text, '(,,,,,f)', 'and no scope') from kerai_sync.scope_state() as s;
select lives_ok('select kerai_private.refuse_partial(''x'', ''y''), kerai_sync.begin_scope(''big'', null),
    kerai_private.require_documents_beyond(''{}'')', 'which is in nobody''s way');
select is(kerai_private.is_partial(), false, 'nor makes it partial');
select pg_temp.refuses(format('select kerai_sync.begin_scope(''big'', %L)', pg_temp.node(2)), 'KR011', 'only an empty instance can become partial',
    '^changesets: 8, other peers: 0$', 'new database', 'it has changesets');

rollback to savepoint empty;
select kerai.add_peer('other', 'dbname=x') \g /dev/null
select pg_temp.refuses(format('select kerai_sync.begin_scope(''big'', %L)', pg_temp.node(2)), 'KR011', 'only an empty instance can become partial',
    '^changesets: 0, other peers: 1$', 'new database', 'it has another peer');
select kerai.remove_peer('other') \g /dev/null

-- begin_scope
insert into kerai.peer_connections (name, connection) values ('big', 'dbname=x');
select lives_ok(format('select kerai_sync.begin_scope(''big'', %L)', pg_temp.node(2)), 'an empty one becomes partial');
select is(s::text, format('(%s,big,0,0,0,f)', pg_temp.node(2)), 'and has its scope') from kerai_sync.scope_state() as s;
select pg_temp.refuses('select kerai_sync.begin_scope(''other'', null)', 'KR011', 'a partial instance has no other peers',
    format('this instance holds the scope %s only', pg_temp.node(2)), 'whole tree', 'a peer without a scope');
select pg_temp.refuses(format('select kerai_sync.begin_scope(''big'', %L)', pg_temp.node(n)), 'KR011', 'this instance has a scope',
    format('scope: %s, of peer: big', pg_temp.node(2)), 'another database', format('scope %s', n)) from (values (2), (3)) as v (n);
select pg_temp.refuses(pg_temp.pushing('eve', to_jsonb(array[pg_temp.ins(9)])), 'KR007', 'outside the scope of this instance',
    format('node: %s, scope: %s', pg_temp.node(9), pg_temp.node(2)), 'below the scope', 'before the first pull there is nothing to lie below');

-- add_scope_nodes, with_stubs, require_sent, accept_scoped
select format('select * from kerai_sync.accept_scoped(%L::bytea[], %L::text[], %L::bigint[], %L::bigint[], %L::bigint[], %L::bytea[], %L::jsonb[],
    %L::json[], %L::bytea[], %L::bytea[])', :'ids', :'authors', :'first_seqs', :'last_seqs', :'first_lamports', :'prevs', :'bases',
    :'documents', :'signatures', :'public_keys') as accepting \gset
savepoint blank;
select kerai_sync.add_scope_nodes(:'served', (:'nodes'::uuid[])[:1], (:'inside'::boolean[])[:1], 1) \g /dev/null
select pg_temp.refuses(:'accepting', 'KR006', 'the peer sends what is said of a node, and not the node',
    format('node: %s', pg_temp.node(1)), 'kerai.verify', 'a scope without what it lies below');
rollback to savepoint blank;
select kerai_sync.add_scope_nodes(:'served', :'nodes', :'inside', :named) \g /dev/null
select is(pg_temp.taken(), '1^ complete, 2 complete, 3 complete, 6 complete, 7 complete, 8^ complete', 'in an empty instance nothing has to be backfilled');
select pg_temp.refuses(format('select kerai_sync.accept_scoped(%L, %L, %L, %L, %L, %L, %L, %L, %L, %L)', array[id], array[author], array[first_seq],
    array[last_seq], array[lamport], array[null::bytea], array[base]::jsonb[], array[null]::json[], array[signature], array[key]),
    'KR005', 'the peer sends a stub that is none', '^author: ', 'kerai.verify', about)
from (select) as one
cross join lateral (
    select sha256('x') as good_id, pg_temp.author('bob') as bob, pg_temp.key('bob') as bobs, repeat('s', 64)::bytea as sealed
) as g
cross join lateral (values
    ('an id that is no sha256', E'\\x00'::bytea, g.bob, 1::bigint, 2::bigint, 1::bigint, '{}', g.sealed, g.bobs),
    ('no id', null, g.bob, 1, 2, 1, '{}', g.sealed, g.bobs),
    ('a signature that is too short', g.good_id, g.bob, 1, 2, 1, '{}', E'\\x00', g.bobs),
    ('no signature', g.good_id, g.bob, 1, 2, 1, '{}', null, g.bobs),
    ('another''s key', g.good_id, g.bob, 1, 2, 1, '{}', g.sealed, pg_temp.key('ann')),
    ('an endless name', g.good_id, repeat('b', 221) || right(g.bob, 17), 1, 2, 1, '{}', g.sealed, g.bobs),
    ('operations from 0 on', g.good_id, g.bob, 0, 2, 1, '{}', g.sealed, g.bobs),
    ('no operations', g.good_id, g.bob, 3, 2, 1, '{}', g.sealed, g.bobs),
    ('too many operations', g.good_id, g.bob, 1, 1000000000000000000, 1, '{}', g.sealed, g.bobs),
    ('no clock', g.good_id, g.bob, 1, 2, null, '{}', g.sealed, g.bobs),
    ('a clock that stands', g.good_id, g.bob, 1, 2, 0, '{}', g.sealed, g.bobs)
) as v (about, id, author, first_seq, last_seq, lamport, base, signature, key);
select is((merged, applied)::text, '(4,8)', 'a page is merged, of it what concerns the scope')
from kerai_sync.accept_scoped(:'ids', :'authors', :'first_seqs', :'last_seqs', :'first_lamports', :'prevs', :'bases', :'documents',
    :'signatures', :'public_keys');
select is(pg_temp.here(), '1 2 3 6 7 8', 'its nodes are here');
select is(kerai.version_vector(), :'vector'::jsonb, 'the vector names the others'' changesets too');
select results_eq('select first_seq, last_seq from kerai.changesets where document is null', 'values (1::bigint, 2::bigint)',
    'which are here without their document');
select is((merged, applied)::text, '(0,0)', 'the same page again says nothing new')
from kerai_sync.accept_scoped(:'ids', :'authors', :'first_seqs', :'last_seqs', :'first_lamports', :'prevs', :'bases', :'documents',
    :'signatures', :'public_keys');
select is_empty('select * from kerai.verify()', 'all is sound');

-- What a partial instance refuses.
select pg_temp.refuses(statement, 'KR011', message, format('this instance holds the scope %s only', pg_temp.node(2)), hint, statement)
from (values
    (format('select kerai_sync.serve_scope(%L)', pg_temp.node(2)), 'a partial instance serves no scopes', 'Ask the instance'),
    ('select kerai.compact(now())', 'a partial instance is not compacted', 'as small as its scope'),
    ('select * from kerai.changesets_since(''{}'')', format('not everything after 0 of %s is here', pg_temp.author('bob')), 'Sync with'),
    ('select kerai_private.refuse_partial(''what'', ''how'')', 'what', 'how')) as v (statement, message, hint);
select is(count(*), 1::bigint, 'beyond what came without its document it tells what it has')
from kerai.changesets_since(:'seen_ann'::jsonb || jsonb_build_object(pg_temp.author('bob'), 5));
select pg_temp.refuses(format('select kerai.revert_ops(%L)', id), 'KR011', 'only a part of this changeset concerns the scope',
    'this instance holds', 'whole tree', 'to revert a stub') from kerai.changesets where document is null;

-- enter_scope, of_scope
select pg_temp.refuses(pg_temp.pushing('eve', ops), code, message, detail, hint, about)
from (values
    (to_jsonb(array[pg_temp.ins(9)]), 'KR007', 'outside the scope of this instance', 'node: .*009, scope: .*002', 'Insert it below', 'a root'),
    (to_jsonb(array[pg_temp.ins(9, 1)]), 'KR007', 'outside the scope of this instance', 'node: .*009', 'Insert it below', 'below what is above'),
    (to_jsonb(array[pg_temp.ins(9, 3), pg_temp.ins(10, 9), pg_temp.ins(11, 1)]), 'KR007', 'outside the scope of this instance', 'node: .*011',
        'Insert it below', 'one of three'),
    (to_jsonb(array[pg_temp.upd(5, '{"name": "x"}')]), 'KR006', 'no such node', 'names node .*005', 'Insert a node', 'what is not here'),
    (to_jsonb(array[pg_temp.mov(3, 4)]), 'KR006', 'no such node', 'names node .*004', 'Insert a node', 'below what is not here'))
    as v (ops, code, message, detail, hint, about);
select is(pg_temp.push('eve', pg_temp.ins(9, 3), pg_temp.ins(10, 9), pg_temp.mov(1, 10)), 'merged', 'below the scope new nodes may be made');
select is(pg_temp.taken(), '1 complete, 2 complete, 3 complete, 6 complete, 7 complete, 8^ complete, 9 local, 10 local',
    'of these the peer knows nothing; what has been placed below the scope lies inside');
select is(pg_temp.push('eve', pg_temp.ins(11, 1)), 'merged', 'and so does what is made there');
select is(string_agg(pg_temp.short(o.node)::text, ' ' order by o.n), '3 8', 'of the peer''s operations those are merged whose nodes are all here')
from unnest(kerai_private.of_scope(array(
    select jsonb_populate_record(null::kerai_private.operation, jsonb_build_object('n', n, 'node', pg_temp.node(n)))
    from unnest('{3,5,8,9}'::int[]) as n))) as o;

-- add_scope_nodes, backfill_documents, merge_backfill
select kerai_sync.add_scope_nodes(:'served', :'late_nodes'::uuid[] || pg_temp.node(9), :'late_inside'::boolean[] || true, :late_named) \g /dev/null
select is(pg_temp.taken(), '1 complete, 2 complete, 3 complete, 4^ backfilling, 5 backfilling, 6 complete, 7 complete, 8^ complete, 9 backfilling, 10 local, 11 local',
    'what the peer names later is backfilled');
select is((s.named, s.complete, s.is_backfilling)::text, '(8,0,t)', 'and not all of it is here') from kerai_sync.scope_state() as s;
select pg_temp.refuses('select kerai.rebuild()', 'KR011', 'nodes have come into the scope, and not all of what is said of them is here',
    'this instance holds', '(Sync|Pull)', 'nothing is rebuilt meanwhile');
select kerai_sync.add_scope_nodes(:'served', array[pg_temp.node(4), null], '{true,true}', 3) \g /dev/null
select is((select named from kerai_sync.scope_state()), 8::bigint, 'a number that was told before changes nothing');
select ok(inside, 'but a node may come to lie inside') from kerai_private.scope_nodes where node_id = pg_temp.node(4);
select format('select kerai_sync.backfill_documents(%L, %L, %L, %L)', :'late_arrivals', :'late_documents', :'late_signatures', :'late_keys') as taking \gset
savepoint honest;
update kerai.changesets set base = '{"x": 1}' where document is null;
select pg_temp.refuses(:'taking', 'KR005', 'the peer has said otherwise of a changeset before',
    format('changeset: %s', encode((:'late_ids'::bytea[])[1], 'hex')), 'can be trusted', 'a stub that was none of this document');
rollback to savepoint honest;
select pg_temp.refuses(format('select kerai_sync.backfill_documents(%L, %L, %L, %L)', :'late_arrivals', :'late_documents', array[repeat('s', 64)::bytea], :'late_keys'),
    'KR001', 'the signature does not verify', '', '', 'a document that nobody has signed');
select is((taken, applied)::text, '(1,2)', 'a document comes late')
from kerai_sync.backfill_documents(:'late_arrivals', :'late_documents', :'late_signatures', :'late_keys');
select is((taken, applied)::text, '(0,0)', 'and once')
from kerai_sync.backfill_documents(:'late_arrivals', :'late_documents', :'late_signatures', :'late_keys');
select is((select backfilled_to from kerai_sync.scope_state()), (:'late_arrivals'::bigint[])[1], 'the next page begins after it');
select is(pg_temp.here(), '1 2 3 6 7 8 9 10 11', 'nothing is merged before all is here');
select kerai_sync.merge_backfill() \g /dev/null
select is(pg_temp.here(), '1 2 3 4 5 6 7 8 9 10 11', 'then all is');
select is(pg_temp.taken(), '1 complete, 2 complete, 3 complete, 4 complete, 5 complete, 6 complete, 7 complete, 8^ complete, 9 complete, 10 local, 11 local',
    'nothing is late any more');
select is((s.named, s.complete, s.backfilled_to, s.is_backfilling)::text, '(8,8,0,f)', 'up to where the list was told') from kerai_sync.scope_state() as s;
select is_empty('select from kerai_private.backfilled_changesets', 'no changeset waits');
select is_empty('select * from kerai.verify()', 'all is sound');
select kerai_sync.add_scope_nodes(pg_temp.node(77), '{}', '{}', 0) \g /dev/null
select is(pg_temp.taken(), '1 local, 2 local, 3 local, 4 local, 5 local, 6 local, 7 local, 8^ local, 9 local, 10 local, 11 local',
    'another list is told from the beginning');
select is((s.named, s.complete, s.backfilled_to)::text, '(0,0,0)', 'and followed from there') from kerai_sync.scope_state() as s;

select * from finish();
rollback;

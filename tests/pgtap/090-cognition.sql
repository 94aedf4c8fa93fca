-- Views of understanding: lists, consensus, unique insights and diffs of perspectives and associations.
begin;
\ir 010-helpers.psql
select no_plan();

create function pg_temp.see(n int, weight float8, context int default null, reason text default null) returns jsonb
language sql as $$
    select jsonb_build_object('op', 'perspective_set', 'node', pg_temp.node(n), 'context', pg_temp.node(context),
        'weight', weight, 'reasoning', reason)
$$;

-- 1 root / 2 src / (3 a.py / 4 f), 5 b.py; 6 docs / 7 readme
select is(pg_temp.push('ann', pg_temp.ins(1, null, '{"kind": "directory"}'), pg_temp.ins(2, 1, '{"kind": "directory", "name": "src"}'),
    pg_temp.ins(3, 2, '{"name": "a.py"}'), pg_temp.ins(4, 3, '{"kind": "function_definition", "name": "f"}'),
    pg_temp.ins(5, 2, '{"name": "b.py"}'), pg_temp.ins(6, 1, '{"kind": "directory", "name": "docs"}'),
    pg_temp.ins(7, 6, '{"name": "readme"}')), 'merged', 'a tree');
select is_empty('select from kerai.consensus(null, null, 1)', 'nobody has looked at it yet');

-- Three agree on 4, two differ on 3, cy takes a view of 7 back, ann alone sees 5, and 3 in the context of 6.
select is(pg_temp.push('ann', pg_temp.see(4, 0.5, null, 'short'), pg_temp.see(3, 1), pg_temp.see(5, -0.25, null, 'dead code?'),
    pg_temp.see(3, 0.75, 6), pg_temp.rel('association_set', 3, 5, '{"weight": 0.5, "reasoning": "same data"}'),
    pg_temp.rel('association_set', 4, 7, '{"weight": 1}')), 'merged', 'ann''s views');
select is(pg_temp.push('bob', pg_temp.see(4, 0.5), pg_temp.see(3, -1), pg_temp.see(7, 0.1),
    pg_temp.rel('association_set', 3, 5, '{"weight": -0.5}')), 'merged', 'bob''s views');
select is(pg_temp.push('cy', pg_temp.see(4, 0.5), pg_temp.see(7, 0.3), pg_temp.rel('association_set', 3, 5, '{"weight": 0.9}'),
    jsonb_build_object('op', 'perspective_delete', 'node', pg_temp.node(7)), pg_temp.rel('association_delete', 3, 5)),
    'merged', 'cy''s, and second thoughts');
select id from kerai.register_agent('ann', 'llm', pg_temp.key('ann')) \g /dev/null
select id as ann from kerai.agents where name = 'ann' \gset

-- consensus
select results_eq('select c.node_id, c.path, c.kind, c.name, c.context_id, c.count, c.mean, c.spread, c.lowest, c.highest from kerai.consensus() as c',
    $$values (pg_temp.node(4), 'src.a_py.f', 'function_definition', 'f', null::uuid, 3::bigint, 0.5::float8, 0::float8, 0.5::float8, 0.5::float8),
        (pg_temp.node(3), 'src.a_py', 'file', 'a.py', null, 2, 0, 1, -1, 1)$$, 'consensus: the strongest agreement first');
select results_eq('select c.node_id, c.context_id, c.count from kerai.consensus(null, null, 1) as c',
    $$values (pg_temp.node(4), null::uuid, 3::bigint), (pg_temp.node(3), pg_temp.node(6), 1), (pg_temp.node(5), null, 1),
        (pg_temp.node(7), null, 1), (pg_temp.node(3), null, 2)$$,
    'of single views too, each context by itself, without what was taken back');
select is(array_agg(c.node_id), array[pg_temp.node(4), pg_temp.node(3), pg_temp.node(3)], 'of a file, and what is below')
from kerai.consensus(pg_temp.node(3), null, 1) as c;
select is(array_agg(c.mean), array[0.75::float8], 'of a context') from kerai.consensus(null, pg_temp.node(6), 1) as c;
select results_eq('select a.source, a.source_path, a.target, a.target_path, a.relation_name, a.count, a.mean, a.spread, a.lowest, a.highest
    from kerai.association_consensus() as a',
    $$values (pg_temp.node(3), 'src.a_py', pg_temp.node(5), 'src.b_py', 'calls', 2::bigint, 0::float8, 0.5::float8, -0.5::float8, 0.5::float8)$$,
    'consensus of relations');
select is((select count(*) from kerai.association_consensus(pg_temp.node(n), r, 1)), rows, format('below %s, relation %s', n, r))
from (values (2, null, 2::bigint), (7, null, 1), (5, null, 1), (4, null, 1), (6, 'calls', 1), (1, 'tests', 0)) as v (n, r, rows);

-- one agent's own views
select results_eq($$select p.author_id, p.agent, p.node_id, p.path, p.context_id, p.weight, p.reasoning from kerai.list_perspectives('ann') as p$$,
    $$values (pg_temp.author('ann'), 'ann', pg_temp.node(3), 'src.a_py', null::uuid, 1::float8, null),
        (pg_temp.author('ann'), 'ann', pg_temp.node(3), 'src.a_py', pg_temp.node(6), 0.75, null),
        (pg_temp.author('ann'), 'ann', pg_temp.node(4), 'src.a_py.f', null, 0.5, 'short'),
        (pg_temp.author('ann'), 'ann', pg_temp.node(5), 'src.b_py', null, -0.25, 'dead code?')$$,
    'ann''s views, the strongest first');
select results_eq(format('select * from kerai.list_perspectives(%L)', who), $$select * from kerai.list_perspectives('ann')$$, 'also by ' || who)
from unnest(array[:'ann', upper(:'ann'), pg_temp.author('ann')]) as who;
select is(count(*) || ' ' || count(*) filter (where p.agent is null), '8 4', 'everybody''s; whose name is not known here has none')
from kerai.list_perspectives() as p;
select is(string_agg(a.agent || ' ' || a.target_path || ' ' || a.weight || ' ' || coalesce(a.reasoning, '-'), ', '),
    'ann docs.readme 1 -, ann src.b_py 0.5 same data', 'ann''s relations') from kerai.list_associations('ann') as a;
select is(count(*), 1::bigint, 'below a node, whichever end it is') from kerai.list_associations(null, pg_temp.node(6)) as a;

-- unique insights
select results_eq('select u.author_id, u.agent, u.node_id, u.path, u.relation, u.target_id, u.target_path, u.weight, u.reasoning
    from kerai.unique_insights() as u',
    $$values (pg_temp.author('ann'), 'ann', pg_temp.node(4), 'src.a_py.f', 'calls', pg_temp.node(7), 'docs.readme', 1::float8, null),
        (pg_temp.author('ann'), 'ann', pg_temp.node(5), 'src.b_py', null, null, null, -0.25, 'dead code?'),
        (pg_temp.author('bob'), null, pg_temp.node(7), 'docs.readme', null, null, null, 0.1, null)$$,
    'what one author alone sees; 3 is seen by two');
select is(array_agg(u.node_id), array[pg_temp.node(7)], 'bob''s') from kerai.unique_insights(pg_temp.author('bob')) as u;
select is(array_agg(u.node_id), array[pg_temp.node(3)], 'in a context only what is said in it counts')
from kerai.unique_insights(null, null, pg_temp.node(6)) as u;
select is(array_agg(u.node_id), array[pg_temp.node(4), pg_temp.node(7)], 'below docs, with what leads there')
from kerai.unique_insights(null, pg_temp.node(6)) as u;

-- diff
select results_eq(format('select d.node_id, d.path, d.context_id, d.relation, d.target_id, d.weight_a, d.weight_b, d.difference from kerai.view_diff(%L, %L) as d',
        :'ann', pg_temp.author('bob')),
    $$values (pg_temp.node(3), 'src.a_py', null::uuid, null, null::uuid, 1::float8, -1::float8, -2::float8),
        (pg_temp.node(3), 'src.a_py', null, 'calls', pg_temp.node(5), 0.5, -0.5, -1),
        (pg_temp.node(7), 'docs.readme', null, null, null, null, 0.1, null),
        (pg_temp.node(3), 'src.a_py', pg_temp.node(6), null, null, 0.75, null, null),
        (pg_temp.node(4), 'src.a_py.f', null, 'calls', pg_temp.node(7), 1, null, null),
        (pg_temp.node(5), 'src.b_py', null, null, null, -0.25, null, null)$$,
    'the diff: the largest difference first, then what one of them alone weighs; nothing of 4, where they agree');
select is_empty($$select from kerai.view_diff('ann', 'ann')$$, 'nobody differs from herself');
select is(array_agg(d.difference), array[-2::float8, -1, null, null], 'of a file')
from kerai.view_diff('ann', pg_temp.author('bob'), pg_temp.node(3)) as d;
select is(array_agg(d.weight_a), array[0.75::float8], 'of a context') from kerai.view_diff('ann', pg_temp.author('bob'), null, pg_temp.node(6)) as d;

-- What is not visible is no matter of views; what is restored is again.
select is(pg_temp.push('ann', jsonb_build_object('op', 'node_delete', 'node', pg_temp.node(3))), 'merged', 'a.py goes, and f with it');
select is(c.nodes, 'src.b_py docs.readme', 'consensus') from (select string_agg(c.path, ' ') as nodes from kerai.consensus(null, null, 1) as c) as c;
select is((select count(*) from kerai.list_perspectives('ann')) || ' ' || (select count(*) from kerai.list_associations())
    || ' ' || (select count(*) from kerai.consensus(pg_temp.node(4), null, 1))
    || ' ' || (select count(*) from kerai.association_consensus(pg_temp.node(5), null, 1))
    || ' ' || (select count(*) from kerai.unique_insights(null, pg_temp.node(2)))
    || ' ' || (select count(*) from kerai.view_diff('ann', pg_temp.author('bob'))), '1 0 0 0 1 2', 'and everything else');
select is(pg_temp.push('ann', jsonb_build_object('op', 'node_restore', 'node', pg_temp.node(3))), 'merged', 'it comes back');
select is(count(*), 2::bigint, 'with its views') from kerai.consensus();

-- An agent named like somebody's author id does not stand in for that author.
select id from kerai.register_agent(pg_temp.author('bob'), 'tool', pg_temp.key('eve')) \g /dev/null
select is(count(*), 3::bigint, 'bob is bob') from kerai.list_perspectives(pg_temp.author('bob')) as p where p.author_id = pg_temp.author('bob');

-- refusals
select pg_temp.refuses(call, 'KR006', 'no such node', 'node: .*0099', 'kerai.nodes', call)
from unnest(array['consensus(pg_temp.node(99))', 'consensus(null, pg_temp.node(99))', 'association_consensus(pg_temp.node(99))',
    'list_perspectives(null, pg_temp.node(99))', 'list_perspectives(null, null, pg_temp.node(99))', 'list_associations(null, pg_temp.node(99))',
    'unique_insights(null, pg_temp.node(99))', 'view_diff(''ann'', ''ann'', null, pg_temp.node(99))']) as f
cross join lateral (select 'select * from kerai.' || f as call) as c;
select pg_temp.refuses('select * from kerai.' || f, 'KR006', 'no such author', detail, 'kerai.agents', f)
from (values ('list_perspectives(''nobody'')', '^author: ''nobody''$'), ('list_associations('''')', ''),
    ('unique_insights(''nobody'')', 'nobody'), ('view_diff(''ann'', ''nobody'')', 'nobody'), ('view_diff(null, ''ann'')', '^author: null$')) as v (f, detail);
select pg_temp.refuses(format('select * from kerai.%s(null, null, %s)', f, n), 'KR005', 'min_count is at least 1', 'min_count: ', 'at least two', f || n)
from unnest('{consensus,association_consensus}'::text[]) as f, unnest(array['0', '-1', 'null']) as n;

-- All of it against the plain definition, for random views of a random tree.
delete from kerai.perspectives;
delete from kerai.associations;
insert into kerai.nodes (id, parent_id, position, kind, name, path, deleted, created_stamp, created_seq)
select pg_temp.node(n), pg_temp.node(n / 3 + 99), 'a', 'file', 'n' || n, '', n % 5 = 0, 'x', 1 from generate_series(300, 900) as n;
insert into kerai.nodes (id, parent_id, position, kind, name, path, created_stamp, created_seq)
select pg_temp.node(n), pg_temp.node(6), 'a', 'file', 'n' || n, '', 'x', 1 from generate_series(199, 299) as n;
insert into kerai.perspectives (author, node_id, context_id, weight, deleted, stamp)
select pg_temp.author(w.who), pg_temp.node(n), case when h & 1 = 1 then pg_temp.node(6) end, (h >> 4 & 7) / 4.0 - 1, h >> 8 & 7 = 0, 'x'
from generate_series(199, 900) as n cross join unnest('{ann,bob,cy}'::text[]) as w (who)
cross join lateral (select hashtextextended(w.who, n) as h) as r where h >> 12 & 1 = 0;
insert into kerai.associations (author, source, target, relation, weight, deleted, stamp)
select p.author, p.node_id, pg_temp.node(199 + (substr(p.node_id::text, 25)::int * 7) % 700), 'r', p.weight, p.deleted, 'x'
from kerai.perspectives as p;
create temp table shown as select t.id from kerai.tree() as t;
create temp table below_201 as select t.id from kerai.tree(pg_temp.node(201)) as t;
select cmp_ok((select count(*) from shown), '<', (select count(*) from kerai.nodes) - 100, 'much is hidden');
select cmp_ok((select count(*) from below_201), '>', 3::bigint, 'and the scope is more than a node');
select results_eq('select c.node_id, c.context_id, c.count, c.mean, c.spread from kerai.consensus(null, null, 1) as c order by 1, 2',
    'select p.node_id, p.context_id, count(*), avg(p.weight), stddev_pop(p.weight) from kerai.perspectives as p inner join shown as s on s.id = p.node_id
    where not p.deleted group by 1, 2 order by 1, 2', 'consensus');
select results_eq('select c.node_id, c.context_id, c.count, c.mean from kerai.consensus(pg_temp.node(201), pg_temp.node(6), 1) as c order by 1, 2',
    'select p.node_id, p.context_id, count(*), avg(p.weight) from kerai.perspectives as p inner join below_201 as s on s.id = p.node_id
    where not p.deleted and p.context_id = pg_temp.node(6) group by 1, 2 order by 1, 2', 'consensus of a scope and a context');
select results_eq(format('select c.source, c.target, c.count, c.mean from kerai.association_consensus(%s, null, 1) as c order by 1, 2', scope),
    format('select a.source, a.target, count(*), avg(a.weight) from kerai.associations as a where not a.deleted and a.source in (select id from shown)
    and a.target in (select id from shown) and (a.source in (select id from %1$s) or a.target in (select id from %1$s)) group by 1, 2 order by 1, 2', place),
    'consensus of relations, ' || place)
from (values ('null', 'shown'), ('pg_temp.node(201)', 'below_201')) as v (scope, place);
select set_eq('select u.author_id, u.node_id, u.context_id, u.weight from kerai.unique_insights() as u where u.relation is null',
    'select p.author, p.node_id, p.context_id, p.weight from kerai.perspectives as p where not p.deleted and p.node_id in (select id from shown)
    and (select count(distinct o.author) from kerai.perspectives as o where o.node_id = p.node_id and not o.deleted) = 1', 'unique insights');
select set_eq(format('select d.node_id, d.weight_a, d.weight_b from kerai.view_diff(%L, %L) as d where d.relation is null', pg_temp.author('ann'), pg_temp.author('bob')),
    format('select coalesce(x.node_id, y.node_id), x.weight as a, y.weight as b
    from (select * from kerai.perspectives where author = %L and not deleted and node_id in (select id from shown)) as x
    full join (select * from kerai.perspectives where author = %L and not deleted and node_id in (select id from shown)) as y
        on y.node_id = x.node_id and coalesce(y.context_id, y.node_id) = coalesce(x.context_id, x.node_id)
    where x.weight is distinct from y.weight', pg_temp.author('ann'), pg_temp.author('bob')), 'diff');

-- who may call
create role reader in role kerai_reader;
set session authorization reader;
select (select count(*) from kerai.consensus()) + (select count(*) from kerai.association_consensus()) + (select count(*) from kerai.list_perspectives())
    + (select count(*) from kerai.list_associations()) + (select count(*) from kerai.unique_insights()) + (select count(*) from kerai.view_diff('ann', 'ann')) as rows \gset
reset session authorization;
select cmp_ok(:rows, '>', 100, 'a reader may read it all');

select * from finish();
rollback;

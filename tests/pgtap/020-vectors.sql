-- Vectors: compare, merge, missing and contains answer what a plain join over the entries does, for whatever entries.
begin;
\ir 010-helpers.psql
select no_plan();

create function pg_temp.entries(vector jsonb) returns table (author text, seq bigint)
language sql as $$
    select e.key, e.value::bigint from jsonb_each(vector) as e where e.value::bigint > 0
$$;

-- Authors that jsonb sorts by length before it sorts them by bytes; every third entry or so is zero, absent or shared.
create temp table worlds as
select n, v.a, v.b
from generate_series(1, 600) as n
cross join lateral (
    select coalesce(jsonb_object_agg(e.author, e.a) filter (where e.a is not null), '{}') as a,
        coalesce(jsonb_object_agg(e.author, e.b) filter (where e.b is not null), '{}') as b
    from (
        select k.author, case when r.kind < 0.3 then r.x end as a,
            case when r.kind between 0.2 and 0.5 then r.x + case when n % 3 = 0 then 0 else r.y end end as b
        from unnest(E'{a,b,z,aa,B,"ä","a b","\\"","",zzz,agent-1.0123456789abcdef,agent-10.0123456789abcdef}'::text[]) as k (author)
        cross join lateral (
            select (hashtextextended(k.author, n) & 65535) / 65536.0 * 0.6 as kind,
                hashtextextended(k.author, n + 10000) & 3 as x, hashtextextended(k.author, n + 20000) & 1 as y
        ) as r
    ) as e
) as v;
insert into worlds select 1000 + n, b, a from worlds;
insert into worlds select 3000 + n, a, a || '{"none": 0}' from worlds where n <= 100;
insert into worlds values (0, '{"x": 999999999999999999, "y": 1}', '{"x": 999999999999999998, "y": 2}');

create temp table plain as
select w.n,
    case when j.less and j.more then 'concurrent' when j.less then 'before' when j.more then 'after' else 'equal' end
        as relation,
    j.merged, j.missing
from worlds as w
cross join lateral (
    select bool_or(coalesce(x.seq, 0) < coalesce(y.seq, 0)) as less,
        bool_or(coalesce(x.seq, 0) > coalesce(y.seq, 0)) as more,
        coalesce(jsonb_object_agg(coalesce(x.author, y.author), greatest(x.seq, y.seq)), '{}') as merged,
        string_agg(concat_ws(' ', y.author, coalesce(x.seq, 0) + 1, y.seq), ', ' order by y.author collate "C")
            filter (where y.seq > coalesce(x.seq, 0)) as missing
    from pg_temp.entries(w.a) as x
    full join pg_temp.entries(w.b) as y on y.author = x.author
) as j;

select set_eq('select relation from plain', array['equal', 'before', 'after', 'concurrent'], 'there are worlds of each kind');
select cmp_ok(count(*) filter (where w.a ?| array(select jsonb_object_keys(w.b)) and p.missing is not null), '>', 200::bigint,
    'and many in which authors are shared and something is missing') from worlds as w inner join plain as p on p.n = w.n;
select is_empty($$select w.a, w.b, kerai.vector_compare(w.a, w.b), p.relation from worlds as w
    inner join plain as p on p.n = w.n where kerai.vector_compare(w.a, w.b) <> p.relation$$, 'compare');
select is_empty($$select w.a, w.b, kerai.vector_merge(w.a, w.b), p.merged from worlds as w
    inner join plain as p on p.n = w.n where kerai.vector_merge(w.a, w.b)::text <> p.merged::text$$, 'merge');
select is_empty($$select w.a, w.b, m.missing, p.missing from worlds as w
    inner join plain as p on p.n = w.n
    cross join lateral (
        select string_agg(concat_ws(' ', v.author, v.first_seq, v.last_seq), ', ' order by v.n) as missing
        from kerai.vector_missing(w.a, w.b) with ordinality as v (author, first_seq, last_seq, n)) as m
    where m.missing is distinct from p.missing$$, 'missing, in the order of the authors');
select is_empty($$select w.a, e.author from worlds as w, pg_temp.entries(w.b) as e
    where kerai.vector_contains(w.a, e.author, e.seq) <> (coalesce((w.a ->> e.author)::bigint, 0) >= e.seq)$$, 'contains');

-- What is no vector is refused on either side, also where nothing would have to be looked at.
select pg_temp.refuses(format(call, format('''{"a": 1, "x": %s}''', bad)), 'KR005',
    'a version vector names sequence numbers', '^author x: ', 'whole number', format(call, bad))
from unnest(array['-1', '1.0', '0.0', '0.5', '1000000000000000000', '12345678901234567890123456789012345678', '1e300', '"5"',
    '""', 'true', 'null', '[]', '[5]', '{}']) as bad
cross join unnest(array[
    'select kerai.vector_compare(%1$s, %1$s)', 'select kerai.vector_compare(''{}'', %s)', 'select kerai.vector_merge(%1$s, ''{}'')',
    'select kerai.vector_contains(%s, ''a'', 1)', 'select * from kerai.vector_missing(%s, ''{}'')']) as call;
select pg_temp.refuses($$select kerai.vector_contains(jsonb_build_object('x', repeat('1', 135000000)), 'a', 1)$$,
    'KR005', 'the version vector is too large', 'at most 134217728', 'swarms', 'more than 128 MiB');

select * from finish();
rollback;

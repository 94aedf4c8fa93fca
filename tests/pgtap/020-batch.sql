-- Batches, submit and settle: what is refused, and that each gets its own result, as often as it is asked for.
begin;
\ir 010-helpers.psql
select no_plan();

-- 1 root / 2, 3 leaves, by ann
select is(pg_temp.push('ann', pg_temp.ins(1), pg_temp.ins(2, 1), pg_temp.ins(3, 1)), 'merged', 'a tree');
create function pg_temp.one(n int default 2) returns jsonb
language sql as $$ select to_jsonb(array[pg_temp.upd(n, '{"content": "x"}')]) $$;

create function pg_temp.submit(name text, document text) returns uuid
language sql as $$ select kerai.submit_push(document::json, pg_temp.sign(document, name), pg_temp.key(name)) $$;

create function pg_temp.settling(ticket uuid) returns text
language sql as $$ select format('select kerai.await_push(%L)', ticket) $$;

create function pg_temp.page(variadic given text[]) returns kerai_private.incoming[]
language sql as $$
    select array_agg(row(d.text, pg_temp.sign(d.text, d.name), pg_temp.key(d.name))::kerai_private.incoming order by d.n)
    from (select given[2 * n - 1] as name, given[2 * n] as text, n from generate_series(1, cardinality(given) / 2) as n) as d
$$;

-- what is not signed by its author, or names none, is refused when it is submitted
create function pg_temp.submitting(document text, signature bytea, key bytea default null) returns text
language sql as $$ select format('select kerai.submit_push(%L, %L, %L)', document, signature, key) $$;
select pg_temp.document('ann', pg_temp.one()) as document \gset
select pg_temp.refuses(pg_temp.submitting(:'document', bad), 'KR001', message, 'author: ann', 'Ed25519|kerai-changeset-v1',
    message) from (values (null::bytea, 'a changeset must be signed'), (E'\\x00', 'the signature does not verify'),
    (pg_temp.sign(:'document', 'bob'), 'the signature does not verify'),
    (pg_temp.sign(:'document' || ' ', 'ann'), 'the signature does not verify')) as v (bad, message);
select pg_temp.refuses(pg_temp.submitting(:'document', pg_temp.sign(:'document', 'ann'), pg_temp.key('bob')),
    'KR002', 'the author id does not match the public key', 'author: ann', 'sha256', 'the key of another');
select pg_temp.refuses(pg_temp.submitting(d, pg_temp.sign(d, 'bob'), pg_temp.key('bob')),
    'KR002', 'the author id does not match the public key', 'author: ann', 'sha256', 'signed with that key')
from pg_temp.document('ann', pg_temp.one()) as d;
select pg_temp.refuses(pg_temp.submitting(d, pg_temp.sign(d, 'new')), 'KR006', 'no such author', 'author: new',
    'public_key', 'somebody new, not introduced') from pg_temp.document('new', pg_temp.one()) as d;
select pg_temp.refuses(pg_temp.submitting(d, pg_temp.sign(d, 'ann'), pg_temp.key('ann')), 'KR005', message, detail, hint, message)
from (values
    ('[]', 'a changeset is a JSON object', 'given: array', 'JSON object'),
    ('"x"', 'a changeset is a JSON object', 'given: string', 'JSON object'),
    ('{"author": 5}', 'the changeset lacks a key', 'missing: v', 'It has'),
    (E'{"author": "\\u0000"}', 'the changeset holds what cannot be stored', 'unsupported Unicode', 'Leave out NUL')
) as v (d, message, detail, hint);
select pg_temp.refuses('select kerai.submit_push(null, null)', 'KR005', 'a changeset is needed', 'given: null', 'JSON', 'nothing');
select pg_temp.refuses(format('select kerai.submit_push(%L, null)', to_json(repeat('x', 8388608))), 'KR005', 'the changeset is too large',
    'at most 8388608 are taken', 'Split', 'too much to keep');
select is(count(*), 0::bigint, 'none of them waits') from kerai_private.submissions;

-- what is malformed is refused when it is merged
select pg_temp.refuses(pg_temp.settling(kerai.submit_push(d::json, pg_temp.sign(d, 'ann'), pg_temp.key('ann'))), 'KR005', message,
    detail, hint, message)
from (values
    (pg_temp.document('ann', '[]'), 'too few or too many operations', '0 operations', 'Split'),
    (pg_temp.document('ann', pg_temp.one(), '{}', '{base}'), 'the changeset lacks a key', 'missing: base', 'It has'),
    (pg_temp.document('ann', '[{"op": "x"}]'), 'an operation is malformed', 'operation 0', 'Correct'),
    (pg_temp.document('ann', '[{"op": "node_delete", "node": "zzzzzzzz-0000-4000-8000-000000000001"}]'),
        'an operation is malformed', 'operation 0', 'Correct')) as v (d, message, detail, hint);
select is(count(*), 4::bigint, 'all of them wait, since a refusal undoes what was merged with it') from kerai_private.submissions;

-- settle
select pg_temp.refuses(pg_temp.settling(ticket), 'KR006', 'no such ticket', 'ticket: ', 'Submit the changeset again', about)
from (values (null::uuid, 'no ticket'), (gen_random_uuid(), 'an unknown ticket')) as v (ticket, about);

select pg_temp.submit('ann', :'document') as ann, pg_temp.submit('bob', pg_temp.document('bob', pg_temp.one(3))) as bob,
    pg_temp.submit('cleo', pg_temp.document('cleo', pg_temp.one(9))) as cleo,
    pg_temp.submit('ann', :'document') as again \gset
select is((r.status, r.applied, r.first_seq, r.last_seq)::text, '(merged,1,1,1)', 'the second is merged first')
from kerai.await_push(:'bob') as r;
select is((r.status, r.applied, r.first_seq, r.last_seq, r.changeset_id)::text,
    ('merged'::text, 1, 4, 4, sha256(convert_to(:'document', 'UTF8')))::text, 'the first was merged with it')
from kerai.await_push(:'ann') as r;
select is((r.status, r.applied, r.first_seq, r.last_seq)::text, '(duplicate,0,4,4)', 'what came twice is a duplicate')
from kerai.await_push(:'again') as r;
select pg_temp.refuses(pg_temp.settling(:'cleo'), 'KR006', 'no such node', 'operation 0 names node', 'kerai.nodes',
    format('a refusal, for the %s time', n)) from generate_series(1, 2) as n;
select is((kerai.await_push(:'bob')).status, 'merged', 'a result, twice');
select is((kerai.await_push(:'again')).status, 'duplicate', 'a duplicate, twice');
select is(count(*), 0::bigint, 'nothing waits') from kerai_private.submissions;
select results_eq('select (s.outcome).code, count(*) from kerai_private.push_outcomes as s group by 1 order by 1',
    $$values ('KR005', 4::bigint), ('KR006', 1), (null, 3)$$, 'what became of each');
select is(count(*), 0::bigint, 'a refused author is not introduced by it')
from kerai.changesets as c where c.author = pg_temp.author('cleo');

-- guards: judged when it is merged
select pg_temp.document('ann', pg_temp.one(), jsonb_build_object('guard', pg_temp.node(1))) as guarded \gset
select pg_temp.submit('bob', pg_temp.document('bob', pg_temp.one(3))) as bob, pg_temp.submit('ann', :'guarded') as ann \gset
select is((kerai.await_push(:'bob')).status, 'merged', 'one touches the subtree');
select is((r.status, r.applied)::text, '(stale,0)', 'so the other is stale') from kerai.await_push(:'ann') as r;

-- What comes from elsewhere was guarded there.
select is((o.status, o.applied, o.code)::text, '(merged,1,)', 'guards are not judged again')
from kerai_private.receive_all(pg_temp.page('ann',
    pg_temp.document('ann', pg_temp.one(), jsonb_build_object('guard', pg_temp.node(1), 'base', '{}'::jsonb, 'lamport', 5))), enforce_policy => false) as o;

-- receive_all: each its own outcome, in the order in which they are given
select pg_temp.document('ann', pg_temp.one()) as good, pg_temp.document('ann', pg_temp.one(), '{"message": "fork"}') as fork,
    pg_temp.document('dan', pg_temp.one()) as dan, pg_temp.document('eve', pg_temp.one(), '{"lamport": 1}') as eve \gset
select results_eq($$
    select o.n, coalesce(o.code, o.status), o.detail is not null, o.hint is not null
    from kerai_private.receive_all(pg_temp.page('ann', $$ || quote_literal(:'good') || $$, 'ann', '[]', 'ann', $$ || quote_literal(:'fork')
        || $$, 'eve', $$ || quote_literal(:'eve') || $$, 'dan', $$ || quote_literal(:'dan') || $$, 'ann', $$ || quote_literal(:'good')
        || $$), enforce_policy => false) as o order by o.n$$,
    $$values (1, 'merged', false, false), (2, 'KR005', true, true), (3, 'KR003', true, true), (4, 'KR005', true, true),
        (5, 'merged', false, false), (6, 'duplicate', false, false)$$, 'outcomes of a page');
select is(count(*), 0::bigint, 'an empty page') from kerai_private.receive_all('{}', enforce_policy => true);

-- an error that says nothing of the changeset is nobody's refusal: its author pushes it again
select is(kerai_private.is_transient(e.code), e.transient, 'transient: ' || e.code)
from (values ('40P01', true), ('53100', true), ('55000', true), ('55P03', true), ('57014', true), ('58030', true),
    ('22P02', false), ('23505', false), ('KR009', false), ('XX000', false)) as e (code, transient);
select finish();
rollback;

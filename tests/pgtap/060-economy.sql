-- Wallets, mints, the ledger, the supply.
begin;
\ir 040-helpers.psql
select no_plan();

select is((w.kind, w.label, w.balance)::text, '(agent,ann,0)', 'an agent is registered with an empty wallet')
from kerai.agents as a inner join kerai.wallets as w on w.id = a.wallet_id where a.name = 'ann';
select kerai_private.create_wallet('escrow', null) as escrow \gset
select is(kerai.balance(:'escrow'), 0::bigint, 'a wallet without a label');
select pg_temp.refuses($$select kerai.balance(pg_temp.node(99))$$, 'KR006', 'no such wallet', '000000000099', 'wallet_id',
    'the balance of an unknown wallet');
select pg_temp.refuses($$select kerai.balance(null)$$, 'KR006', 'no such wallet', 'null', 'wallet_id', 'of none');
select is((s.minted, s.burned, s.circulating, s.balances)::text, '(0,0,0,0)', 'in the beginning there is nothing')
from kerai.supply() as s;
select is((r.reward, r.enabled)::text, '(1000000000,t)', 'a convergence is paid one Koi')
from kerai.reward_schedule as r where r.work_type = 'swarm_convergence';
update kerai.reward_schedule set reward = 5 where work_type = 'swarm_convergence';
update kerai.reward_schedule set enabled = false where work_type = 'swarm_convergence';
select is((r.reward, r.enabled)::text, '(5,f)', 'or what an operator says')
from kerai.reward_schedule as r where r.work_type = 'swarm_convergence';
select pg_temp.refuses('update kerai.reward_schedule set ' || change, 'KR005', 'a reward is 0 or more nKoi, enabled or not', detail,
    'UPDATE kerai.reward_schedule', change) from (values ('reward = -1', 'reward: -1, enabled: false'),
    ('reward = null', 'reward: null'), ('enabled = null', 'enabled: null')) as v (change, detail);
select throws_ok($$update kerai.reward_schedule set work_type = 'x'$$, 'KR005', null, 'what is paid for stays');

-- mints
select id as t from kerai.create_task('d', 'true') \gset
select wallet_id as ann from kerai.agents where name = 'ann' \gset
select wallet_id as bob from kerai.agents where name = 'bob' \gset
select isnt(kerai_private.post_mint('test', :'t', array[:'ann', :'bob', :'ann']::uuid[], '{5,7,1}'), null, 'money is made');
select is(pg_temp.balance('ann') || ' ' || pg_temp.balance('bob'), '6 7', 'and lands in the wallets');
select is(string_agg(l.amount::text, ' ' order by l.id), '5 7 1', 'each payment is in the ledger')
from kerai.ledger as l inner join kerai.mints as m on m.id = l.mint_id
where l.kind = 'mint' and l.memo = 'test' and l.task_id = :'t' and m.amount = 13 and l.from_wallet is null;
select is(kerai_private.post_mint('test', :'t', array[:'ann']::uuid[], '{5}'), null, 'the same work is not paid again');
select is(pg_temp.balance('ann') || ' ' || (select count(*) from kerai.ledger), '6 3', 'nothing came of it');
select isnt(kerai_private.post_mint('other', :'t', array[:'ann']::uuid[], '{1}'), null, 'other work is');
select is(s::text, (14, 0, 14, (select count(*) from kerai.wallets), 14)::text, 'what circulates is what the wallets hold')
from kerai.supply() as s;
select pg_temp.refuses(format($$select kerai_private.post_mint('x', %L, array[%L, pg_temp.node(99)]::uuid[], '{5,6}')$$,
    :'t', :'ann'), 'KR006', 'no such wallet', '000000000099', 'wallet_id', 'a payment to an unknown wallet');
select pg_temp.refuses(format($$select kerai_private.post_mint('x', %L, array[%L]::uuid[], '{9223372036854775801}')$$,
    :'t', :'ann'), 'KR005', 'the amount is too large for the wallet', 'holds 7 nKoi and would get 9223372036854775801',
    'at most 9223372036854775807', 'a balance beyond bigint');
select pg_temp.refuses(format($$select kerai_private.post_credits(array[%L, %L]::uuid[],
    '{9223372036854775807,9223372036854775807}')$$, :'ann', :'ann'), 'KR005', 'the amount is too large for the wallet',
    'would get 18446744073709551614', 'at most', 'a sum beyond bigint');
savepoint before;
select lives_ok(format($$select kerai_private.post_mint('x', %L, array[%L]::uuid[], '{9223372036854775800}')$$, :'t', :'ann'),
    'a balance of all that bigint holds');
select pg_temp.refuses('select * from kerai.supply()', 'KR005', 'the supply is too large to be told in nKoi',
    'minted: 9223372036854775814', 'numeric', 'a supply beyond bigint');
rollback to before;

-- the ledger only grows, and its rows make sense
select pg_temp.refuses(f.statement, 'KR013', f.relation || ' only grows', 'attempted: ' || f.attempted, 'reverses', f.statement)
from (values ('update kerai.ledger set amount = 1', 'kerai.ledger', 'update'),
    ('delete from kerai.ledger', 'kerai.ledger', 'delete'), ('truncate kerai.ledger', 'kerai.ledger', 'truncate'),
    ('update kerai.mints set amount = 1', 'kerai.mints', 'update'), ('delete from kerai.mints', 'kerai.mints', 'delete')
) as f (statement, relation, attempted);
select throws_ok(format($$insert into kerai.ledger (kind, mint_id, from_wallet, to_wallet, amount) values (%s)$$,
    format(f.entry, :'ann', :'bob')), '23514', null, f.about)
from (values ($$'mint', null, null, '%1$s', 1$$, 'a mint without its event'),
    ($$'transfer', null, '%1$s', '%1$s', 1$$, 'a transfer to oneself'),
    ($$'transfer', null, null, '%1$s', 1$$, 'a transfer from nobody'),
    ($$'burn', null, '%1$s', '%2$s', 1$$, 'a burn that pays somebody'),
    ($$'burn', null, '%1$s', null, 0$$, 'nothing'), ($$'gift', null, '%1$s', '%2$s', 1$$, 'an unknown kind')
) as f (entry, about);
select throws_ok('update kerai.wallets set balance = -1', '23514', null, 'a balance is never negative');
insert into kerai.ledger (kind, from_wallet, amount) values ('burn', :'ann', 2);
update kerai.wallets set balance = balance - 2 where id = :'ann';
select is((s.minted, s.burned, s.circulating, s.balances)::text, '(14,2,12,12)', 'what is burned does not circulate')
from kerai.supply() as s;

select * from finish();
rollback;

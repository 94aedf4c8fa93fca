-- Economy: only these functions change a balance, never a trigger, which a restore would fire again.

create or replace view kerai.reward_schedule as
select d.work_type, coalesce(c.reward, d.reward) as reward, coalesce(c.enabled, d.enabled) as enabled, d.description
from kerai_private.default_rewards as d
left join kerai_private.changed_rewards as c on c.work_type = d.work_type;

comment on view kerai.reward_schedule is 'What verified work is paid, in nKoi. An operator changes it with UPDATE; what was paid before stays.';

create or replace function kerai_private.change_reward() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (new.work_type, new.description) is distinct from (old.work_type, old.description) then
        perform kerai_private.refuse('KR005', 'of a reward only the amount and enabled change',
            format('work_type: %s', old.work_type), 'UPDATE kerai.reward_schedule SET reward = ... WHERE work_type = ....');
    end if;
    if new.reward is null or new.reward < 0 or new.enabled is null then
        perform kerai_private.refuse('KR005', 'a reward is 0 or more nKoi, enabled or not',
            format('reward: %s, enabled: %s', coalesce(new.reward::text, 'null'), coalesce(new.enabled::text, 'null')),
            'UPDATE kerai.reward_schedule SET enabled = false WHERE work_type = ...; pays nothing.');
    end if;
    insert into kerai_private.changed_rewards as c (work_type, reward, enabled)
    values (new.work_type, new.reward, new.enabled)
    on conflict on constraint changed_rewards_pkey do update set reward = excluded.reward, enabled = excluded.enabled;
    return new;
end
$$;

create or replace trigger change_reward instead of update on kerai.reward_schedule
for each row execute function kerai_private.change_reward();

create or replace function kerai_private.create_wallet(kind text, label text) returns uuid
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    insert into kerai.wallets (kind, label) values (create_wallet.kind, create_wallet.label) returning id
$$;

-- Adds amounts to wallets, all of them or none. The wallets are locked by id, so that postings never deadlock.
create or replace function kerai_private.post_credits(wallets uuid[], amounts bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    bad record;
begin
    perform from kerai.wallets as w where w.id = any(wallets) order by w.id for no key update;

    select c.wallet, w.id is not null as known, w.balance, c.amount into bad
    from (
        select u.wallet, sum(u.amount) as amount from unnest(wallets, amounts) as u (wallet, amount) group by u.wallet
    ) as c
    left join kerai.wallets as w on w.id = c.wallet
    where w.id is null or w.balance + c.amount > 9223372036854775807
    order by c.wallet
    limit 1;
    if found and bad.known then
        perform kerai_private.refuse('KR005', 'the amount is too large for the wallet',
            format('wallet %s holds %s nKoi and would get %s', bad.wallet, bad.balance, bad.amount),
            'A balance is at most 9223372036854775807 nKoi. Lower the reward, or pay to another wallet.');
    elsif found then
        perform kerai_private.refuse('KR006', 'no such wallet', format('wallet: %s', coalesce(bad.wallet::text, 'null')),
            'SELECT name, wallet_id FROM kerai.agents shows the agents'' wallets.');
    end if;

    update kerai.wallets as w
    set balance = w.balance + c.amount
    from (
        select u.wallet, sum(u.amount)::bigint as amount
        from unnest(wallets, amounts) as u (wallet, amount) group by u.wallet
    ) as c
    where w.id = c.wallet;
end
$$;

-- Makes money for one piece of work and pays it out. Returns the mint's id; NULL, and pays nothing, when this work on
-- this task has been paid before.
create or replace function kerai_private.post_mint(work_type text, task uuid, wallets uuid[], amounts bigint[])
returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    mint uuid;
begin
    insert into kerai.mints as m (work_type, task_id, amount)
    select work_type, task, sum(u.amount) from unnest(amounts) as u (amount)
    on conflict do nothing
    returning m.id into mint;
    if mint is null then
        return null;
    end if;

    perform kerai_private.post_credits(wallets, amounts);
    insert into kerai.ledger (kind, mint_id, to_wallet, amount, task_id, memo)
    select 'mint', mint, u.wallet, u.amount, task, work_type
    from unnest(wallets, amounts) as u (wallet, amount);
    return mint;
end
$$;

create or replace function kerai.balance(wallet uuid) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    held bigint;
begin
    select w.balance into held from kerai.wallets as w where w.id = wallet;
    if held is null then
        perform kerai_private.refuse('KR006', 'no such wallet', format('wallet: %s', coalesce(wallet::text, 'null')),
            'SELECT name, wallet_id FROM kerai.agents shows the agents'' wallets.');
    end if;
    return held;
end
$$;

comment on function kerai.balance(uuid) is 'What a wallet holds, in nKoi.';

create or replace function kerai.supply()
returns table (minted bigint, burned bigint, circulating bigint, wallets bigint, balances bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    made numeric;
    destroyed numeric;
    held numeric;
    holders bigint;
begin
    select coalesce(sum(m.amount), 0) into made from kerai.mints as m;
    select coalesce(sum(l.amount), 0) into destroyed from kerai.ledger as l where l.kind = 'burn';
    select coalesce(sum(w.balance), 0), count(*) into held, holders from kerai.wallets as w;
    if greatest(made, held) > 9223372036854775807 then
        perform kerai_private.refuse('KR005', 'the supply is too large to be told in nKoi',
            format('minted: %s, held: %s nKoi', made, held), 'Add up kerai.mints and kerai.wallets as numeric instead.');
    end if;
    return query select made::bigint, destroyed::bigint, (made - destroyed)::bigint, holders, held::bigint;
end
$$;

comment on function kerai.supply() is
'All money there is, in nKoi: minted, burned, circulating (minted less burned), the number of wallets and the sum of their balances. circulating and balances are equal.';

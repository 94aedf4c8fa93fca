-- Economy: wallets, the events that make money, and the ledger. Amounts are nKoi; 1 Koi = 1,000,000,000 nKoi.

create table kerai.wallets (
    id uuid primary key default gen_random_uuid(),
    kind text not null check (kind <> ''),
    label text,
    balance bigint not null default 0 check (balance >= 0),
    created_at timestamptz not null default now()
) with (fillfactor = 70);

comment on table kerai.wallets is 'Who holds how much. A balance is what the ledger adds up to, kept by the functions that post to it.';

-- Defaults and changes stand apart, like those of kerai.settings.
create table kerai_private.default_rewards (
    work_type text primary key,
    reward bigint not null,
    enabled boolean not null default true,
    description text
);

create table kerai_private.changed_rewards (
    work_type text primary key,
    reward bigint not null check (reward >= 0),
    enabled boolean not null
);

-- One Koi: split a million ways it still gives each a thousand nKoi, so that rounding never eats a share.
insert into kerai_private.default_rewards (work_type, reward, description) values
('swarm_convergence', 1000000000,
    'once a task, when its success command passes on the shared state; split by surviving operations');

create table kerai.mints (
    id uuid primary key default gen_random_uuid(),
    work_type text not null,
    task_id uuid not null,
    amount bigint not null check (amount > 0),
    created_at timestamptz not null default clock_timestamp(),
    unique (work_type, task_id)
);

comment on table kerai.mints is 'Each time that money was made, and for what. The same work on the same task is paid once.';

create table kerai.ledger (
    id bigint primary key generated always as identity,
    kind text not null check (kind in ('mint', 'transfer', 'burn')),
    mint_id uuid,
    from_wallet uuid,
    to_wallet uuid,
    amount bigint not null check (amount > 0),
    task_id uuid,
    memo text,
    created_at timestamptz not null default clock_timestamp(),
    check (case kind
        when 'mint' then mint_id is not null and from_wallet is null and to_wallet is not null
        when 'transfer' then mint_id is null and from_wallet <> to_wallet
        else mint_id is null and from_wallet is not null and to_wallet is null
    end is true)
);

create index ledger_to_wallet on kerai.ledger (to_wallet, created_at) where to_wallet is not null;
create index ledger_task on kerai.ledger (task_id) where task_id is not null;
create index ledger_burns on kerai.ledger (amount) where kind = 'burn';

comment on table kerai.ledger is 'Every movement of money, one row each. Rows are only ever added.';

-- What has happened stays: also a superuser has to drop the trigger before changing history.
create function kerai_private.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.refuse('KR013', format('%I.%I only grows', tg_table_schema, tg_table_name),
        format('attempted: %s', lower(tg_op)), 'Correct an entry by a new one that reverses it.');
    return null;
end
$$;

create trigger append_only before update or delete or truncate on kerai.ledger
for each statement execute function kerai_private.refuse_change();
create trigger append_only before update or delete or truncate on kerai.mints
for each statement execute function kerai_private.refuse_change();

select pg_extension_config_dump('kerai.wallets', '');
select pg_extension_config_dump('kerai_private.changed_rewards', '');
select pg_extension_config_dump('kerai.mints', '');
select pg_extension_config_dump('kerai.ledger', '');
select pg_extension_config_dump(pg_get_serial_sequence('kerai.ledger', 'id')::regclass, '');

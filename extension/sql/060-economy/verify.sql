-- Verify: do rows name rows that are here, does the ledger add up, and is everything else as the changesets say?

-- Which column names a row of which other table. Foreign keys would say it too, but a restore in another order than
-- theirs would lose what they refuse. `subject` says which row it is.
create or replace function kerai_private.named_rows()
returns table (what text, relation regclass, subject text, referring name, target regclass, target_key name)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    values
    ('late changeset', 'kerai_private.backfilled_changesets'::regclass, 'encode(changeset_id, ''hex'')',
        'changeset_id'::name, 'kerai.changesets'::regclass, 'id'::name),
    ('refusal', 'kerai.refusals', 'encode(changeset_id, ''hex'')', 'peer', 'kerai.peer_connections', 'name'),
    ('partial scope', 'kerai_private.partial_scope', 'scope', 'peer', 'kerai.peer_connections', 'name'),
    ('agent', 'kerai.agents', 'id', 'author', 'kerai_private.authors', 'author'),
    ('agent', 'kerai.agents', 'id', 'wallet_id', 'kerai.wallets', 'id'),
    ('task', 'kerai.tasks', 'id', 'scope_node_id', 'kerai.nodes', 'id'),
    ('task', 'kerai.tasks', 'id', 'sponsor_wallet', 'kerai.wallets', 'id'),
    ('swarm', 'kerai.swarms', 'id', 'task_id', 'kerai.tasks', 'id'),
    ('writer', 'kerai_private.writers', 'author', 'swarm_id', 'kerai.swarms', 'id'),
    ('writer', 'kerai_private.writers', 'author', 'author', 'kerai_private.authors', 'author'),
    ('swarm member', 'kerai.swarm_members', 'concat(swarm_id, '' '', agent_id)', 'swarm_id', 'kerai.swarms', 'id'),
    ('swarm member', 'kerai.swarm_members', 'concat(swarm_id, '' '', agent_id)', 'agent_id', 'kerai.agents', 'id'),
    ('test result', 'kerai.test_results', 'id', 'task_id', 'kerai.tasks', 'id'),
    ('test result', 'kerai.test_results', 'id', 'agent_id', 'kerai.agents', 'id'),
    ('failed attempt', 'kerai.failed_operations', 'id', 'task_id', 'kerai.tasks', 'id'),
    ('failed attempt', 'kerai.failed_operations', 'id', 'agent_id', 'kerai.agents', 'id'),
    ('convergence', 'kerai.convergences', 'task_id', 'task_id', 'kerai.tasks', 'id'),
    ('convergence', 'kerai.convergences', 'task_id', 'agent_id', 'kerai.agents', 'id'),
    ('mint', 'kerai.mints', 'id', 'task_id', 'kerai.tasks', 'id'),
    ('ledger entry', 'kerai.ledger', 'id', 'mint_id', 'kerai.mints', 'id'),
    ('ledger entry', 'kerai.ledger', 'id', 'from_wallet', 'kerai.wallets', 'id'),
    ('ledger entry', 'kerai.ledger', 'id', 'to_wallet', 'kerai.wallets', 'id'),
    ('ledger entry', 'kerai.ledger', 'id', 'task_id', 'kerai.tasks', 'id')
$$;

-- Rows that name a row that is not here. A standby has no unlogged tables.
create or replace function kerai_private.verify_names()
returns table (what text, subject text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    named record;
begin
    for named in
        select r.* from kerai_private.named_rows() as r
        inner join pg_class as c on c.oid = r.relation
        where c.relpersistence <> 'u' or not pg_is_in_recovery()
    loop
        return query execute format(
            'select %L, (%s)::text, format(%L, r.%I) from %s as r '
            'where r.%4$I is not null and not exists (select from %6$s as t where t.%7$I = r.%4$I)',
            named.what, named.subject, named.referring || ' is %s, and there is no such row in ' || named.target::text,
            named.referring, named.relation, named.target, named.target_key);
    end loop;
end
$$;

-- What follows from other rows: balances and mints from the ledger, payments and success from convergences.
create or replace function kerai_private.verify_money()
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select 'wallet', w.id::text, kerai_private.difference('balance', w.balance::text, coalesce(m.amount, 0)::text)
    from kerai.wallets as w
    left join (
        select p.wallet, sum(p.amount) as amount
        from (
            select l.to_wallet as wallet, l.amount from kerai.ledger as l
            union all
            select l.from_wallet, -l.amount from kerai.ledger as l
        ) as p
        group by p.wallet
    ) as m on m.wallet = w.id
    where w.balance <> coalesce(m.amount, 0)
    union all
    select 'mint', m.id::text, kerai_private.difference('amount', m.amount::text, coalesce(l.amount, 0)::text)
    from kerai.mints as m
    left join (
        select e.mint_id, sum(e.amount) as amount from kerai.ledger as e where e.mint_id is not null group by e.mint_id
    ) as l on l.mint_id = m.id
    where m.amount <> coalesce(l.amount, 0)
    union all
    select 'mint', m.id::text, format('pays the convergence of task %s, which is not here', m.task_id)
    from kerai.mints as m
    where m.work_type = 'swarm_convergence'
        and not exists (select from kerai.convergences as c where c.task_id = m.task_id)
    union all
    select 'convergence', c.task_id::text,
        kerai_private.difference('reward', c.reward::text, coalesce(m.amount, 0)::text)
    from kerai.convergences as c
    left join kerai.mints as m on m.task_id = c.task_id and m.work_type = 'swarm_convergence'
    where c.reward <> coalesce(m.amount, 0)
    union all
    select 'task', t.id::text, 'has succeeded, and its convergence is not here'
    from kerai.tasks as t
    where t.status = 'succeeded' and not exists (select from kerai.convergences as c where c.task_id = t.id)
    union all
    select 'swarm', s.id::text,
        kerai_private.difference('writer', coalesce(l.author, 'none'), case when s.grouped then 'one' else 'none' end)
    from kerai.swarms as s
    left join kerai_private.writers as l on l.swarm_id = s.id
    where s.grouped <> (l.author is not null)
$$;

-- A sequence that is behind its column makes the next insert fail.
create or replace function kerai_private.verify_sequences()
returns table (what text, subject text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    owned record;
begin
    for owned in
        select s.oid::regclass as sequence, t.oid::regclass as relation, a.attname
        from pg_class as s
        inner join pg_depend as d
            on d.classid = 'pg_class'::regclass and d.objid = s.oid
            and d.refclassid = 'pg_class'::regclass and d.deptype = 'i'
        inner join pg_class as t on t.oid = d.refobjid
        inner join pg_attribute as a on a.attrelid = t.oid and a.attnum = d.refobjsubid
        where s.relkind = 'S' and s.relnamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace)
            and (t.relpersistence <> 'u' or not pg_is_in_recovery())
    loop
        return query execute format(
            'select ''sequence'', %L, format(''stands at %%s, and a row of %s has %%s'', v.here, m.there) '
            'from (select max(%I) as there from %2$s) as m '
            'cross join (select coalesce(pg_sequence_last_value(%1$L::regclass), 0) as here) as v '
            'where m.there > v.here',
            owned.sequence, owned.relation, owned.attname);
    end loop;
end
$$;

create or replace function kerai.verify(deep boolean default true)
returns table (what text, subject text, problem text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
#variable_conflict use_column
begin
    return query select * from kerai_private.verify_names();
    return query select * from kerai_private.verify_money();
    return query select * from kerai_private.verify_sequences();
    return query select * from kerai_private.verify_layers(deep);
end
$$;

comment on function kerai.verify(boolean) is
'Says what is wrong with this instance, one row a problem; no row when all is well. In what: the kind of row, such as changeset, operation, node, agent or wallet. In subject: which one. In problem: what it is and what it should be. Checks that rows name rows that are here, balances against the ledger, every hash, signature and chain, and every entry of the version vector. Checks the log against the signed documents and, unless deep is false, every register of the tree against a fold of the log. Reads everything, blocks nobody. What changesets still say, kerai.rebuild() puts right; what else is damaged has to come from a peer or a backup.';

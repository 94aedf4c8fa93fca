-- Backfill: older documents of nodes that have come into the scope.

-- Refuses KR006 what the peer has not sent before what needs it.
create or replace function kerai_private.require_sent(ops kerai_private.operation[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    bad uuid;
begin
    select u.node into bad
    from unnest(ops) as o
    cross join lateral (values (coalesce(o.node, o.source)), (o.parent)) as u (node)
    where u.node is not null
        and u.node not in (select i.node from unnest(ops) as i where i.op = 'node_insert')
        and not exists (select from kerai.nodes as n where n.id = u.node)
    limit 1;
    if found then
        perform kerai_private.refuse('KR006', 'the peer sends what is said of a node, and not the node',
            format('node: %s', bad), 'kerai.verify() on the peer says whether it is damaged.');
    end if;
end
$$;

create or replace function kerai_sync.backfill_documents(
    arrivals bigint[], documents json[], signatures bytea[], public_keys bytea[],
    out taken int, out applied bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    items kerai_private.verified_changeset[];
    bad bytea;
begin
    perform kerai_private.require_page(documents, signatures, public_keys);
    perform kerai_private.lock_tree(exclusive => true);
    perform kerai_private.show_change();
    items := kerai_private.verify_changesets(array(
        select row(g.document, g.signature, g.public_key)::kerai_private.incoming
        from unnest(documents, signatures, public_keys) with ordinality as g (document, signature, public_key, n)
        order by g.n), enforce_policy => false, verified => false);
    select c.id into bad
    from unnest(items) as i
    inner join kerai.changesets as c on c.id = i.id
    where (c.author, c.first_seq, c.last_seq, c.first_lamport, c.prev, c.base)
        is distinct from (i.author, i.first_seq, i.last_seq, i.first_lamport, i.prev, i.base)
    limit 1;
    if found then
        perform kerai_private.refuse('KR005', 'the peer has said otherwise of a changeset before',
            format('changeset: %s', encode(bad, 'hex')), 'Make a new partial instance, from a peer that can be trusted.');
    end if;

    with filled as (
        update kerai.changesets as c
        set document = i.document, guard = i.guard, task_id = i.task, message = i.message, member = i.member,
            member_signature = i.member_signature, draft_id = i.draft_id
        from unnest(items) as i
        where c.id = i.id and c.document is null
        returning c.last_seq - c.first_seq + 1 as operations
    )

    select count(*), coalesce(sum(f.operations), 0) into taken, applied from filled as f;
    -- Of a forked author the peer may have another branch: that is not here.
    insert into kerai_private.backfilled_changesets (changeset_id)
    select c.id from kerai.changesets as c where c.id in (select i.id from unnest(items) as i)
    on conflict do nothing;
    update kerai_private.partial_scope as p set backfilled_to = (select max(u.a) from unnest(arrivals) as u (a));
end
$$;

comment on function kerai_sync.backfill_documents(bigint[], json[], bytea[], bytea[]) is
'A part of kerai.sync in a partial instance: takes documents of changesets of which only a stub was here.';

-- The backfill has come to its end: now what it says of the nodes is merged, in the order of arrival.
create or replace function kerai_sync.merge_backfill() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    done bigint := 0;
    items kerai_private.verified_changeset[];
    ops kerai_private.operation[];
begin
    perform kerai_private.lock_tree(exclusive => true);
    perform kerai_private.show_change();
    loop
        select max(p.arrival), array_agg(row(
            p.id, p.author, p.first_seq, p.last_seq, p.first_lamport, p.last_lamport, null, null, null, null, null,
            kerai_private.signed_body(p.document::jsonb) -> 'ops', null, null, null, null, p.member, null, null, null
        )::kerai_private.verified_changeset order by p.arrival)
        into done, items
        from (
            select c.*, sum(c.last_seq - c.first_seq + 1) over (order by c.arrival) as running,
                row_number() over (order by c.arrival) as n
            from (
                select x.* from kerai_private.backfilled_changesets as l
                inner join kerai.changesets as x on x.id = l.changeset_id
                where x.arrival > done order by x.arrival limit 1000
            ) as c
        ) as p
        where p.running <= kerai_private.most_at_once() or p.n = 1;
        exit when items is null;

        ops := kerai_private.unpack_operations(items);
        ops := array(
            select o from unnest(ops) as o
            inner join (select row_number() over () as c, u.author from unnest(items) as u) as i on i.c = o.c
            where coalesce(o.node, o.source) in (
                    select s.node_id from kerai_private.scope_nodes as s where s.state = 'backfilling')
                and not exists (
                    select from kerai.operations as k where k.author = i.author and k.author_seq = o.seq)
            order by o.n);
        perform kerai_private.require_sent(ops);
        insert into kerai.operations (author, author_seq, lamport_ts, op_type, node_id, payload, changeset_id)
        select i.author, o.seq, i.first_lamport + o.seq - i.first_seq, o.op, coalesce(o.node, o.source), o.payload, i.id
        from unnest(ops) as o
        inner join (
            select row_number() over () as c, u.id, u.author, u.first_seq, u.first_lamport from unnest(items) as u
        ) as i on i.c = o.c;
        perform kerai_private.merge_operations(ops, exclusive => true);
    end loop;

    delete from kerai_private.backfilled_changesets;
    update kerai_private.scope_nodes set state = 'complete' where state = 'backfilling';
    update kerai_private.partial_scope set complete = named, backfilled_to = 0;
end
$$;

comment on function kerai_sync.merge_backfill() is
'A part of kerai.sync in a partial instance: merges what older changesets say of the nodes that have come into the scope.';

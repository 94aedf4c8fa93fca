-- Isolation: pushing in REPEATABLE READ and SERIALIZABLE. See docs/decisions/006-isolation.md.
--
-- A push has to see all that is merged until it has the tree lock. In READ COMMITTED it does, since each statement has
-- a snapshot of its own. In a transaction with one snapshot it may go on only when nothing has been merged since. Else
-- it fails with 40001, like any conflict of such transactions.

-- Inlined.
create or replace function kerai_private.has_one_snapshot() returns boolean
language sql stable parallel safe
return current_setting('transaction_isolation') in ('repeatable read', 'serializable');

create or replace function kerai_private.fail_overtaken() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'serialization_failure',
        message = 'could not serialize access: others have merged since this transaction began',
        detail = format('transaction isolation: %s', current_setting('transaction_isolation')),
        hint = 'Nothing was merged: run the transaction again. READ COMMITTED does not need to: SET SESSION '
            || 'CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;';
end
$$;

-- Has something been merged that this transaction does not see? The caller has the tree lock for itself. A session that
-- merges has a transaction id, and takes a number in the order of arrival while it has the tree lock. So a merge that
-- is not seen either ran when the snapshot was taken, or its number is higher than all that are seen. A number may be
-- that of a push that was rolled back. A row with it goes in and is taken out again, which fails where there is a row
-- that this transaction does not see. Changes without a changeset write the one row of kerai_private.state_changes.
create or replace function kerai_private.is_overtaken() returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    given constant bigint := coalesce(pg_sequence_last_value('kerai.changesets_arrival_seq'), 0);
    seen constant bigint := coalesce((select max(c.arrival) from kerai.changesets as c), 0);
begin
    if exists (
        select from pg_snapshot_xip(pg_current_snapshot()) as x (xid) where pg_xact_status(x.xid) = 'committed') then
        return true;
    end if;
    perform from kerai_private.state_changes for update;
    insert into kerai.changesets
        (id, author, first_seq, last_seq, first_lamport, last_lamport, base, document, signature, arrival)
    overriding system value
    select uuid_send(gen_random_uuid()), '', -s.n, -s.n, 0, 0, '{}', '{}', '', s.n
    from generate_series(seen + 1, given) as s (n)
    on conflict (arrival) do nothing;
    raise exception using errcode = 'KR999', message = 'this takes the rows out again';
exception
    when serialization_failure then
        return true;
    when sqlstate 'KR999' then
        return false;
end
$$;

-- A change of the state that brings no changeset. The caller has the tree lock for itself.
create or replace function kerai_private.show_change() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    update kerai_private.state_changes as s set singleton = s.singleton;
end
$$;

-- The tree lock of a transaction with one snapshot is always its own: only so nothing is merged between its pushes.
create or replace function kerai_private.lock_tree_with_one_snapshot() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    lock table kerai_private.tree_lock in exclusive mode;
    if kerai_private.is_overtaken() then
        perform kerai_private.fail_overtaken();
    end if;
end
$$;

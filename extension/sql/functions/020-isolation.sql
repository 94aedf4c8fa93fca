-- 020 isolation: pushing in REPEATABLE READ and SERIALIZABLE. See docs/decisions/006-isolation.md.
--
-- A push has to see all that is merged until it has the gate. In READ COMMITTED it does, since each statement has a
-- snapshot of its own. In a transaction with one snapshot it may go on only when nothing has been merged since. Else it
-- fails with 40001, like any conflict of such transactions.

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

-- Has a transaction committed that this one does not see? True also for one that had nothing to do with kerai.
create or replace function kerai_private.sees_all_committed() returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    snapshot constant pg_snapshot := pg_current_snapshot();
    xid bigint := pg_snapshot_xmax(snapshot)::text::bigint;
begin
    if exists (select from pg_snapshot_xip(snapshot) as x (xid) where pg_xact_status(x.xid) = 'committed') then
        return false;
    end if;
    loop
        if pg_xact_status(xid::text::xid8) = 'committed' then
            return false;
        end if;
        xid := xid + 1;
    end loop;
exception when invalid_parameter_value then
    return true;  -- This number has not been given to any transaction.
end
$$;

-- Has something been merged that this transaction does not see? The caller has the gate for itself. Who merges has an
-- id and takes a number in the order of arrival, in the gate. So a merge that is not seen either ran when the snapshot
-- was taken, or its number is higher than all that are seen. A number whose push was rolled back says nothing: then
-- any commit counts.
create or replace function kerai_private.is_overtaken() returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from pg_snapshot_xip(pg_current_snapshot()) as x (xid) where pg_xact_status(x.xid) = 'committed')
        or (select max(c.arrival) from kerai.changesets as c)
        is distinct from pg_sequence_last_value('kerai.changesets_arrival_seq')
        and not kerai_private.sees_all_committed();
end
$$;

-- What changes the state and brings no changeset takes a number as well. The caller has the gate for itself.
create or replace function kerai_private.show_change() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform nextval('kerai.changesets_arrival_seq');
end
$$;

-- Does this transaction have the gate for itself? Only a transaction with one snapshot asks: it takes long.
create or replace function kerai_private.is_alone() returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from pg_locks as l
        where l.pid = pg_backend_pid() and l.relation = 'kerai_private.merge_gate'::regclass
            and l.database = (select d.oid from pg_database as d where d.datname = current_database())
            and l.mode in ('ExclusiveLock', 'AccessExclusiveLock') and l.granted);
end
$$;

-- Fails when something has been merged that this transaction does not see, except while nobody else can merge.
create or replace function kerai_private.require_newest_state() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if kerai_private.has_one_snapshot() and not kerai_private.is_alone() and kerai_private.is_overtaken() then
        perform kerai_private.fail_overtaken();
    end if;
end
$$;

-- The gate of a transaction with one snapshot is always its own: only so nothing is merged between its pushes.
create or replace function kerai_private.enter_gate_with_one_snapshot() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if not kerai_private.is_alone() then
        lock table kerai_private.merge_gate in exclusive mode;
        if kerai_private.is_overtaken() then
            perform kerai_private.fail_overtaken();
        end if;
    end if;
end
$$;

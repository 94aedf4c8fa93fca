-- Group commit: many small pushes in one transaction.
--
-- Each author belongs to one of two partitions. A session that awaits its push is the leader of its partition when no
-- other session is: it merges a batch, all submissions that wait there. The other sessions are waiters. Batches are
-- numbered by a sequence a partition. A waiter waits for an advisory lock that has the batch's number.

-- The sequence that counts a partition's batches.
create or replace function kerai_private.batches_of(partition int) returns regclass
language sql immutable parallel safe
return case partition when 0 then 'kerai_private.batches_0'::regclass else 'kerai_private.batches_1'::regclass end;

-- The number after that of the batch that runs, or ran last. Inlined.
create or replace function kerai_private.next_batch(batches regclass) returns int
language sql volatile
return (1 + coalesce(pg_sequence_last_value(batches), 0) % 2000000000)::int;

-- Does a session lead this batch, or is it about to? It announces that by an advisory lock of the sequence's oid and
-- the batch's number. No later batch uses this lock. Any role can take it, so nothing rests on it. A leader leads
-- without it when it must, and a waiter waits for it 200 ms at most. Inlined.
create or replace function kerai_private.is_announced(batches regclass, batch int) returns boolean
language sql volatile
return not (pg_try_advisory_lock_shared(batches::oid::int, batch)
    and pg_advisory_unlock_shared(batches::oid::int, batch));

-- Before leading, waits up to 100 ms for the previous batch's clients, so that batches stay large: most of them submit
-- their next changeset when they are woken. Only while the other partition is led too; else the processor would idle.
create or replace function kerai_private.wait_for_served(partition int, batch int, served int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
declare
    batches constant regclass := kerai_private.batches_of(partition);
    other constant regclass := kerai_private.batches_of(1 - partition);
    next constant int := kerai_private.next_batch(other);
begin
    if coalesce(served >= 8, true) and kerai_private.is_announced(other, next) then
        perform pg_advisory_xact_lock(batches::oid::int, batch);
        raise exception using errcode = 'KR999', message = 'this gives the lock back';
    end if;
exception when sqlstate 'KR999' or lock_not_available or deadlock_detected then
    null;
end
$$;

-- Gives back the announcements that this session has made beyond the end of a transaction, and not kept.
create or replace function kerai_private.forget_batches() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_unlock(l.classid::int, l.objid::int)
    from pg_locks as l
    where l.pid = pg_backend_pid() and l.locktype = 'advisory' and l.granted and l.mode = 'ExclusiveLock' and l.objsubid = 2
        and l.database = (select d.oid from pg_database as d where d.datname = current_database())
        and l.classid in (kerai_private.batches_of(0)::oid, kerai_private.batches_of(1)::oid);
    perform set_config('kerai.announced', '', false);
end
$$;

-- Takes the right to lead a batch, if no other session has it.
create or replace function kerai_private.take_batch(partition int, batch int) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    perform from kerai_private.batch_locks as t where t.partition = partition and t.place = batch % 3 for update skip locked;
    return found;
end
$$;

-- The batch that this session has announced beyond the end of a transaction: its partition, its number, and how many
-- changesets the session has merged in its batch before.
create or replace function kerai_private.announced_batch() returns int[]
language sql stable
return string_to_array(nullif(current_setting('kerai.announced', true), ''), ' ')::int[];

-- Announces, beyond the end of this transaction, that this session is about to lead a batch.
-- When the transaction is rolled back all the same, the session has announced it in vain until it ends.
create or replace function kerai_private.announce_batch(partition int, batch int, served int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_try_advisory_lock(kerai_private.batches_of(partition)::oid::int, batch) then
        perform set_config('kerai.announced', concat_ws(' ', partition, batch, served), false);
    end if;
end
$$;

create or replace function kerai_private.refuse_busy(detail text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.refuse('KR009', 'other pushes are in the way', detail,
        'It waits to be merged. Settle the same ticket, or push the same text, again in a second.');
end
$$;

-- Most call this only to wait. On their way every expression counts, since a session that wakes finds nothing of it in
-- the processor's caches.
create or replace function kerai.await_push(ticket uuid, until timestamptz default null) returns kerai.push_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set lock_timeout = '200ms'
as $$
#variable_conflict use_variable
declare
    batches constant regclass := kerai_private.batches_of(kerai_private.partition_of(ticket));
    batch int := kerai_private.next_batch(batches);
    one_snapshot constant boolean := kerai_private.has_one_snapshot();
    -- Was it waited for until it was over? False: not that long.
    over boolean;
    gone boolean;
    served int;
    result kerai_private.outcome;
    -- Announced in vain, or by a stranger.
    doubted int;
    patience int;
    started_at timestamptz;
begin
    if current_setting('kerai.announced', true) <> '' then
        perform kerai_private.forget_batches();
    end if;
    loop
        if batch is distinct from doubted and kerai_private.is_announced(batches, batch) then
            -- Each lets the next one go: they wake one after another, since all at once would take the processor from
            -- the next merge. The lock ends with the subtransaction, also when somebody cancels the wait.
            begin
                perform pg_advisory_xact_lock(batches::oid::int, batch);
                raise exception using errcode = 'KR999', message = 'this gives the lock back';
            exception
                when sqlstate 'KR999' then
                    over := true;
                when lock_not_available or deadlock_detected then
                    over := false;
            end;
        else
            -- A session's first time takes long, since it has no plans yet: it lets others go first.
            patience := coalesce(patience, case when one_snapshot or current_setting('kerai.is_warm', true) = 'yes' then 0
                else 5 end);
            if patience > 0 then
                begin
                    if kerai_private.is_announced(batches, batch - 1) then
                        perform pg_advisory_xact_lock_shared(batches::oid::int, batch - 1);
                        raise exception using errcode = 'KR999', message = 'this gives the lock back';
                    end if;
                    patience := patience - 1;
                    perform pg_sleep(0.002);
                exception
                    when sqlstate 'KR999' then
                        null;
                    when lock_not_available or deadlock_detected then
                        patience := 0;
                end;
            elsif not exists (select from kerai_private.submissions as s where s.ticket = ticket) then
                gone := true;
            else
                begin
                    if kerai_private.take_batch(kerai_private.partition_of(ticket), batch) then
                        served := kerai_private.lead_batch(ticket, kerai_private.partition_of(ticket), batch, until);
                        perform set_config('kerai.is_warm', 'yes', false);
                    else
                        perform pg_sleep(0.002);
                        doubted := null;
                    end if;
                exception
                    when sqlstate 'KR999' then
                        null;  -- The batch was over: its lock is given back.
                    when lock_not_available or deadlock_detected then
                        perform kerai_private.refuse_busy(sqlerrm);
                end;
            end if;
        end if;

        -- A session that comes here again may ask for a ticket that is gone.
        if started_at is not null and gone is null then
            gone := nullif(not exists (select from kerai_private.submissions as s where s.ticket = ticket), false);
        end if;
        select (s.outcome).* into result from kerai_private.push_outcomes as s where s.ticket = ticket;
        exit when found or gone;
        if one_snapshot then
            -- What others have made of it while this waited can only be seen in another transaction.
            perform kerai_private.fail_overtaken();
        end if;

        if batch = kerai_private.next_batch(batches) and over is not null then
            -- No session has begun the batch. Does the one before still run?
            begin
                if over or kerai_private.take_batch(kerai_private.partition_of(ticket), batch - 1) then
                    raise exception using errcode = 'KR999', message = 'it does not';
                end if;
            exception when sqlstate 'KR999' then
                doubted := batch;
            end;
        end if;
        over := null;
        batch := kerai_private.next_batch(batches);
        started_at := coalesce(started_at, clock_timestamp());
        if clock_timestamp() > started_at + interval '30 seconds' then
            perform kerai_private.refuse_busy('the batches are taken');
        end if;
    end loop;

    if result.n is null then
        perform kerai_private.refuse('KR006', 'no such ticket', format('ticket: %s', coalesce(ticket::text, 'null')),
            'A result is kept for ten minutes. Submit the changeset again: it is a duplicate when it was merged.');
    end if;
    -- Raising undoes what was merged with it: a refusal is found as often as it is asked for.
    if result.code is not null then
        perform kerai_private.refuse(result.code, result.message, result.detail, case when result.hint <> '' then result.hint
            else 'This changeset alone raises it, and is set aside: kerai.withdraw it, and push something else.' end);
    end if;
    if served > 0 then
        perform kerai_private.announce_batch(kerai_private.partition_of(ticket), batch + 1, served);
    end if;
    return (result.changeset_id, result.status, result.applied, result.first_seq, result.last_seq);
end
$$;

comment on function kerai.await_push(uuid, timestamptz) is
'What became of a submitted changeset, or its refusal. The first to ask merges all that wait, each with its own result, which is kept for ten minutes. Submit and settle are two transactions: nobody else can merge an uncommitted submission. With until, a session that has merged announces that it takes the next batch too. It has to call kerai.lead_next_batch after the commit, as kerai.push_batched does.';

create or replace function kerai.lead_next_batch(until timestamptz) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    announced constant int[] := kerai_private.announced_batch();
    served int := 0;
begin
    if announced is null then
        return false;
    end if;
    -- From here on the announcement ends with the transaction, also when somebody cancels it.
    perform pg_try_advisory_xact_lock(kerai_private.batches_of(announced[1])::oid::int, announced[2]);
    perform pg_advisory_unlock(kerai_private.batches_of(announced[1])::oid::int, announced[2]);
    perform set_config('kerai.announced', '', false);
    begin
        if kerai_private.take_batch(announced[1], announced[2]) then
            served := kerai_private.lead_batch(null, announced[1], announced[2], until, announced[3]);
        end if;
    exception when others then
        null;  -- Those will be told whose changesets they are.
    end;
    -- Until the commit the leader has the lock of the batch itself.
    if served > 0 then
        perform kerai_private.announce_batch(announced[1], announced[2] + 1, served);
    end if;
    return served > 0;
end
$$;

comment on function kerai.lead_next_batch(timestamptz) is
'Goes on merging what others have submitted meanwhile, with no ticket of one''s own, when kerai.await_push(ticket, until) has announced it: call and commit until it returns false. kerai.push_batched does.';

-- No SET and no SECURITY DEFINER, which would not let it commit: every name in it has its schema.
create or replace procedure kerai.push_batched(
    changeset json, signature bytea, public_key bytea default null, application_name text default null,
    inout changeset_id bytea default null, inout status text default null, inout applied int default null,
    inout first_seq bigint default null, inout last_seq bigint default null
)
language plpgsql
as $$
declare
    ticket pg_catalog.uuid;
    result kerai.push_result;
    until pg_catalog.timestamptz;
begin
    -- Whatever the session's default is: in SERIALIZABLE those who submit at the same time would be in each other's way.
    commit;
    set transaction isolation level read committed;
    if application_name is not null then
        perform pg_catalog.set_config('application_name', application_name, true);
    end if;
    ticket := kerai.submit_push(changeset, signature, public_key);
    commit;

    set transaction isolation level read committed;
    if application_name is not null then
        perform pg_catalog.set_config('application_name', application_name, true);
    end if;
    until := pg_catalog.clock_timestamp() operator(pg_catalog.+) pg_catalog.interval '200 ms';
    result := kerai.await_push(ticket, until);
    -- Who has merged goes on for a while: nobody else has all that it takes so close to the processor.
    while pg_catalog.current_setting('kerai.announced', true) operator(pg_catalog.<>) '' loop
        commit;
        set transaction isolation level read committed;
        perform kerai.lead_next_batch(until);
    end loop;
    changeset_id := result.changeset_id;
    status := result.status;
    applied := result.applied;
    first_seq := result.first_seq;
    last_seq := result.last_seq;
end
$$;

comment on procedure kerai.push_batched (json, bytea, bytea, text, bytea, text, int, bigint, bigint) is
'Pushes one signed changeset together with those that others push at the same time: kerai.submit_push and kerai.await_push in one call, CALL kerai.push_batched(changeset, signature). A session that merges for the others goes on for 200 ms, and until the batch that it has begun by then is merged. An error in that time does not say that the own changeset is not merged. The text of application_name stands in pg_stat_activity until the own changeset is served. It commits, so it cannot be called in a transaction block.';

-- Merges what waits in this partition, when the batch before is over, and what waits in the other one when no session
-- leads there. A refusal of the ticket's own changeset is raised, which undoes everything else. So that changeset comes
-- first, after those that it may depend on. Returns how many changesets it has merged when this session is to lead the
-- next batch too, else 0. served: how many the batch before has merged, where this session has led it.
create or replace function kerai_private.lead_batch(
    ticket uuid, partition int, batch int, until timestamptz, served int default null
) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set random_page_cost = 1.1
set work_mem = '64MB'
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    batches constant regclass := kerai_private.batches_of(partition);
    other constant regclass := kerai_private.batches_of(1 - partition);
    goes_on constant boolean := coalesce(clock_timestamp() < until, false);
    announced boolean;
    next int;
    partitions int[] := array[partition];
    taken record;
    outcomes kerai_private.outcome[];
    own kerai_private.outcome;
begin
    -- The batch may be over before this session gets the right to lead it.
    if batch <> kerai_private.next_batch(batches) then
        raise exception using errcode = 'KR999', message = 'the batch is over';
    end if;
    announced := pg_try_advisory_xact_lock(batches::oid::int, batch);
    if goes_on then
        perform pg_try_advisory_xact_lock(batches::oid::int, batch + 1);
    end if;
    perform from kerai_private.batch_locks as t where t.partition = partition and t.place = (batch - 1) % 3 for update;
    -- Only an announced batch has waiters.
    if announced then
        perform kerai_private.wait_for_served(partition, batch - 1, served);
    end if;
    perform nextval(batches);

    -- As in kerai_private.take_waiting, only the index passes over the dead rows; EXISTS would not keep the order.
    perform from kerai_private.submissions as s
    where kerai_private.partition_of(s.ticket) = 1 - partition
    order by s.ticket
    limit 1;
    next := kerai_private.next_batch(other);
    if found and not kerai_private.is_announced(other, next) then
        begin
            if kerai_private.take_batch(1 - partition, next - 1) then
                if not kerai_private.take_batch(1 - partition, next) or next <> kerai_private.next_batch(other) then
                    raise exception using errcode = 'KR999', message = 'another session is about to lead there';
                end if;
                perform pg_try_advisory_xact_lock(other::oid::int, next);
                perform nextval(other);
                partitions := array[0, 1];
            end if;
        exception when sqlstate 'KR999' then
            null;
        end;
    end if;

    perform kerai_private.discard_stale_plans();
    -- His own may have been served at the batch before, or withdrawn: the others wait for this batch all the same.
    taken := kerai_private.take_waiting(ticket, partitions);
    select array_agg(o order by o.n) into outcomes
    from kerai_private.receive_all(
        taken.given, enforce_policy => true, verified => true, stop_after => taken.own, enough => interval '200 ms') as o;
    select o.* into own from unnest(outcomes) as o
    where o.n <= taken.own and kerai_private.is_transient(o.code) order by o.n limit 1;
    if found then
        raise exception using errcode = own.code, message = own.message, detail = own.detail, hint = own.hint;
    end if;
    perform kerai_private.keep_outcomes(taken.tickets, outcomes);
    return case when goes_on then coalesce(cardinality(outcomes), 0) else 0 end;
end
$$;

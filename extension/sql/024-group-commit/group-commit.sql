-- Group commit: many small pushes in one transaction.
--
-- A session that awaits its push is the leader when no other session is: it merges a batch, all submissions that wait.
-- The other sessions are waiters. A sequence numbers the batches. A waiter waits for an advisory lock that has the
-- batch's number.

-- The number after that of the batch that runs, or ran last. Inlined.
create or replace function kerai_private.next_batch() returns int
language sql volatile
return (1 + coalesce(pg_sequence_last_value('kerai_private.batches'), 0) % 2000000000)::int;

-- Does a session lead this batch, or is it about to? It announces that by an advisory lock of the sequence's oid and
-- the batch's number. No later batch uses this lock. Any role can take it, so nothing rests on it. A leader leads
-- without it when it must, and a waiter waits for it 200 ms at most. Inlined.
create or replace function kerai_private.is_led(batch int) returns boolean
language sql volatile
return not (pg_try_advisory_lock_shared('kerai_private.batches'::regclass::oid::int, batch)
    and pg_advisory_unlock_shared('kerai_private.batches'::regclass::oid::int, batch));

-- Takes the right to lead a batch, if no other session has it.
create or replace function kerai_private.take_batch(batch int) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    perform from kerai_private.batch_locks as t where t.place = batch % 3 for update skip locked;
    return found;
end
$$;

create or replace function kerai_private.refuse_busy(detail text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.refuse('KR009', 'other pushes are in the way', detail,
        'It waits to be merged. Await the same ticket, or push the same text, again in a second.');
end
$$;

-- Refuses what the outcome says, or KR006 when there is none. Raising undoes what was merged with it: a refusal is
-- found as often as it is asked for.
create or replace function kerai_private.require_merged(ticket uuid, result kerai_private.outcome) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if result.n is null then
        perform kerai_private.refuse('KR006', 'no such ticket', format('ticket: %s', coalesce(ticket::text, 'null')),
            'A result is kept for ten minutes. Submit the changeset again: it is a duplicate when it was merged.');
    end if;
    if result.code is not null then
        perform kerai_private.refuse(result.code, result.message, result.detail, case when result.hint <> '' then result.hint
            else 'This changeset alone raises it, and is set aside: kerai.withdraw it, and push something else.' end);
    end if;
end
$$;

-- Waits for the batch before this one to end, else for 2 ms. Returns how many more times a session without plans waits.
create or replace function kerai_private.let_others_lead(queue int, batch int, patience int) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if kerai_private.is_led(batch - 1) then
        perform pg_advisory_xact_lock_shared(queue, batch - 1);
        raise exception using errcode = 'KR999', message = 'this gives the lock back';
    end if;
    perform pg_sleep(0.002);
    return patience - 1;
exception
    when sqlstate 'KR999' then
        return patience;
    when lock_not_available or deadlock_detected then
        return 0;
end
$$;

-- Most call this only to wait. On their way every expression counts, since a session that wakes finds nothing of it in
-- the processor's caches.
create or replace function kerai.await_push(ticket uuid) returns kerai.push_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set lock_timeout = '200ms'
as $$
#variable_conflict use_variable
declare
    queue constant int := 'kerai_private.batches'::regclass::oid::int;
    batch int := kerai_private.next_batch();
    one_snapshot constant boolean := kerai_private.has_one_snapshot();
    -- Was it waited for until it was over? False: not that long.
    over boolean;
    gone boolean;
    result kerai_private.outcome;
    -- The number of a batch whose lock is held by a session that does not lead it.
    doubted int;
    patience int;
    started_at timestamptz;
begin
    loop
        if batch is distinct from doubted and kerai_private.is_led(batch) then
            -- Each lets the next one go: they wake one after another, since all at once would take the processor from
            -- the next merge. The lock ends with the subtransaction, also when somebody cancels the wait.
            begin
                perform pg_advisory_xact_lock(queue, batch);
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
                patience := kerai_private.let_others_lead(queue, batch, patience);
            elsif not exists (select from kerai_private.submissions as s where s.ticket = ticket) then
                gone := true;
            else
                begin
                    if kerai_private.take_batch(batch) then
                        perform kerai_private.lead_batch(ticket, batch);
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

        if batch = kerai_private.next_batch() and over is not null then
            -- No session has begun the batch. Does the one before still run?
            begin
                if over or kerai_private.take_batch(batch - 1) then
                    raise exception using errcode = 'KR999', message = 'it does not';
                end if;
            exception when sqlstate 'KR999' then
                doubted := batch;
            end;
        end if;
        over := null;
        batch := kerai_private.next_batch();
        started_at := coalesce(started_at, clock_timestamp());
        if clock_timestamp() > started_at + kerai_private.setting('max_lock_wait_ms') * interval '1 millisecond' then
            perform kerai_private.refuse_busy('the batches are taken');
        end if;
    end loop;

    perform kerai_private.require_merged(ticket, result);
    return (result.changeset_id, result.status, result.applied, result.first_seq, result.last_seq);
end
$$;

comment on function kerai.await_push(uuid) is
'What became of a submitted changeset, or its refusal. The first session to ask merges all that wait, each with its own result, which is kept for ten minutes. Submitting and awaiting are two transactions: what is not committed nobody else can merge.';

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
    result := kerai.await_push(ticket);
    changeset_id := result.changeset_id;
    status := result.status;
    applied := result.applied;
    first_seq := result.first_seq;
    last_seq := result.last_seq;
end
$$;

comment on procedure kerai.push_batched (json, bytea, bytea, text, bytea, text, int, bigint, bigint) is
'Pushes one signed changeset together with those that others push at the same time: kerai.submit_push and kerai.await_push in one call, CALL kerai.push_batched(changeset, signature). The text of application_name stands in pg_stat_activity until the own changeset is merged. It commits, so it cannot be called in a transaction block.';

-- Merges what waits, when the batch before is over. A refusal of the ticket's own changeset is raised, which undoes
-- everything else. So that changeset comes first, after those that it may depend on.
create or replace function kerai_private.lead_batch(ticket uuid, batch int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set plan_cache_mode = force_generic_plan
set random_page_cost = 1.1
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    taken record;
    outcomes kerai_private.outcome[];
    own kerai_private.outcome;
begin
    perform kerai_private.bound_lock_waits();
    -- The batch may be over before this session gets the right to lead it.
    if batch <> kerai_private.next_batch() then
        raise exception using errcode = 'KR999', message = 'the batch is over';
    end if;
    perform pg_try_advisory_xact_lock('kerai_private.batches'::regclass::oid::int, batch);
    perform from kerai_private.batch_locks as t where t.place = (batch - 1) % 3 for update;
    perform nextval('kerai_private.batches');

    -- The leader's own may be merged already, or withdrawn: the others wait for this batch all the same.
    taken := kerai_private.take_waiting(ticket);
    select array_agg(o order by o.n) into outcomes
    from kerai_private.receive_all(
        taken.given, enforce_policy => true, verified => true, stop_after => taken.own, enough => interval '200 ms') as o;
    select o.* into own from unnest(outcomes) as o
    where o.n <= taken.own and kerai_private.is_transient(o.code) order by o.n limit 1;
    if found then
        raise exception using errcode = own.code, message = own.message, detail = own.detail, hint = own.hint;
    end if;
    perform kerai_private.keep_outcomes(taken.tickets, outcomes);
end
$$;

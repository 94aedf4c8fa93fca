-- Settling: many small pushes combine. The first session to settle looks at all submissions that wait, and merges them.

-- The sequence that counts a side's turns.
create or replace function kerai_private.turns_of(side int) returns regclass
language sql immutable parallel safe
return case side when 0 then 'kerai_private.turns_0'::regclass else 'kerai_private.turns_1'::regclass end;

-- The number after that of the turn that runs, or ran last. Inlined.
create or replace function kerai_private.next_turn(turns regclass) returns int
language sql volatile
return (1 + coalesce(pg_sequence_last_value(turns), 0) % 2000000000)::int;

-- Has anybody said that he has, or is about to take, a turn? He has an advisory lock of the sequence's oid and the
-- turn's number. No turn uses it again. Anyone can take such a lock, so nothing rests on it. The session that has a
-- turn does without it when it must, and nobody waits long for a lock that may be a stranger's. Inlined.
create or replace function kerai_private.is_announced(turns regclass, turn int) returns boolean
language sql volatile
return not (pg_try_advisory_lock_shared(turns::oid::int, turn) and pg_advisory_unlock_shared(turns::oid::int, turn));

-- Before a turn, where the one before may have served many and the other side merges too: waits until all of them who
-- still wait have been woken. Most submit their next changeset meanwhile, so that one large batch comes of it in place
-- of a small one and a large one. Where one side merges alone, the processor would have nothing else to do. Not as long
-- as others wait for the turn itself, since it may be for a stranger's lock.
create or replace function kerai_private.wait_for_served(side int, turn int, served int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
declare
    turns constant regclass := kerai_private.turns_of(side);
    other constant regclass := kerai_private.turns_of(1 - side);
    next constant int := kerai_private.next_turn(other);
begin
    if coalesce(served >= 8, true) and kerai_private.is_announced(other, next) then
        perform pg_advisory_xact_lock(turns::oid::int, turn);
        raise exception using errcode = 'KR999', message = 'this gives the lock back';
    end if;
exception when sqlstate 'KR999' or lock_not_available or deadlock_detected then
    null;
end
$$;

-- Gives back the turns that this session has announced beyond the end of a transaction and has not gone on with.
create or replace function kerai_private.forget_turns() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_unlock(l.classid::int, l.objid::int)
    from pg_locks as l
    where l.pid = pg_backend_pid() and l.locktype = 'advisory' and l.granted and l.mode = 'ExclusiveLock' and l.objsubid = 2
        and l.database = (select d.oid from pg_database as d where d.datname = current_database())
        and l.classid in (kerai_private.turns_of(0)::oid, kerai_private.turns_of(1)::oid);
    perform set_config('kerai.announced', '', false);
end
$$;

-- Takes a turn, if nobody has it.
create or replace function kerai_private.take_turn(side int, turn int) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    perform from kerai_private.turn_locks as t where t.side = side and t.place = turn % 3 for update skip locked;
    return found;
end
$$;

-- The turn that this session has announced beyond the end of a transaction: its side, its number, and how many
-- changesets this session has settled in the one before.
create or replace function kerai_private.announced_turn() returns int[]
language sql stable
return string_to_array(nullif(current_setting('kerai.announced', true), ''), ' ')::int[];

-- Says, beyond the end of this transaction, that this session is about to take a turn.
-- When the transaction is rolled back all the same, the session has announced it in vain until it ends.
create or replace function kerai_private.announce_turn(side int, turn int, settled int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_try_advisory_lock(kerai_private.turns_of(side)::oid::int, turn) then
        perform set_config('kerai.announced', concat_ws(' ', side, turn, settled), false);
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
create or replace function kerai.settle(ticket uuid, until timestamptz default null) returns kerai.push_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set lock_timeout = '200ms'
as $$
#variable_conflict use_variable
declare
    turns constant regclass := kerai_private.turns_of(kerai_private.side_of(ticket));
    turn int := kerai_private.next_turn(turns);
    one_snapshot constant boolean := kerai_private.has_one_snapshot();
    -- Was it waited for until it was over? False: not that long.
    over boolean;
    gone boolean;
    settled int;
    result kerai_private.outcome;
    -- Announced in vain, or by a stranger.
    doubted int;
    patience int;
    started_at timestamptz;
begin
    if current_setting('kerai.announced', true) <> '' then
        perform kerai_private.forget_turns();
    end if;
    loop
        if turn is distinct from doubted and kerai_private.is_announced(turns, turn) then
            -- Each lets the next one go: they wake one after another, since all at once would take the processor from
            -- the next merge. The lock ends with the subtransaction, also when somebody cancels the wait.
            begin
                perform pg_advisory_xact_lock(turns::oid::int, turn);
                raise exception using errcode = 'KR999', message = 'this gives the lock back';
            exception
                when sqlstate 'KR999' then
                    over := true;
                when lock_not_available or deadlock_detected then
                    over := false;
            end;
        else
            -- A session's first time takes long, since it has no plans yet: it lets others go first.
            patience := coalesce(patience, case when one_snapshot or current_setting('kerai.practised', true) = 'yes' then 0
                else 5 end);
            if patience > 0 then
                begin
                    if kerai_private.is_announced(turns, turn - 1) then
                        perform pg_advisory_xact_lock_shared(turns::oid::int, turn - 1);
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
                    if kerai_private.take_turn(kerai_private.side_of(ticket), turn) then
                        settled := kerai_private.settle_in_turn(ticket, kerai_private.side_of(ticket), turn, until);
                        perform set_config('kerai.practised', 'yes', false);
                    else
                        perform pg_sleep(0.002);
                        doubted := null;
                    end if;
                exception
                    when sqlstate 'KR999' then
                        null;  -- The turn was over: its lock is given back.
                    when lock_not_available or deadlock_detected then
                        perform kerai_private.refuse_busy(sqlerrm);
                end;
            end if;
        end if;

        -- A session that comes here again may ask for a ticket that is gone.
        if started_at is not null and gone is null then
            gone := nullif(not exists (select from kerai_private.submissions as s where s.ticket = ticket), false);
        end if;
        select (s.outcome).* into result from kerai_private.settled as s where s.ticket = ticket;
        exit when found or gone;
        if one_snapshot then
            -- What others have made of it while this waited can only be seen in another transaction.
            perform kerai_private.fail_overtaken();
        end if;

        if turn = kerai_private.next_turn(turns) and over is not null then
            -- Nobody has begun the turn. Does the one before still run?
            begin
                if over or kerai_private.take_turn(kerai_private.side_of(ticket), turn - 1) then
                    raise exception using errcode = 'KR999', message = 'it does not';
                end if;
            exception when sqlstate 'KR999' then
                doubted := turn;
            end;
        end if;
        over := null;
        turn := kerai_private.next_turn(turns);
        started_at := coalesce(started_at, clock_timestamp());
        if clock_timestamp() > started_at + interval '30 seconds' then
            perform kerai_private.refuse_busy('the turns are taken');
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
    if settled > 0 then
        perform kerai_private.announce_turn(kerai_private.side_of(ticket), turn + 1, settled);
    end if;
    return (result.changeset_id, result.status, result.applied, result.first_seq, result.last_seq);
end
$$;

comment on function kerai.settle(uuid, timestamptz) is
'What became of a submitted changeset, or its refusal. The first to ask merges all that wait, each with its own result, which is kept for ten minutes. Submit and settle are two transactions: nobody else can merge an uncommitted submission. With until, a session that has merged announces that it takes the next turn too. It has to call kerai.settle_more after the commit, as kerai.push_together does.';

create or replace function kerai.settle_more(until timestamptz) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    announced constant int[] := kerai_private.announced_turn();
    settled int := 0;
begin
    if announced is null then
        return false;
    end if;
    -- From here on the announcement ends with the transaction, also when somebody cancels it.
    perform pg_try_advisory_xact_lock(kerai_private.turns_of(announced[1])::oid::int, announced[2]);
    perform pg_advisory_unlock(kerai_private.turns_of(announced[1])::oid::int, announced[2]);
    perform set_config('kerai.announced', '', false);
    begin
        if kerai_private.take_turn(announced[1], announced[2]) then
            settled := kerai_private.settle_in_turn(null, announced[1], announced[2], until, announced[3]);
        end if;
    exception when others then
        null;  -- Those will be told whose changesets they are.
    end;
    -- Until the commit who has merged has the lock of the turn itself.
    if settled > 0 then
        perform kerai_private.announce_turn(announced[1], announced[2] + 1, settled);
    end if;
    return settled > 0;
end
$$;

comment on function kerai.settle_more(timestamptz) is
'Goes on merging what others have submitted meanwhile, with no ticket of one''s own, when kerai.settle(ticket, until) has announced it: call and commit until it returns false. kerai.push_together does.';

-- No SET and no SECURITY DEFINER, which would not let it commit: every name in it has its schema.
create or replace procedure kerai.push_together(
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
    ticket := kerai.submit(changeset, signature, public_key);
    commit;

    set transaction isolation level read committed;
    if application_name is not null then
        perform pg_catalog.set_config('application_name', application_name, true);
    end if;
    until := pg_catalog.clock_timestamp() operator(pg_catalog.+) pg_catalog.interval '200 ms';
    result := kerai.settle(ticket, until);
    -- Who has merged goes on for a while: nobody else has all that it takes so close to the processor.
    while pg_catalog.current_setting('kerai.announced', true) operator(pg_catalog.<>) '' loop
        commit;
        set transaction isolation level read committed;
        perform kerai.settle_more(until);
    end loop;
    changeset_id := result.changeset_id;
    status := result.status;
    applied := result.applied;
    first_seq := result.first_seq;
    last_seq := result.last_seq;
end
$$;

comment on procedure kerai.push_together (json, bytea, bytea, text, bytea, text, int, bigint, bigint) is
'Pushes one signed changeset together with those that others push at the same time: kerai.submit and kerai.settle in one call, CALL kerai.push_together(changeset, signature). A session that merges for the others goes on for 200 ms, and until the batch that it has begun by then is merged. An error in that time does not say that the own changeset is not merged. The text of application_name stands in pg_stat_activity until the own changeset is settled. It commits, so it cannot be called in a transaction block.';

-- Merges what waits, when the turn of this side before this one is over; what waits on the other side too, when nobody
-- settles there. When the ticket's own is refused nothing else may be merged, since raising that undoes everything. So
-- it comes first, after the ones that it may depend on. Returns how many it has settled when this session is to take
-- the next turn too, for which newcomers wait; 0 when it is not. served: how many the turn before has settled, where
-- this session had it.
create or replace function kerai_private.settle_in_turn(
    ticket uuid, side int, turn int, until timestamptz, served int default null
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
    turns constant regclass := kerai_private.turns_of(side);
    other constant regclass := kerai_private.turns_of(1 - side);
    goes_on constant boolean := coalesce(clock_timestamp() < until, false);
    announced boolean;
    next int;
    sides int[] := array[side];
    taken record;
    outcomes kerai_private.outcome[];
    own kerai_private.outcome;
begin
    -- A session may still get a turn that is over before it has taken it.
    if turn <> kerai_private.next_turn(turns) then
        raise exception using errcode = 'KR999', message = 'the turn is over';
    end if;
    announced := pg_try_advisory_xact_lock(turns::oid::int, turn);
    if goes_on then
        perform pg_try_advisory_xact_lock(turns::oid::int, turn + 1);
    end if;
    perform from kerai_private.turn_locks as t where t.side = side and t.place = (turn - 1) % 3 for update;
    -- Nobody waits meanwhile for a turn of which he is not told.
    if announced then
        perform kerai_private.wait_for_served(side, turn - 1, served);
    end if;
    perform nextval(turns);

    -- As in kerai_private.take_waiting, only the index passes over the dead rows; EXISTS would not keep the order.
    perform from kerai_private.submissions as s
    where kerai_private.side_of(s.ticket) = 1 - side
    order by s.ticket
    limit 1;
    next := kerai_private.next_turn(other);
    if found and not kerai_private.is_announced(other, next) then
        begin
            if kerai_private.take_turn(1 - side, next - 1) then
                if not kerai_private.take_turn(1 - side, next) or next <> kerai_private.next_turn(other) then
                    raise exception using errcode = 'KR999', message = 'somebody else is about to settle there';
                end if;
                perform pg_try_advisory_xact_lock(other::oid::int, next);
                perform nextval(other);
                sides := array[0, 1];
            end if;
        exception when sqlstate 'KR999' then
            null;
        end;
    end if;

    perform kerai_private.renew_plans();
    -- His own may have been settled at the turn before, or withdrawn: the others wait for this turn all the same.
    taken := kerai_private.take_waiting(ticket, sides);
    select array_agg(o order by o.n) into outcomes
    from kerai_private.receive_all(
        taken.given, judge => true, verified => true, decisive => taken.own, enough => interval '200 ms') as o;
    select o.* into own from unnest(outcomes) as o
    where o.n <= taken.own and kerai_private.is_transient(o.code) order by o.n limit 1;
    if found then
        raise exception using errcode = own.code, message = own.message, detail = own.detail, hint = own.hint;
    end if;
    perform kerai_private.note_settled(taken.tickets, outcomes);
    return case when goes_on then coalesce(cardinality(outcomes), 0) else 0 end;
end
$$;

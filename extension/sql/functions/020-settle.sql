-- 020 settling: many small pushes combine. kerai.submit stores a changeset, and whoever settles first looks at all that
-- wait and merges them.

create or replace function kerai.submit(changeset json, signature bytea, public_key bytea default null) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    wrote text;
    ticket uuid;
begin
    perform kerai_private.require_size(changeset);
    begin
        wrote := changeset ->> 'author';
    exception when data_exception or statement_too_complex or program_limit_exceeded then
        null;  -- Refused when it is settled.
    end;
    insert into kerai_private.submissions as s (author, document, signature, public_key)
    values (wrote, changeset, signature, public_key)
    returning s.ticket into ticket;
    return ticket;
end
$$;

comment on function kerai.submit(json, bytea, bytea) is
'Stores a signed changeset, or the draft of a grouped swarm''s member, to be merged together with others, and returns a ticket. Commit, then ask kerai.settle(ticket) for the result. Nothing but its size is looked at before that.';

-- On which of the two sides an author's changesets are settled: his own stay in order. Inlined.
create or replace function kerai_private.side_of(author text) returns int
language sql immutable parallel safe
return hashtext(coalesce(author, '')) & 1;

-- The sequence that counts a side's turns.
create or replace function kerai_private.turns_of(side int) returns regclass
language sql immutable parallel safe
return case side when 0 then 'kerai_private.turns_0'::regclass else 'kerai_private.turns_1'::regclass end;

-- The number after that of the turn that runs, or ran last. Inlined.
create or replace function kerai_private.next_turn(turns regclass) returns int
language sql volatile
return (1 + coalesce(pg_sequence_last_value(turns), 0) % 2000000000)::int;

-- Waits until a turn that somebody has is over: he has an advisory lock of the sequence's oid and the turn's number. No
-- turn uses it again, and it is given free in the same expression. Anyone can take such a lock, so nothing rests on it:
-- who has a turn does without it when he must, and nobody waits long for what may be a stranger's.
create or replace function kerai_private.wait_for_turn(turns regclass, turn int) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
begin
    return pg_advisory_lock_shared(turns::oid::int, turn) is null or pg_advisory_unlock_shared(turns::oid::int, turn);
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

create or replace function kerai.settle(ticket uuid) returns kerai.push_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    side int;
    turns regclass;
    turn int;
    waits boolean;
    settles boolean;
    over boolean;
    started_at constant timestamptz := clock_timestamp();
    result kerai_private.outcome;
    -- A session's first time takes long, since it has no plans yet: it lets others go first.
    patience int := case when current_setting('kerai.practised', true) = 'yes' then 0 else 5 end;
    asked_at timestamptz;
begin
    perform kerai_private.require_read_committed();
    loop
        select kerai_private.side_of(s.author) into side from kerai_private.submissions as s where s.ticket = ticket;
        waits := found;

        if waits then
            turns := kerai_private.turns_of(side);
            settles := false;
            begin
                if turn < kerai_private.next_turn(turns) then
                    -- It has begun, and merges this.
                    over := kerai_private.wait_for_turn(turns, turn);
                    turn := null;
                else
                    -- The turn that runs may have looked already.
                    turn := kerai_private.next_turn(turns);
                    settles := patience = 0 and kerai_private.take_turn(side, turn);
                    if settles then
                        perform kerai_private.settle_in_turn(ticket, side, turn);
                        perform set_config('kerai.practised', 'yes', false);
                    else
                        asked_at := clock_timestamp();
                        over := kerai_private.wait_for_turn(turns, turn);
                        if clock_timestamp() < asked_at + interval '1 millisecond' then
                            -- Nobody has it: it may be taken while this one runs.
                            over := kerai_private.wait_for_turn(turns, turn - 1);
                            over := kerai_private.wait_for_turn(turns, turn);
                        end if;
                        if clock_timestamp() < asked_at + interval '1 millisecond' then
                            if clock_timestamp() > started_at + interval '30 seconds' then
                                raise lock_not_available using message = 'the next turn is taken';
                            end if;
                            perform pg_sleep(0.002);
                            patience := greatest(patience - 1, 0);
                        end if;
                    end if;
                end if;
            exception
                when sqlstate 'KR000' then
                    null;  -- The turn was over.
                when lock_not_available or deadlock_detected then
                    if settles or clock_timestamp() > started_at + interval '30 seconds' then
                        perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm,
                            'Nothing was merged. Settle the same ticket again in a second.');
                    end if;
                    patience := 0;
            end;
        end if;

        select (s.outcome).* into result from kerai_private.settled as s where s.ticket = ticket;
        exit when found or not waits;
    end loop;

    if result.n is null then
        perform kerai_private.refuse('KR006', 'no such ticket', format('ticket: %s', coalesce(ticket::text, 'null')),
            'A result is kept for ten minutes. Submit the changeset again: it is a duplicate when it was merged.');
    end if;
    -- Raising undoes what was merged with it: a refusal is found as often as it is asked for.
    if result.code is not null then
        perform kerai_private.refuse(result.code, result.message, result.detail, result.hint);
    end if;
    return (result.changeset_id, result.status, result.applied, result.first_seq, result.last_seq);
end
$$;

comment on function kerai.settle(uuid) is
'What became of a submitted changeset, or its refusal. The first to ask merges all that wait, each with its own result, which is kept for ten minutes. Submit and settle are two transactions: what is not committed nobody else can merge.';

create or replace function kerai.withdraw(agent uuid) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    own constant text := (kerai_private.require_agent(agent)).author;
    withdrawn int;
begin
    perform kerai_private.require_read_committed();
    -- Who settles one of them now has locked it: this waits for him, and leaves it then.
    delete from kerai_private.submissions as s
    where s.author = own;
    get diagnostics withdrawn = row_count;
    return withdrawn;
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm, 'Call it again in a second.');
end
$$;

comment on function kerai.withdraw(uuid) is
'Takes back what your agent has submitted and what is not settled, and returns how many changesets that were. After a crash or a refusal something may still wait and be merged by somebody''s settle: withdraw before the agent signs its next changeset, and ask kerai.next_changeset after that.';

-- Merges what waits, when the turn of this side before this one is over; what waits on the other side too, when
-- nobody settles there. When the ticket's own is refused nothing else may be merged, since raising that undoes
-- everything: so it comes first, after what it may depend on.
create or replace function kerai_private.settle_in_turn(ticket uuid, side int, turn int) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set random_page_cost = 1.1
set work_mem = '64MB'
as $$
#variable_conflict use_variable
declare
    turns constant regclass := kerai_private.turns_of(side);
    other constant regclass := kerai_private.turns_of(1 - side);
    next int;
    sides int[] := array[side];
    taken record;
begin
    -- Whoever is told the number of a turn that is over before he takes it may get it still.
    if turn <> kerai_private.next_turn(turns) then
        raise exception using errcode = 'KR000', message = 'the turn is over';
    end if;
    perform pg_try_advisory_xact_lock(turns::oid::int, turn);
    perform from kerai_private.turn_locks as t where t.side = side and t.place = (turn - 1) % 3 for update;
    perform nextval(turns);

    -- As in kerai_private.take_waiting, only the index passes over the dead rows; EXISTS would not keep the order.
    perform from kerai_private.submissions as s
    where kerai_private.side_of(s.author) = 1 - side
    order by s.ticket
    limit 1;
    if found then
        begin
            next := kerai_private.next_turn(other);
            if kerai_private.take_turn(1 - side, next - 1) then
                if not kerai_private.take_turn(1 - side, next) or next <> kerai_private.next_turn(other) then
                    raise exception using errcode = 'KR000', message = 'somebody else is about to settle there';
                end if;
                perform pg_try_advisory_xact_lock(other::oid::int, next);
                perform nextval(other);
                sides := array[0, 1];
            end if;
        exception when sqlstate 'KR000' then
            null;
        end;
    end if;

    perform kerai_private.renew_plans();
    -- His own may have been settled at the turn before, or withdrawn: the others wait for this turn all the same.
    taken := kerai_private.take_waiting(ticket, sides);
    insert into kerai_private.settled (ticket, outcome)
    select taken.tickets[o.n], o
    from kerai_private.receive_all(taken.given, judge => true, decisive => taken.own) as o;
    -- What nobody came for.
    delete from kerai_private.settled as s where s.settled_at < now() - interval '10 minutes';
end
$$;

-- Takes out what waits, no more than is looked at together: first, `own` of them, up to the ticket's, what its author
-- has submitted. The settings: what comes and goes this fast leaves more dead rows than live ones, and only the index
-- passes over them.
create or replace function kerai_private.take_waiting(
    ticket uuid, sides int[], out tickets uuid[], out given kerai_private.incoming[], out own int
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_variable
declare
    most_bytes constant bigint := kerai_private.setting('max_page_bytes');
    mine record;
begin
    select s.author into mine from kerai_private.submissions as s where s.ticket = ticket;

    with waiting as materialized (
        select s.ticket, octet_length(s.document::text) as size,
            s.ticket = ticket or coalesce(s.ticket < ticket and s.author = mine.author, false) as is_own
        from kerai_private.submissions as s
        where kerai_private.side_of(s.author) = any(sides)
        order by s.ticket
    ),

    chosen as (
        select w.ticket, w.is_own
        from (
            select u.*, sum(u.size) over (order by u.is_own desc, u.ticket) as running from waiting as u
        ) as w
        -- All of one's own: one that is left out would be a gap in the sequence.
        where w.is_own or w.running <= most_bytes
    ),

    gone as (
        delete from kerai_private.submissions as s
        using chosen as c
        where s.ticket = c.ticket
        returning s.*, c.is_own
    )

    select array_agg(g.ticket order by g.is_own desc, g.ticket),
        array_agg(row(g.document, g.signature, g.public_key)::kerai_private.incoming order by g.is_own desc, g.ticket),
        count(*) filter (where g.is_own)
    into tickets, given, own
    from gone as g;
end
$$;

-- 020 batches: many changesets of many authors in one merge, each with its own result or refusal. What comes out is
-- what pushing them one by one, in the order in which they are given, would give.

-- The most operations that are merged at once: more would only need more memory.
create or replace function kerai_private.most_at_once() returns int
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return 20000;

-- Takes changesets as they come from elsewhere, in a causal order. Whether judge: see kerai_private.receive.
create or replace function kerai_private.receive_all(given kerai_private.incoming[], judge boolean)
returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    items kerai_private.checked[] := '{}';
    places int[] := '{}';
    place int := 0;
    one kerai_private.incoming;
    item kerai_private.checked;
    refused kerai_private.outcome;
begin
    foreach one in array given loop
        place := place + 1;
        begin
            item := kerai_private.check_changeset(
                one.document, kerai_private.parse_changeset(one.document), one.signature, one.public_key);
            if item.id is null and not judge then
                perform kerai_private.refuse('KR005', 'a draft is not passed on', format('author: %s', item.member),
                    'Push it where the swarm is; the changeset that is made of it goes everywhere.');
            end if;
            perform kerai_private.require_castable(item.ops);
            items := items || item;
            places := places || place;
        exception when others then
            -- What is not a refusal of kerai's is no changeset's fault.
            if sqlstate not like 'KR%' then
                raise;
            end if;
            refused := (place, sha256(convert_to(one.document::text, 'UTF8')), null, null, null, null, sqlstate, sqlerrm, null,
                null);
            get stacked diagnostics refused.detail = pg_exception_detail, refused.hint = pg_exception_hint;
            return next refused;
        end;
    end loop;
    return query
    select places[o.n], o.changeset_id, o.status, o.applied, o.first_seq, o.last_seq, o.code, o.message, o.detail, o.hint
    from kerai_private.receive_checked(items, judge) as o;
end
$$;

-- decisive: when this one is refused, nothing after it is looked at.
create or replace function kerai_private.receive_checked(
    items kerai_private.checked[], judge boolean, decisive int default null
) returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    -- A batch is merged in several steps when not all of it is good, and only one step locks rows in the order that all
    -- keep.
    alone constant boolean := cardinality(items) > 1 or exists (
        select from unnest(items) as i
        where judge and i.guard is not null or kerai_private.reshapes(i.ops));
begin
    if alone then
        return query select * from kerai_private.receive_each(items, judge, decisive, alone => true);
        return;
    end if;
    begin
        return query select * from kerai_private.receive_each(items, judge, decisive, alone => false);
    exception when sqlstate 'KR000' then
        -- See kerai_private.receive.
        return query select * from kerai_private.receive_each(items, judge, decisive, alone => true);
    end;
end
$$;

create or replace function kerai_private.receive_each(
    items kerai_private.checked[], judge boolean, decisive int, alone boolean
) returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    given constant int := cardinality(items);
    done int := 0;
    run kerai_private.checked[];
    ops kerai_private.operation[];
    good int;
    outcome kerai_private.outcome;
    pushed kerai.push_result;
begin
    if given = 0 then
        return;
    end if;
    items := kerai_private.enter(items, alone);

    while done < given loop
        run := kerai_private.next_run(items, done, judge);
        good := 0;
        if cardinality(run) > 1 then
            run := kerai_private.seal(run);
            ops := kerai_private.unpack_operations(run);
            good := kerai_private.count_good(run, ops, judge);
        end if;

        if good > 0 then
            if good < cardinality(run) then
                run := run[1:good];
                ops := kerai_private.unpack_operations(run);
            end if;
            perform kerai_private.take_in(run, ops, alone);
            return query
            select (done + row_number() over ())::int, r.id, 'merged'::text, jsonb_array_length(r.ops), r.first_seq, r.last_seq,
                null::text, null::text, null::text, null::text
            from unnest(run) as r;
            done := done + good;
        else
            done := done + 1;
            begin
                pushed := kerai_private.receive(items[done], judge, alone);
                outcome := (done, pushed.changeset_id, pushed.status, pushed.applied, pushed.first_seq, pushed.last_seq,
                    null, null, null, null);
            exception when others then
                if sqlstate not like 'KR%' or sqlstate = 'KR000' then
                    raise;
                end if;
                outcome := (done, coalesce((items[done]).id, (items[done]).draft_id), null, null, null, null, sqlstate, sqlerrm,
                    null, null);
                get stacked diagnostics outcome.detail = pg_exception_detail, outcome.hint = pg_exception_hint;
            end;
            return next outcome;
            exit when done = decisive and outcome.code is not null;
        end if;
    end loop;
end
$$;

-- Gives drafts the author that they are merged under, and takes the locks: the rows of authors who are known, in their
-- order, the gate, then those of new authors. Whoever waits for the gate has nothing that one who is in it still needs.
create or replace function kerai_private.enter(items kerai_private.checked[], alone boolean)
returns kerai_private.checked[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    for i in 1 .. cardinality(items) loop
        continue when (items[i]).author is not null;
        begin
            items[i].author := kerai_private.lane_of(items[i]);
        exception when others then
            -- Named exactly when its turn comes.
            if sqlstate not like 'KR%' then
                raise;
            end if;
        end;
    end loop;

    perform from kerai_private.authors as a
    where a.author in (select u.author from unnest(items) as u)
    order by a.author
    for update;
    perform kerai_private.enter_gate(alone);
    perform kerai_private.introduce_author(i.author, i.public_key)
    from (
        select distinct on (u.author) u.author, u.public_key from unnest(items) as u
        where u.public_key is not null
            and not exists (select from kerai_private.authors as a where a.author = u.author)
        order by u.author
    ) as i;
    return items;
end
$$;

-- The changesets after the first `done` that may be merged together: up to the first whose guard is to be judged or
-- that has no lane, and no more than are merged at once.
create or replace function kerai_private.next_run(items kerai_private.checked[], done int, judge boolean)
returns kerai_private.checked[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    last int;
begin
    select count(*) into last
    from (
        select sum(jsonb_array_length(u.ops)) over (order by u.n) as running,
            bool_or(judge and u.guard is not null or u.author is null) over (order by u.n) as apart
        from unnest(items[next_run.done + 1:]) with ordinality as u (
            id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task, message, ops, document,
            signature, public_key, swarm, member, member_signature, member_key, draft_id, n)
    ) as r
    where r.running <= kerai_private.most_at_once() and not r.apart;
    return items[next_run.done + 1:next_run.done + last];
end
$$;

-- How many of the changesets of a run, from its first on, can be merged as they are. What stops the run is not
-- necessarily wrong: it is then looked at alone, and named exactly.
create or replace function kerai_private.count_good(
    run kerai_private.checked[], ops kerai_private.operation[], judge boolean
) returns int
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    good int;
    place int := 0;
    moved int;
    unsure int[];
    item record;
    horizon constant jsonb := (select c.horizon from kerai.compactions as c order by c.id desc limit 1);
begin
    -- Each follows on its author's last one, its base is covered here or by changesets of the run that come before it,
    -- and its clock is right.
    with item as materialized (
        select u.*, a.seq as head_seq, a.lamport as head_lamport, a.changeset_id as head_id
        from unnest(run) with ordinality as u (
            id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task, message, ops, document,
            signature, public_key, swarm, member, member_signature, member_key, draft_id, c)
        inner join kerai_private.authors as a on a.author = u.author
    ),

    chain as (
        select i.c, i.first_lamport, coalesce(lag(i.last_lamport) over w, i.head_lamport) as own_lamport,
            i.first_seq = 1 + coalesce(lag(i.last_seq) over w, i.head_seq)
            and i.prev is not distinct from coalesce(lag(i.id) over w, i.head_id)
            and not exists (select from kerai.changesets as k where k.id = i.id)
            and not kerai_private.is_frozen(i.author)
            and (horizon is null or not exists (select from kerai.vector_missing(i.base, horizon)))
            and (i.draft_id is null or row_number() over d = 1
                and not exists (
                    select from kerai.changesets as k where k.draft_id = i.draft_id and k.author = i.author))
            as follows
        from item as i
        window w as (partition by i.author order by i.c), d as (partition by i.draft_id, i.author order by i.c)
    ),

    seen as (
        select i.c, e.key collate "C" as author, e.value::text::bigint as seq
        from item as i
        cross join lateral jsonb_each(i.base) as e
        where e.value <> '0'
    ),

    base as (
        select s.c, bool_and(b.c is not null or coalesce(s.seq <= a.seq, false)) as covered,
            max(case when b.c is not null then b.last_lamport when s.seq = a.seq then a.lamport
                else kerai_private.lamport_of(s.author, s.seq) end) as lamport
        from seen as s
        left join kerai_private.authors as a on a.author = s.author
        left join item as b on b.author = s.author and b.last_seq = s.seq and b.c < s.c
        group by s.c
    )

    select coalesce(min(h.c) - 1, cardinality(run)) into good
    from chain as h
    left join base as b on b.c = h.c
    where not h.follows or not coalesce(b.covered, true) or h.first_lamport <> 1 + greatest(h.own_lamport, b.lamport);

    -- Its operations name nodes that it has seen.
    with item as materialized (
        select row_number() over () as c, u.author, u.base from unnest(run) as u
    ),

    named as (
        select r.c, r.node
        from (
            select o.c, o.n, x.node, x.born
            from unnest(ops) as o
            cross join lateral (values
                (o.node, o.op = 'node_insert'), (o.parent, false), (o.source, false), (o.target, false), (o.context, false)
            ) as x (node, born)
            where x.node is not null
        ) as r
        group by r.c, r.node
        having min(r.n) filter (where not r.born) <= coalesce(min(r.n) filter (where r.born), 2147483647)
    ),

    known as (
        select e.c, e.node,
            substr(x.created_stamp, 18) = i.author
            or x.created_seq <= coalesce((i.base ->> substr(x.created_stamp, 18))::bigint, 0) as seen
        from named as e
        inner join item as i on i.c = e.c
        left join kerai.nodes as x on x.id = e.node
    ),

    -- Nodes that the run itself brings.
    brought as (
        select distinct k.c, k.node
        from known as k
        inner join item as i on i.c = k.c
        inner join unnest(ops) as o on o.node = k.node and o.op = 'node_insert' and o.c < k.c
        inner join item as b on b.c = o.c
        where k.seen is not true and (b.author = i.author or o.seq <= coalesce((i.base ->> b.author)::bigint, 0))
    )

    select least(good, coalesce(min(k.c) - 1, good)) into good
    from known as k
    where k.seen is not true and (k.c, k.node) not in (select b.c, b.node from brought as b);

    if not judge then
        return good;
    end if;
    -- Whether something lies in a scope cannot be said of what the run itself brings, nor after moves in it: moves are
    -- node_move, and inserts of what is here already, since the earlier of two inserts counts.
    if exists (select from kerai.tasks as t where t.id in (select r.task from unnest(run) as r) and t.scope_node_id is not null) then
        select min(o.c) into moved
        from unnest(ops) as o
        left join kerai.nodes as x on x.id = o.node
        where o.op = 'node_move' or o.op = 'node_insert' and x.id is not null;

        unsure := array(
            select distinct o.c
            from unnest(ops) as o
            cross join lateral (values (o.node), (o.parent), (o.source)) as x (node)
            inner join (
                select b.node, min(b.c) as c from unnest(ops) as b where b.op = 'node_insert' group by b.node
            ) as i on i.node = x.node
            where i.c < o.c);
    end if;
    -- Budgets are counted from what is merged: an agent's second changeset of a task waits for the first.
    begin
        for item in
            select u.task, a as agent, u.c, g.ops,
                row_number() over (partition by u.task, a.id order by u.c) > 1
                or (u.c > moved or u.c = any(unsure))
                and (select t.scope_node_id is not null from kerai.tasks as t where t.id = u.task) as again
            from (
                select row_number() over () as c, r.task, coalesce(r.member, r.author) as author from unnest(run) as r
            ) as u
            inner join kerai.agents as a on a.author = u.author
            inner join (
                select o.c, array_agg(o order by o.n) as ops from unnest(ops) as o group by o.c
            ) as g on g.c = u.c
            where u.task is not null and u.c <= good
            order by u.c
        loop
            place := item.c;
            if item.again then
                return place - 1;
            end if;
            perform kerai_private.check_task(item.task, item.agent, item.ops);
        end loop;
    exception when others then
        -- Named exactly when it is looked at alone.
        if sqlstate not like 'KR%' then
            raise;
        end if;
        return place - 1;
    end;
    return good;
end
$$;

-- Many small pushes combine: kerai.submit stores a changeset, and whoever settles first merges all that wait.
create or replace function kerai.submit(changeset json, signature bytea, public_key bytea default null) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    item constant kerai_private.checked := kerai_private.check_changeset(
        $1, kerai_private.parse_changeset($1), $2, $3);
    ticket uuid;
begin
    perform kerai_private.require_castable(item.ops);
    if item.author is null then
        perform kerai_private.lane_of(item);
    end if;
    insert into kerai_private.submissions (item) values (item) returning submissions.ticket into ticket;
    return ticket;
end
$$;

comment on function kerai.submit(json, bytea, bytea) is
'Stores a signed changeset, or the draft of a grouped swarm''s member, to be merged together with others, and returns a ticket. Commit, then ask kerai.settle(ticket) for the result. Refuses at once what is malformed or not signed.';

create or replace function kerai.settle(ticket uuid) returns kerai.push_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    mine kerai_private.submissions;
    asked_at timestamptz;
    -- A session that has settled before has its plans made: it comes first, the others give it a moment.
    practised boolean := current_setting('kerai.practised', true) = 'yes';
begin
    perform kerai_private.require_read_committed();
    loop
        select s.* into mine from kerai_private.submissions as s where s.ticket = ticket;
        exit when mine.ticket is null or (mine.outcome).n is not null;

        if practised then
            perform from kerai_private.waiting_places as w where w.place = 0 for update skip locked;
        end if;
        if practised and found then
            perform set_config('kerai.practised', 'yes', false);
            -- Somebody may have settled it just before.
            select s.* into mine from kerai_private.submissions as s where s.ticket = ticket;
            if mine.ticket is not null and (mine.outcome).n is null then
                mine.outcome := kerai_private.settle_waiting(mine);
            end if;
            exit;
        end if;

        asked_at := clock_timestamp();
        begin
            perform from kerai_private.waiting_places as w where w.place = 1 + pg_backend_pid() % 64 for update;
            if not found then
                -- The first time, and after a crash.
                insert into kerai_private.waiting_places (place) select * from generate_series(0, 64) on conflict do nothing;
            else
                -- The place is needed no more: undoing it is what gives it free.
                raise exception using errcode = 'KR000';
            end if;
        exception when sqlstate 'KR000' then
            null;
        end;
        -- Nobody has locked the places: he who has just got the right is about to, or it is free.
        if clock_timestamp() < asked_at + interval '1 millisecond' then
            perform pg_sleep(0.002);
            practised := true;
        end if;
    end loop;

    -- Raising undoes the delete too: a refusal is given as often as it is asked for.
    delete from kerai_private.submissions as s where s.ticket = ticket;
    if not found then
        perform kerai_private.refuse('KR006', 'no such ticket', format('ticket: %s', coalesce(ticket::text, 'null')),
            'A result is given once. Submit the changeset again: it is a duplicate when it was merged.');
    end if;
    if (mine.outcome).code is not null then
        perform kerai_private.refuse((mine.outcome).code, (mine.outcome).message, (mine.outcome).detail, (mine.outcome).hint);
    end if;
    return ((mine.outcome).changeset_id, (mine.outcome).status, (mine.outcome).applied, (mine.outcome).first_seq,
        (mine.outcome).last_seq);
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm,
        'Nothing was merged. Settle the same ticket again in a second.');
end
$$;

comment on function kerai.settle(uuid) is
'What became of a submitted changeset, or its refusal. The first to ask merges all that wait, each with its own result; a result is given once. Submit and settle are two transactions: what is not committed nobody else can merge.';

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
    where s.outcome is null and coalesce((s.item).member, (s.item).author) = own;
    get diagnostics withdrawn = row_count;
    return withdrawn;
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm, 'Call it again in a second.');
end
$$;

comment on function kerai.withdraw(uuid) is
'Takes back what your agent has submitted and what is not settled, and returns how many changesets that were. After a crash or a refusal something may still wait and be merged by somebody''s settle: withdraw before the agent signs its next changeset, and ask kerai.next_changeset after that.';

-- Merges what waits, and returns the outcome of the caller's own. When that is a refusal nothing else may be merged,
-- since raising it undoes everything: so the caller's own, and what it may depend on, come first.
create or replace function kerai_private.settle_waiting(mine kerai_private.submissions) returns kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    own constant text := coalesce((mine.item).member, (mine.item).author);
    tickets uuid[];
    items kerai_private.checked[];
    own_count int;
    result kerai_private.outcome;
begin
    perform from kerai_private.waiting_places as w order by w.place for update;

    with waiting as materialized (
        select s.ticket, s.arrival, s.item,
            s.arrival <= mine.arrival and coalesce((s.item).member, (s.item).author) = own as is_own
        from kerai_private.submissions as s
        where s.outcome is null
        order by s.arrival
        for update
    )

    select array_agg(w.ticket order by w.is_own desc, w.arrival), array_agg(w.item order by w.is_own desc, w.arrival),
        count(*) filter (where w.is_own)
    into tickets, items, own_count
    from (
        select u.*, sum(jsonb_array_length((u.item).ops)) over (order by u.is_own desc, u.arrival) as running
        from waiting as u
    ) as w
    -- All of one's own: one that is left out would be a gap in the sequence.
    where w.is_own or w.running <= kerai_private.most_at_once();

    update kerai_private.submissions as s
    set outcome = o, item = null
    from kerai_private.receive_checked(items, judge => true, decisive => own_count) as o
    where s.ticket = tickets[o.n];

    -- What nobody came for.
    delete from kerai_private.submissions as s where s.submitted_at < now() - interval '1 hour';
    select (s.outcome).* into result from kerai_private.submissions as s where s.ticket = mine.ticket;
    return result;
end
$$;

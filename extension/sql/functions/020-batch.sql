-- 020 batches: many changesets of many authors in one merge, each with its own result or refusal. What comes out is
-- what pushing them one by one, in the order in which they are given, would give.

-- The most operations that are merged at once: more take longer, since the processor's caches no longer hold them.
create or replace function kerai_private.most_at_once() returns int
language sql immutable parallel safe
return 5000;

-- Takes changesets as they come, in a causal order. Whether judge: see kerai_private.receive. decisive: when this one
-- is refused, nothing after it is looked at.
create or replace function kerai_private.receive_all(
    given kerai_private.incoming[], judge boolean, decisive int default null
)
returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    items kerai_private.checked[];
    places int[];
    refused kerai_private.outcome;
begin
    if coalesce(cardinality(given), 0) = 0 then
        return;
    end if;
    begin
        items := kerai_private.look_at(given, judge);
        places := array(select generate_series(1, cardinality(given)));
    exception when others then
        -- What is not a refusal of kerai's is no changeset's fault.
        if sqlstate not like 'KR%' then
            raise;
        end if;
    end;
    if items is null then
        for place in 1 .. cardinality(given) loop
            begin
                items := items || kerai_private.look_at(given[place:place], judge);
                places := places || place;
            exception when others then
                if sqlstate not like 'KR%' then
                    raise;
                end if;
                refused := (place, sha256(convert_to((given[place]).document::text, 'UTF8')), null, null, null, null, sqlstate,
                    sqlerrm, null, null);
                get stacked diagnostics refused.detail = pg_exception_detail, refused.hint = pg_exception_hint;
                return next refused;
                if place = decisive then
                    return;
                end if;
            end;
        end loop;
    end if;
    return query
    select places[o.n], o.changeset_id, o.status, o.applied, o.first_seq, o.last_seq, o.code, o.message, o.detail, o.hint
    from kerai_private.receive_checked(coalesce(items, '{}'), judge, array_position(places, decisive)) as o;
end
$$;

-- Refuses for the first thing that is wrong with any of them.
create or replace function kerai_private.look_at(given kerai_private.incoming[], judge boolean)
returns kerai_private.checked[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    max_size constant bigint := kerai_private.setting('max_changeset_bytes');
    parsed jsonb[];
    items kerai_private.checked[];
    member text;
begin
    begin
        parsed := array(
            select g.document::jsonb
            from unnest(given) with ordinality as g (document, signature, public_key, n)
            where octet_length(g.document::text) <= max_size
            order by g.n);
    exception when data_exception or statement_too_complex or program_limit_exceeded then
        parsed := '{}';
    end;
    if cardinality(parsed) < cardinality(given) then
        parsed := array(
            select kerai_private.parse_changeset(g.document)
            from unnest(given) with ordinality as g (document, signature, public_key, n)
            order by g.n);
    end if;
    items := kerai_private.check_changesets(given, parsed);
    if not judge then
        select i.member into member from unnest(items) as i where i.id is null limit 1;
        if found then
            perform kerai_private.refuse('KR005', 'a draft is not passed on', format('author: %s', member),
                'Push it where the swarm is; the changeset that is made of it goes everywhere.');
        end if;
    end if;
    return items;
end
$$;

create or replace function kerai_private.receive_checked(
    items kerai_private.checked[], judge boolean, decisive int
) returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    -- What is more than one step from the start would only be begun twice.
    one_step constant boolean := cardinality(items) = 1 or not kerai_private.is_partial() and (
        select sum(jsonb_array_length(i.ops)) from unnest(items) as i) <= kerai_private.most_at_once();
begin
    if one_step and not (judge and exists (select from unnest(items) as i where i.guard is not null)) and not exists (
        select from unnest(items) as i
        cross join lateral jsonb_array_elements(i.ops) as o (op)
        where kerai_private.reshapes(o.op)
    ) then
        begin
            return query select * from kerai_private.receive_each(items, judge, decisive, alone => false);
            return;
        exception when sqlstate 'KR999' or unique_violation then
            null;  -- See kerai_private.receive.
        end;
    end if;
    return query select * from kerai_private.receive_each(items, judge, decisive, alone => true);
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
    sealed kerai_private.checked[];
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
        if cardinality(run) > 1 and not kerai_private.is_partial() then
            sealed := kerai_private.seal(run);
            if sealed is not null then
                run := sealed;
                ops := kerai_private.unpack_operations(run);
                good := kerai_private.count_good(run, ops, judge);
            end if;
        end if;

        -- Only one step locks rows in the order that all keep.
        if not alone and good < given and given > 1 then
            raise exception using errcode = 'KR999', message = 'a batch that is not merged in one step';
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
                if sqlstate not like 'KR%' or sqlstate = 'KR999' then
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
declare
    lanes text[];
begin
    if exists (select from unnest(items) as i where i.author is null) then
        lanes := kerai_private.lanes_of(items);
    end if;
    for i in 1 .. coalesce(cardinality(lanes), 0) loop
        continue when (items[i]).author is not null;
        begin
            items[i].author := coalesce(lanes[i], kerai_private.lane_of(items[i]));
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
    if exists (select from unnest(items) as i where i.task is not null) then
        perform kerai_private.lock_budgets(items);
    end if;
    perform kerai_private.enter_gate(alone);
    perform kerai_private.introduce_author(i.author, i.public_key)
    from (
        select distinct on (u.author) u.author, u.public_key from unnest(items) as u
        where u.public_key is not null
            and not exists (select from kerai_private.authors as a where a.author = u.author offset 0)
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
-- necessarily wrong: it is then looked at alone, and named exactly. OFFSET 0: each is looked up by index, whatever the
-- planner believes about the size of a table.
create or replace function kerai_private.count_good(
    run kerai_private.checked[], ops kerai_private.operation[], judge boolean
) returns int
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    good int;
    place int := 0;
    unseen record;
    moved int;
    unsure int[];
    bound record;
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
        cross join lateral (select a.* from kerai_private.authors as a where a.author = u.author offset 0) as a
    ),

    chain as (
        select i.c, i.first_lamport, coalesce(lag(i.last_lamport) over w, i.head_lamport) as own_lamport,
            i.first_seq = 1 + coalesce(lag(i.last_seq) over w, i.head_seq)
            and i.prev is not distinct from coalesce(lag(i.id) over w, i.head_id)
            and not exists (select from kerai.changesets as k where k.id = i.id offset 0)
            and not kerai_private.is_frozen(i.author)
            and (horizon is null or not exists (select from kerai.vector_missing(i.base, horizon)))
            and (i.draft_id is null or row_number() over d = 1
                and i.author not in (
                    select k.author from kerai.changesets as k where k.draft_id = i.draft_id offset 0))
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
        left join lateral (
            select a.seq, a.lamport from kerai_private.authors as a where a.author = s.author offset 0
        ) as a on true
        left join item as b on b.author = s.author and b.last_seq = s.seq and b.c < s.c
        group by s.c
    )

    select coalesce(min(h.c) - 1, cardinality(run)) into good
    from chain as h
    left join base as b on b.c = h.c
    where not h.follows or not coalesce(b.covered, true) or h.first_lamport <> 1 + greatest(h.own_lamport, b.lamport);

    -- Its operations name nodes that it has seen: they are here, or, which is rare, the run itself brings them.
    select array_agg(e.c) as places, array_agg(e.node) as nodes into unseen
    from (
        select r.c, r.node from kerai_private.named_nodes(ops) as r
        group by r.c, r.node
        having min(r.n) filter (where not r.born) <= coalesce(min(r.n) filter (where r.born), 2147483647)
    ) as e
    inner join (select row_number() over () as c, u.author, u.base from unnest(run) as u) as i on i.c = e.c
    left join lateral (
        select n.created_stamp, n.created_seq from kerai.nodes as n where n.id = e.node offset 0
    ) as x on true
    where kerai_private.has_seen(i.author, i.base, x.created_stamp, x.created_seq) is not true;

    if unseen.nodes is not null then
        with item as materialized (
            select row_number() over () as c, u.author, u.base from unnest(run) as u
        ),

        brought as (
            select distinct k.c, k.node
            from unnest(unseen.places, unseen.nodes) as k (c, node)
            inner join item as i on i.c = k.c
            inner join unnest(ops) as o on o.node = k.node and o.op = 'node_insert' and o.c < k.c
            inner join item as b on b.c = o.c
            where b.author = i.author or o.seq <= coalesce((i.base ->> b.author)::bigint, 0)
        )

        select least(good, coalesce(min(k.c) - 1, good)) into good
        from unnest(unseen.places, unseen.nodes) as k (c, node)
        where (k.c, k.node) not in (select b.c, b.node from brought as b);
    end if;

    if not judge then
        return good;
    end if;
    select least(good, f.c - 1) into good from kerai_private.overfull_metadata(ops) as f;
    -- Whether something lies in a scope cannot be said of what the run itself brings, nor after moves in it: moves are
    -- node_move, and inserts of what is here already, since the earlier of two inserts counts.
    if exists (select from kerai.tasks as t where t.id in (select r.task from unnest(run) as r) and t.scope_node_id is not null) then
        select min(o.c) into moved
        from unnest(ops) as o
        where o.op = 'node_move'
            or o.op = 'node_insert' and exists (select from kerai.nodes as n where n.id = o.node offset 0);

        unsure := array(
            select distinct o.c
            from unnest(ops) as o
            cross join lateral (values (o.node), (o.parent), (o.source)) as x (node)
            inner join (
                select b.node, min(b.c) as c from unnest(ops) as b where b.op = 'node_insert' group by b.node
            ) as i on i.node = x.node
            where i.c < o.c);
    end if;
    -- Budgets are counted from what is merged: an agent's second changeset of a task waits for the first. Where nothing
    -- can be exceeded nothing is counted.
    select array_agg(u.c order by u.c) as places,
        array_agg(u.nth > 1 or (u.c > moved or u.c = any(unsure)) and t.scope_node_id is not null order by u.c) as again
    into bound
    from (
        select r.*, a.id as agent, row_number() over (partition by r.task, a.id order by r.c) as nth
        from (
            select row_number() over () as c, i.task, coalesce(i.member, i.author) as author from unnest(run) as i
        ) as r
        cross join lateral (select g.id from kerai.agents as g where g.author = r.author offset 0) as a
        where r.task is not null and r.c <= good
    ) as u
    left join kerai.tasks as t on t.id = u.task
    where not coalesce(
        t.status in ('pending', 'running')
        and num_nonnulls(t.scope_node_id, t.budget_ops, t.budget_nkoi, t.budget_seconds) = 0
        and not exists (
            select from kerai.swarms as s
            inner join kerai.swarm_members as m on m.swarm_id = s.id and m.agent_id = u.agent
            where s.task_id = t.id and s.status = 'stopped'), false);
    if bound.places is null then
        return good;
    end if;

    begin
        for item in
            select b.c, b.again, r.task, a.agent, g.ops
            from unnest(bound.places, bound.again) as b (c, again)
            inner join (
                select row_number() over () as c, i.task, coalesce(i.member, i.author) as author from unnest(run) as i
            ) as r on r.c = b.c
            cross join lateral (select k as agent from kerai.agents as k where k.author = r.author offset 0) as a
            inner join (
                select o.c, array_agg(o order by o.n) as ops
                from unnest(ops) as o
                where (o.c in (select p.c from unnest(bound.places) as p (c))) is true
                group by o.c
            ) as g on g.c = b.c
            order by b.c
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

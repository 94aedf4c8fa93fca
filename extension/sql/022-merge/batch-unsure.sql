-- Unsure: which changesets of a run have to be looked at by themselves. One look at a run says it of all of them.

-- Which changesets of a run cannot be merged as they are, by their places: none is usual. What is found is not
-- necessarily wrong: each is looked at by itself then, and named exactly. All others can be merged whatever becomes of
-- these. run has its envelopes; drafts says which were given without.
create or replace function kerai_private.find_unsure(
    run kerai_private.verified_changeset[], drafts int[], ops kerai_private.operation[], enforce_policy boolean
) returns int[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    chain constant record := kerai_private.find_unchained(run, drafts);
    nodes constant record := kerai_private.find_unseen(run, drafts, ops);
    wrong int[] := chain.wrong || nodes.wrong;
begin
    if enforce_policy then
        wrong := wrong || array(
            select distinct o.c
            from kerai_private.overfull_metadata(ops) as f
            inner join unnest(ops) as o on o.c >= f.c
            where o.op = 'node_update' and o.metadata <> '{}');
    end if;
    if enforce_policy and exists (select from unnest(run) as r where r.task is not null) then
        wrong := wrong || kerai_private.find_outside_task(run, ops);
    end if;
    if wrong = '{}' then
        return wrong;
    end if;
    -- What leans on another author's may lean on one of these, and so does what the same author has written later.
    wrong := wrong || chain.leaning || nodes.leaning;
    return array(
        select r.c
        from (
            select u.c, bool_or(w.c is not null) over (
                partition by u.author, case when d.c is not null then u.c end order by u.c) as follows
            from unnest(run) with ordinality as u (
                id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task, message, ops, document,
                signature, public_key, swarm, member, member_signature, member_key, draft_id, c)
            left join (select distinct unnest(wrong) as c) as w on w.c = u.c
            left join unnest(drafts) as d (c) on d.c = u.c
        ) as r
        where r.follows
        order by r.c);
end
$$;

-- wrong: each but these follows on its author's last one, and its clock is right. Its base is covered here or by
-- changesets of the run that come before it. leaning: its base names another author's changeset of the run. OFFSET 0:
-- each is looked up by index, whatever the planner believes about the size of a table.
create or replace function kerai_private.find_unchained(
    run kerai_private.verified_changeset[], drafts int[], out wrong int[], out leaning int[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    horizon constant jsonb := (select c.horizon from kerai.compactions as c order by c.id desc limit 1);
begin
    with item as materialized (
        select u.*, a.seq as head_seq, a.lamport as head_lamport, a.changeset_id as head_id, a.public_key as head_key
        from unnest(run) with ordinality as u (
            id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task, message, ops, document,
            signature, public_key, swarm, member, member_signature, member_key, draft_id, c)
        cross join lateral (select a.* from kerai_private.authors as a where a.author = u.author offset 0) as a
    ),

    chain as (
        select i.c, i.first_lamport, coalesce(lag(i.last_lamport) over w, i.head_lamport) as own_lamport,
            i.first_seq = 1 + coalesce(lag(i.last_seq) over w, i.head_seq)
            and i.prev is not distinct from coalesce(lag(i.id) over w, i.head_id)
            and i.public_key = i.head_key
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
        select i.c, i.author as reader, e.key collate "C" as author, e.value::text::bigint as seq
        from item as i
        cross join lateral jsonb_each(i.base) as e
        where e.value <> '0'
    ),

    base as (
        select s.c, bool_and(b.c is not null or coalesce(s.seq <= a.seq, false)) as covered,
            max(case when b.c is not null then b.last_lamport when s.seq = a.seq then a.lamport
                else kerai_private.lamport_of(s.author, s.seq) end) as lamport,
            bool_or(b.author <> s.reader or b.c = any(drafts)) as leans
        from seen as s
        left join lateral (
            select a.seq, a.lamport from kerai_private.authors as a where a.author = s.author offset 0
        ) as a on true
        left join item as b on b.author = s.author and b.last_seq = s.seq and b.c < s.c
        group by s.c
    )

    select coalesce(array_agg(h.c) filter (where not h.follows or not coalesce(b.covered, true)
        or h.first_lamport <> 1 + greatest(h.own_lamport, b.lamport)), '{}'),
        coalesce(array_agg(h.c) filter (where b.leans), '{}')
    into wrong, leaning
    from chain as h
    left join base as b on b.c = h.c;
end
$$;

-- wrong: each but these names only nodes that its author has seen. They are here, or, which is rare, the run itself
-- brings them. leaning: a changeset brings one that is not sure to be merged when the author's own before it are.
create or replace function kerai_private.find_unseen(
    run kerai_private.verified_changeset[], drafts int[], ops kerai_private.operation[],
    out wrong int[], out leaning int[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    unseen record;
begin
    wrong := '{}';
    leaning := '{}';
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
    if unseen.nodes is null then
        return;
    end if;

    with item as materialized (
        select row_number() over () as c, u.author, u.base from unnest(run) as u
    ),

    brought as (
        select k.c, k.node, bool_or(b.author = i.author and b.c <> all(drafts)) as by_itself
        from unnest(unseen.places, unseen.nodes) as k (c, node)
        inner join item as i on i.c = k.c
        inner join unnest(ops) as o on o.node = k.node and o.op = 'node_insert' and o.c < k.c
        inner join item as b on b.c = o.c
        where b.author = i.author or o.seq <= coalesce((i.base ->> b.author)::bigint, 0)
        group by k.c, k.node
    )

    select coalesce(array_agg(distinct k.c) filter (where b.c is null), '{}'),
        coalesce(array_agg(distinct k.c) filter (where not b.by_itself), '{}')
    into wrong, leaning
    from unnest(unseen.places, unseen.nodes) as k (c, node)
    left join brought as b on b.c = k.c and b.node = k.node;
end
$$;

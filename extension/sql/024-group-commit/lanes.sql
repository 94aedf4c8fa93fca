-- Lanes: the author ids under which a swarm that groups its members writes. A member signs a draft; the instance
-- gives it a place in a lane's sequence and signs the changeset that holds the draft's exact text.

-- Which of a swarm's lanes is a member's. Inlined.
create or replace function kerai_private.lane_number(member text, lanes int) returns int
language sql immutable parallel safe
return 1 + (hashtextextended(member, 0) & 2147483647) % lanes;

-- The lane in which a draft is merged: always the same for one member, so that his own changes stay in order. One that
-- is merged already keeps its lane, whatever has become of the swarm: it is a duplicate.
create or replace function kerai_private.lane_of(item kerai_private.checked) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    lane text;
    member_of record;
begin
    select l.author into lane
    from (select k.author from kerai.changesets as k where k.draft_id = item.draft_id offset 0) as c
    inner join kerai_private.lanes as l on l.author = c.author and l.swarm_id = item.swarm;
    if found then
        return lane;
    end if;

    select s.name, s.status, s.lanes, a.id as agent, m.agent_id into member_of
    from kerai.swarms as s
    left join kerai.agents as a on a.author = item.member
    left join kerai.swarm_members as m on m.swarm_id = s.id and m.agent_id = a.id
    where s.id = item.swarm;
    if member_of.name is null then
        perform kerai_private.require_swarm(item.swarm);
    end if;
    if member_of.lanes is null then
        perform kerai_private.refuse('KR011', 'the swarm does not group its members',
            format('swarm: %s (%s)', member_of.name, item.swarm),
            'Push a changeset of your own (kerai.next_changeset says what it must carry), or launch a swarm with lanes.');
    end if;
    if member_of.agent_id is null then
        perform kerai_private.refuse('KR013', 'not a member of the swarm',
            format('author: %s, swarm: %s (%s)', item.member, member_of.name, item.swarm),
            'Join it first: SELECT kerai.join_swarm(swarm, agent).');
    end if;
    if member_of.status = 'stopped' then
        perform kerai_private.refuse('KR011', 'the swarm does not run',
            format('swarm: %s (%s): %s', member_of.name, item.swarm, member_of.status),
            'Stop working on it, or join another swarm.');
    end if;

    select l.author into lane from kerai_private.lanes as l
    where l.swarm_id = item.swarm and l.lane = kerai_private.lane_number(item.member, member_of.lanes);
    return lane;
end
$$;

-- The lanes of a batch's new drafts, by place; NULL where there is nothing to give, or something is wrong.
create or replace function kerai_private.lanes_of(items kerai_private.checked[]) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select l.author
        from (
            select row_number() over () as n, u.author, u.swarm, u.member, u.draft_id from unnest(items) as u
        ) as i
        -- OFFSET 0: see kerai_private.find_unchained.
        left join lateral (select g.id from kerai.agents as g where g.author = i.member offset 0) as a on true
        left join lateral (
            select m.swarm_id from kerai.swarm_members as m where m.agent_id = a.id and m.swarm_id = i.swarm offset 0
        ) as m on true
        left join lateral (
            select w.id, w.lanes from kerai.swarms as w where w.id = m.swarm_id and w.status <> 'stopped' offset 0
        ) as s on true
        left join lateral (
            select k.author from kerai_private.lanes as k
            where k.swarm_id = s.id and k.lane = kerai_private.lane_number(i.member, s.lanes)
            offset 0
        ) as l on i.author is null
            and not exists (select from kerai.changesets as c where c.draft_id = i.draft_id offset 0)
        order by i.n);
end
$$;

-- Gives the drafts of a run their places after the heads of their lanes, in order. NULL when the instance's key is not
-- on this server.
create or replace function kerai_private.seal(run kerai_private.checked[]) returns kerai_private.checked[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    lanes constant text[] := array(select distinct r.author from unnest(run) as r where r.id is null order by 1);
    lane_key bytea;
    sealed kerai_private.checked[];
begin
    if cardinality(lanes) = 0 then
        return run;
    end if;
    -- All lanes have the instance's key.
    select a.public_key into lane_key from kerai_private.authors as a where a.author = lanes[1];

    with head as (
        select array_agg(a.author order by a.author) as authors, array_agg(a.seq order by a.author) as seqs,
            array_agg(a.lamport order by a.author) as lamports, array_agg(a.changeset_id order by a.author) as ids
        from kerai_private.authors as a
        where a.author = any(lanes)
    ),

    seen as (
        select r.n, max(case when a.seq = e.value::bigint then a.lamport
            else kerai_private.lamport_of(a.author, e.value::bigint) end) as lamport
        from (select row_number() over () as n, u.id, u.base from unnest(run) as u) as r
        cross join lateral jsonb_each_text(r.base) as e
        cross join lateral (select k.* from kerai_private.authors as k where k.author = e.key offset 0) as a
        where r.id is null
        group by r.n
    ),

    draft as (
        select array_agg(r.n order by r.n) as places, array_agg(r.author order by r.n) as authors,
            array_agg(coalesce(b.lamport, 0) order by r.n) as lamports,
            array_agg(jsonb_array_length(r.ops) order by r.n) as counts, array_agg(r.document::text order by r.n) as texts,
            array_agg(r.member_key order by r.n) as keys, array_agg(r.member_signature order by r.n) as signatures
        from unnest(run) with ordinality as r (
            id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task, message, ops, document,
            signature, public_key, swarm, member, member_signature, member_key, draft_id, n)
        left join seen as b on b.n = r.n
        where r.id is null
    )

    select array_agg(case when e.place is null then r.item else row(
        e.id, (r.item).author, e.seq, e.seq + jsonb_array_length((r.item).ops) - 1,
        e.lamport, e.lamport + jsonb_array_length((r.item).ops) - 1, e.prev, (r.item).base, (r.item).guard, (r.item).task,
        (r.item).message, (r.item).ops, e.document::json, e.signature, lane_key, (r.item).swarm, (r.item).member,
        (r.item).member_signature, (r.item).member_key, (r.item).draft_id)::kerai_private.checked end order by r.n)
    into sealed
    from (select row_number() over () as n, u as item from unnest(run) as u) as r
    cross join head as h
    cross join draft as d
    left join kerai_private.envelopes(
        h.authors, h.seqs, h.lamports, h.ids, lane_key, current_setting('data_directory'),
        d.places, d.authors, d.lamports, d.counts, d.texts, d.keys, d.signatures) as e on e.place = r.n;

    if exists (select from unnest(sealed) as s where s.id is null) then
        return null;
    end if;
    return sealed;
end
$$;

-- The changesets that hold the drafts' texts, each after the one before it in its lane; none when the key is not here.
create or replace function kerai_private.envelopes(
    head_authors text[], head_seqs bigint[], head_lamports bigint[], head_ids bytea[], public_key bytea,
    data_directory text, places bigint[], authors text[], lamports bigint[], counts int[], texts text[],
    member_keys bytea[], member_signatures bytea[]
) returns table (place bigint, document text, id bytea, seq bigint, lamport bigint, prev bytea, signature bytea)
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
heads = {author: (seq, lamport, changeset_id) for author, seq, lamport, changeset_id
         in zip(head_authors, head_seqs, head_lamports, head_ids)}
return GD["kerai @version@"].server.seal_drafts(
    heads, public_key, data_directory,
    zip(places, authors, lamports, counts, texts, member_keys, member_signatures),
    pause=lambda: plpy.execute("select"))
$$;

-- The writer of a swarm, and who may write in it.

-- The writer that takes a draft. A draft that is merged already keeps its writer, whatever has become of the swarm: it
-- is a duplicate.
create or replace function kerai_private.writer_of(item kerai_private.verified_changeset) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    writer text;
    member_of record;
begin
    select l.author into writer
    from (select k.author from kerai.changesets as k where k.draft_id = item.draft_id offset 0) as c
    inner join kerai_private.writers as l on l.author = c.author and l.swarm_id = item.swarm;
    if found then
        return writer;
    end if;

    select s.name, s.status, s.grouped, a.id as agent, m.agent_id into member_of
    from kerai.swarms as s
    left join kerai.agents as a on a.author = item.member
    left join kerai.swarm_members as m on m.swarm_id = s.id and m.agent_id = a.id
    where s.id = item.swarm;
    if member_of.name is null then
        perform kerai_private.require_swarm(item.swarm);
    end if;
    if not member_of.grouped then
        perform kerai_private.refuse('KR011', 'the swarm does not group its members',
            format('swarm: %s (%s)', member_of.name, item.swarm),
            'Push a changeset of your own (kerai.next_changeset says what it must carry), or launch a grouped swarm.');
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

    select l.author into writer from kerai_private.writers as l
    where l.swarm_id = item.swarm;
    return writer;
end
$$;

-- The writers of a batch's new drafts, by place; NULL where there is nothing to give, or something is wrong.
create or replace function kerai_private.writers_of(items kerai_private.verified_changeset[]) returns text[]
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
            select w.id from kerai.swarms as w where w.id = m.swarm_id and w.status <> 'stopped' offset 0
        ) as s on true
        left join lateral (
            select k.author from kerai_private.writers as k
            where k.swarm_id = s.id
            offset 0
        ) as l on i.author is null
            and not exists (select from kerai.changesets as c where c.draft_id = i.draft_id offset 0)
        order by i.n);
end
$$;

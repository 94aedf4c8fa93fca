-- Hosted agents: the instance signs what they push.

-- The hosted agent that the caller acts as: the one that `SET kerai.agent` names, else the newest of the role.
create or replace function kerai_private.hosted_agent() returns kerai.agents
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted text := nullif(current_setting('kerai.agent', true), '');
    agent kerai.agents;
begin
    select a.* into agent from kerai.agents as a
    where a.hosted and a.owner = any(kerai_private.own_owners()) and a.name = coalesce(wanted, a.name)
    order by a.created_at desc, a.name limit 1;
    if agent.id is null then
        perform kerai_private.refuse('KR006', 'you have no hosted agent to act for you',
            format('role: %s%s', session_user, ', kerai.agent: ' || wanted),
            'SELECT kerai.register_agent(''your-name'', ''human''); then push again.');
    end if;
    return agent;
end
$$;

-- Writes and signs the changeset of a hosted agent: the caller gives the operations, or a draft: an object with ops
-- and, if wanted, base, guard, task and message. The rest is filled in.
create or replace function kerai_private.push_hosted(draft json) returns kerai.push_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    bare constant boolean := json_typeof(draft) = 'array';
    ops constant json := case when bare then draft else draft -> 'ops' end;
    agent constant kerai.agents := kerai_private.hosted_agent();
    head kerai_private.authors;
    base jsonb;
    document json;
    changeset jsonb;
    signature bytea;
begin
    -- Held until the end, so that nobody can take the same sequence number meanwhile.
    select a.* into head from kerai_private.authors as a where a.author = agent.author for update;
    base := coalesce(case when not bare then nullif((draft -> 'base')::jsonb, 'null') end, kerai.version_vector());
    document := format(
        '{"v":1,"author":%s,"seq":%s,"lamport":%s,"prev":%s,"base":%s,"guard":%s,"task":%s,"message":%s,"ops":%s}',
        to_json(agent.author), head.seq + 1, kerai_private.next_lamport(base, head.lamport),
        coalesce(to_json(encode(head.changeset_id, 'hex'))::text, 'null'), base,
        coalesce(case when not bare then (draft -> 'guard')::text end, 'null'),
        coalesce(case when not bare then (draft -> 'task')::text end, 'null'),
        coalesce(case when not bare then (draft -> 'message')::text end, '""'), ops)::json;
    changeset := kerai_private.parse_changeset(document);
    signature := kerai_private.sign_as_instance(document::text, current_setting('data_directory'), agent.public_key);
    if signature is null then
        perform kerai_private.refuse_lost_key(agent.name, agent.public_key);
    end if;
    return kerai_private.receive((kerai_private.check_changesets(
        array[row(document, signature, null)::kerai_private.incoming], array[changeset]))[1], enforce_policy => true);
end
$$;

create or replace function kerai_private.refuse_lost_key(signer text, public_key bytea) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.refuse('KR011', 'the key of this instance is not on this server',
        format('signer: %s, key file: kerai/%s.key in the data directory', signer,
            left(encode(sha256(public_key), 'hex'), 16)),
        'After a restore on another server, copy the key file over; or register an agent that has its own key.');
end
$$;

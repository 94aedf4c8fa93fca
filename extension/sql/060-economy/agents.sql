-- Agents: registering one makes its author, and a wallet for what it earns.

create or replace function kerai.register_agent(
    name text,
    kind text,
    public_key bytea default null,
    model text default null,
    capabilities text[] default '{}',
    config jsonb default '{}'
) returns kerai.agents
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    given_name alias for $1;
    given_key alias for $3;
    signing_key bytea;
    new_author text;
    row_found kerai.agents;
begin
    if given_name is null or given_name !~ '^[^[:cntrl:]]{1,200}$' or given_name ~ '^[[:space:]]|[[:space:]]$' then
        perform kerai_private.refuse('KR005', 'an agent''s name is 1 to 200 printable characters',
            format('name: %s', coalesce(quote_literal(left(given_name, 200)), 'null')),
            'Use a name such as solver-1.');
    end if;
    if kind is null or $2 not in ('human', 'llm', 'tool', 'swarm') then
        perform kerai_private.refuse('KR005', 'unknown kind of agent', format('kind: %s', coalesce($2, 'null')),
            'Use human, llm, tool or swarm.');
    end if;
    if octet_length(given_key) <> 32 then
        perform kerai_private.refuse('KR005', 'an Ed25519 public key has 32 bytes',
            format('given: %s bytes', octet_length(given_key)),
            'Pass the raw public key, not its hexadecimal or base64 text.');
    end if;
    if array_ndims($5) > 1 or array_position($5, null) is not null then
        perform kerai_private.refuse('KR005', 'capabilities are a plain list of words', format('capabilities: %s', $5),
            'Pass an array such as ''{python,sql}''.');
    end if;
    if length($4) > 200 or cardinality($5) > 100 or octet_length($5::text) > 20000 or octet_length($6::text) > 65536
        or jsonb_typeof($6) <> 'object' then
        perform kerai_private.refuse('KR005', 'too large, or config is not an object',
            'model: at most 200 characters; capabilities: at most 100; config: a JSON object of at most 65536 bytes',
            'Shorten it.');
    end if;

    signing_key := coalesce(given_key, kerai_private.instance_public_key());
    new_author := kerai_private.author_id(given_name, signing_key);

    select a.* into row_found from kerai.agents as a where a.name = given_name;
    if row_found.id is null then
        if exists (select from kerai_private.writers as l where l.author = new_author) then
            perform kerai_private.refuse('KR002', 'this name belongs to a swarm', format('author: %s', new_author),
                'Register under another name.');
        end if;
        perform kerai_private.introduce_author(new_author, signing_key);
        -- Two sessions register one name at once: the second waits here, then finds the first's row.
        insert into kerai.agents
            (name, author, kind, model, public_key, hosted, owner, owner_role, capabilities, config, wallet_id)
        values (given_name, new_author, $2, $4, signing_key, given_key is null,
            kerai_private.owner_of(session_user), session_user,
            coalesce($5, '{}'), coalesce($6, '{}'), kerai_private.create_wallet('agent', given_name))
        on conflict do nothing
        returning * into row_found;
        if row_found.id is not null then
            return row_found;
        end if;
        select a.* into row_found from kerai.agents as a where a.name = given_name;
    end if;

    if row_found.public_key <> signing_key or row_found.hosted <> (given_key is null)
        or (row_found.hosted and row_found.owner <> all(kerai_private.own_owners())) then
        perform kerai_private.refuse('KR002', 'this name is taken with another key',
            format('name: %s, registered key: %s (%s)', given_name, encode(row_found.public_key, 'hex'),
                case when row_found.hosted then format('hosted, for role %s', kerai_private.owner_name(row_found.owner))
                    else 'the agent''s own' end),
            'Register under another name, or with the key that the name was registered with.');
    end if;
    return row_found;
end
$$;

comment on function kerai.register_agent(text, text, bytea, text, text[], jsonb) is
'Registers a worker identity (kind: human, llm, tool, swarm) with a wallet and returns it. The same name and key again return the same row; another key is refused with KR002. Without public_key the agent is hosted: bound to your login role, and the instance signs for it. A private key never comes here.';

-- Who may use what of this domain.

grant usage on schema kerai to kerai_reader;

grant select on table kerai.settings, kerai.errors, kerai.agents to kerai_reader;

grant execute on function kerai.instance_key to kerai_agent;

grant execute on function kerai.give_agent to kerai_operator;

grant update (value) on table kerai.settings to kerai_operator;

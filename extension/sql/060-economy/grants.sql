-- Who may use what of this domain.

grant select on table kerai.reward_schedule, kerai.wallets, kerai.mints, kerai.ledger to kerai_reader;

grant execute on function
    kerai.balance, kerai.supply, kerai.swarm_agents, kerai.swarm_status, kerai.swarm_leaderboard,
    kerai.swarm_economics, kerai.agent_trace
to kerai_reader;

grant execute on function kerai.register_agent to kerai_agent;

grant execute on function kerai.verify to kerai_operator;

grant update (reward, enabled) on table kerai.reward_schedule to kerai_operator;

-- Who may use what of this domain.

grant select on table kerai.reward_schedule, kerai.wallets, kerai.mints, kerai.ledger to kerai_reader;

grant execute on function kerai.balance, kerai.supply to kerai_reader;

grant execute on function kerai.verify to kerai_operator;

grant update (reward, enabled) on table kerai.reward_schedule to kerai_operator;

-- Who may use what of this domain.

grant execute on function kerai.waiting to kerai_reader;

grant execute on function kerai.settle, kerai.settle_more, kerai.submit, kerai.withdraw to kerai_agent;

grant execute on procedure kerai.push_together to kerai_agent;

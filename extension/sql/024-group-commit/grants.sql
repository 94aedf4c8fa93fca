-- Who may use what of this domain.

grant execute on function kerai.waiting_pushes to kerai_reader;

grant execute on function kerai.await_push, kerai.submit_push, kerai.withdraw to kerai_agent;

grant execute on procedure kerai.push_batched to kerai_agent;

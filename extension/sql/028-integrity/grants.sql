-- Who may use what of this domain.

grant execute on function kerai.state_digest to kerai_reader;

grant execute on function kerai.compact, kerai.rebuild to kerai_operator;

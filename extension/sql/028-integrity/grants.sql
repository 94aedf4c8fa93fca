-- Who may use what of this domain.

grant execute on function kerai.compact, kerai.rebuild to kerai_operator;

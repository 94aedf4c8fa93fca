-- Who may use what of this domain.

grant select on table kerai.compactions to kerai_reader;

grant execute on function kerai.compact, kerai.rebuild to kerai_operator;

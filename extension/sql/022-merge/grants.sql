-- Who may use what of this domain.

grant select on table kerai.nodes, kerai.edges, kerai.perspectives, kerai.associations to kerai_reader;

grant execute on function kerai.void_moves, kerai.next_changeset to kerai_reader;

grant execute on function kerai.push_ops to kerai_agent;

-- Who may use what of this domain.

grant execute on function kerai.scope_state to kerai_reader;

grant execute on function kerai.serve_scope, kerai.scope_members, kerai.scope_late, kerai.scope_page to kerai_peer;

grant execute on function
    kerai.begin_scope, kerai.take_members, kerai.take_late, kerai.merge_late, kerai.accept_scoped
to kerai_operator;

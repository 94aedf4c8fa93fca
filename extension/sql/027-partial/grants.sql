-- Who may use what of this domain.

grant execute on function
    kerai_sync.serve_scope, kerai_sync.scope_members, kerai_sync.scope_late, kerai_sync.scope_page
to kerai_peer;

grant execute on function
    kerai_sync.scope_state, kerai_sync.add_scope_nodes, kerai_sync.backfill_documents, kerai_sync.merge_late,
    kerai_sync.accept_scoped, kerai_sync.exchange, kerai.pull, kerai.push, kerai.sync
to kerai_operator;

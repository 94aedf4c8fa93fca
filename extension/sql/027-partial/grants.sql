-- Who may use what of this domain.

grant execute on function
    kerai_sync.serve_scope, kerai_sync.scope_members, kerai_sync.scope_backfill, kerai_sync.scope_page
to kerai_peer;

grant execute on function
    kerai_sync.scope_state, kerai_sync.add_scope_nodes, kerai_sync.backfill_documents, kerai_sync.merge_backfill,
    kerai_sync.accept_scoped, kerai_sync.exchange, kerai_sync.begin_conversation, kerai_sync.end_conversation,
    kerai_sync.most_changesets, kerai_sync.read_vector, kerai_sync.ask_vector, kerai_sync.ask_page, kerai_sync.beyond,
    kerai_sync.refusal, kerai_sync.count_page, kerai_sync.pass_page, kerai_sync.connect, kerai_sync.look,
    kerai_sync.compare, kerai_sync.push_page, kerai_sync.turn, kerai_sync.pull_page, kerai_sync.list_scope,
    kerai_sync.pull_members, kerai_sync.pull_backfill, kerai_sync.pull_scope, kerai.pull, kerai.push, kerai.sync
to kerai_operator;

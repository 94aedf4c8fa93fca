-- Who may use what of this domain.

grant usage on schema kerai_sync to kerai_peer;

grant select on table kerai.peers, kerai.refusals to kerai_reader;

grant execute on function kerai.heads, kerai.stable_vector, kerai.changesets_since to kerai_reader;

grant execute on function kerai.report_fork, kerai.accept to kerai_peer;

grant execute on function
    kerai_sync.dblink_schema, kerai_sync.ask_peer, kerai_sync.compare_heads, kerai_sync.ask_frozen,
    kerai_sync.differing_heads, kerai_sync.pass_proof, kerai_sync.tell_fork, kerai_sync.prove_fork,
    kerai_sync.begin_pull, kerai_sync.hang_up, kerai.add_peer,
    kerai.remove_peer, kerai_sync.begin_contact, kerai_sync.end_contact, kerai_sync.begin_scope,
    kerai.schedule_sync, kerai.unschedule_sync, kerai_sync.note_schedule
to kerai_operator;

-- A connection may hold a password, so only operators read it. Nobody says who added a peer: see tables.sql.
grant select, insert (name, connection) on table kerai.peer_connections to kerai_operator;

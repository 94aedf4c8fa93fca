-- Who may use what of this domain.

grant usage on schema kerai_sync to kerai_peer;

grant select on table kerai.peers, kerai.refusals to kerai_reader;

grant execute on function kerai.stable_vector to kerai_reader;

grant execute on function kerai.accept to kerai_peer;

grant execute on function
    kerai.add_peer, kerai.remove_peer, kerai_sync.begin_contact, kerai_sync.end_contact, kerai.schedule_sync,
    kerai.unschedule_sync, kerai_sync.note_schedule, kerai_sync.ask_peer, kerai_sync.compare_heads, kerai_sync.exchange,
    kerai_sync.begin_pull, kerai_sync.hang_up, kerai.pull, kerai.push, kerai.sync
to kerai_operator;

-- A connection may hold a password, so only operators read it. Nobody says who added a peer: see tables.sql.
grant select, insert (name, connection) on table kerai.peer_connections to kerai_operator;

-- Peers: two instances bring each other up to date.
--
-- A function that talks to a peer runs with the caller's own rights. Through dblink a role that is no superuser
-- connects only with a password of its own, and not as the server's account or with its files. So these functions are
-- not SECURITY DEFINER; what they need of kerai's tables they ask of functions that are. All that comes from a peer is
-- typed and bounded here and then verified like a push.

create or replace view kerai.peers as
select p.name, p.last_contact, p.last_problem, p.problem_at, p.acknowledged, p.schedule, p.added_by, p.added_at, s.scope
from kerai.peer_connections as p
left join kerai_private.partial_scope as s on s.peer = p.name;

comment on view kerai.peers is 'The other instances that this one syncs with: when they were last reached, what was wrong, and the vector that they acknowledged. The schedule is set if pg_cron runs the sync. The scope is set if this instance holds only that of the peer''s tree.';

create or replace function kerai_private.check_peer() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if new.name is null or new.name !~ '^[^[:cntrl:]]{1,100}$' or new.name ~ '^[[:space:]]|[[:space:]]$' then
        perform kerai_private.refuse('KR005', 'a peer''s name is 1 to 100 printable characters',
            format('name: %s', coalesce(quote_literal(left(new.name, 100)), 'null')), 'Use a name such as berlin.');
    end if;
    -- A malformed string would be quoted in libpq's message, the password in it too.
    if new.connection is null or octet_length(new.connection) > 4000 or new.connection ~ '[[:cntrl:]]' or not (
        new.connection ~ '^postgres(ql)?://[^[:space:]]+$'
        or new.connection ~ E'^\\s*(\\w+\\s*=\\s*(''([^''\\\\]|\\\\.)*''|([^\\s''\\\\]|\\\\.)*)(\\s+|$))+$'
        or new.connection ~ '^[[:alnum:]_.-]{1,63}$') then
        perform kerai_private.refuse('KR005', 'this is no connection', format('%s characters', length(new.connection)),
            'Give a libpq connection string such as ''host=db.example.org dbname=kerai user=sync password=...'', or the '
            || 'name of a foreign server of dblink_fdw.');
    end if;
    if exists (select from kerai.peer_connections as p where p.name = new.name) then
        perform kerai_private.refuse('KR011', 'there is a peer of this name', format('name: %s', new.name),
            format('SELECT kerai.remove_peer(%L); and add it again.', new.name));
    end if;
    -- A restored row says it itself.
    new.added_by_superuser := coalesce(new.added_by_superuser, (
        select r.rolsuper from pg_roles as r where r.rolname = new.added_by), false);
    return new;
end
$$;

create or replace trigger check_peer before insert on kerai.peer_connections
for each row execute function kerai_private.check_peer();

create or replace function kerai.add_peer(name text, connection text, scope uuid default null) returns kerai.peers
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    added kerai.peers;
begin
    insert into kerai.peer_connections (name, connection) values ($1, $2);
    perform kerai_sync.begin_scope($1, $3);
    select p.* into added from kerai.peers as p where p.name = $1;
    return added;
end
$$;

comment on function kerai.add_peer(text, text, uuid) is
'Notes another instance to sync with. The connection is a libpq connection string (''host=... dbname=... user=... password=...''), whose role there is a member of kerai_peer. Or it is the name of a foreign server of dblink_fdw, which keeps the password in a user mapping. Operators can read connection strings. A peer that was added by anybody but a superuser is not used by superusers. A scope is a node of the peer''s tree. This instance, which must be empty, then holds that subtree only and has no other peer.';

create or replace function kerai.remove_peer(name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    found_peer kerai.peer_connections;
begin
    select p.* into found_peer from kerai.peer_connections as p where p.name = $1 for update;
    if found_peer.name is null then
        perform kerai_private.refuse('KR006', 'no such peer', format('name: %s', coalesce($1, 'null')),
            'SELECT name FROM kerai.peers;');
    end if;
    if found_peer.schedule is not null then
        perform kerai_private.refuse('KR011', 'this peer''s sync is scheduled', format('schedule: %s', found_peer.schedule),
            format('SELECT kerai.unschedule_sync(%L); first.', $1));
    end if;
    delete from kerai.refusals as r where r.peer = $1;
    delete from kerai.peer_connections as p where p.name = $1;
    -- What holds a scope's operations stays partial; its peer may be added again, with the same scope.
    update kerai_private.partial_scope as p set peer = null where p.peer = $1;
    if not exists (select from kerai.changesets) then
        delete from kerai_private.partial_scope as p where p.peer is null;
        if found then
            delete from kerai_private.scope_nodes;
        end if;
    end if;
end
$$;

comment on function kerai.remove_peer(text) is
'Forgets a peer. Its merged changesets stay, and kerai.stable_vector() no longer waits for it.';

create or replace function kerai.stable_vector() returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with acknowledged as (
        select e.key as author, min(e.value::bigint) as seq, count(*) as peers
        from kerai.peer_connections as p
        cross join lateral jsonb_each_text(p.acknowledged) as e
        group by e.key
    )

    select coalesce(jsonb_object_agg(a.author, least(a.seq, k.seq)), '{}')
    from kerai_private.authors as a
    left join acknowledged as k on k.author = a.author
    where a.seq > 0 and coalesce(k.peers, 0) = (select count(*) from kerai.peer_connections)
$$;

comment on function kerai.stable_vector() is
'What this instance and every peer are known to have: the least of the own vector and the vectors that the peers acknowledged when they were last reached. Without peers, the own vector.';

-- What a contact begins with: may this role use this connection, and is nobody else at it. A superuser does not follow
-- a connection that another role has written. With a superuser's rights it could read the server's own password files
-- and keys, or log in as the server's account.
create or replace function kerai_sync.begin_contact(peer text, acting name, max_ops int default null)
returns kerai.peer_connections
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    found_peer kerai.peer_connections;
begin
    if max_ops < 1 then
        perform kerai_private.refuse('KR005', 'max_ops is at least 1', format('max_ops: %s', max_ops),
            'Leave it out to go on until everything is there.');
    end if;
    begin
        select p.* into found_peer from kerai.peer_connections as p where p.name = peer for update nowait;
    exception when lock_not_available then
        perform kerai_private.refuse('KR009', 'another session is talking with this peer', format('peer: %s', peer),
            'Wait for it to end, then try again.');
    end;
    if found_peer.name is null then
        perform kerai_private.refuse('KR006', 'no such peer', format('peer: %s', coalesce(peer, 'null')),
            'SELECT name FROM kerai.peers; or add it with kerai.add_peer(name, connection).');
    end if;
    if not exists (select from kerai_private.partial_scope as s where s.peer = found_peer.name) then
        perform kerai_private.refuse_partial('a partial instance has no other peers',
            'Sync that peer with the instance that has the whole tree.');
    end if;
    if (select r.rolsuper from pg_roles as r where r.rolname = acting)
        and not found_peer.added_by_superuser then
        perform kerai_private.refuse('KR013', 'a superuser does not use a connection that another role has written',
            format('peer: %s, added by: %s, calling: %s', peer, found_peer.added_by, acting),
            format('SET ROLE to a member of kerai_operator; or, when you trust the connection, '
                || 'SELECT kerai.remove_peer(%L); and add it yourself.', peer));
    end if;
    -- A peer that does not answer is given up after ten seconds; what the connection says itself comes later and wins.
    if found_peer.connection !~ '^postgres(ql)?://'
        and not exists (select from pg_foreign_server as s where s.srvname = found_peer.connection) then
        found_peer.connection := 'connect_timeout=10 application_name=kerai ' || found_peer.connection;
    end if;
    return found_peer;
end
$$;

comment on function kerai_sync.begin_contact(text, name, int) is
'A part of kerai.sync: looks the peer up, checks that the acting role may use its connection, and holds the peer until the transaction ends.';

-- Null leaves a value as it is.
create or replace function kerai_sync.end_contact(
    peer text, acknowledged jsonb, agreed jsonb, skipped jsonb, problem text, refused jsonb
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update kerai.peer_connections as p
    set acknowledged = coalesce($2, p.acknowledged),
        agreed = coalesce($3, p.agreed),
        skipped = coalesce($4, p.skipped),
        last_contact = case when $2 is null then p.last_contact else clock_timestamp() end,
        last_problem = left($5, 2000),
        problem_at = case when $5 is not null then clock_timestamp() end
    where p.name = $1;
    if not found then
        perform kerai_private.refuse('KR006', 'no such peer', format('name: %s', coalesce($1, 'null')),
            'SELECT name FROM kerai.peers; or add it with kerai.add_peer(name, connection).');
    end if;

    insert into kerai.refusals as t
        (peer, direction, changeset_id, author, last_seq, code, message, detail, hint)
    select distinct on (r.direction, r.changeset_id) $1, r.direction, decode(r.changeset_id, 'hex'), left(r.author, 220),
        r.last_seq, left(coalesce(r.code, ''), 5), left(coalesce(r.message, ''), 500), left(r.detail, 2000),
        left(r.hint, 1000)
    from jsonb_to_recordset(refused) as r (
        direction text, changeset_id text, author text, last_seq bigint, code text, message text, detail text, hint text)
    where r.changeset_id is not null
    on conflict on constraint refusals_pkey do update
    set code = excluded.code, message = excluded.message, detail = excluded.detail, hint = excluded.hint,
        times = t.times + 1, last_at = clock_timestamp();

    delete from kerai.refusals as t
    where t.peer = $1 and (
        t.direction = 'pull' and t.changeset_id in (select c.id from kerai.changesets as c where c.id = t.changeset_id)
        or t.direction = 'push' and t.last_seq <= coalesce(($2 ->> t.author)::bigint, 0)
        or (t.direction, t.changeset_id) in (
            select o.direction, o.changeset_id from kerai.refusals as o where o.peer = $1
            order by o.last_at desc offset 1000));
end
$$;

comment on function kerai_sync.end_contact(text, jsonb, jsonb, jsonb, text, jsonb) is
'A part of kerai.sync: notes what a contact with a peer has shown. That is the vector that the peer acknowledged, up to where both hold the same, what was refused, and the problem that ended the contact.';

-- A partial instance has one peer, the one that it has its scope from.
create or replace function kerai_sync.begin_scope(peer text, scope uuid) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    own kerai_private.partial_scope;
begin
    select p.* into own from kerai_private.partial_scope as p for update;
    if scope is null then
        perform kerai_private.refuse_partial('a partial instance has no other peers',
            'Sync that peer with the instance that has the whole tree.');
        return;
    end if;
    if own.peer is not null or own.scope <> scope then
        perform kerai_private.refuse('KR011', 'this instance has a scope', format('scope: %s, of peer: %s', own.scope, own.peer),
            'A partial instance has one scope and one peer. Make another database for another scope.');
    end if;
    if own.scope is null then
        perform kerai_private.lock_tree(exclusive => true);
        perform kerai_private.show_change();
        if exists (select from kerai.changesets) or exists (select from kerai.peer_connections as p where p.name <> peer) then
            perform kerai_private.refuse('KR011', 'only an empty instance can become partial',
                format('changesets: %s, other peers: %s', (select count(*) from kerai.changesets),
                    (select count(*) from kerai.peer_connections as p where p.name <> peer)),
                'Create the extension in a new database, and add the peer there.');
        end if;
    end if;
    insert into kerai_private.partial_scope as p (scope, peer) values (scope, peer)
    on conflict (singleton) do update set peer = excluded.peer;
end
$$;

comment on function kerai_sync.begin_scope(text, uuid) is
'A part of kerai.add_peer: makes this instance hold only a scope of that peer''s tree; without a scope, checks that it holds everything.';

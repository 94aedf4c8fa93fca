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

-- Where in the order of arrival the first changeset stands that a vector has not seen; NULL when it has seen all.
create or replace function kerai_private.first_arrival_beyond(seen jsonb) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    if seen = '{}' then
        return 0;
    end if;
    return (
        select min(c.arrival)
        from (
            select a.author, coalesce((seen ->> a.author)::bigint, 0) as last_seen
            from kerai_private.authors as a where a.seq > coalesce((seen ->> a.author)::bigint, 0)
        ) as l
        cross join lateral (
            select c.arrival from kerai.changesets as c
            where c.author = l.author and c.first_seq <= l.last_seen + 1
            order by c.first_seq desc limit 1
        ) as c);
end
$$;

-- A page of what a vector has not seen, in the order of arrival, which is a causal order: nothing is merged before what
-- it is based on. A page costs what is in it, wherever in the history it lies. The scan begins at the first changeset
-- that is missing, and takes no more rows than operations are wanted.
create or replace function kerai_private.page_since(vector jsonb, max_ops int)
returns table (arrival bigint, author text, last_seq bigint, operations bigint, document json, signature bytea)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    -- A copy that is no longer compressed: it is looked into once a row.
    seen constant jsonb := vector || '{}';
    beginning constant bigint := kerai_private.first_arrival_beyond(seen);
    max_bytes constant bigint := kerai_private.setting('max_page_bytes');
begin
    -- A document's length is only asked of what is likely to be sent: to know it, it has to be unpacked.
    return query
    select p.arrival, p.author, p.last_seq, p.operations, p.document, p.signature
    from (
        select w.*, sum(octet_length(w.document::text)) over (order by w.arrival) as bytes
        from (
            select r.*, sum(r.operations) over (order by r.arrival) as running,
                sum(r.stored_bytes) over (order by r.arrival) as stored, row_number() over (order by r.arrival) as n
            from (
                select c.arrival, c.author, c.last_seq, c.last_seq - c.first_seq + 1 as operations, c.document, c.signature,
                    pg_column_size(c.document) as stored_bytes
                from kerai.changesets as c
                where c.arrival >= beginning and c.last_seq > coalesce((seen ->> c.author)::bigint, 0)
                order by c.arrival
                limit max_ops
            ) as r
        ) as w
        where w.n = 1 or w.running <= max_ops and w.stored <= max_bytes
    ) as p
    where p.n = 1 or p.bytes <= max_bytes
    order by p.arrival;
end
$$;

-- Whose changeset a refused one says that it is; NULL when it does not say so properly.
create or replace function kerai_private.claim_of(document json, out author text, out last_seq bigint)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    author := left(document ->> 'author', 220);
    last_seq := (document ->> 'seq')::bigint
        + json_array_length(coalesce(document -> 'draft', document) -> 'ops') - 1;
    if last_seq not between 1 and 999999999999999999 then
        last_seq := null;
    end if;
exception when others then
    author := null;
    last_seq := null;
end
$$;

-- Refuses KR005 what is no page of changesets.
create or replace function kerai_private.require_page(changesets json[], signatures bytea[], public_keys bytea[])
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    most constant int := 100000;
begin
    if changesets is null or coalesce(array_ndims(changesets), 1) <> 1 or cardinality(changesets) > most
        or cardinality(signatures) is distinct from cardinality(changesets)
        or cardinality(public_keys) is distinct from cardinality(changesets) then
        perform kerai_private.refuse('KR005', 'this is no page of changesets',
            format('%s changesets, %s signatures, %s public keys; at most %s of each are taken', cardinality(changesets),
                cardinality(signatures), cardinality(public_keys), most),
            'Give three arrays of the same length. A public key may be null when the author is known.');
    end if;
end
$$;

create or replace function kerai.accept(changesets json[], signatures bytea[], public_keys bytea[])
returns table (
    changeset_id bytea, status text, applied int, author text, last_seq bigint,
    code text, message text, detail text, hint text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set random_page_cost = 1.1
set work_mem = '64MB'
set lock_timeout = '30s'
as $$
#variable_conflict use_column
declare
    -- The other side may have a larger page than this one. A changeset by itself is judged by its own size, below.
    most_bytes constant bigint := 4 * kerai_private.setting('max_page_bytes');
    size bigint;
    place int;
begin
    perform kerai_private.require_page(changesets, signatures, public_keys);
    size := (select sum(octet_length(c::text)) from unnest(changesets) as c);
    if size > most_bytes and cardinality(changesets) > 1 then
        perform kerai_private.refuse('KR005', 'the page is too large', format('%s bytes, at most %s are taken', size, most_bytes),
            'Send fewer changesets at once, or have an operator raise max_page_bytes in kerai.settings.');
    end if;

    perform kerai_private.refuse_partial('this instance takes changesets only with the sync that it makes itself',
        'Push to the instance that it has its scope from.');
    perform kerai_private.discard_stale_plans();
    for changeset_id, status, applied, code, message, detail, hint, place in
        select r.changeset_id, r.status, r.applied, r.code, r.message, r.detail, r.hint, r.n
        from kerai_private.receive_all(array(
            select row(g.document, g.signature, g.public_key)::kerai_private.incoming
            from unnest(changesets, signatures, public_keys) with ordinality as g (document, signature, public_key, n)
            order by g.n), enforce_policy => false) as r
        order by r.n
    loop
        author := null;
        last_seq := null;
        if kerai_private.is_transient(code) then
            raise exception using errcode = code, message = message, detail = detail, hint = hint;
        elsif code is not null then
            status := 'refused';
            applied := 0;
            select c.author, c.last_seq into author, last_seq from kerai_private.claim_of(changesets[place]) as c;
            if code = 'KR003' then
                perform kerai_private.keep_evidence(changesets[place], signatures[place]);
            end if;
        end if;
        return next;
    end loop;
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm,
        'Nothing of this page was merged. Send it again in a second.');
end
$$;

comment on function kerai.accept(json[], bytea[], bytea[]) is
'Merges a page of changesets that another instance has merged, each by itself, and says of each what became of it: merged, duplicate or refused with the reason. Each is verified as by kerai.push_ops, but guard and task are not judged again: they were where it was pushed first. So only members of kerai_peer call this: an agent could get past its guard and its budget with it.';

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
        perform kerai_private.lock_tree(alone => true);
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

create or replace function kerai.changesets_since(vector jsonb, max_ops int default 10000)
returns table (changeset json, signature bytea, public_key bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if max_ops is null or max_ops < 1 then
        perform kerai_private.refuse('KR005', 'max_ops is at least 1', format('max_ops: %s', coalesce(max_ops::text, 'null')),
            'Leave it out for pages of 10,000 operations.');
    end if;
    -- A join would not look at it while there are no changesets.
    perform from kerai_private.vector_entries($1);
    perform kerai_private.require_above_horizon($1, 'Clone this instance with pg_dump, then sync from there on.');
    perform kerai_private.require_documents_beyond($1);
    return query
    select p.document, p.signature, a.public_key
    from kerai_private.page_since($1, max_ops) as p
    inner join kerai_private.authors as a on a.author = p.author
    order by p.arrival;
end
$$;

comment on function kerai.changesets_since(jsonb, int) is
'The changesets that a vector has not seen, byte for byte and in a causal order: push them one by one into another instance with kerai.push_ops(changeset, signature, public_key). At most max_ops operations, at least one changeset; call again with the new vector until nothing comes.';

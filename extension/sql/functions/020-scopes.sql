-- 020 scopes: an instance that holds one subtree of a peer's tree, exactly.
--
-- Inside is the scope and, again and again, whatever was ever placed directly below something inside. The nodes of the
-- scope are these and, again and again, whatever any of them was ever placed below. So every move of one of these, and
-- all that decides whether it is void, concerns these nodes only: their operations by themselves fold to the state
-- that they have in the whole.
--
-- A changeset with an operation on a node of the scope comes whole, byte for byte, and only these operations are
-- merged. Of every other one comes a stub: its place in its author's chain, base and signature. When a node comes into
-- the scope later, what older changesets say of it is brought and merged late.

create or replace function kerai_private.is_partial() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (select from kerai_private.partial_scope);
end
$$;

create or replace function kerai_private.refuse_partial(what text, hint text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if kerai_private.is_partial() then
        perform kerai_private.refuse('KR011', what,
            (select format('this instance holds the scope %s only', p.scope) from kerai_private.partial_scope as p), hint);
    end if;
end
$$;

-- Refuses KR011 when a vector lacks what came here without its document.
create or replace function kerai_private.require_documents_beyond(vector jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    bad record;
begin
    if not kerai_private.is_partial() then
        return;
    end if;
    select a.author, coalesce(e.seq, 0) as seq into bad
    from kerai_private.authors as a
    left join kerai_private.vector_entries(vector) as e on e.author = a.author
    where a.seq > coalesce(e.seq, 0) and exists (
        select from kerai.changesets as c
        where c.author = a.author and c.last_seq > coalesce(e.seq, 0) and c.document is null)
    limit 1;
    if found then
        perform kerai_private.refuse_partial(
            format('not everything after %s of %s is here', bad.seq, bad.author),
            'Sync with the instance that this one has its scope from.');
    end if;
end
$$;

-- Of what comes from the peer the operations that are merged here. A node that was made here may have been placed
-- elsewhere before, below what is not here: it waits until the peer has counted it in, and all that concerns it is late.
create or replace function kerai_private.of_scope(ops kerai_private.operation[]) returns kerai_private.operation[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not kerai_private.is_partial() then
        return ops;
    end if;
    return (
        select coalesce(array_agg(o order by o.n), '{}') from unnest(ops) as o
        where coalesce(o.node, o.source) in (select s.node_id from kerai_private.scope_nodes as s where s.state = 'whole'));
end
$$;

-- What is pushed here stays in the scope: a new node has to lie below it, so that the peer will count it in too.
create or replace function kerai_private.enter_scope(ops kerai_private.operation[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    bad uuid;
begin
    if not kerai_private.is_partial() then
        return;
    end if;
    with recursive placed as materialized (
        select o.node, o.parent from unnest(ops) as o where o.op in ('node_insert', 'node_move')
    ),

    inside (node) as (
        select p.node from placed as p
        inner join kerai_private.scope_nodes as s on s.node_id = p.parent and s.inside
        union
        select p.node from inside as i inner join placed as p on p.parent = i.node
    )

    insert into kerai_private.scope_nodes as s (node_id, inside, state)
    select i.node, true, 'here' from inside as i
    order by i.node
    on conflict (node_id) do update set inside = true where not s.inside;

    select o.node into bad from unnest(ops) as o
    where o.op = 'node_insert' and o.node not in (select s.node_id from kerai_private.scope_nodes as s)
    order by o.n limit 1;
    if found then
        perform kerai_private.refuse('KR007', 'outside the scope of this instance',
            (select format('node: %s, scope: %s', bad, p.scope) from kerai_private.partial_scope as p),
            'Insert it below the scope, or push where the whole tree is. Below what has just been moved into the scope, '
            || 'sync first.');
    end if;
end
$$;

-- A partial instance has one peer, the one that it has its scope from.
create or replace function kerai.begin_scope(peer text, scope uuid) returns void
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
        perform kerai_private.enter_gate(alone => true);
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

comment on function kerai.begin_scope(text, uuid) is
'A part of kerai.add_peer: makes this instance hold only a scope of that peer''s tree; without a scope, checks that it holds everything.';

-- The peer's side.

-- Where operations that a vector has not seen have placed nodes; none when it is NULL.
create or replace function kerai_private.placements_since(seen jsonb) returns table (node_id uuid, parent_id uuid)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
begin
    if seen is null then
        return;
    end if;
    return query
    select distinct o.node_id, (o.payload ->> 'parent')::uuid
    from kerai_private.authors as a
    left join kerai_private.vector_entries(seen) as e on e.author = a.author
    cross join lateral (
        select o.* from kerai.operations as o
        where o.author = a.author and o.author_seq > coalesce(e.seq, 0)
        offset 0
    ) as o
    where a.seq > coalesce(e.seq, 0) and o.op_type in ('node_insert', 'node_move');
end
$$;

create or replace function kerai_private.note_repeated_inserts() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_custom_plan
as $$
declare
    noted jsonb;
    now_seen jsonb;
begin
    insert into kerai_private.repeats_noted (seen) values ('{}') on conflict do nothing;
    select r.seen into noted from kerai_private.repeats_noted as r for update;
    now_seen := kerai.version_vector();
    if noted = now_seen then
        return;
    end if;

    with fresh as materialized (
        select o.node_id
        from kerai_private.authors as a
        left join kerai_private.vector_entries(noted) as e on e.author = a.author
        cross join lateral (
            select o.node_id, o.op_type from kerai.operations as o
            where o.author = a.author and o.author_seq > coalesce(e.seq, 0)
            offset 0
        ) as o
        where a.seq > coalesce(e.seq, 0) and o.op_type = 'node_insert'
    ),

    repeated as (
        select f.node_id from fresh as f group by f.node_id having count(*) > 1
        union
        select f.node_id from fresh as f
        inner join kerai.operations as o on o.node_id = f.node_id and o.op_type = 'node_insert'
        where noted <> '{}'
        group by f.node_id having count(*) > 1
    )

    insert into kerai_private.repeated_inserts (node_id, parent_id)
    select distinct o.node_id, (o.payload ->> 'parent')::uuid
    from repeated as r
    inner join kerai.operations as o on o.node_id = r.node_id and o.op_type = 'node_insert'
    on conflict do nothing;
    update kerai_private.repeats_noted set seen = now_seen;
end
$$;

-- Everything that a node was ever placed below.
create or replace function kerai_private.parents_ever(node uuid) returns setof uuid
language sql stable
begin atomic
    select n.parent_id from kerai.nodes as n where n.id = node
    union all
    select n.created_parent_id from kerai.nodes as n where n.id = node
    union all
    select m.parent_id from kerai_private.moves as m where m.node_id = node
    union all
    select r.parent_id from kerai_private.repeated_inserts as r where r.node_id = node;
end;

-- Keeps this scope's list and the latest others, as many as the setting says.
create or replace function kerai_private.forget_scopes(kept uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    with gone as (
        delete from kerai_private.served_scopes as s
        where s.scope in (
            select o.scope from kerai_private.served_scopes as o
            where o.scope <> kept
            order by o.asked_at desc
            offset kerai_private.setting('max_served_scopes') - 1
            for update skip locked)
        returning s.scope
    )

    delete from kerai_private.served_nodes as n where n.scope in (select g.scope from gone as g);
end
$$;

create or replace function kerai.serve_scope(scope uuid, out served uuid, out vector jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_variable
declare
    list kerai_private.served_scopes;
    number bigint;
begin
    perform kerai_private.refuse_partial('a partial instance serves no scopes', 'Ask the instance that has the whole tree.');
    perform kerai_private.require_node(scope);
    insert into kerai_private.served_scopes as s (scope) values (scope)
    on conflict on constraint served_scopes_pkey do update set asked_at = now()
    returning s.* into list;
    if list.seen is null then
        perform kerai_private.forget_scopes(scope);
    end if;
    -- Taken first: what is merged from here on may be counted in, and is looked at again the next time.
    vector := kerai.version_vector();
    served := list.id;
    if list.seen = vector then
        return;
    end if;
    perform kerai_private.note_repeated_inserts();

    -- The children of a node are found by index; of those who have left it there are few.
    with recursive strayed as materialized (
        select s.parent_id, array_agg(s.node_id) as nodes
        from (
            select m.parent_id, m.node_id from kerai_private.moves as m
            union
            select n.created_parent_id, n.id from kerai.nodes as n
            where n.id in (select m.node_id from kerai_private.moves as m)
            union
            select r.parent_id, r.node_id from kerai_private.repeated_inserts as r
        ) as s
        where s.parent_id is not null
        group by s.parent_id
    ),

    below (id) as (
        (select scope where list.seen is null
        union
        select p.node_id
        from kerai_private.placements_since(list.seen) as p
        inner join kerai_private.served_nodes as s on s.scope = serve_scope.scope and s.node_id = p.parent_id and s.inside
        where p.node_id not in (
            select k.node_id from kerai_private.served_nodes as k where k.scope = serve_scope.scope and k.inside))
        union
        select c.id
        from below as b
        left join strayed as s on s.parent_id = b.id
        cross join lateral (
            select n.id from kerai.nodes as n where n.parent_id = b.id
            union all
            select u.id from unnest(s.nodes) as u (id)
        ) as c
        where not exists (
            select from kerai_private.served_nodes as k
            where k.scope = serve_scope.scope and k.node_id = c.id and k.inside)
    )

    insert into kerai_private.served_nodes as s (scope, node_id, inside, number)
    select scope, b.id, true, list.last_number + row_number() over () from below as b
    on conflict on constraint served_nodes_pkey do update set inside = true, number = excluded.number;
    select coalesce(max(s.number), 0) into number from kerai_private.served_nodes as s where s.scope = serve_scope.scope;

    with recursive above (id) as (
        (select p.id
        from kerai_private.served_nodes as s
        cross join lateral kerai_private.parents_ever(s.node_id) as p (id)
        where s.scope = serve_scope.scope and s.number > list.last_number
        union
        select p.parent_id
        from kerai_private.placements_since(list.seen) as p
        inner join kerai_private.served_nodes as s on s.scope = serve_scope.scope and s.node_id = p.node_id)
        union
        select p.id
        from above as a
        cross join lateral kerai_private.parents_ever(a.id) as p (id)
        where not exists (
            select from kerai_private.served_nodes as k where k.scope = serve_scope.scope and k.node_id = a.id)
    )

    insert into kerai_private.served_nodes (scope, node_id, inside, number)
    select scope, a.id, false, number + row_number() over ()
    from above as a
    where a.id is not null and not exists (
        select from kerai_private.served_nodes as k where k.scope = serve_scope.scope and k.node_id = a.id);
    select coalesce(max(s.number), 0) into number from kerai_private.served_nodes as s where s.scope = serve_scope.scope;
    update kerai_private.served_scopes as s set seen = vector, last_number = number
    where s.scope = serve_scope.scope;
end
$$;

comment on function kerai.serve_scope(uuid) is
'A part of kerai.sync with a partial instance: brings the list of a scope''s nodes up to the vector that it returns, with the list''s id.';

-- The scope that a list is of. Refuses KR011 when the list is no longer there: an empty one would say that nothing
-- concerns the scope.
create or replace function kerai_private.scope_of_list(served uuid) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_scope uuid;
begin
    select s.scope into found_scope from kerai_private.served_scopes as s where s.id = served;
    if not found then
        perform kerai_private.refuse('KR011', 'the list of this scope is no longer here', format('list: %s', served),
            'Pull again: it is made anew.');
    end if;
    return found_scope;
end
$$;

create or replace function kerai.scope_members(served uuid, after bigint, max_rows int)
returns table (node_id uuid, inside boolean, number bigint)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    wanted constant uuid := kerai_private.scope_of_list(served);
begin
    return query
    select s.node_id, s.inside, s.number from kerai_private.served_nodes as s
    where s.scope = wanted and s.number > after
    order by s.number
    limit least(max_rows, 100000);
end
$$;

comment on function kerai.scope_members(uuid, bigint, int) is
'A part of kerai.sync with a partial instance: the nodes of a served scope by their numbers. A node gets a new number when it comes to lie inside.';

-- What a vector has seen and says something of nodes that came into the scope after that.
create or replace function kerai.scope_late(
    served uuid, vector jsonb, after bigint, after_arrival bigint, max_ops int
)
returns table (arrival bigint, changeset_id bytea, document json, signature bytea, public_key bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    wanted constant uuid := kerai_private.scope_of_list(served);
    seen constant jsonb := kerai_private.checked_vector(vector);
    max_bytes constant bigint := kerai_private.setting('max_page_bytes');
begin
    return query
    select w.arrival, w.id, w.document, w.signature, w.public_key
    from (
        select c.arrival, c.id, c.document, c.signature, a.public_key, row_number() over (order by c.arrival) as n,
            sum(c.last_seq - c.first_seq + 1) over (order by c.arrival) as running,
            sum(octet_length(c.document::text)) over (order by c.arrival) as bytes
        from (
            select c.* from kerai.changesets as c
            where c.id in (
                    select o.changeset_id from kerai_private.served_nodes as s
                    inner join kerai.operations as o on o.node_id = s.node_id
                    where s.scope = wanted and s.number > after)
                and c.last_seq <= coalesce((seen ->> c.author)::bigint, 0) and c.arrival > after_arrival
            order by c.arrival
            limit least(max_ops, 100000)
        ) as c
        inner join kerai_private.authors as a on a.author = c.author
    ) as w
    where w.n = 1 or w.running <= max_ops and w.bytes <= max_bytes
    order by w.arrival;
end
$$;

comment on function kerai.scope_late(uuid, jsonb, bigint, bigint, int) is
'A part of kerai.sync with a partial instance: the changesets that it has seen and that concern nodes which came into its scope later.';

create or replace function kerai.scope_page(served uuid, vector jsonb, up_to jsonb, max_ops int)
returns table (
    changeset_id bytea, author text, first_seq bigint, last_seq bigint, first_lamport bigint, prev bytea, base jsonb,
    document json, signature bytea, public_key bytea
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '256MB'
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    wanted constant uuid := kerai_private.scope_of_list(served);
    seen constant jsonb := kerai_private.checked_vector(vector) || '{}';
    last constant jsonb := kerai_private.checked_vector(up_to) || '{}';
    beginning constant bigint := kerai_private.first_arrival_beyond(seen);
    max_bytes constant bigint := kerai_private.setting('max_page_bytes');
begin
    perform kerai_private.require_above_horizon(vector,
        'A scope cannot be brought from an instance that has compacted it. Bring it from one that has not.');
    return query
    select w.id, w.author::text, w.first_seq, w.last_seq, w.first_lamport, w.prev, w.base, w.document, w.signature, w.public_key
    from (
        select r.*, sum(octet_length(r.document::text)) over (order by r.arrival) as bytes
        from (
            select c.*, sum(case when c.document is null then 1 else c.last_seq - c.first_seq + 1 end)
                over (order by c.arrival) as running,
                sum(pg_column_size(c.document)) over (order by c.arrival) as stored, row_number() over (order by c.arrival) as n
            from (
                select c.arrival, c.id, c.author, c.first_seq, c.last_seq, c.first_lamport, c.prev, c.base, c.signature,
                    a.public_key,
                    -- Each operation by its changeset, each node in a table that is hashed once: IS TRUE keeps it from
                    -- becoming a join.
                    case when exists (
                        select from (
                            select o.node_id from kerai.operations as o
                            where o.author = c.author and o.author_seq between c.first_seq and c.last_seq
                            offset 0
                        ) as o
                        where (o.node_id in (
                            select s.node_id from kerai_private.served_nodes as s where s.scope = wanted)) is true
                    ) then c.document end as document
                from (
                    select c.* from kerai.changesets as c
                    where c.arrival >= beginning and c.last_seq > coalesce((seen ->> c.author)::bigint, 0)
                        and c.last_seq <= coalesce((last ->> c.author)::bigint, 0)
                    order by c.arrival
                    limit least(max_ops, 100000)
                ) as c
                inner join kerai_private.authors as a on a.author = c.author
            ) as c
        ) as r
        where r.n = 1 or r.running <= max_ops and coalesce(r.stored, 0) <= max_bytes
    ) as w
    where w.n = 1 or coalesce(w.bytes, 0) <= max_bytes
    order by w.arrival;
end
$$;

comment on function kerai.scope_page(uuid, jsonb, jsonb, int) is
'A part of kerai.sync with a partial instance: changesets that a vector has not seen, up to another; without the document when no operation is on a node of the scope.';

-- The partial instance's side.

create or replace function kerai.scope_state(out scope uuid, out peer text, out named bigint, out whole bigint,
    out late_after bigint, out is_late boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.scope, p.peer, p.named, p.whole, p.late_after,
        exists (select from kerai_private.scope_nodes as s where s.state = 'late')
    from (select) as one
    left join kerai_private.partial_scope as p on true
$$;

comment on function kerai.scope_state() is
'The scope that this instance holds, NULL when it holds everything, and how far the list of the scope''s nodes has been followed.';

create or replace function kerai.take_members(
    served uuid, nodes uuid[], inside boolean[], named bigint
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    blank boolean;
begin
    -- Another list than the last time is told from the beginning, and is not believed to be the same but for its end.
    update kerai_private.partial_scope as p set served = $1, named = 0, whole = 0, late_after = 0
    where p.served is distinct from $1;
    if found then
        update kerai_private.scope_nodes set state = 'here' where state = 'whole';
    end if;
    blank := not exists (select from kerai.changesets);
    insert into kerai_private.scope_nodes as s (node_id, inside, state)
    select u.node, bool_or(u.inside), case when blank then 'whole' else 'late' end
    from unnest(nodes, inside) as u (node, inside)
    where u.node is not null
    group by u.node
    on conflict (node_id) do update
    set inside = s.inside or excluded.inside, state = case when s.state = 'here' then 'late' else s.state end
    where not s.inside and excluded.inside or s.state = 'here';
    -- What is said of these may stand before what has come already.
    update kerai_private.partial_scope as p
    set named = greatest(p.named, $4), late_after = case when found then 0 else p.late_after end;
end
$$;

comment on function kerai.take_members(uuid, uuid[], boolean[], bigint) is
'A part of kerai.sync in a partial instance: takes the nodes that have come into the scope, as its peer names them.';

-- Refuses KR006 what the peer has not sent before what needs it.
create or replace function kerai_private.require_sent(ops kerai_private.operation[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    bad uuid;
begin
    select u.node into bad
    from unnest(ops) as o
    cross join lateral (values (coalesce(o.node, o.source)), (o.parent)) as u (node)
    where u.node is not null
        and u.node not in (select i.node from unnest(ops) as i where i.op = 'node_insert')
        and not exists (select from kerai.nodes as n where n.id = u.node)
    limit 1;
    if found then
        perform kerai_private.refuse('KR006', 'the peer sends what is said of a node, and not the node',
            format('node: %s', bad), 'kerai.verify() on the peer says whether it is damaged.');
    end if;
end
$$;

create or replace function kerai.take_late(arrivals bigint[], documents json[], signatures bytea[], public_keys bytea[],
    out taken int, out applied bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_variable
declare
    items kerai_private.checked[];
    bad bytea;
begin
    perform kerai_private.enter_gate(alone => true);
    items := kerai_private.look_at(array(
        select row(g.document, g.signature, g.public_key)::kerai_private.incoming
        from unnest(documents, signatures, public_keys) with ordinality as g (document, signature, public_key, n)
        order by g.n), judge => false);
    select c.id into bad
    from unnest(items) as i
    inner join kerai.changesets as c on c.id = i.id
    where (c.author, c.first_seq, c.last_seq, c.first_lamport, c.prev, c.base)
        is distinct from (i.author, i.first_seq, i.last_seq, i.first_lamport, i.prev, i.base)
    limit 1;
    if found then
        perform kerai_private.refuse('KR005', 'the peer has said otherwise of a changeset before',
            format('changeset: %s', encode(bad, 'hex')), 'Make a new partial instance, from a peer that can be trusted.');
    end if;

    with filled as (
        update kerai.changesets as c
        set document = i.document, guard = i.guard, task_id = i.task, message = i.message, member = i.member,
            member_signature = i.member_signature, draft_id = i.draft_id
        from unnest(items) as i
        where c.id = i.id and c.document is null
        returning c.last_seq - c.first_seq + 1 as operations
    )

    select count(*), coalesce(sum(f.operations), 0) into taken, applied from filled as f;
    -- Of a forked author the peer may have another branch: that is not here.
    insert into kerai_private.late_changesets (changeset_id)
    select c.id from kerai.changesets as c where c.id in (select i.id from unnest(items) as i)
    on conflict do nothing;
    update kerai_private.partial_scope as p set late_after = (select max(u.a) from unnest(arrivals) as u (a));
end
$$;

comment on function kerai.take_late(bigint[], json[], bytea[], bytea[]) is
'A part of kerai.sync in a partial instance: takes documents of changesets of which only a stub was here.';

-- All that is late is here: now what it says of the nodes is merged, in the order of arrival.
create or replace function kerai.merge_late() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
declare
    done bigint := 0;
    items kerai_private.checked[];
    ops kerai_private.operation[];
begin
    perform kerai_private.enter_gate(alone => true);
    loop
        select max(p.arrival), array_agg(row(
            p.id, p.author, p.first_seq, p.last_seq, p.first_lamport, p.last_lamport, null, null, null, null, null,
            kerai_private.body_of(p.document::jsonb) -> 'ops', null, null, null, null, p.member, null, null, null
        )::kerai_private.checked order by p.arrival)
        into done, items
        from (
            select c.*, sum(c.last_seq - c.first_seq + 1) over (order by c.arrival) as running,
                row_number() over (order by c.arrival) as n
            from (
                select x.* from kerai_private.late_changesets as l
                inner join kerai.changesets as x on x.id = l.changeset_id
                where x.arrival > done order by x.arrival limit 1000
            ) as c
        ) as p
        where p.running <= kerai_private.most_at_once() or p.n = 1;
        exit when items is null;

        ops := kerai_private.unpack_operations(items);
        ops := array(
            select o from unnest(ops) as o
            inner join (select row_number() over () as c, u.author from unnest(items) as u) as i on i.c = o.c
            where coalesce(o.node, o.source) in (
                    select s.node_id from kerai_private.scope_nodes as s where s.state = 'late')
                and not exists (
                    select from kerai.operations as k where k.author = i.author and k.author_seq = o.seq)
            order by o.n);
        perform kerai_private.require_sent(ops);
        insert into kerai.operations (author, author_seq, lamport_ts, op_type, node_id, payload, changeset_id)
        select i.author, o.seq, i.first_lamport + o.seq - i.first_seq, o.op, coalesce(o.node, o.source), o.payload, i.id
        from unnest(ops) as o
        inner join (
            select row_number() over () as c, u.id, u.author, u.first_seq, u.first_lamport from unnest(items) as u
        ) as i on i.c = o.c;
        perform kerai_private.merge_operations(ops, alone => true);
    end loop;

    delete from kerai_private.late_changesets;
    update kerai_private.scope_nodes set state = 'whole' where state = 'late';
    update kerai_private.partial_scope set whole = named, late_after = 0;
end
$$;

comment on function kerai.merge_late() is
'A part of kerai.sync in a partial instance: merges what older changesets say of the nodes that have come into the scope.';

create or replace function kerai.accept_scoped(
    ids bytea[], authors text[], first_seqs bigint[], last_seqs bigint[], first_lamports bigint[], prevs bytea[],
    bases jsonb[], documents json[], signatures bytea[], public_keys bytea[], out merged int, out applied bigint
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    given kerai_private.incoming[];
    items kerai_private.checked[];
    run kerai_private.checked[];
    ops kerai_private.operation[];
    item kerai_private.checked;
    head kerai_private.authors;
    done int := 0;
    good int;
begin
    merged := 0;
    applied := 0;
    perform kerai_private.renew_plans();
    given := array(
        select row(g.document, g.signature, g.public_key)::kerai_private.incoming
        from unnest(documents, signatures, public_keys) with ordinality as g (document, signature, public_key, n)
        where g.document is not null
        order by g.n);
    if cardinality(given) > 0 then
        items := kerai_private.look_at(given, judge => false);
    end if;
    items := kerai_private.with_stubs(items, ids, authors, first_seqs, last_seqs, first_lamports, prevs, bases, documents,
        signatures, public_keys);
    items := kerai_private.enter(items, alone => true);

    while done < cardinality(items) loop
        run := kerai_private.next_run(items, done, judge => false);
        good := 0;
        if cardinality(run) > 1 then
            good := kerai_private.count_good(run, '{}', judge => false);
        end if;
        if good = 0 then
            item := items[done + 1];
            done := done + 1;
            continue when exists (select from kerai.changesets as c where c.id = item.id);
            select a.* into head from kerai_private.authors as a where a.author = item.author;
            perform kerai_private.require_succession(item, head);
            perform kerai_private.require_covered(item.base);
            perform kerai_private.require_lamport(item.first_lamport, item.base, head.lamport);
            run := array[item];
        else
            run := run[1:good];
            done := done + good;
        end if;
        ops := kerai_private.of_scope(coalesce(kerai_private.unpack_operations(run), '{}'));
        perform kerai_private.require_sent(ops);
        perform kerai_private.take_in(run, ops, alone => true);
        merged := merged + cardinality(run);
        applied := applied + cardinality(ops);
    end loop;
end
$$;

comment on function kerai.accept_scoped(bytea[], text[], bigint[], bigint[], bigint[], bytea[], jsonb[], json[], bytea[], bytea[]) is
'A part of kerai.sync in a partial instance: merges a page of changesets, of those without a document only their place in the history.';

-- A page's items in their order: those with a document as they were looked at, the others as the peer says.
create or replace function kerai_private.with_stubs(
    items kerai_private.checked[], ids bytea[], authors text[], first_seqs bigint[], last_seqs bigint[],
    first_lamports bigint[], prevs bytea[], bases jsonb[], documents json[], signatures bytea[], public_keys bytea[]
) returns kerai_private.checked[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    bad text;
    most constant bigint := 999999999999999999;
begin
    select g.author into bad
    from unnest(ids, authors, first_seqs, last_seqs, first_lamports, signatures, public_keys, documents)
        as g (id, author, first_seq, last_seq, first_lamport, signature, public_key, document)
    where g.document is null and not coalesce(octet_length(g.id) = 32 and octet_length(g.signature) = 64
        and octet_length(g.public_key) = 32 and octet_length(g.author) <= 220
        and right(g.author, 16) = left(encode(sha256(g.public_key), 'hex'), 16)
        and g.first_seq between 1 and g.last_seq and g.last_seq <= most
        and g.first_lamport between 1 and most, false)
    limit 1;
    if found then
        perform kerai_private.refuse('KR005', 'the peer sends a stub that is none', format('author: %s', left(bad, 220)),
            'kerai.verify() on the peer says whether it is damaged.');
    end if;
    perform kerai_private.checked_vector(b) from unnest(bases, documents) as g (b, document) where g.document is null;
    return array(
        select case when g.document is null then row(
            g.id, g.author, g.first_seq, g.last_seq, g.first_lamport, g.first_lamport + g.last_seq - g.first_seq, g.prev,
            g.base, null, null, null, '[]', null, g.signature, g.public_key, null, null, null,
            null, null)::kerai_private.checked
            else items[count(g.document) over (order by g.n)] end
        from unnest(ids, authors, first_seqs, last_seqs, first_lamports, prevs, bases, documents, signatures, public_keys)
            with ordinality as g (id, author, first_seq, last_seq, first_lamport, prev, base, document, signature, public_key, n)
        order by g.n);
end
$$;

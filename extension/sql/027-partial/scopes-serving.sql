-- Scopes, served: what a peer of partial instances (scopes.sql) keeps and sends. Of each scope it has a list of
-- the nodes, numbered as they came into it.

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

create or replace function kerai_sync.serve_scope(scope uuid, out served uuid, out vector jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_variable
declare
    list kerai_private.served_scopes;
    number bigint;
begin
    perform kerai_private.require_primary();
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

comment on function kerai_sync.serve_scope(uuid) is
'A part of kerai.sync with a partial instance: brings the list of a scope''s nodes up to the vector that it returns, with the list''s id.';

-- Refuses KR011 on a standby: the lists are unlogged, and not there.
create or replace function kerai_private.require_primary() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_is_in_recovery() then
        perform kerai_private.refuse('KR011', 'a standby serves no scopes', 'It has no lists of their nodes.',
            'Ask the primary.');
    end if;
end
$$;

-- The scope that a list is of. Refuses KR011 when the list is no longer there: an empty one would say that nothing
-- concerns the scope.
create or replace function kerai_private.scope_of_list(served uuid) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_scope uuid;
begin
    perform kerai_private.require_primary();
    select s.scope into found_scope from kerai_private.served_scopes as s where s.id = served;
    if not found then
        perform kerai_private.refuse('KR011', 'the list of this scope is no longer here', format('list: %s', served),
            'Pull again: it is made anew.');
    end if;
    return found_scope;
end
$$;

create or replace function kerai_sync.scope_members(served uuid, after bigint, max_rows int)
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

comment on function kerai_sync.scope_members(uuid, bigint, int) is
'A part of kerai.sync with a partial instance: the nodes of a served scope by their numbers. A node gets a new number when it comes to lie inside.';

-- What a vector has seen and says something of nodes that came into the scope after that.
create or replace function kerai_sync.scope_backfill(
    served uuid, vector jsonb, after bigint, after_arrival bigint, max_ops int
)
returns table (arrival bigint, changeset_id bytea, document json, signature bytea, public_key bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
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

comment on function kerai_sync.scope_backfill(uuid, jsonb, bigint, bigint, int) is
'A part of kerai.sync with a partial instance: the changesets that it has seen and that concern nodes which came into its scope later.';

create or replace function kerai_sync.scope_page(served uuid, vector jsonb, up_to jsonb, max_ops int)
returns table (
    changeset_id bytea, author text, first_seq bigint, last_seq bigint, first_lamport bigint, prev bytea, base jsonb,
    document json, signature bytea, public_key bytea
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
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

comment on function kerai_sync.scope_page(uuid, jsonb, jsonb, int) is
'A part of kerai.sync with a partial instance: changesets that a vector has not seen, up to another. The document is left out when no operation is on a node of the scope.';

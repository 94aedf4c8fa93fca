-- Partial instances: what the merge does where an instance holds one subtree only. See 027-partial/scopes.sql.

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

-- Of the peer's changesets the operations that are merged here. A node that was made here may have been placed
-- elsewhere before, below a node that is not here. It waits until the peer has counted it in, and all that concerns it
-- is backfilled.
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
        where coalesce(o.node, o.source) in (select s.node_id from kerai_private.scope_nodes as s where s.state = 'complete'));
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
    select i.node, true, 'local' from inside as i
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

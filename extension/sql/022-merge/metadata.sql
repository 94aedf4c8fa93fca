-- Metadata: a register a key, and how many of them a node may have.

-- In a node's metadata null means that there is no such key.
create or replace function kerai_private.without_nulls(metadata jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(e.key, e.value), '{}')
    from jsonb_each(without_nulls.metadata) as e
    where e.value <> 'null'
$$;

-- A node's metadata when another insert turns out to be the one that counts: keys that were written since stay.
create or replace function kerai_private.rebase_metadata(current jsonb, stamps jsonb, inserted jsonb) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    stored constant jsonb := coalesce(stamps, '{}') || '{}';
begin
    return (
        select coalesce(jsonb_object_agg(e.key, e.value), '{}')
        from (
            select i.key, i.value from jsonb_each(inserted) as i where i.value <> 'null' and not stored ? i.key
            union all
            select c.key, c.value from jsonb_each(current) as c where stored ? c.key
        ) as e);
end
$$;

-- A node's metadata and its stamps after some keys were written: (metadata, stamps) of each key whose stamp is later.
-- The || '{}' fetches a stored value once, not at every look at it.
create or replace function kerai_private.merge_metadata(
    current jsonb, stamps jsonb, created text, written jsonb, written_stamps jsonb,
    out metadata jsonb, out metadata_stamps jsonb
)
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    stored constant jsonb := coalesce(stamps, '{}') || '{}';
begin
    select coalesce(current, '{}') || coalesce(jsonb_object_agg(w.key, w.value), '{}'),
        stored || coalesce(jsonb_object_agg(w.key, written_stamps -> w.key), '{}')
    into metadata, metadata_stamps
    from jsonb_each(written) as w
    where written_stamps ->> w.key > coalesce(stored ->> w.key, created) collate "C";
    metadata := kerai_private.without_nulls(metadata);
end
$$;

-- A node that would have more metadata than one may have, and than it has; and the first changeset of a batch that
-- names it. NULL when there is none. Asked where a changeset is pushed first: what has been merged once is merged
-- everywhere.
create or replace function kerai_private.overfull_metadata(
    ops kerai_private.operation[], out c int, out node uuid, out keys bigint, out bytes bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    full_nodes uuid[];
    full_keys bigint[];
    full_bytes bigint[];
begin
    if not exists (
        select from (select unnest(ops) as o) as u where (u.o).op = 'node_update' and (u.o).metadata <> '{}') then
        return;
    end if;
    select array_agg(w.node), array_agg(k.keys), array_agg(k.bytes) into full_nodes, full_keys, full_bytes
    from (
        select l.node, jsonb_object_agg(l.key, l.value) as written
        from (
            select distinct on (o.node, e.key collate "C") o.node, e.key, e.value
            from unnest(ops) as o
            cross join lateral jsonb_each(o.metadata) as e
            where o.op in ('node_insert', 'node_update')
            order by o.node, e.key collate "C", o.n desc
        ) as l
        group by l.node
    ) as w
    left join lateral (
        select n.metadata, n.metadata_stamps from kerai.nodes as n where n.id = w.node offset 0
    ) as n on true
    cross join lateral (
        select (
            select count(*)
            from jsonb_object_keys(coalesce(n.metadata, '{}') || coalesce(n.metadata_stamps, '{}') || w.written)
        ) as keys, octet_length((coalesce(n.metadata, '{}') || w.written)::text) as bytes
        offset 0
    ) as k
    -- What grows nothing is no matter of limits: another instance, or an earlier limit, may have let in more.
    where k.keys > kerai_private.setting('max_metadata_keys') and k.keys > (
        select count(*) from jsonb_object_keys(coalesce(n.metadata, '{}') || coalesce(n.metadata_stamps, '{}'))
    ) or k.bytes > kerai_private.setting('max_metadata_bytes')
        and octet_length(kerai_private.without_nulls(coalesce(n.metadata, '{}') || w.written)::text)
        > greatest(kerai_private.setting('max_metadata_bytes'), octet_length(n.metadata::text));

    select o.c, o.node, full_keys[array_position(full_nodes, o.node)], full_bytes[array_position(full_nodes, o.node)]
    into c, node, keys, bytes
    from unnest(ops) as o
    where o.node = any(full_nodes)
    order by o.c
    limit 1;
end
$$;

-- Refuses KR005 when a node would have more metadata than one may have.
create or replace function kerai_private.require_metadata_bound(ops kerai_private.operation[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_node record;
begin
    select f.* into found_node from kerai_private.overfull_metadata(ops) as f where f.node is not null;
    if found then
        perform kerai_private.refuse('KR005', 'a node would have too much metadata',
            format('node: %s, keys: %s of %s, removed ones too, bytes: %s of %s', found_node.node, found_node.keys,
                kerai_private.setting('max_metadata_keys'), found_node.bytes, kerai_private.setting('max_metadata_bytes')),
            'Insert nodes of their own for what keeps growing, or have an operator raise max_metadata_keys or '
            || 'max_metadata_bytes in kerai.settings.');
    end if;
end
$$;

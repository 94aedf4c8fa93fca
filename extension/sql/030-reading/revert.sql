-- Revert: the operations that undo a changeset, as far as nobody has written over it since.
--
-- Every register that still holds what the changeset wrote goes back to what it would hold without it: the last of the
-- other writes, or what the insert gave it. An inserted node is deleted, with all that has come to lie below it.

create or replace function kerai.revert_ops(changeset bytea, author text default null) returns json
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    undone constant kerai.changesets := kerai_private.whole_changeset(changeset);
    hosted text;
    ops json;
begin
    select a.author into hosted from kerai.agents as a
    where a.hosted and a.owner = any(kerai_private.own_owners())
        and a.name = coalesce(nullif(current_setting('kerai.agent', true), ''), a.name)
    order by a.created_at desc, a.name limit 1;

    select json_agg(u.op order by u.part, u.seq desc, u.op ->> 'node') into ops
    from (
        select 0 as part, r.seq, r.op
        from kerai_private.relations_back(undone, coalesce(revert_ops.author, hosted)) as r
        union all
        select n.part, n.seq, n.op from kerai_private.nodes_back(undone) as n
    ) as u;
    if ops is null then
        perform kerai_private.refuse('KR011', 'there is nothing left to undo',
            format('changeset: %s', encode(changeset, 'hex')),
            'Later changesets have written over all of it, or it was undone before; or only its own author may undo it.');
    end if;
    return ops;
end
$$;

comment on function kerai.revert_ops(bytea, text) is
'The operations that undo a changeset. Every register that still holds what it wrote goes back to the last other write. Its inserted nodes are deleted, its deleted nodes are restored, and what others have written since stays. Push them: SELECT kerai.push_ops(kerai.revert_ops(id)). Perspectives and associations are their author''s own and are undone for him alone: for author, by default your hosted agent.';

-- A changeset of which all operations are here.
create or replace function kerai_private.whole_changeset(changeset bytea) returns kerai.changesets
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    item kerai.changesets;
begin
    select c.* into item from kerai.changesets as c where c.id = changeset;
    if not found then
        perform kerai_private.refuse('KR006', 'no such changeset',
            format('changeset: %s', coalesce(encode(changeset, 'hex'), 'null')), 'SELECT * FROM kerai.log() shows them.');
    end if;
    if (select count(*) from kerai.operations as o
        where o.author = item.author and o.author_seq between item.first_seq and item.last_seq)
        < item.last_seq - item.first_seq + 1 then
        perform kerai_private.refuse_partial('only a part of this changeset concerns the scope',
            'Revert it where the whole tree is.');
    end if;
    return item;
end
$$;

-- What undoes a changeset's operations on relations, of which the latest write is its own: the latest of the others, if
-- there is one. Views are their author's own: only he, the viewer, can take them back.
create or replace function kerai_private.relations_back(undone kerai.changesets, viewer text)
returns table (seq bigint, op jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select r.seq, coalesce(o.payload, r.undo) as op
    from (
        select w.author_seq as seq, w.node_id, w.payload,
            (w.payload - '{metadata,weight,reasoning}'::text[])
                || jsonb_build_object('op', split_part(w.op_type, '_', 1) || '_delete') as undo,
            split_part(w.op_type, '_', 1) as what
        from (
            select o.author_seq, o.op_type, o.node_id, o.payload
            from kerai.operations as o
            where o.author = undone.author and o.author_seq between undone.first_seq and undone.last_seq
                and o.op_type not like 'node%'
        ) as w
        left join kerai.edges as e
            on w.op_type like 'edge%' and e.source = w.node_id and e.target = (w.payload ->> 'target')::uuid
            and e.relation = w.payload ->> 'relation'
        left join kerai.perspectives as p
            on w.op_type like 'perspective%' and p.author = undone.author and p.node_id = w.node_id
            and p.context_id is not distinct from (w.payload ->> 'context')::uuid
        left join kerai.associations as a
            on w.op_type like 'association%' and a.author = undone.author and a.source = w.node_id
            and a.target = (w.payload ->> 'target')::uuid and a.relation = w.payload ->> 'relation'
        where kerai_private.stamp(undone.first_lamport + w.author_seq - undone.first_seq, undone.author)
                = coalesce(e.stamp, p.stamp, a.stamp)
            and (w.op_type like 'edge%' or undone.author = viewer)
    ) as r
    left join lateral (
        select o.payload from kerai.operations as o
        where o.node_id = r.node_id and o.op_type like r.what || '%' and o.changeset_id <> undone.id
            and (r.what = 'edge' or o.author = undone.author)
            and (o.payload ->> 'target')::uuid is not distinct from (r.payload ->> 'target')::uuid
            and (o.payload ->> 'relation') is not distinct from (r.payload ->> 'relation')
            and (o.payload ->> 'context')::uuid is not distinct from (r.payload ->> 'context')::uuid
        order by o.lamport_ts desc, o.author desc limit 1
    ) as o on true
    where coalesce(o.payload, r.undo) <> r.payload
        and not (coalesce(o.payload, r.undo) ->> 'op' like '%delete' and r.payload ->> 'op' like '%delete');
end
$$;

-- What undoes its operations on nodes. Three parts, in this order: fields and metadata, places, tombstones.
create or replace function kerai_private.nodes_back(undone kerai.changesets)
returns table (part int, seq bigint, op jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    -- The stamps that are the changeset's own lie between these two, and end in its author.
    first_stamp constant text collate "C" := kerai_private.stamp(undone.first_lamport, undone.author);
    last_stamp constant text collate "C" := kerai_private.stamp(undone.last_lamport, undone.author);
begin
    return query
    with touched as materialized (
        select o.node_id as id, max(o.author_seq) as seq
        from kerai.operations as o
        where o.author = undone.author and o.author_seq between undone.first_seq and undone.last_seq
        group by o.node_id
        having bool_or(o.op_type like 'node%')
    ),

    -- What is theirs now, and what it would be without the changeset. No row in w: nobody else inserted it.
    current as materialized (
        select n.id, t.seq, n.parent_id, n.position, n.deleted, w.id is not null as has_other,
            w.parent_id as insert_parent, w.position as insert_position, coalesce(w.deleted, true) as old_deleted,
            x.placed, x.deleted as deleted_mine, m.metadata,
            kerai_private.field_back('kind', x.kind, n.kind, w.kind)
            || kerai_private.field_back('name', x.name, n.name, w.name)
            || kerai_private.field_back('language', x.language, n.language, w.language)
            || kerai_private.field_back('content', x.content, n.content, w.content) as fields
        from touched as t
        inner join kerai.nodes as n on n.id = t.id
        left join kerai_private.replay_nodes(null, array(select t.id from touched as t), undone.id) as w on w.id = t.id
        cross join lateral (
            select kerai_private.is_between(coalesce(n.placed_stamp, n.created_stamp), first_stamp, last_stamp) as placed,
                kerai_private.is_between(coalesce(n.kind_stamp, n.created_stamp), first_stamp, last_stamp) as kind,
                kerai_private.is_between(coalesce(n.name_stamp, n.created_stamp), first_stamp, last_stamp) as name,
                kerai_private.is_between(coalesce(n.language_stamp, n.created_stamp), first_stamp, last_stamp) as language,
                kerai_private.is_between(coalesce(n.content_stamp, n.created_stamp), first_stamp, last_stamp) as content,
                kerai_private.is_between(coalesce(n.deleted_stamp, n.created_stamp), first_stamp, last_stamp) as deleted
        ) as x
        left join lateral (
            select jsonb_object_agg(k.key, w.metadata -> k.key) as metadata
            from (
                select o.key from jsonb_object_keys(n.metadata) as o (key)
                union
                select o.key from jsonb_object_keys(w.metadata) as o (key)
            ) as k
            where n.metadata <> w.metadata and (n.metadata -> k.key) is distinct from (w.metadata -> k.key)
                and kerai_private.is_between(
                    coalesce(n.metadata_stamps ->> k.key, n.created_stamp), first_stamp, last_stamp)
        ) as m on true
    ),

    -- The last to be moved is the first to go back, as in taking things off a pile.
    places as (
        select c.seq, c.id, p.parent_id, p.position
        from current as c
        cross join lateral (
            select * from (
                (select m.parent_id, m.position::text, 0 from kerai_private.moves as m
                where m.node_id = c.id and not m.void and not kerai_private.is_between(m.stamp, first_stamp, last_stamp)
                order by m.stamp desc limit 1)
                union all
                select c.insert_parent, c.insert_position, 1
            ) as p (parent_id, "position", turn)
            order by p.turn limit 1
        ) as p
        where c.has_other and c.placed and (c.parent_id, c.position) is distinct from (p.parent_id, p.position)
    )

    select 1, 0::bigint, jsonb_build_object('op', 'node_update', 'node', c.id)
        || case when c.fields <> '{}' then jsonb_build_object('set', c.fields) else '{}' end
        || case when c.metadata is not null then jsonb_build_object('metadata', c.metadata) else '{}' end
    from current as c
    where c.has_other and (c.fields <> '{}' or c.metadata is not null)
    union all
    select 2, p.seq, jsonb_build_object('op', 'node_move', 'node', p.id, 'parent', p.parent_id, 'position', p.position)
    from places as p
    union all
    select 3, 0, jsonb_build_object('op', case when c.deleted then 'node_restore' else 'node_delete' end, 'node', c.id)
    from current as c
    where c.deleted_mine and c.deleted <> c.old_deleted;
end
$$;

-- A field that goes back to its old value, if a changeset wrote what it holds now. Inlined.
create or replace function kerai_private.field_back(field text, is_mine boolean, value text, old_value text)
returns jsonb
language sql immutable parallel safe
return case when is_mine and value is distinct from old_value then jsonb_build_object(field, old_value) else '{}' end;

-- Whether a stamp is one of an author's run of stamps.
create or replace function kerai_private.is_between(stamp text, first_stamp text, last_stamp text) returns boolean
language sql immutable parallel safe
return kerai_private.stamp_author(stamp) = kerai_private.stamp_author(first_stamp)
    and stamp collate "C" >= first_stamp and stamp collate "C" <= last_stamp;

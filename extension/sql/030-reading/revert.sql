-- Revert: the operations that undo a changeset, as far as nobody has written over it since.
--
-- Every register that still holds what the changeset wrote goes back to what it would hold without it: the last of the
-- other writes, or what the insert gave it. An inserted node is deleted, with all that has come to lie below it.

create or replace function kerai.revert_ops(changeset bytea, author text default null) returns json
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    undone kerai.changesets;
    -- The stamps that are the changeset's own lie between these two, and end in its author.
    first_stamp text collate "C";
    last_stamp text collate "C";
    nodes uuid[];
    hosted text;
    ops json;
begin
    select c.* into undone from kerai.changesets as c where c.id = changeset;
    if not found then
        perform kerai_private.refuse('KR006', 'no such changeset',
            format('changeset: %s', coalesce(encode(changeset, 'hex'), 'null')), 'SELECT * FROM kerai.log() shows them.');
    end if;
    if (select count(*) from kerai.operations as o
        where o.author = undone.author and o.author_seq between undone.first_seq and undone.last_seq)
        < undone.last_seq - undone.first_seq + 1 then
        perform kerai_private.refuse_partial('only a part of this changeset concerns the scope',
            'Revert it where the whole tree is.');
    end if;
    -- Views are their author's own: only he can take them back.
    select a.author into hosted from kerai.agents as a
    where a.hosted and a.owner = any(kerai_private.own_owners())
        and a.name = coalesce(nullif(current_setting('kerai.agent', true), ''), a.name)
    order by a.created_at desc, a.name limit 1;
    first_stamp := kerai_private.stamp(undone.first_lamport, undone.author);
    last_stamp := kerai_private.stamp(undone.last_lamport, undone.author);

    with written as materialized (
        select o.author_seq, o.op_type, o.node_id, o.payload
        from kerai.operations as o
        where o.author = undone.author and o.author_seq between undone.first_seq and undone.last_seq
    ),

    touched as materialized (
        select distinct w.node_id as id from written as w where w.op_type like 'node%'
    ),

    -- What is theirs now, and what it would be without the changeset. No row in without: nobody else inserted it.
    current as materialized (
        select n.*, w.id is not null as has_other, w.kind as old_kind, w.name as old_name, w.language as old_language,
            w.content as old_content, w.metadata as old_metadata, w.deleted as old_deleted,
            w.parent_id as insert_parent, w.position as insert_position,
            x.created, x.placed, x.kind as kind_mine, x.name as name_mine, x.language as language_mine,
            x.content as content_mine, x.deleted as deleted_mine
        from touched as t
        inner join kerai.nodes as n on n.id = t.id
        left join kerai_private.replay_nodes(null, array(select t.id from touched as t), undone.id) as w on w.id = t.id
        cross join lateral (
            select kerai_private.is_between(n.created_stamp, first_stamp, last_stamp) as created,
                kerai_private.is_between(coalesce(n.placed_stamp, n.created_stamp), first_stamp, last_stamp) as placed,
                kerai_private.is_between(coalesce(n.kind_stamp, n.created_stamp), first_stamp, last_stamp) as kind,
                kerai_private.is_between(coalesce(n.name_stamp, n.created_stamp), first_stamp, last_stamp) as name,
                kerai_private.is_between(coalesce(n.language_stamp, n.created_stamp), first_stamp, last_stamp) as language,
                kerai_private.is_between(coalesce(n.content_stamp, n.created_stamp), first_stamp, last_stamp) as content,
                kerai_private.is_between(coalesce(n.deleted_stamp, n.created_stamp), first_stamp, last_stamp) as deleted
        ) as x
    ),

    fields as (
        select c.id, jsonb_object_agg(f.key, f.value) as set
        from current as c
        cross join lateral (values
            ('kind', c.kind_mine and c.kind is distinct from c.old_kind, to_jsonb(c.old_kind)),
            ('name', c.name_mine and c.name is distinct from c.old_name, to_jsonb(c.old_name)),
            ('language', c.language_mine and c.language is distinct from c.old_language, to_jsonb(c.old_language)),
            ('content', c.content_mine and c.content is distinct from c.old_content, to_jsonb(c.old_content))
        ) as f (key, applies, value)
        where c.has_other and f.applies
        group by c.id
    ),

    keys as (
        select c.id, jsonb_object_agg(k.key, c.old_metadata -> k.key) as metadata
        from current as c
        cross join lateral (
            select m.key from jsonb_object_keys(c.metadata) as m (key)
            union
            select m.key from jsonb_object_keys(c.old_metadata) as m (key)
        ) as k
        where c.has_other and (c.metadata -> k.key) is distinct from (c.old_metadata -> k.key)
            and kerai_private.is_between(
                coalesce(c.metadata_stamps ->> k.key, c.created_stamp), first_stamp, last_stamp)
        group by c.id
    ),

    -- Relations, of which the latest write is the changeset's: the latest of the others, if there is one.
    relations as (
        select r.seq, coalesce(o.payload, r.undo) as op
        from (
            select w.author_seq as seq, w.node_id, w.payload,
                (w.payload - '{metadata,weight,reasoning}'::text[])
                    || jsonb_build_object('op', split_part(w.op_type, '_', 1) || '_delete') as undo,
                split_part(w.op_type, '_', 1) as what
            from written as w
            left join kerai.edges as e
                on w.op_type like 'edge%' and e.source = w.node_id and e.target = (w.payload ->> 'target')::uuid
                and e.relation = w.payload ->> 'relation'
            left join kerai.perspectives as p
                on w.op_type like 'perspective%' and p.author = undone.author and p.node_id = w.node_id
                and p.context_id is not distinct from (w.payload ->> 'context')::uuid
            left join kerai.associations as a
                on w.op_type like 'association%' and a.author = undone.author and a.source = w.node_id
                and a.target = (w.payload ->> 'target')::uuid and a.relation = w.payload ->> 'relation'
            where w.op_type not like 'node%'
                and kerai_private.stamp(undone.first_lamport + w.author_seq - undone.first_seq, undone.author)
                    = coalesce(e.stamp, p.stamp, a.stamp)
                and (w.op_type like 'edge%' or undone.author = coalesce(revert_ops.author, hosted))
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
            and not (coalesce(o.payload, r.undo) ->> 'op' like '%delete' and r.payload ->> 'op' like '%delete')
    ),

    -- The last to be moved is the first to go back, as in taking things off a pile.
    places as (
        select w.seq, c.id, p.parent_id, p.position
        from current as c
        cross join lateral (select max(w.author_seq) as seq from written as w where w.node_id = c.id) as w
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
    ),

    undo as (
        select 0 as part, r.seq, r.op from relations as r
        union all
        select 1, 0, jsonb_build_object('op', 'node_update', 'node', c.id)
            || case when f.set is not null then jsonb_build_object('set', f.set) else '{}' end
            || case when k.metadata is not null then jsonb_build_object('metadata', k.metadata) else '{}' end
        from current as c
        left join fields as f on f.id = c.id
        left join keys as k on k.id = c.id
        where f.set is not null or k.metadata is not null
        union all
        select 2, p.seq, jsonb_build_object('op', 'node_move', 'node', p.id, 'parent', p.parent_id, 'position', p.position)
        from places as p
        union all
        select 3, 0, jsonb_build_object('op', case when c.deleted then 'node_restore' else 'node_delete' end, 'node', c.id)
        from current as c
        where c.deleted_mine and c.deleted <> coalesce(c.old_deleted, true)
    )

    select json_agg(u.op order by u.part, u.seq desc, u.op ->> 'node') into ops from undo as u;
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

-- Whether a stamp is one of an author's run of stamps.
create or replace function kerai_private.is_between(stamp text, first_stamp text, last_stamp text) returns boolean
language sql immutable parallel safe
return kerai_private.stamp_author(stamp) = kerai_private.stamp_author(first_stamp)
    and stamp collate "C" >= first_stamp and stamp collate "C" <= last_stamp;

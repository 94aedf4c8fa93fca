-- Rebuilding: the log, the tree and the vector made anew from the changesets.

-- Waits for the pushes that are under way, and keeps others waiting until the transaction ends: in the order in which
-- pushes take their locks. No reader needs these locks, so readers and dumps neither wait nor are waited for. What the
-- caller has read before may be out of date afterwards.
create or replace function kerai_private.stop_pushes() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '30s'
as $$
begin
    perform kerai_private.bound_lock_waits();
    lock table kerai_private.authors in exclusive mode;
    perform kerai_private.lock_tree(exclusive => true);
    perform kerai_private.show_change();
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'a push is in the way', sqlerrm,
        'Somebody holds a transaction open in which he has pushed: pg_stat_activity shows it. Then call this again.');
end
$$;

-- Refuses KR011 when the changesets themselves are not sound: what would be made from them would not be, either.
create or replace function kerai_private.require_sound_changesets(wrong bytea[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    bad text;
begin
    with document as materialized (select d.id, d.subject, d.problem from kerai_private.verify_documents() as d)

    select string_agg(p.problem, '; ') into bad
    from (
        select format('%s: %s', d.subject, d.problem) as problem from document as d
        union all
        select format('%s: the key of its author %s is missing or another', encode(c.id, 'hex'), c.author)
        from kerai_private.true_changesets(wrong) as c
        where c.id not in (select d.id from document as d) and not exists (
            select from kerai_private.authors as a
            where a.author = c.author and right(a.author, 16) = left(encode(sha256(a.public_key), 'hex'), 16))
        union all
        select format('%s: %s', v.subject, v.problem) from kerai_private.verify_chains(wrong) as v
        union all
        select 'the operations that the last compaction has left are not what they were'
        from (select x.* from kerai.compactions as x order by x.id desc limit 1) as x
        where x.kept_digest <> kerai_private.kept_digest(x.floor)
        limit 5
    ) as p;
    if bad is not null then
        perform kerai_private.refuse('KR011', 'the changesets themselves are damaged', bad,
            'SELECT * FROM kerai.verify(false) names all of them. Get them back from a peer or a backup first.');
    end if;
end
$$;

-- The changesets' rows from their documents.
create or replace function kerai_private.restore_rows(wrong bytea[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    update kerai.changesets as c
    set author = t.author, first_seq = t.first_seq, last_seq = t.last_seq, first_lamport = t.first_lamport,
        last_lamport = t.last_lamport, prev = t.prev, base = t.base, guard = (b.body ->> 'guard')::uuid,
        task_id = (b.body ->> 'task')::uuid, message = b.body ->> 'message', member = c.document -> 'draft' ->> 'author',
        member_signature = decode(c.document ->> 'member_signature', 'hex'),
        draft_id = sha256(convert_to((c.document -> 'draft')::text, 'UTF8'))
    from kerai_private.true_changesets(wrong) as t
    inner join (
        select x.id, kerai_private.signed_body(x.document::jsonb) as body from kerai.changesets as x where x.id = any(wrong)
    ) as b on b.id = t.id
    where t.id = c.id
$$;

-- The state below the floor of a compaction, from the operations that were kept: which moves count was decided then.
create or replace function kerai_private.restore_floor(floor text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into kerai_private.moves (stamp, node_id, parent_id, position)
    select l.stamp, l.node_id, (l.payload ->> 'parent')::uuid, l.payload ->> 'position'
    from kerai_private.true_log('{node_move}', '{}', floor) as l;

    insert into kerai.nodes (
        id, parent_id, position, kind, name, language, content, path, metadata, deleted, created_stamp, created_seq,
        placed_stamp, kind_stamp, name_stamp, language_stamp, content_stamp, metadata_stamps, deleted_stamp,
        created_parent_id, created_position)
    select n.id, n.parent_id, n.position, n.kind, n.name, n.language, n.content, ''::text::kerai_private.path, n.metadata,
        n.deleted, n.created_stamp, n.created_seq, n.placed_stamp, n.kind_stamp, n.name_stamp, n.language_stamp,
        n.content_stamp, n.metadata_stamps, n.deleted_stamp, n.created_parent_id, n.created_position
    from kerai_private.nodes_of_log('{}', floor) as n;
    with recursive walk (id, path) as (
        select n.id, kerai_private.path_below('', n.name) from kerai.nodes as n where n.parent_id is null
        union all
        select n.id, kerai_private.path_below(w.path, n.name)
        from walk as w inner join kerai.nodes as n on n.parent_id = w.id
    )

    update kerai.nodes as n
    set path = w.path::kerai_private.path
    from walk as w
    where n.id = w.id and w.path <> '';

    with relations as materialized (select r.* from kerai_private.relations_of_log('{}', floor) as r),

    edges as (
        insert into kerai.edges (source, target, relation, metadata, deleted, stamp)
        select r.source, r.target, r.relation, r.metadata, r.deleted, r.stamp from relations as r where r.what = 'edge'
    ),

    perspectives as (
        insert into kerai.perspectives (author, node_id, context_id, weight, reasoning, deleted, stamp)
        select r.author, r.source, r.target, r.weight, r.reasoning, r.deleted, r.stamp
        from relations as r where r.what = 'perspective'
    )

    insert into kerai.associations (author, source, target, relation, weight, reasoning, deleted, stamp)
    select r.author, r.source, r.target, r.relation, r.weight, r.reasoning, r.deleted, r.stamp
    from relations as r where r.what = 'association';
end
$$;

-- The next changesets in the order of arrival, with the operations that have to be merged: of a stub those that are not
-- below the floor, from the log.
create or replace function kerai_private.next_page(
    floor bigint, inout arrival bigint, out items kerai_private.verified_changeset[]
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select max(p.arrival), array_agg(row(
        p.id, p.author, p.last_seq - o.given + 1, p.last_seq, p.last_lamport - o.given + 1, p.last_lamport,
        null, null, null, null, null, o.ops, p.document, null, null, null, p.member, null, null, null
    )::kerai_private.verified_changeset order by p.arrival)
    from (
        select c.*, sum(c.last_seq - c.first_seq + 1) over (order by c.arrival) as running,
            row_number() over (order by c.arrival) as n
        from (
            select x.* from kerai.changesets as x
            where x.arrival > next_page.arrival and (x.document is not null or x.last_lamport >= floor)
            order by x.arrival limit 1000
        ) as c
    ) as p
    cross join lateral (
        select case when p.document is not null then kerai_private.signed_body(p.document::jsonb) -> 'ops' else (
            select jsonb_agg(k.payload order by k.author_seq) from kerai.operations as k
            where k.author = p.author and k.author_seq between p.first_seq and p.last_seq and k.lamport_ts >= floor
        ) end as ops
        offset 0
    ) as b
    cross join lateral (select coalesce(b.ops, '[]') as ops, coalesce(jsonb_array_length(b.ops), 0) as given) as o
    where p.running <= kerai_private.most_at_once() or p.n = 1
$$;

-- Plans that are made while the tables are empty have to be right when they are full.
create or replace function kerai.rebuild()
returns table (changesets bigint, operations bigint, nodes bigint, digest text, changed boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
declare
    before text;
    wrong bytea[];
    last_floor text;
    page record;
    done bigint := 0;
    ops kerai_private.operation[];
begin
    perform kerai_private.stop_pushes();
    select c.floor into last_floor from kerai.compactions as c order by c.id desc limit 1;
    if exists (select from kerai_private.scope_nodes as s where s.state <> 'complete') then
        perform kerai_private.refuse_partial('nodes have come into the scope, and not all of what is said of them is here',
            'Sync until it is complete, then call this again.');
    end if;
    wrong := array(select v.id from kerai_private.verify_rows() as v where v.what = 'changeset');
    perform kerai_private.require_sound_changesets(wrong);
    perform kerai_private.restore_rows(wrong);
    before := kerai.state_digest();

    -- Not by TRUNCATE: it would wait for all who read, some of them in another order (a deadlock), and a dump that began
    -- before would find the tables empty.
    delete from kerai.nodes;
    delete from kerai.edges;
    delete from kerai.perspectives;
    delete from kerai.associations;
    delete from kerai_private.moves;
    if last_floor is null then
        delete from kerai.operations;
    else
        -- The kept part of a stub is nowhere else.
        delete from kerai.operations as o
        where not exists (
            select from kerai.changesets as c
            where c.id = o.changeset_id and c.document is null and c.author = o.author
                and o.author_seq between c.first_seq and c.last_seq);
        perform kerai_private.restore_floor(last_floor);
    end if;

    loop
        select n.arrival, n.items into page
        from kerai_private.next_page(coalesce(('x' || last_floor)::bit(64)::bigint, 0), done) as n;
        exit when page.items is null;
        done := page.arrival;
        ops := kerai_private.of_scope(kerai_private.unpack_operations(page.items));
        insert into kerai.operations
            (author, author_seq, lamport_ts, op_type, node_id, payload, changeset_id, created_at)
        select c.author, o.seq, c.first_lamport + o.seq - c.first_seq, o.op, coalesce(o.node, o.source), o.payload, c.id,
            c.received_at
        from unnest(ops) as o
        inner join (select row_number() over () as c, u.id from unnest(page.items) as u) as i on i.c = o.c
        inner join kerai.changesets as c on c.id = i.id
        where c.document is not null;
        perform kerai_private.merge_operations(ops, exclusive => true);
    end loop;

    update kerai_private.authors as a
    set seq = coalesce(h.last_seq, 0), lamport = coalesce(h.last_lamport, 0), changeset_id = h.id
    from (
        select x.author, h.*
        from kerai_private.authors as x
        left join lateral (
            select c.last_seq, c.last_lamport, c.id from kerai.changesets as c
            where c.author = x.author order by c.first_seq desc limit 1
        ) as h on true
    ) as h
    where h.author = a.author
        and (a.seq, a.lamport, a.changeset_id) is distinct from
        (coalesce(h.last_seq, 0), coalesce(h.last_lamport, 0), h.id);

    select count(*) into changesets from kerai.changesets as c;
    select count(*) into operations from kerai.operations as o;
    select count(*) into nodes from kerai.nodes as n;
    digest := kerai.state_digest();
    changed := digest <> before;
    return next;
end
$$;

comment on function kerai.rebuild() is
'Makes the log, the tree and the version vector anew from the signed changesets, in one transaction, and says what there is now; changed: the state was another one before. For when kerai.verify() finds the log or the tree damaged. Pushes wait until it has committed; readers see the state before it until then. VACUUM gives back the space of what was there before. Refused with KR011 when the changesets themselves, their signatures or their authors'' keys are damaged.';

-- Compaction: drops what nobody can need any more.
--
-- The horizon is everything that arrived before the first changeset that has to stay, so it is closed causally. Its
-- changesets lose their documents. The floor is the lowest Lamport timestamp beyond the horizon. Whatever vector is
-- read from now on, the operations below the floor are the first in its fold, and always the same ones. Their fold is
-- decided for good, moves included; of them only those stay that still determine a register.

-- sha256 over the operations below a floor, in 256 buckets, so that no value grows with the whole.
create or replace function kerai_private.kept_digest(floor text) returns bytea
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with rows as (
        select get_byte(uuid_send(o.node_id), 0) as bucket, sha256(convert_to(jsonb_build_array(
            o.author, o.author_seq, o.lamport_ts, o.op_type, o.node_id, o.payload)::text, 'UTF8')) as hash
        from kerai.operations as o
        where o.lamport_ts < ('x' || floor)::bit(64)::bigint
    ),

    buckets as (
        select r.bucket, sha256(string_agg(r.hash, '' order by r.hash)) as hash from rows as r group by r.bucket
    )

    select sha256(coalesce(string_agg(b.hash, '' order by b.bucket), '')) from buckets as b
$$;

-- The stamps of the operations below a floor that determine a register there.
create or replace function kerai_private.determining_stamps(floor text) returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select u.stamp
    from kerai_private.nodes_of_log('{}', floor) as n
    cross join lateral (
        select s.stamp
        from unnest(array[n.created_stamp, n.placed_stamp, n.kind_stamp, n.name_stamp, n.language_stamp,
            n.content_stamp, n.deleted_stamp]) as s (stamp)
        where s.stamp is not null
        union
        select m.value from jsonb_each_text(n.metadata_stamps) as m
    ) as u
    union all
    select r.stamp from kerai_private.relations_of_log('{}', floor) as r
$$;

-- Drops the operations below a floor that determine nothing, and the moves likewise.
create or replace function kerai_private.fold_below(
    floor text, out dropped bigint, out kept bigint, out bytes bigint
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    with wanted as materialized (
        select d.stamp from kerai_private.determining_stamps(floor) as d (stamp)
    ),

    gone as (
        delete from kerai.operations as o
        where o.lamport_ts < ('x' || floor)::bit(64)::bigint
            and not exists (
                select from wanted as w where w.stamp = lpad(to_hex(o.lamport_ts), 16, '0') || ':' || o.author)
        returning pg_column_size(o.*) as bytes
    )

    select count(*), coalesce(sum(g.bytes), 0) into fold_below.dropped, fold_below.bytes from gone as g;

    select count(*) into kept from kerai.operations as o where o.lamport_ts < ('x' || floor)::bit(64)::bigint;

    delete from kerai_private.moves as m
    where m.stamp < floor collate "C"
        and not exists (
            select from kerai.operations as o
            where o.author = kerai_private.stamp_author(m.stamp) and o.lamport_ts = ('x' || left(m.stamp, 16))::bit(64)::bigint);
end
$$;

create or replace function kerai.compact(before timestamptz) returns kerai.compactions
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
as $$
#variable_conflict use_variable
declare
    last kerai.compactions;
    done kerai.compactions;
    stable jsonb;
    cut bigint;
    bytes bigint;
begin
    if before is null then
        perform kerai_private.refuse('KR005', 'compaction needs a time', 'before: null',
            'Pass a time such as now() - interval ''90 days''.');
    end if;
    perform kerai_private.refuse_partial('a partial instance is not compacted', 'Make a new one: it is as small as its scope.');
    perform kerai_private.stop_pushes();
    -- What is wrong now could never be put right again.
    if exists (select from kerai_private.verify_layers(true)) then
        perform kerai_private.refuse('KR011', 'this instance is damaged',
            (select string_agg(format('%s %s: %s', p.what, p.subject, p.problem), '; ')
            from (select v.* from kerai_private.verify_layers(true) as v limit 3) as p),
            'SELECT * FROM kerai.verify() shows all of it; kerai.rebuild() may heal it. Then compact.');
    end if;
    select c.* into last from kerai.compactions as c order by c.id desc limit 1;
    stable := kerai.stable_vector();

    select min(c.arrival) into cut
    from kerai.changesets as c
    left join kerai_private.vector_entries(stable) as e on e.author = c.author
    where c.document is not null and (c.received_at >= before or c.last_seq > coalesce(e.seq, 0));

    select coalesce(jsonb_object_agg(h.author, h.seq), '{}') into done.horizon
    from (
        select c.author, max(c.last_seq) as seq from kerai.changesets as c
        where cut is null or c.arrival < cut group by c.author
    ) as h;
    select lpad(to_hex(coalesce(min(c.first_lamport) filter (where c.arrival >= cut), max(c.last_lamport) + 1, 1)), 16, '0')
    into done.floor
    from kerai.changesets as c;

    select count(*), coalesce(sum(pg_column_size(c.document)), 0) into done.changesets, bytes
    from kerai.changesets as c
    where c.document is not null and (cut is null or c.arrival < cut);
    if done.changesets = 0 and done.floor = coalesce(last.floor, done.floor) then
        -- Nothing has become old enough since.
        return last;
    end if;

    update kerai.changesets as c set document = null
    where c.document is not null and (cut is null or c.arrival < cut);
    select f.dropped, f.kept, f.bytes into done.operations_dropped, done.operations_kept, done.bytes_dropped
    from kerai_private.fold_below(done.floor) as f;

    insert into kerai.compactions as c
        (before, horizon, floor, changesets, operations_dropped, operations_kept, bytes_dropped, kept_digest)
    values (before, done.horizon, done.floor, done.changesets, done.operations_dropped, done.operations_kept,
        done.bytes_dropped + bytes, kerai_private.kept_digest(done.floor))
    returning c.* into done;
    return done;
end
$$;

comment on function kerai.compact(timestamptz) is
'Drops the documents of the changesets that arrived before a time and that all peers have (kerai.stable_vector()), and of their operations those that determine nothing any more. The state, its digest, the chains and signatures stay. No longer possible afterwards, and refused with KR011: reading or syncing from a vector that lacks what was dropped, and pushing on such a base. Returns what it did, a row of kerai.compactions: the one of the last time when nothing has become old enough since, NULL when nothing ever was. Pushes wait meanwhile; VACUUM gives the space back.';

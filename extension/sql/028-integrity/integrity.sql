-- Integrity: is each layer what the one below it says?
--
-- Changesets are judged by their hashes, signatures and chains; the log by the documents; the tree by a fold of the
-- log that has nothing in common with the merge. Where a layer is wrong, the next is compared with what it should be.

-- What differs, in one line: short values as they are, long ones by their beginning, size and hash.
create or replace function kerai_private.difference(part text, found text, wanted text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select format('%s is %s, should be %s', part, v.shown[1], v.shown[2])
    from (
        select array_agg(case
            when u.value is null then 'null'
            when length(u.value) <= 100 then quote_literal(u.value)
            else format('%s... (%s bytes, sha256 %s...)', quote_literal(left(u.value, 40)), octet_length(u.value),
                left(encode(sha256(convert_to(u.value, 'UTF8')), 'hex'), 12))
            end order by u.n) as shown
        from unnest(array[found, wanted]) with ordinality as u (value, n)
    ) as v
$$;

-- Hash and signature of each changeset whose document is here; of stubs, whether the author is.
create or replace function kerai_private.verify_documents()
returns table (id bytea, what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select c.id, 'changeset', encode(c.id, 'hex'), p.problem
    from kerai.changesets as c
    left join kerai_private.authors as a on a.author = coalesce(c.document ->> 'author', c.author)
    cross join lateral (
        select case
            when sha256(convert_to(c.document::text, 'UTF8')) <> c.id then
                'the document is not the one that was signed: its sha256 is another'
            when a.author is null then
                format('the key of its author %s is missing', coalesce(c.document ->> 'author', c.author))
            when c.document is null then null
            -- A wrong key is the author's problem, reported once.
            when right(a.author, 16) = left(encode(sha256(a.public_key), 'hex'), 16)
                and not kerai_private.verify_signature(c.document::text, c.signature, a.public_key) then
                'the signature does not verify'
            when d.draft is not null and (
                right(c.document -> 'draft' ->> 'author', 16)
                <> left(encode(sha256(decode(c.document ->> 'member_key', 'hex')), 'hex'), 16)
                or not kerai_private.verify_signature(d.draft, decode(c.document ->> 'member_signature', 'hex'),
                    decode(c.document ->> 'member_key', 'hex'))) then 'the member''s signature does not verify'
        end as problem
        from (select (c.document -> 'draft')::text as draft) as d
    ) as p
    where p.problem is not null
$$;

-- What each sound document says, against its row in kerai.changesets ('changeset') and in the log ('operation'). A
-- nested loop over operations of unknown number would take the square of a changeset's length.
create or replace function kerai_private.verify_rows()
returns table (id bytea, what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
set enable_mergejoin = off
as $$
    select c.id, p.what, p.subject, p.problem
    from kerai.changesets as c
    cross join lateral (
        select case when sha256(convert_to(c.document::text, 'UTF8')) = c.id then c.document::jsonb end as doc
        offset 0
    ) as d
    cross join lateral (
        select (d.doc ->> 'seq')::bigint as seq, (d.doc ->> 'lamport')::bigint as lamport, b.body,
            jsonb_array_length(b.body -> 'ops') as given
        from (select kerai_private.signed_body(d.doc) as body) as b
        offset 0
    ) as e
    cross join lateral (
        select 'changeset' as what, encode(c.id, 'hex') as subject,
            'the row says otherwise than the document: '
            || string_agg(kerai_private.difference(v.part, v.found, v.wanted), '; ') as problem
        from (values
            ('author', c.author, d.doc ->> 'author'),
            ('first_seq', c.first_seq::text, e.seq::text),
            ('last_seq', c.last_seq::text, (e.seq + e.given - 1)::text),
            ('first_lamport', c.first_lamport::text, e.lamport::text),
            ('last_lamport', c.last_lamport::text, (e.lamport + e.given - 1)::text),
            ('prev', encode(c.prev, 'hex'), d.doc ->> 'prev'),
            ('base', c.base::text, (e.body -> 'base')::text),
            ('guard', c.guard::text, lower(e.body ->> 'guard')),
            ('task_id', c.task_id::text, lower(e.body ->> 'task')),
            ('message', c.message, e.body ->> 'message'),
            ('member', c.member, d.doc -> 'draft' ->> 'author'),
            ('member_signature', encode(c.member_signature, 'hex'), d.doc ->> 'member_signature'),
            ('draft_id', encode(c.draft_id, 'hex'),
                encode(sha256(convert_to((c.document -> 'draft')::text, 'UTF8')), 'hex'))
        ) as v (part, found, wanted)
        where v.found is distinct from v.wanted
        having count(*) > 0
        union all
        select 'operation', format('%s %s', d.doc ->> 'author', w.seq),
            case
                when w.author is null then 'is not in the log'
                else 'the log says otherwise than the document: '
                    || kerai_private.difference(v.part, v.found, v.wanted)
            end || case when w.others > 0 then format('; so %s more of this changeset', w.others) else '' end
        from (
            select u.op, u.n, u.n + e.seq - 1 as seq, o.*, count(*) over () - 1 as others
            from jsonb_array_elements(e.body -> 'ops') with ordinality as u (op, n)
            left join (
                select o.* from kerai.operations as o
                where o.author = d.doc ->> 'author' and o.author_seq between e.seq and e.seq + e.given - 1
                offset 0
            ) as o on o.author_seq = u.n + e.seq - 1
            where (o.lamport_ts, o.changeset_id, o.op_type, o.node_id, o.payload) is distinct from (
                e.lamport + u.n - 1, c.id, u.op ->> 'op',
                coalesce(u.op ->> 'node', u.op ->> 'source')::uuid, u.op)
                -- A partial instance has merged what is said of its nodes only.
                and (o.author is not null or not kerai_private.is_partial()
                    or coalesce(u.op ->> 'node', u.op ->> 'source')::uuid in (
                        select s.node_id from kerai_private.scope_nodes as s where s.state = 'whole'))
            order by u.n
            limit 1
        ) as w
        left join lateral (
            select x.*
            from (values
                ('lamport_ts', w.lamport_ts::text, (e.lamport + w.n - 1)::text),
                ('op_type', w.op_type, w.op ->> 'op'),
                ('node_id', w.node_id::text, lower(coalesce(w.op ->> 'node', w.op ->> 'source'))),
                ('changeset_id', encode(w.changeset_id, 'hex'), encode(c.id, 'hex')),
                ('payload', w.payload::text, w.op::text)
            ) as x (part, found, wanted)
            where x.found is distinct from x.wanted
            limit 1
        ) as v on true
    ) as p
    where d.doc is not null
$$;

-- The changesets as they should be: those in `wrong` as their documents say, the others as their rows do.
create or replace function kerai_private.true_changesets(wrong bytea[])
returns table (
    id bytea, author text, first_seq bigint, last_seq bigint, first_lamport bigint, last_lamport bigint, prev bytea,
    base jsonb, arrival bigint
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select c.id, c.author, c.first_seq, c.last_seq, c.first_lamport, c.last_lamport, c.prev, c.base, c.arrival
    from kerai.changesets as c
    where c.id <> all(wrong)
    union all
    select c.id, d.doc ->> 'author', d.seq, d.seq + d.given - 1, d.lamport, d.lamport + d.given - 1,
        decode(d.doc ->> 'prev', 'hex'), kerai_private.signed_body(d.doc) -> 'base', c.arrival
    from kerai.changesets as c
    cross join lateral (
        select x.doc, (x.doc ->> 'seq')::bigint as seq, (x.doc ->> 'lamport')::bigint as lamport,
            jsonb_array_length(kerai_private.signed_body(x.doc) -> 'ops') as given
        from (select c.document::jsonb as doc) as x
    ) as d
    where c.id = any(wrong)
$$;

-- Each author's changesets follow one on the other, on what their bases name, and the clocks go with it. The order of
-- arrival has to be a causal one: syncing and rebuilding rely on it.
create or replace function kerai_private.verify_chains(wrong bytea[])
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with chain as materialized (
        select t.*,
            lag(t.id) over ahead as last_id,
            coalesce(lag(t.last_seq) over ahead, 0) as had_seq,
            coalesce(lag(t.last_lamport) over ahead, 0) as had_lamport,
            coalesce(lag(t.arrival) over ahead, 0) as had_arrival
        from kerai_private.true_changesets(wrong) as t
        window ahead as (partition by t.author order by t.first_seq, t.id)
    ),

    -- An entry of a base and the changeset that it names an operation of stand side by side when an author's entries
    -- and changesets are put in one order.
    named as (
        select m.id, m.author, m.seq, m.is_entry,
            max(m.place) over (partition by m.author order by m.seq range unbounded preceding) as place
        from (
            select c.id, e.key as author, e.value::bigint as seq, true as is_entry, null::bigint[] as place
            from chain as c
            cross join lateral jsonb_each_text(c.base) as e
            where e.value <> '0'
            union all
            select c.id, c.author, c.first_seq, false, array[c.first_seq, c.last_seq, c.first_lamport, c.arrival]
            from chain as c
        ) as m
    ),

    based as (
        select n.id, max(n.place[3] + n.seq - n.place[1]) as lamport, max(n.place[4]) as arrival,
            (array_agg(format('%s %s', n.author, n.seq)) filter (where n.seq > coalesce(n.place[2], 0)))[1] as missing,
            (array_agg(format('%s %s', n.author, n.seq) order by n.place[4] desc))[1] as latest
        from named as n
        where n.is_entry
        group by n.id
    )

    select 'changeset', (array_agg(encode(c.id, 'hex') order by c.arrival))[1],
        p.problem || case when count(*) > 1 then format('; so with %s more', count(*) - 1) else '' end
    from chain as c
    left join based as b on b.id = c.id
    cross join lateral (values
        (case when c.first_seq <> c.had_seq + 1 then
            format('%s has a gap or an overlap: operation %s follows on %s', c.author, c.first_seq, c.had_seq) end),
        (case when c.prev is distinct from c.last_id and c.first_seq = c.had_seq + 1 then kerai_private.difference(
            'prev', encode(c.prev, 'hex'), encode(c.last_id, 'hex')) end),
        (case when c.last_seq < c.first_seq then 'it has no operations' end),
        (case when b.missing is not null then format('its base names %s, which is not here', b.missing) end),
        (case when b.missing is null and c.first_lamport <> 1 + greatest(c.had_lamport, b.lamport) then
            kerai_private.difference('first_lamport', c.first_lamport::text,
                (1 + greatest(c.had_lamport, b.lamport))::text) end),
        (case when greatest(b.arrival, c.had_arrival) >= c.arrival then
            format('it arrived before what it follows on: %s', case
                when b.arrival >= c.had_arrival then b.latest else encode(c.last_id, 'hex') end) end)
    ) as p (problem)
    where p.problem is not null
    group by p.problem
$$;

-- The version vector against the changesets.
create or replace function kerai_private.verify_vector(wrong bytea[])
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with heads as (
        select distinct on (t.author) t.author, t.last_seq, t.last_lamport, t.id
        from kerai_private.true_changesets(wrong) as t
        order by t.author, t.last_seq desc
    )

    select 'author', a.author, p.problem
    from kerai_private.authors as a
    left join heads as h on h.author = a.author
    cross join lateral (
        select 'the key does not belong to this author id' as problem
        where right(a.author, 16) <> left(encode(sha256(a.public_key), 'hex'), 16)
        union all
        select string_agg(kerai_private.difference(v.part, v.found, v.wanted), '; ')
        from (values
            ('seq', a.seq::text, coalesce(h.last_seq, 0)::text),
            ('lamport', a.lamport::text, coalesce(h.last_lamport, 0)::text),
            ('changeset_id', encode(a.changeset_id, 'hex'), encode(h.id, 'hex'))
        ) as v (part, found, wanted)
        where v.found is distinct from v.wanted
        having count(*) > 0
    ) as p
$$;

-- Rows of the log that belong to no changeset; what a changeset lacks is found by verify_rows. Of stubs only the place
-- in the log can be judged.
create or replace function kerai_private.verify_log(wrong bytea[])
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with changeset as materialized (
        select t.*, c.document is null as is_stub
        from kerai_private.true_changesets(wrong) as t inner join kerai.changesets as c on c.id = t.id
    ),

    odd as materialized (
        select o.author, o.author_seq, o.changeset_id, case when c.id is not null then kerai_private.difference(
            'lamport_ts', o.lamport_ts::text, (c.first_lamport + o.author_seq - c.first_seq)::text) end as problem
        from kerai.operations as o
        left join changeset as c
            on c.id = o.changeset_id and c.author = o.author and o.author_seq between c.first_seq and c.last_seq
        where c.id is null or c.is_stub and o.lamport_ts <> c.first_lamport + o.author_seq - c.first_seq
    )

    select 'operation', concat_ws('-', format('%s %s', o.author, min(o.author_seq)),
            nullif(max(o.author_seq), min(o.author_seq))),
        coalesce(o.problem, format('no changeset says so (changeset_id %s)', encode(o.changeset_id, 'hex')))
    from odd as o
    -- Named already, when it stands in the place of what a document says.
    where not exists (
        select from changeset as x
        where x.author = o.author and o.author_seq between x.first_seq and x.last_seq and not x.is_stub)
    group by o.author, o.changeset_id, o.problem
$$;

-- The log as it should be: operations of these kinds. They are from the documents of the changesets in `wrong`, and for
-- the others as the log has them. Only those with a stamp below `before`, when that is given. The writer is the author,
-- or the member for whom a swarm's author stands.
create or replace function kerai_private.true_log(kinds text[], wrong bytea[], before text)
returns table (
    stamp text, author text, author_seq bigint, op_type text, node_id uuid, payload jsonb, writer text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select l.*
    from (
        select lpad(to_hex(o.lamport_ts), 16, '0') || ':' || o.author collate "C" as stamp, o.author, o.author_seq,
            o.op_type, o.node_id, o.payload, coalesce(c.member, o.author) as writer
        from kerai.operations as o
        inner join kerai.changesets as c on c.id = o.changeset_id
        where o.op_type = any(kinds) and o.changeset_id <> all(wrong)
            and c.author = o.author and o.author_seq between c.first_seq and c.last_seq
        union all
        select lpad(to_hex((c.document ->> 'lamport')::bigint + u.n - 1), 16, '0') || ':' || (c.document ->> 'author'),
            c.document ->> 'author', (c.document ->> 'seq')::bigint + u.n - 1, u.op ->> 'op',
            coalesce(u.op ->> 'node', u.op ->> 'source')::uuid, u.op,
            coalesce(c.document -> 'draft' ->> 'author', c.document ->> 'author')
        from kerai.changesets as c
        cross join lateral jsonb_array_elements(kerai_private.signed_body(c.document::jsonb) -> 'ops') with ordinality as u (op, n)
        where c.id = any(wrong) and u.op ->> 'op' = any(kinds)
    ) as l
    where before is null or l.stamp < before collate "C"
$$;

-- The nodes as the log says, where they stand by the moves that are not void.
create or replace function kerai_private.nodes_of_log(wrong bytea[], before text)
returns table (
    id uuid, parent_id uuid, "position" text, kind text, name text, language text, content text, metadata jsonb,
    deleted boolean, created_stamp text, created_seq bigint, placed_stamp text, kind_stamp text, name_stamp text,
    language_stamp text, content_stamp text, metadata_stamps jsonb, deleted_stamp text, created_parent_id uuid,
    created_position text
)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
    with inserts as (
        select distinct on (l.node_id) l.*
        from kerai_private.true_log('{node_insert}', wrong, before) as l
        order by l.node_id, l.stamp collate "C"
    ),

    writes as materialized (
        select distinct on (l.node_id, e.part, e.key) l.node_id, e.part, e.key, e.value, l.stamp
        from kerai_private.true_log('{node_update}', wrong, before) as l
        cross join lateral (
            select 'set' as part, f.key, f.value from jsonb_each(l.payload -> 'set') as f
            union all
            select 'metadata', f.key, f.value from jsonb_each(l.payload -> 'metadata') as f
        ) as e
        order by l.node_id, e.part, e.key, l.stamp collate "C" desc
    ),

    fields as (
        select w.node_id, jsonb_object_agg(w.key, w.value) as vals, jsonb_object_agg(w.key, w.stamp) as stamps
        from writes as w where w.part = 'set' group by w.node_id
    ),

    metadata as (
        select w.node_id, jsonb_object_agg(w.key, w.value) as vals, jsonb_object_agg(w.key, w.stamp) as stamps
        from writes as w where w.part = 'metadata' group by w.node_id
    ),

    tombs as (
        select distinct on (l.node_id) l.node_id, l.op_type = 'node_delete' as deleted, l.stamp
        from kerai_private.true_log('{node_delete,node_restore}', wrong, before) as l
        order by l.node_id, l.stamp collate "C" desc
    ),

    places as (
        select distinct on (m.node_id) m.*
        from kerai_private.moves as m
        where not m.void and (before is null or m.stamp < before collate "C")
        order by m.node_id, m.stamp desc
    )

    select i.node_id,
        case when p.stamp is null then (i.payload ->> 'parent')::uuid else p.parent_id end,
        coalesce(p.position, i.payload ->> 'position'),
        coalesce(f.vals ->> 'kind', i.payload ->> 'kind'),
        case when f.vals ? 'name' then f.vals ->> 'name' else i.payload ->> 'name' end,
        case when f.vals ? 'language' then f.vals ->> 'language' else i.payload ->> 'language' end,
        case when f.vals ? 'content' then f.vals ->> 'content' else i.payload ->> 'content' end,
        case when g.metadata = '{}' then g.metadata else kerai_private.without_nulls(g.metadata) end,
        coalesce(t.deleted, false), i.stamp, i.author_seq, p.stamp,
        f.stamps ->> 'kind', f.stamps ->> 'name', f.stamps ->> 'language', f.stamps ->> 'content', k.stamps, t.stamp,
        case when p.stamp is not null then (i.payload ->> 'parent')::uuid end,
        case when p.stamp is not null then i.payload ->> 'position' end
    from inserts as i
    left join fields as f on f.node_id = i.node_id
    left join metadata as k on k.node_id = i.node_id
    left join tombs as t on t.node_id = i.node_id
    left join places as p on p.node_id = i.node_id
    cross join lateral (
        select coalesce(nullif(i.payload -> 'metadata', 'null'), '{}') || coalesce(k.vals, '{}') as metadata
    ) as g
$$;

create or replace function kerai_private.verify_nodes(wrong bytea[])
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
    select 'node', coalesce(n.id, f.id)::text, case
        when n.id is null then 'is not in the tree; the log has inserted it'
        when f.id is null then 'is in no operation of the log'
        else (
            select string_agg(kerai_private.difference(v.part, v.found, v.wanted), '; ')
            from (values
                ('parent_id', n.parent_id::text, f.parent_id::text), ('position', n.position, f.position),
                ('kind', n.kind, f.kind), ('name', n.name, f.name), ('language', n.language, f.language),
                ('content', n.content, f.content), ('metadata', n.metadata::text, f.metadata::text),
                ('deleted', n.deleted::text, f.deleted::text), ('created_stamp', n.created_stamp, f.created_stamp),
                ('created_seq', n.created_seq::text, f.created_seq::text),
                ('placed_stamp', n.placed_stamp, f.placed_stamp), ('kind_stamp', n.kind_stamp, f.kind_stamp),
                ('name_stamp', n.name_stamp, f.name_stamp), ('language_stamp', n.language_stamp, f.language_stamp),
                ('content_stamp', n.content_stamp, f.content_stamp),
                ('metadata_stamps', n.metadata_stamps::text, f.metadata_stamps::text),
                ('deleted_stamp', n.deleted_stamp, f.deleted_stamp),
                ('created_parent_id', w.created_parent_id::text, f.created_parent_id::text),
                ('created_position', w.created_position, f.created_position)
            ) as v (part, found, wanted)
            where v.found is distinct from v.wanted)
        end
    from kerai.nodes as n
    full join kerai_private.nodes_of_log(wrong, null) as f on f.id = n.id
    -- Nobody looks at these while a node stands where its insert put it.
    cross join lateral (
        select case when n.placed_stamp is not null then n.created_parent_id end as created_parent_id,
            case when n.placed_stamp is not null then n.created_position end as created_position
    ) as w
    where (n.id, n.parent_id, n.position, n.kind, n.name, n.language, n.content, n.metadata, n.deleted, n.created_stamp,
        n.created_seq, n.placed_stamp, n.kind_stamp, n.name_stamp, n.language_stamp, n.content_stamp,
        n.metadata_stamps, n.deleted_stamp, w.created_parent_id, w.created_position)
        is distinct from (f.id, f.parent_id, f.position, f.kind, f.name, f.language, f.content, f.metadata, f.deleted,
        f.created_stamp, f.created_seq, f.placed_stamp, f.kind_stamp, f.name_stamp, f.language_stamp,
        f.content_stamp, f.metadata_stamps, f.deleted_stamp, f.created_parent_id, f.created_position)
    union all
    -- Each from its parent's: where all of these are right, all paths are.
    select 'node', n.id::text, kerai_private.difference('path', n.path::text, w.path)
    from kerai.nodes as n
    left join kerai.nodes as p on p.id = n.parent_id
    cross join lateral (select kerai_private.path_below(coalesce(p.path::text, ''), n.name) as path) as w
    where n.path::text <> w.path
$$;

create or replace function kerai_private.relations_of_log(wrong bytea[], before text)
returns table (
    what text, author text, source uuid, target uuid, relation text, metadata jsonb, weight double precision,
    reasoning text, deleted boolean, stamp text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select distinct on (1, 2, 3, 4, 5)
        split_part(l.op_type, '_', 1), case when l.op_type not like 'edge%' then l.writer end, l.node_id,
        coalesce(l.payload ->> 'target', l.payload ->> 'context')::uuid, l.payload ->> 'relation',
        case when l.op_type like 'edge%' then coalesce(nullif(l.payload -> 'metadata', 'null'), '{}') end,
        (l.payload ->> 'weight')::double precision, l.payload ->> 'reasoning', l.op_type like '%delete', l.stamp
    from kerai_private.true_log('{edge_insert,edge_delete,perspective_set,perspective_delete,association_set,association_delete}',
        wrong, before) as l
    order by 1, 2, 3, 4, 5, l.stamp collate "C" desc
$$;

-- The target of a perspective is its context.
create or replace function kerai_private.verify_relations(wrong bytea[])
returns table (what text, subject text, problem text)
language sql stable
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
set enable_nestloop = off
as $$
    with found as (
        select 'edge' as what, null as author, e.source, e.target, e.relation, e.metadata,
            null::double precision as weight, null as reasoning, e.deleted, e.stamp
        from kerai.edges as e
        union all
        select 'perspective', p.author, p.node_id, p.context_id, null, null, p.weight, p.reasoning, p.deleted, p.stamp
        from kerai.perspectives as p
        union all
        select 'association', a.author, a.source, a.target, a.relation, null, a.weight, a.reasoning, a.deleted, a.stamp
        from kerai.associations as a
    ),

    -- Nothing joins on null.
    keyed as (
        select 1 as side, f.* from found as f
        union all
        select 2, l.* from kerai_private.relations_of_log(wrong, null) as l
    ),

    paired as (
        select k.what, k.author, k.source, k.target, k.relation, count(*) filter (where k.side = 1) as here,
            count(*) filter (where k.side = 2) as logged,
            array_agg((k.metadata, k.weight, k.reasoning, k.deleted, k.stamp)::text order by k.side) as vals
        from keyed as k
        group by k.what, k.author, k.source, k.target, k.relation
    )

    select p.what, concat_ws(' ', p.author, p.source, p.relation, p.target), case
        when p.here = 0 then 'is not here; the log has it'
        when p.logged = 0 then 'is in no operation of the log'
        else kerai_private.difference('(metadata, weight, reasoning, deleted, stamp)', p.vals[1], p.vals[2])
        end
    from paired as p
    where p.here <> p.logged or p.vals[1] <> p.vals[2]
$$;

-- The moves against the log, then which of them are void: page by page in the order of stamps, each page from where
-- the nodes stand before it. Below `floor` moves have been folded: those that are left count.
create or replace function kerai_private.verify_moves(wrong bytea[], floor text)
returns table (what text, subject text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    page_size constant int := 20000;
    done text := '';
    stamps text[];
    nodes uuid[];
    parents uuid[];
    flags boolean[];
    base_nodes uuid[];
    base_parents uuid[];
    voids boolean[];
begin
    return query
    select 'move', coalesce(m.stamp, l.stamp), case
        when m.stamp is null then format('of node %s is not kept; the log has it', l.node_id)
        when l.stamp is null then format('of node %s is in no operation of the log', m.node_id)
        when m.void and l.stamp < floor collate "C" then 'is void, but was kept because it counts'
        else (
            select string_agg(kerai_private.difference(v.part, v.found, v.wanted), '; ')
            from (values
                ('node_id', m.node_id::text, l.node_id::text),
                ('parent_id', m.parent_id::text, lower(l.payload ->> 'parent')),
                ('position', m.position, l.payload ->> 'position')) as v (part, found, wanted)
            where v.found is distinct from v.wanted)
        end
    from kerai_private.moves as m
    full join kerai_private.true_log('{node_move}', wrong, null) as l on l.stamp = m.stamp
    where (m.stamp, m.node_id, m.parent_id, m.position) is distinct from
        (l.stamp, l.node_id, (l.payload ->> 'parent')::uuid, l.payload ->> 'position')
        or m.void and l.stamp < floor collate "C";

    loop
        select array_agg(p.stamp order by p.stamp), array_agg(p.node_id order by p.stamp),
            array_agg(p.parent_id order by p.stamp), array_agg(p.void order by p.stamp)
        into stamps, nodes, parents, flags
        from (
            select m.* from kerai_private.moves as m
            where m.stamp > done and (floor is null or m.stamp >= floor) order by m.stamp limit page_size
        ) as p;
        exit when stamps is null;

        with recursive climb (node, parent) as (
            select b.*
            from (select distinct u.node from unnest(nodes || parents) as u (node)) as t
            cross join lateral kerai_private.place_of_log(t.node, stamps[1]) as b
            union
            select b.* from climb as c cross join lateral kerai_private.place_of_log(c.parent, stamps[1]) as b
        )

        select array_agg(c.node), array_agg(c.parent) into base_nodes, base_parents from climb as c;
        begin
            voids := kerai_private.void_moves(base_nodes, base_parents, nodes, parents);
        exception when external_routine_exception or plpgsql_error or internal_error then
            return query select 'move', stamps[1], format('which moves are void from here on cannot be said: %s', sqlerrm);
            exit;
        end;

        return query
        select 'move', u.stamp, kerai_private.difference('void', u.flag::text, u.void::text)
        from unnest(stamps, flags, voids) as u (stamp, flag, void)
        where u.flag <> u.void;
        done := stamps[cardinality(stamps)];
    end loop;
end
$$;

-- Where a node stands by the moves that count and are below a stamp, else by its insert; no row when there is none.
create or replace function kerai_private.place_of_log(node uuid, before text)
returns table (node_id uuid, parent_id uuid)
language plpgsql stable rows 1
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select m.node_id, m.parent_id from kerai_private.moves as m
    where m.node_id = node and not m.void and m.stamp < before order by m.stamp desc limit 1;
    if not found then
        -- In the one partition that the tree points to, if that is right.
        return query
        select o.node_id, (o.payload ->> 'parent')::uuid
        from kerai.nodes as n
        inner join kerai.operations as o on o.author = kerai_private.stamp_author(n.created_stamp) and o.author_seq = n.created_seq
        where n.id = node and o.node_id = node and o.op_type = 'node_insert';
    end if;
    if not found then
        return query
        select o.node_id, (o.payload ->> 'parent')::uuid from kerai.operations as o
        where o.node_id = node and o.op_type = 'node_insert' order by o.lamport_ts, o.author limit 1;
    end if;
end
$$;

-- All of the above. kerai.verify() checks the other tables too: see 060-economy/verify.sql.
create or replace function kerai_private.verify_layers(deep boolean)
returns table (what text, subject text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '64MB'
as $$
#variable_conflict use_column
declare
    wrong_rows bytea[] := '{}';
    wrong_logs bytea[] := '{}';
    last_floor constant text := (select c.floor from kerai.compactions as c order by c.id desc limit 1);
    found_problem record;
begin
    return query select d.what, d.subject, d.problem from kerai_private.verify_documents() as d;
    for found_problem in select * from kerai_private.verify_rows() loop
        if found_problem.what = 'changeset' then
            wrong_rows := wrong_rows || found_problem.id;
        else
            wrong_logs := wrong_logs || found_problem.id;
        end if;
        what := found_problem.what;
        subject := found_problem.subject;
        problem := found_problem.problem;
        return next;
    end loop;
    return query select * from kerai_private.verify_chains(wrong_rows);
    return query select * from kerai_private.verify_vector(wrong_rows);
    return query select * from kerai_private.verify_log(wrong_rows);
    return query
    select 'compaction', c.id::text, 'the operations below its floor are not those that it left'
    from (select x.* from kerai.compactions as x order by x.id desc limit 1) as c
    where c.kept_digest <> kerai_private.kept_digest(c.floor);
    if deep then
        return query select * from kerai_private.verify_moves(wrong_rows || wrong_logs, last_floor);
        return query select * from kerai_private.verify_nodes(wrong_rows || wrong_logs);
        return query select * from kerai_private.verify_relations(wrong_rows || wrong_logs);
    end if;
end
$$;

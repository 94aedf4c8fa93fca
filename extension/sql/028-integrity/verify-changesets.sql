-- Integrity of the changesets: documents, rows, chains and the vector.

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
                        select s.node_id from kerai_private.scope_nodes as s where s.state = 'complete'))
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

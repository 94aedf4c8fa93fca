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

-- All of the above. kerai.verify() checks the other tables too: see 060-economy/verify.sql.
create or replace function kerai_private.verify_layers(deep boolean)
returns table (what text, subject text, problem text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
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

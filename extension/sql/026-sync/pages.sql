-- Pages of changesets: what one instance gives another, and takes from it.

-- Where in the order of arrival the first changeset stands that a vector has not seen; NULL when it has seen all.
create or replace function kerai_private.first_arrival_beyond(seen jsonb) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if seen = '{}' then
        return 0;
    end if;
    return (
        select min(c.arrival)
        from (
            select a.author, coalesce((seen ->> a.author)::bigint, 0) as last_seen
            from kerai_private.authors as a where a.seq > coalesce((seen ->> a.author)::bigint, 0)
        ) as l
        cross join lateral (
            select c.arrival from kerai.changesets as c
            where c.author = l.author and c.first_seq <= l.last_seen + 1
            order by c.first_seq desc limit 1
        ) as c);
end
$$;

-- A page of what a vector has not seen, in the order of arrival, which is a causal order: nothing is merged before what
-- it is based on. A page costs what is in it, wherever in the history it lies. The scan begins at the first changeset
-- that is missing, and takes no more rows than operations are wanted.
create or replace function kerai_private.page_since(vector jsonb, max_ops int)
returns table (arrival bigint, author text, last_seq bigint, operations bigint, document json, signature bytea)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    -- A copy that is no longer compressed: it is looked into once a row.
    seen constant jsonb := vector || '{}';
    beginning constant bigint := kerai_private.first_arrival_beyond(seen);
    max_bytes constant bigint := kerai_private.setting('max_page_bytes');
begin
    -- A document's length is only asked of what is likely to be sent: to know it, it has to be unpacked.
    return query
    select p.arrival, p.author, p.last_seq, p.operations, p.document, p.signature
    from (
        select w.*, sum(octet_length(w.document::text)) over (order by w.arrival) as bytes
        from (
            select r.*, sum(r.operations) over (order by r.arrival) as running,
                sum(r.stored_bytes) over (order by r.arrival) as stored, row_number() over (order by r.arrival) as n
            from (
                select c.arrival, c.author, c.last_seq, c.last_seq - c.first_seq + 1 as operations, c.document, c.signature,
                    pg_column_size(c.document) as stored_bytes
                from kerai.changesets as c
                where c.arrival >= beginning and c.last_seq > coalesce((seen ->> c.author)::bigint, 0)
                order by c.arrival
                limit max_ops
            ) as r
        ) as w
        where w.n = 1 or w.running <= max_ops and w.stored <= max_bytes
    ) as p
    where p.n = 1 or p.bytes <= max_bytes
    order by p.arrival;
end
$$;

-- Whose changeset a refused one says that it is; NULL when it does not say so properly.
create or replace function kerai_private.claim_of(document json, out author text, out last_seq bigint)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    author := left(document ->> 'author', 220);
    last_seq := (document ->> 'seq')::bigint
        + json_array_length(coalesce(document -> 'draft', document) -> 'ops') - 1;
    if last_seq not between 1 and 999999999999999999 then
        last_seq := null;
    end if;
exception when others then
    author := null;
    last_seq := null;
end
$$;

-- Refuses KR005 what is no page of changesets.
create or replace function kerai_private.require_page(changesets json[], signatures bytea[], public_keys bytea[])
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    most constant int := 100000;
begin
    if changesets is null or coalesce(array_ndims(changesets), 1) <> 1 or cardinality(changesets) > most
        or cardinality(signatures) is distinct from cardinality(changesets)
        or cardinality(public_keys) is distinct from cardinality(changesets) then
        perform kerai_private.refuse('KR005', 'this is no page of changesets',
            format('%s changesets, %s signatures, %s public keys; at most %s of each are taken', cardinality(changesets),
                cardinality(signatures), cardinality(public_keys), most),
            'Give three arrays of the same length. A public key may be null when the author is known.');
    end if;
end
$$;

create or replace function kerai.accept(changesets json[], signatures bytea[], public_keys bytea[])
returns table (
    changeset_id bytea, status text, applied int, author text, last_seq bigint,
    code text, message text, detail text, hint text
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set random_page_cost = 1.1
set lock_timeout = '30s'
as $$
#variable_conflict use_column
declare
    -- The other side may have a larger page than this one. A changeset by itself is judged by its own size, below.
    most_bytes constant bigint := 4 * kerai_private.setting('max_page_bytes');
    size bigint;
    place int;
begin
    perform kerai_private.bound_lock_waits();
    perform kerai_private.require_page(changesets, signatures, public_keys);
    size := (select sum(octet_length(c::text)) from unnest(changesets) as c);
    if size > most_bytes and cardinality(changesets) > 1 then
        perform kerai_private.refuse('KR005', 'the page is too large', format('%s bytes, at most %s are taken', size, most_bytes),
            'Send fewer changesets at once, or have an operator raise max_page_bytes in kerai.settings.');
    end if;

    perform kerai_private.refuse_partial('this instance takes changesets only with the sync that it makes itself',
        'Push to the instance that it has its scope from.');
    for changeset_id, status, applied, code, message, detail, hint, place in
        select r.changeset_id, r.status, r.applied, r.code, r.message, r.detail, r.hint, r.n
        from kerai_private.receive_all(array(
            select row(g.document, g.signature, g.public_key)::kerai_private.incoming
            from unnest(changesets, signatures, public_keys) with ordinality as g (document, signature, public_key, n)
            order by g.n), enforce_policy => false) as r
        order by r.n
    loop
        author := null;
        last_seq := null;
        if kerai_private.is_transient(code) then
            raise exception using errcode = code, message = message, detail = detail, hint = hint;
        elsif code is not null then
            status := 'refused';
            applied := 0;
            select c.author, c.last_seq into author, last_seq from kerai_private.claim_of(changesets[place]) as c;
            if code = 'KR003' then
                perform kerai_private.keep_evidence(changesets[place], signatures[place]);
            end if;
        end if;
        return next;
    end loop;
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm,
        'Nothing of this page was merged. Send it again in a second.');
end
$$;

comment on function kerai.accept(json[], bytea[], bytea[]) is
'Merges a page of changesets that another instance has merged, each by itself, and says of each what became of it: merged, duplicate or refused with the reason. Each is verified as by kerai.push_ops, but guard and task are not judged again: they were where it was pushed first. So only members of kerai_peer call this: an agent could get past its guard and its budget with it.';

create or replace function kerai.changesets_since(vector jsonb, max_ops int default 10000)
returns table (changeset json, signature bytea, public_key bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if max_ops is null or max_ops < 1 then
        perform kerai_private.refuse('KR005', 'max_ops is at least 1', format('max_ops: %s', coalesce(max_ops::text, 'null')),
            'Leave it out for pages of 10,000 operations.');
    end if;
    -- A join would not look at it while there are no changesets.
    perform from kerai_private.vector_entries($1);
    perform kerai_private.require_above_horizon($1, 'Clone this instance with pg_dump, then sync from there on.');
    perform kerai_private.require_documents_beyond($1);
    return query
    select p.document, p.signature, a.public_key
    from kerai_private.page_since($1, max_ops) as p
    inner join kerai_private.authors as a on a.author = p.author
    order by p.arrival;
end
$$;

comment on function kerai.changesets_since(jsonb, int) is
'The changesets that a vector has not seen, byte for byte and in a causal order: push them one by one into another instance with kerai.push_ops(changeset, signature, public_key). At most max_ops operations, at least one changeset; call again with the new vector until nothing comes.';

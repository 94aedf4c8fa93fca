-- 020 vectors and stamps.

create or replace function kerai_private.stamp(lamport bigint, author text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return lpad(to_hex(lamport), 16, '0') || ':' || author;

create or replace function kerai_private.stamp_author(stamp text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return substr(stamp, 18);

create or replace function kerai_private.stamp_lamport(stamp text) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return ('x' || left(stamp, 16))::bit(64)::bigint;

create or replace function kerai_private.vector_entries(vector jsonb)
returns table (author text, seq bigint)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    bad text;
begin
    if vector is null or jsonb_typeof(vector) <> 'object' then
        perform kerai_private.refuse('KR005', 'a version vector is a JSON object',
            format('given: %s', coalesce(left(vector::text, 200), 'null')),
            'Use {"<author>": <highest sequence seen>, …}.');
    end if;

    select e.key into bad from jsonb_each(vector) as e
    where jsonb_typeof(e.value) <> 'number' or e.value::text !~ '^[0-9]{1,18}$' limit 1;
    if found then
        perform kerai_private.refuse('KR005', 'a version vector names sequence numbers',
            format('author %s: %s', bad, left(vector ->> bad, 200)),
            'Each value is a whole number of at least 0.');
    end if;

    return query select e.key collate "C", e.value::text::bigint from jsonb_each(vector) as e where e.value <> '0';
end
$$;

create or replace function kerai.version_vector() returns jsonb
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(a.author, a.seq), '{}') from kerai_private.authors as a where a.seq > 0
$$;

comment on function kerai.version_vector() is
'What this instance has merged: {author: highest sequence seen}. It never names an operation that the same snapshot does not show.';

create or replace function kerai.vector_compare(a jsonb, b jsonb) returns text
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
    select case
        when bool_or(a_seq < b_seq) and bool_or(a_seq > b_seq) then 'concurrent'
        when bool_or(a_seq < b_seq) then 'before'
        when bool_or(a_seq > b_seq) then 'after'
        else 'equal'
    end
    from (
        select coalesce(x.seq, 0) as a_seq, coalesce(y.seq, 0) as b_seq
        from kerai_private.vector_entries(vector_compare.a) as x
        full join kerai_private.vector_entries(vector_compare.b) as y on y.author = x.author
    ) as pairs
$$;

comment on function kerai.vector_compare(jsonb, jsonb) is
'How version vector a relates to b: equal, before, after or concurrent.';

create or replace function kerai.vector_merge(a jsonb, b jsonb) returns jsonb
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(coalesce(x.author, y.author), greatest(x.seq, y.seq)), '{}')
    from kerai_private.vector_entries(vector_merge.a) as x
    full join kerai_private.vector_entries(vector_merge.b) as y on y.author = x.author
$$;

comment on function kerai.vector_merge(jsonb, jsonb) is 'The pointwise maximum of two version vectors.';

create or replace function kerai.vector_contains(vector jsonb, author text, seq bigint) returns boolean
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
    select vector_contains.seq <= coalesce(
        (select e.seq from kerai_private.vector_entries(vector_contains.vector) as e
        where e.author = vector_contains.author), 0)
$$;

comment on function kerai.vector_contains(jsonb, text, bigint) is
'Whether a version vector has seen operation seq of author.';

create or replace function kerai.vector_missing(have jsonb, want jsonb)
returns table (author text, first_seq bigint, last_seq bigint)
language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    -- A join would not look at it when nothing is wanted.
    perform from kerai_private.vector_entries($1);
    return query
    select w.author, coalesce(h.seq, 0) + 1, w.seq
    from kerai_private.vector_entries($2) as w
    left join kerai_private.vector_entries($1) as h on h.author = w.author
    where w.seq > coalesce(h.seq, 0)
    order by w.author collate "C";
end
$$;

comment on function kerai.vector_missing(jsonb, jsonb) is
'The ranges of operations that want names and have does not: what to fetch to get from one to the other.';

-- Refuses KR004 unless this instance has merged everything that the vector names. Of a frozen author there may be
-- another branch elsewhere, which nobody will bring here.
create or replace function kerai_private.require_covered(vector jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    missing text;
begin
    select string_agg(format('%s %s–%s', e.author, coalesce(a.seq, 0) + 1, e.seq), ', ' order by e.author)
    into missing
    from kerai_private.vector_entries(vector) as e
    left join kerai_private.authors as a on a.author = e.author
    where e.seq > coalesce(a.seq, 0) and (
        e.author not in (select f.author from kerai.forks as f)
        or e.seq > coalesce(a.seq, 0) + kerai_private.setting('max_fork_ops'));

    if missing is not null then
        perform kerai_private.refuse('KR004', 'operations that the vector names are not here',
            format('missing: %s', missing),
            'Push or sync the missing changesets first, then repeat this call.');
    end if;
end
$$;

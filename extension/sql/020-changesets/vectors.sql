-- Vectors and stamps. What has a stamp asked of every row is inlined: it has no settings.

create or replace function kerai_private.stamp(lamport bigint, author text) returns text
language sql immutable parallel safe
return lpad(to_hex(lamport), 16, '0') || ':' || author;

create or replace function kerai_private.stamp_author(stamp text) returns text
language sql immutable parallel safe
return right(stamp, -17);

-- Has an author, with this base, seen the operation that has this stamp and sequence number? NULL where there is none.
create or replace function kerai_private.has_seen(author text, base jsonb, stamp text, seq bigint) returns boolean
language sql immutable parallel safe
return kerai_private.stamp_author(stamp) = author
    or seq <= coalesce((base ->> kerai_private.stamp_author(stamp))::bigint, 0);

create or replace function kerai_private.stamp_lamport(stamp text) returns bigint
language sql immutable parallel safe
return ('x' || left(stamp, 16))::bit(64)::bigint;

-- The vector itself without its zero entries, which say no more than absent ones; refuses KR005 what is none. One pass
-- in C over the values: a million entries are too many for a row each when all that is asked is whether they are well.
create or replace function kerai_private.checked_vector(vector jsonb) returns jsonb
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    -- || '{}' fetches a vector from where it is stored once, not at every look at it.
    entries constant jsonb := case when jsonb_typeof(vector) = 'object' then vector || '{}' end;
    largest constant int := 134217728;
    seqs text;
    bad text;
begin
    if entries is null then
        perform kerai_private.refuse('KR005', 'a version vector is a JSON object',
            format('given: %s', coalesce(kerai_private.excerpt(vector, 200), 'null')),
            'Use {"<author>": <highest sequence seen>, ...}.');
    end if;
    if pg_column_size(entries) > largest then
        perform kerai_private.refuse('KR005', 'the version vector is too large',
            format('%s bytes, at most %s are taken', pg_column_size(entries), largest),
            'Some three million entries are possible. Let swarms group their members under one author id.');
    end if;

    if not kerai_private.may_be_long(entries) then
        seqs := jsonb_path_query_array(entries, '$.*');
    end if;
    if seqs is null or seqs !~ '^[[](([0-9]{1,18}, )*[0-9]{1,18})?[]]$' then
        select e.key into bad from jsonb_each(entries) as e
        where case when jsonb_typeof(e.value) = 'number'
            then e.value::numeric not between 0 and 999999999999999999 or scale(e.value::numeric) > 0 else true end
        limit 1;
        if found then
            perform kerai_private.refuse('KR005', 'a version vector names sequence numbers',
                format('author %s: %s', bad, kerai_private.excerpt(entries -> bad, 200)),
                'Each value is a whole number of at least 0.');
        end if;
    end if;

    -- Numbers in jsonb have no leading zeros.
    if seqs is null or starts_with(seqs, '[0') or strpos(seqs, ' 0') > 0 then
        return (
            select coalesce(jsonb_object_agg(e.key, e.value), '{}') from jsonb_each(entries) as e where e.value <> '0');
    end if;
    return entries;
end
$$;

-- Not pinned but parsed here and now, so that it becomes a part of the query that it stands in.
create or replace function kerai_private.vector_entries(vector jsonb)
returns table (author text, seq bigint)
language sql stable parallel safe
begin atomic
    select e.key collate "C" as author, e.value::bigint as seq
    from jsonb_each_text(kerai_private.checked_vector(vector)) as e;
end;

-- How far another vector has seen an author whose entry stands beside one of that vector's, see vector_compare.
create or replace function kerai_private.seen_of(author text, beside text, beside_seq text, other jsonb) returns bigint
language sql immutable parallel safe
return coalesce(case when beside = author then beside_seq else other ->> author end::bigint, 0);

create or replace function kerai.version_vector() returns jsonb
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(a.author, a.seq), '{}') from kerai_private.authors as a where a.seq > 0
$$;

comment on function kerai.version_vector() is
'What this instance has merged: {author: highest sequence seen}. It never names an operation that the same snapshot does not show.';

-- Two vectors are laid side by side, entry by entry. jsonb keeps its keys in one order, so that those of the same
-- authors meet. An author whose neighbour is another one is looked up by binary search. A join would cost more than
-- both. Generic plans: a custom one would copy the vectors into itself, and compute x || y at every planning.
create or replace function kerai.vector_compare(a jsonb, b jsonb) returns text
language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
set work_mem = '256MB'
set plan_cache_mode = force_generic_plan
as $$
declare
    same constant boolean := a = b;
    x constant jsonb := kerai_private.checked_vector(a);
    y constant jsonb := case when same then x else kerai_private.checked_vector(b) end;
begin
    if same or x = y then
        return 'equal';
    end if;
    return (
        with pairs as materialized (
            select * from rows from (jsonb_each_text(x), jsonb_each_text(y)) as p (x_author, x_seq, y_author, y_seq)
        )

        select case
            when not exists (
                select from pairs as p
                where p.x_seq::bigint > kerai_private.seen_of(p.x_author, p.y_author, p.y_seq, y)) then 'before'
            when not exists (
                select from pairs as p
                where p.y_seq::bigint > kerai_private.seen_of(p.y_author, p.x_author, p.x_seq, x)) then 'after'
            else 'concurrent'
        end);
end
$$;

comment on function kerai.vector_compare(jsonb, jsonb) is
'How version vector a relates to b: equal, before, after or concurrent.';

create or replace function kerai.vector_merge(a jsonb, b jsonb) returns jsonb
language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
set work_mem = '256MB'
set plan_cache_mode = force_generic_plan
as $$
declare
    same constant boolean := a = b;
    x constant jsonb := kerai_private.checked_vector(a);
    y constant jsonb := case when same then x else kerai_private.checked_vector(b) end;
begin
    if same or x = y then
        return x;
    end if;
    return (
        with pairs as materialized (
            select * from rows from (jsonb_each_text(x), jsonb_each_text(y)) as p (x_author, x_seq, y_author, y_seq)
        )

        select case
            when not exists (
                select from pairs as p
                where p.x_seq::bigint > kerai_private.seen_of(p.x_author, p.y_author, p.y_seq, y)) then y
            when not exists (
                select from pairs as p
                where p.y_seq::bigint > kerai_private.seen_of(p.y_author, p.x_author, p.x_seq, x)) then x
            -- No author has gone further in x than in y, but for those whom y does not know.
            when not exists (
                select from pairs as p
                where p.y_seq::bigint < kerai_private.seen_of(p.y_author, p.x_author, p.x_seq, x)) then x || y
            else (
                select jsonb_object_agg(u.author, u.seq)
                from (
                    select p.x_author as author,
                        greatest(p.x_seq::bigint, kerai_private.seen_of(p.x_author, p.y_author, p.y_seq, y)) as seq
                    from pairs as p
                    where p.x_author is not null
                    union all
                    select p.y_author, p.y_seq::bigint from pairs as p
                    where p.y_author is distinct from p.x_author and not x ? p.y_author
                ) as u)
        end);
end
$$;

comment on function kerai.vector_merge(jsonb, jsonb) is 'The pointwise maximum of two version vectors.';

create or replace function kerai.vector_contains(vector jsonb, author text, seq bigint) returns boolean
language sql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $$
    select vector_contains.seq
        <= coalesce((kerai_private.checked_vector(vector_contains.vector) ->> vector_contains.author)::bigint, 0)
$$;

comment on function kerai.vector_contains(jsonb, text, bigint) is
'Whether a version vector has seen operation seq of author.';

create or replace function kerai.vector_missing(have jsonb, want jsonb)
returns table (author text, first_seq bigint, last_seq bigint)
language plpgsql stable parallel safe security definer
set search_path = pg_catalog, pg_temp
set work_mem = '256MB'
set plan_cache_mode = force_generic_plan
as $$
declare
    same constant boolean := have = want;
    x constant jsonb := kerai_private.checked_vector(have);
    y constant jsonb := case when same then x else kerai_private.checked_vector(want) end;
begin
    if same or x = y then
        return;
    end if;
    return query
    select m.author, m.seen + 1, m.seq
    from (
        select p.y_author as author, p.y_seq::bigint as seq,
            kerai_private.seen_of(p.y_author, p.x_author, p.x_seq, x) as seen
        from rows from (jsonb_each_text(x), jsonb_each_text(y)) as p (x_author, x_seq, y_author, y_seq)
    ) as m
    where m.seq > m.seen
    order by m.author collate "C";
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
    select string_agg(format('%s %s-%s', e.author, coalesce(a.seq, 0) + 1, e.seq), ', ' order by e.author)
    into missing
    from kerai_private.vector_entries(vector) as e
    left join kerai_private.authors as a on a.author = e.author
    where e.seq > coalesce(a.seq, 0) and (
        e.author not in (select f.author from kerai.forks as f where f.merged_elsewhere)
        or e.seq > coalesce(a.seq, 0) + kerai_private.setting('max_fork_ops'));

    if missing is not null then
        perform kerai_private.refuse('KR004', 'operations that the vector names are not here',
            format('missing: %s', missing),
            'Push or sync the missing changesets first, then repeat this call.');
    end if;
end
$$;

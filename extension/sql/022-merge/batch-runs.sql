-- Runs of a batch: what a batch is looked at for before it is merged, and which of it can be merged together.

-- Refuses for the first thing that is wrong with any of them.
create or replace function kerai_private.verify_changesets(
    given kerai_private.incoming[], enforce_policy boolean, verified boolean default false
)
returns kerai_private.verified_changeset[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    max_size constant bigint := kerai_private.setting('max_changeset_bytes');
    parsed jsonb[];
    items kerai_private.verified_changeset[];
    member text;
begin
    begin
        parsed := array(
            select g.document::jsonb
            from unnest(given) with ordinality as g (document, signature, public_key, n)
            where octet_length(g.document::text) <= max_size
            order by g.n);
    exception when data_exception or statement_too_complex or program_limit_exceeded then
        parsed := '{}';
    end;
    if cardinality(parsed) < cardinality(given) then
        parsed := array(
            select kerai_private.parse_changeset(g.document)
            from unnest(given) with ordinality as g (document, signature, public_key, n)
            order by g.n);
    end if;
    items := kerai_private.check_changesets(given, parsed, verified);
    if not enforce_policy then
        select i.member into member from unnest(items) as i where i.id is null limit 1;
        if found then
            perform kerai_private.refuse('KR005', 'a draft is not passed on', format('author: %s', member),
                'Push it where the swarm is; the changeset that is made of it goes everywhere.');
        end if;
    end if;
    return items;
end
$$;

-- Gives drafts the author that they are merged under, and takes the locks: the rows of known authors in their order,
-- the tree lock, the rows of new authors. What a session holds while it waits for the tree lock, the one that has that
-- lock does not need.
create or replace function kerai_private.lock_for_merge(items kerai_private.verified_changeset[], exclusive boolean)
returns kerai_private.verified_changeset[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    writers text[];
    locked text[];
    wanted text[];
begin
    if exists (select from unnest(items) as i where i.author is null) then
        writers := kerai_private.writers_of(items);
    end if;
    for i in 1 .. coalesce(cardinality(writers), 0) loop
        continue when (items[i]).author is not null;
        begin
            items[i].author := coalesce(writers[i], kerai_private.writer_of(items[i]));
        exception
            when lock_not_available or transaction_rollback then
                raise;
            when others then
                null;  -- Named exactly when its turn comes.
        end;
    end loop;

    with held as (
        select a.author from kerai_private.authors as a
        where a.author in (select u.author from unnest(items) as u)
        order by a.author
        for update
    )

    select coalesce(array_agg(h.author), '{}') into locked from held as h;
    if exists (select from unnest(items) as i where i.task is not null) then
        perform kerai_private.lock_budgets(items);
    end if;
    perform kerai_private.lock_tree(exclusive);
    -- An author who was introduced meanwhile may have the lock of his row, and wait for the tree lock.
    wanted := array(select distinct u.author from unnest(items) as u where u.author is not null);
    if cardinality(locked) < cardinality(wanted) and exists (
        select from unnest(wanted) as w (author)
        inner join kerai_private.authors as a on a.author = w.author
        where w.author not in (select l.author from unnest(locked) as l (author))) then
        raise exception using errcode = 'KR998', message = 'an author was introduced meanwhile';
    end if;
    -- Whether it is the right key is looked at with each changeset.
    insert into kerai_private.authors (author, public_key)
    select distinct on (u.author) u.author, u.public_key from unnest(items) as u
    where u.author is not null and u.public_key is not null
        and not exists (select from kerai_private.authors as a where a.author = u.author offset 0)
    order by u.author
    on conflict do nothing;
    return items;
end
$$;

-- Where the runs of a batch end: what is merged together is no more than is merged at once, and nothing whose guard is
-- to be judged or that has no writer.
create or replace function kerai_private.run_ends(items kerai_private.verified_changeset[], enforce_policy boolean)
returns int[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    most constant int := kerai_private.most_at_once();
    sizes int[];
    apart boolean[];
    running int := 0;
    ends int[] := '{}';
begin
    select array_agg(jsonb_array_length(u.ops)), array_agg(enforce_policy and u.guard is not null or u.author is null)
    into sizes, apart
    from unnest(items) as u;
    if sizes is null then
        return ends;
    end if;
    for n in 1 .. cardinality(sizes) loop
        if running > 0 and (apart[n] or apart[n - 1] or running + sizes[n] > most) then
            ends := ends || (n - 1);
            running := 0;
        end if;
        running := running + sizes[n];
    end loop;
    return ends || cardinality(sizes);
end
$$;

-- Which of a run, before it gets its envelopes, are drafts.
create or replace function kerai_private.drafts_of(run kerai_private.verified_changeset[]) returns int[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(select r.c from (select row_number() over ()::int as c, u.id from unnest(run) as u) as r where r.id is null);
end
$$;

-- Keeps the evidence of the forks of a batch, each with the changeset that is here.
create or replace function kerai_private.keep_forks(items kerai_private.verified_changeset[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(items) = 0 then
        return;
    end if;
    insert into kerai.forks (author, seq, public_key, first_id, first_changeset, first_signature, second_id, second_changeset,
        second_signature)
    select f.author, f.first_seq, f.public_key, f.rival_id, f.rival_document, f.rival_signature, f.id, f.document, f.signature
    from (
        select i.author, i.first_seq, a.public_key, c.id as rival_id, c.document as rival_document,
            c.signature as rival_signature, i.id, i.document, i.signature,
            row_number() over (partition by i.author order by i.first_seq, i.id) as nth
        from unnest(items) as i
        inner join kerai_private.authors as a on a.author = i.author
        inner join kerai.changesets as c
            on c.id = kerai_private.rival_of(i.author, i.first_seq, i.last_seq, i.prev, i.id)
        where not exists (select from kerai.forks as k where (k.first_id, k.second_id) = (c.id, i.id))
    ) as f
    -- As many as kerai_private.refuse_fork keeps.
    where f.nth + (select count(*) from kerai.forks as k where k.author = f.author) <= 16
    on conflict do nothing;
end
$$;

-- Writers: the author id under which a swarm that groups its members writes. A member signs a draft; the instance
-- gives it a place in the writer's sequence and signs the changeset that holds the draft's exact text.

-- Gives the drafts of a run their places after the heads of their writers, in order. NULL when the instance's key is
-- not on this server.
create or replace function kerai_private.wrap_drafts(run kerai_private.verified_changeset[])
returns kerai_private.verified_changeset[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    writers constant text[] := array(select distinct r.author from unnest(run) as r where r.id is null order by 1);
    writer_key bytea;
    sealed kerai_private.verified_changeset[];
begin
    if cardinality(writers) = 0 then
        return run;
    end if;
    -- All writers have the instance's key.
    select a.public_key into writer_key from kerai_private.authors as a where a.author = writers[1];

    with head as (
        select array_agg(a.author order by a.author) as authors, array_agg(a.seq order by a.author) as seqs,
            array_agg(a.lamport order by a.author) as lamports, array_agg(a.changeset_id order by a.author) as ids
        from kerai_private.authors as a
        where a.author = any(writers)
    ),

    seen as (
        select r.n, max(case when a.seq = e.value::bigint then a.lamport
            else kerai_private.lamport_of(a.author, e.value::bigint) end) as lamport
        from (select row_number() over () as n, u.id, u.base from unnest(run) as u) as r
        cross join lateral jsonb_each_text(r.base) as e
        cross join lateral (select k.* from kerai_private.authors as k where k.author = e.key offset 0) as a
        where r.id is null
        group by r.n
    ),

    draft as (
        select array_agg(r.n order by r.n) as places, array_agg(r.author order by r.n) as authors,
            array_agg(coalesce(b.lamport, 0) order by r.n) as lamports,
            array_agg(jsonb_array_length(r.ops) order by r.n) as counts, array_agg(r.document::text order by r.n) as texts,
            array_agg(r.member_key order by r.n) as keys, array_agg(r.member_signature order by r.n) as signatures
        from unnest(run) with ordinality as r (
            id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task, message, ops, document,
            signature, public_key, swarm, member, member_signature, member_key, draft_id, n)
        left join seen as b on b.n = r.n
        where r.id is null
    )

    select array_agg(case when e.place is null then r.item else row(
        e.id, (r.item).author, e.seq, e.seq + jsonb_array_length((r.item).ops) - 1,
        e.lamport, e.lamport + jsonb_array_length((r.item).ops) - 1, e.prev, (r.item).base, (r.item).guard, (r.item).task,
        (r.item).message, (r.item).ops, e.document::json, e.signature, writer_key, (r.item).swarm, (r.item).member,
        (r.item).member_signature, (r.item).member_key, (r.item).draft_id)::kerai_private.verified_changeset end order by r.n)
    into sealed
    from (select row_number() over () as n, u as item from unnest(run) as u) as r
    cross join head as h
    cross join draft as d
    left join kerai_private.envelopes(
        h.authors, h.seqs, h.lamports, h.ids, writer_key, current_setting('data_directory'),
        d.places, d.authors, d.lamports, d.counts, d.texts, d.keys, d.signatures) as e on e.place = r.n;

    if exists (select from unnest(sealed) as s where s.id is null) then
        return null;
    end if;
    return sealed;
end
$$;

-- The changesets that hold the drafts' texts, each after its writer's one before; none when the key is not here.
create or replace function kerai_private.envelopes(
    head_authors text[], head_seqs bigint[], head_lamports bigint[], head_ids bytea[], public_key bytea,
    data_directory text, places bigint[], authors text[], lamports bigint[], counts int[], texts text[],
    member_keys bytea[], member_signatures bytea[]
) returns table (place bigint, document text, id bytea, seq bigint, lamport bigint, prev bytea, signature bytea)
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
heads = {author: (seq, lamport, changeset_id) for author, seq, lamport, changeset_id
         in zip(head_authors, head_seqs, head_lamports, head_ids)}
return GD["kerai @version@"].server.seal_drafts(
    heads, public_key, data_directory,
    zip(places, authors, lamports, counts, texts, member_keys, member_signatures),
    pause=lambda: plpy.execute("select"))
$$;

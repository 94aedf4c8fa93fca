-- Signatures: changesets are taken apart, and verified against their authors' keys.

-- Looks at changesets and drafts without regard to what is merged here, and at who has signed them. Refuses for the
-- first thing that is wrong with any of them.
create or replace function kerai_private.check_changesets(
    given kerai_private.incoming[], parsed jsonb[], verified boolean default false
) returns kerai_private.verified_changeset[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    max_draft bigint;
    keys bytea[];
    member_keys bytea[] := '{}';
    items kerai_private.verified_changeset[];
begin
    perform kerai_private.require_envelope(p.changeset) from unnest(parsed) as p (changeset);

    keys := kerai_private.require_signatures(
        array_agg(g.document::text order by g.n), array_agg(g.changeset ->> 'author' order by g.n),
        array_agg(g.signature order by g.n), array_agg(g.public_key order by g.n), verified)
    from rows from (unnest(given), unnest(parsed)) with ordinality as g (document, signature, public_key, changeset, n);

    if exists (select from unnest(parsed) as p (changeset) where p.changeset ?| '{swarm,draft}') then
        max_draft := kerai_private.max_draft_bytes();
        perform kerai_private.require_draft(g.document, g.changeset)
        from rows from (unnest(given), unnest(parsed)) as g (document, signature, public_key, changeset)
        where kerai_private.draft_problem(g.document, g.changeset, max_draft) is not null;
    end if;
    if exists (select from unnest(parsed) as p (changeset) where p.changeset ? 'draft') then
        member_keys := kerai_private.require_signatures(
            array_agg((g.document -> 'draft')::text order by g.n), array_agg(g.changeset #>> '{draft,author}' order by g.n),
            array_agg(decode(g.changeset ->> 'member_signature', 'hex') order by g.n),
            array_agg(decode(g.changeset ->> 'member_key', 'hex') order by g.n))
        from rows from (unnest(given), unnest(parsed)) with ordinality as g (document, signature, public_key, changeset, n);
    end if;

    items := array(
        select row(
            case when not g.is_draft then sha256(convert_to(g.document::text, 'UTF8')) end,
            case when not g.is_draft then g.changeset ->> 'author' end,
            (g.changeset ->> 'seq')::bigint, (g.changeset ->> 'seq')::bigint + g.count - 1,
            (g.changeset ->> 'lamport')::bigint, (g.changeset ->> 'lamport')::bigint + g.count - 1,
            decode(g.changeset ->> 'prev', 'hex'), g.content -> 'base', (g.content ->> 'guard')::uuid,
            (g.content ->> 'task')::uuid, g.content ->> 'message', g.content -> 'ops', g.document,
            case when not g.is_draft then g.signature end, case when not g.is_draft then g.key end,
            (g.content ->> 'swarm')::uuid, case when g.content ? 'swarm' then g.content ->> 'author' end,
            case when g.is_draft then g.signature else decode(g.changeset ->> 'member_signature', 'hex') end,
            case when g.is_draft then g.key else g.member_key end,
            case when g.is_draft then sha256(convert_to(g.document::text, 'UTF8'))
                when g.content ? 'swarm' then sha256(convert_to((g.document -> 'draft')::text, 'UTF8')) end
        )::kerai_private.verified_changeset
        from (
            select r.*, coalesce(r.changeset -> 'draft', r.changeset) as content, r.changeset ? 'swarm' as is_draft,
                jsonb_array_length(coalesce(r.changeset #> '{draft,ops}', r.changeset -> 'ops')) as count
            from rows from (unnest(given), unnest(parsed), unnest(keys), unnest(member_keys)) with ordinality
                as r (document, signature, public_key, changeset, key, member_key, n)
        ) as g
        order by g.n);
    perform kerai_private.require_operations(variadic array(select i.ops from unnest(items) as i));
    return items;
end
$$;

-- Refuses KR001, KR002 or KR006 unless each text is signed by its author, and returns their keys. Where there is no
-- text there is nothing to sign. verified: the signatures verify with the given keys, and only whose these are is
-- asked.
create or replace function kerai_private.require_signatures(
    documents text[], authors text[], signatures bytea[], public_keys bytea[], verified boolean default false
) returns bytea[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    keys bytea[];
    fits boolean[];
    bad int;
begin
    select array_agg(coalesce(a.public_key, s.public_key) order by s.n),
        array_agg(s.public_key is null or a.public_key = s.public_key
            or a.public_key is null and right(s.author, 16) = left(encode(sha256(s.public_key), 'hex'), 16) order by s.n)
    into keys, fits
    from unnest(authors, public_keys) with ordinality as s (author, public_key, n)
    left join lateral (select k.public_key from kerai_private.authors as k where k.author = s.author offset 0) as a on true;

    if not verified then
        fits := array(
            select v.fits and v.verifies
            from rows from (unnest(kerai_private.verify_signatures(documents, signatures, keys)), unnest(fits)) with ordinality
                as v (verifies, fits, n)
            order by v.n);
    end if;
    select v.n into bad
    from rows from (unnest(fits), unnest(documents)) with ordinality as v (fits, document, n)
    where v.document is not null and v.fits is not true
    order by v.n
    limit 1;
    if found then
        perform kerai_private.require_signature(documents[bad], authors[bad], signatures[bad], public_keys[bad]);
    end if;
    return keys;
end
$$;

-- Refuses KR001, KR002 or KR006 unless the author has signed the text. Returns the author's key.
create or replace function kerai_private.require_signature(
    document text, author text, signature bytea, public_key bytea
) returns bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    known_key bytea;
begin
    if signature is null then
        perform kerai_private.refuse('KR001', 'a changeset must be signed', format('author: %s, signature: null', author));
    end if;
    if public_key is not null and (octet_length(public_key) <> 32
        or right(author, 16) <> left(encode(sha256(public_key), 'hex'), 16)) then
        perform kerai_private.refuse('KR002', 'the author id does not match the public key',
            format('author: %s, key: %s', author, encode(public_key, 'hex')),
            'An author id is <name>.<first 16 hex digits of sha256(public key)>.');
    end if;
    select a.public_key into known_key from kerai_private.authors as a where a.author = author;
    if known_key is null and public_key is null then
        perform kerai_private.refuse('KR006', 'no such author', format('author: %s', author),
            'Pass public_key to introduce the author, or register the agent with kerai.register_agent.');
    end if;
    if known_key <> public_key then
        perform kerai_private.refuse_key(author, known_key, public_key);
    end if;
    if not kerai_private.verify_signature(document, signature, coalesce(known_key, public_key)) then
        perform kerai_private.refuse('KR001', 'the signature does not verify',
            format('author: %s, changeset: %s', author, encode(sha256(convert_to(document, 'UTF8')), 'hex')));
    end if;
    return coalesce(known_key, public_key);
end
$$;

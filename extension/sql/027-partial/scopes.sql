-- Scopes: an instance that holds one subtree of a peer's tree, exactly.
--
-- Inside is the scope and, again and again, whatever was ever placed directly below something inside. The nodes of the
-- scope are these and, again and again, whatever any of them was ever placed below. So every move of one of these, and
-- all that decides whether it is void, concerns these nodes only. Their operations by themselves fold to the state that
-- they have in the whole.
--
-- A changeset with an operation on a node of the scope comes whole, byte for byte, and only these operations are
-- merged. Of every other one comes a stub: its place in its author's chain, base and signature. When a node comes into
-- the scope later, older changesets about it are backfilled.

create or replace function kerai_sync.scope_state(out scope uuid, out peer text, out named bigint, out complete bigint,
    out backfilled_to bigint, out is_backfilling boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.scope, p.peer, p.named, p.complete, p.backfilled_to,
        exists (select from kerai_private.scope_nodes as s where s.state = 'backfilling')
    from (select) as one
    left join kerai_private.partial_scope as p on true
$$;

comment on function kerai_sync.scope_state() is
'The scope that this instance holds, NULL when it holds everything, and how far the list of the scope''s nodes has been followed.';

create or replace function kerai_sync.add_scope_nodes(
    served uuid, nodes uuid[], inside boolean[], named bigint
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    blank boolean;
begin
    -- Another list than the last time is told from the beginning, and is not believed to be the same but for its end.
    update kerai_private.partial_scope as p set served = $1, named = 0, complete = 0, backfilled_to = 0
    where p.served is distinct from $1;
    if found then
        update kerai_private.scope_nodes set state = 'local' where state = 'complete';
    end if;
    blank := not exists (select from kerai.changesets);
    insert into kerai_private.scope_nodes as s (node_id, inside, state)
    select u.node, coalesce(bool_or(u.inside), false), case when blank then 'complete' else 'backfilling' end
    from unnest(nodes, inside) as u (node, inside)
    where u.node is not null
    group by u.node
    on conflict (node_id) do update
    set inside = s.inside or excluded.inside, state = case when s.state = 'local' then 'backfilling' else s.state end
    where not s.inside and excluded.inside or s.state = 'local';
    -- What is said of these may stand before what has come already.
    update kerai_private.partial_scope as p
    set named = greatest(p.named, $4), backfilled_to = case when found then 0 else p.backfilled_to end;
end
$$;

comment on function kerai_sync.add_scope_nodes(uuid, uuid[], boolean[], bigint) is
'A part of kerai.sync in a partial instance: takes the nodes that have come into the scope, as its peer names them.';

-- A refusal as kerai_sync.exchange notes it.
create or replace function kerai_private.refused_pull(
    id bytea, author text, last_seq bigint, code text, message text, detail text, hint text
) returns jsonb
language sql immutable parallel safe
return jsonb_build_object('direction', 'pull', 'changeset_id', encode(id, 'hex'), 'author', author,
    'last_seq', last_seq, 'code', code, 'message', message, 'detail', detail, 'hint', hint);

-- Looks at changesets of a page, each by itself when something is wrong with one of them: NULL in the place of what is
-- refused.
create or replace function kerai_private.verify_each(
    given kerai_private.incoming[], out items kerai_private.verified_changeset[], out refused jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    document json;
    detail text;
    hint text;
begin
    refused := '[]';
    begin
        items := kerai_private.verify_changesets(given, enforce_policy => false);
        return;
    exception when others then
        if sqlstate not like 'KR%' then
            raise;
        end if;
    end;
    for place in 1 .. cardinality(given) loop
        begin
            items := items || kerai_private.verify_changesets(given[place:place], enforce_policy => false);
        exception when others then
            if sqlstate not like 'KR%' then
                raise;
            end if;
            get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
            document := (given[place]).document;
            items := items || null::kerai_private.verified_changeset;
            refused := refused || (
                select kerai_private.refused_pull(sha256(convert_to(document::text, 'UTF8')), c.author, c.last_seq, sqlstate,
                    sqlerrm, detail, hint)
                from kerai_private.claim_of(document) as c);
        end;
    end loop;
end
$$;

create or replace function kerai_sync.accept_scoped(
    ids bytea[], authors text[], first_seqs bigint[], last_seqs bigint[], first_lamports bigint[], prevs bytea[],
    bases jsonb[], documents json[], signatures bytea[], public_keys bytea[], out merged int, out applied bigint,
    out refused jsonb
)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    given kerai_private.incoming[];
    items kerai_private.verified_changeset[];
    run kerai_private.verified_changeset[];
    unsure int[];
    item kerai_private.verified_changeset;
    head kerai_private.authors;
    first int := 1;
    last int;
    done int;
    place int;
    detail text;
    hint text;
begin
    perform kerai_private.bound_lock_waits();
    merged := 0;
    applied := 0;
    refused := '[]';
    given := array(
        select row(g.document, g.signature, g.public_key)::kerai_private.incoming
        from unnest(documents, signatures, public_keys) with ordinality as g (document, signature, public_key, n)
        where g.document is not null
        order by g.n);
    if cardinality(given) > 0 then
        select l.items, l.refused into items, refused from kerai_private.verify_each(given) as l;
    end if;
    items := kerai_private.with_stubs(items, ids, authors, first_seqs, last_seqs, first_lamports, prevs, bases, documents,
        signatures, public_keys);
    items := kerai_private.lock_for_merge(array(select u from unnest(items) as u where u.id is not null), exclusive => true);

    foreach last in array kerai_private.run_ends(items, enforce_policy => false) loop
        run := items[first:last];
        first := last + 1;
        unsure := case when cardinality(run) = 1 then '{1}' else kerai_private.find_unsure(run, '{}', '{}', enforce_policy => false) end;
        done := 0;
        foreach place in array unsure || (cardinality(run) + 1) loop
            if place - done > 1 then
                applied := applied + kerai_private.apply_scoped_changesets(run[done + 1:place - 1]);
                merged := merged + place - done - 1;
            end if;
            done := place;
            item := run[place];
            continue when place > cardinality(run) or exists (select from kerai.changesets as c where c.id = item.id);
            select a.* into head from kerai_private.authors as a where a.author = item.author;
            begin
                perform kerai_private.require_succession(item, head, enforce_policy => false, apart => true);
                perform kerai_private.require_covered(item.base);
                perform kerai_private.require_lamport(item.first_lamport, item.base, head.lamport);
            exception when others then
                if sqlstate not like 'KR%' then
                    raise;
                end if;
                get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
                refused := refused || kerai_private.refused_pull(item.id, item.author, item.last_seq, sqlstate, sqlerrm,
                    detail, hint);
                continue;
            end;
            applied := applied + kerai_private.apply_scoped_changesets(array[item]);
            merged := merged + 1;
        end loop;
    end loop;
end
$$;

comment on function kerai_sync.accept_scoped(bytea[], text[], bigint[], bigint[], bigint[], bytea[], jsonb[], json[], bytea[], bytea[]) is
'A part of kerai.sync in a partial instance: merges a page of changesets, of those without a document only their place in the history, and says which were refused.';

-- Merges a part of a page; returns how many of its operations are of the scope.
create or replace function kerai_private.apply_scoped_changesets(run kerai_private.verified_changeset[]) returns int
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    ops constant kerai_private.operation[] := kerai_private.of_scope(coalesce(kerai_private.unpack_operations(run), '{}'));
begin
    perform kerai_private.require_sent(ops);
    perform kerai_private.apply_changesets(run, ops, exclusive => true);
    return cardinality(ops);
end
$$;

-- A page's items in their order: those with a document as they were looked at, the others as the peer says.
create or replace function kerai_private.with_stubs(
    items kerai_private.verified_changeset[], ids bytea[], authors text[], first_seqs bigint[], last_seqs bigint[],
    first_lamports bigint[], prevs bytea[], bases jsonb[], documents json[], signatures bytea[], public_keys bytea[]
) returns kerai_private.verified_changeset[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    bad text;
    most constant bigint := 999999999999999999;
begin
    select g.author into bad
    from unnest(ids, authors, first_seqs, last_seqs, first_lamports, signatures, public_keys, documents)
        as g (id, author, first_seq, last_seq, first_lamport, signature, public_key, document)
    where g.document is null and not coalesce(octet_length(g.id) = 32 and octet_length(g.signature) = 64
        and octet_length(g.public_key) = 32 and octet_length(g.author) <= 220
        and right(g.author, 16) = left(encode(sha256(g.public_key), 'hex'), 16)
        and g.first_seq between 1 and g.last_seq and g.last_seq <= most
        and g.first_lamport between 1 and most, false)
    limit 1;
    if found then
        perform kerai_private.refuse('KR005', 'the peer sends a stub that is none', format('author: %s', left(bad, 220)),
            'kerai.verify() on the peer says whether it is damaged.');
    end if;
    perform kerai_private.checked_vector(b) from unnest(bases, documents) as g (b, document) where g.document is null;
    return array(
        select case when g.document is null then row(
            g.id, g.author, g.first_seq, g.last_seq, g.first_lamport, g.first_lamport + g.last_seq - g.first_seq, g.prev,
            g.base, null, null, null, '[]', null, g.signature, g.public_key, null, null, null,
            null, null)::kerai_private.verified_changeset
            else items[count(g.document) over (order by g.n)] end
        from unnest(ids, authors, first_seqs, last_seqs, first_lamports, prevs, bases, documents, signatures, public_keys)
            with ordinality as g (id, author, first_seq, last_seq, first_lamport, prev, base, document, signature, public_key, n)
        order by g.n);
end
$$;

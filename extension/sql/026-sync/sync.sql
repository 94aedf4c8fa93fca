-- Sync: the conversation with a peer. See peers.sql for whose rights it has.
--
-- A changeset that one side refuses is noted. Nothing more of its author is asked for until the conversation has come
-- to its end, since all that follows in the author's sequence would be refused too.
--
-- It goes by steps, each in a subtransaction: what fails ends the conversation and undoes its own step only. Pushing
-- comes before pulling: while it waits for the peer's locks, nothing here is locked but the row of the peer. So two
-- instances that sync with each other at once do not wait in a ring that no server can see.

-- A question to the peer. dblink() waits for its answer whatever the session is told; dblink_exec and dblink_fetch end
-- when they are cancelled. At the peer's own isolation level a push would fail whenever others push there.
create or replace function kerai_sync.ask_peer(link text, query text, columns text) returns setof record
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    place constant text := (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'dblink');
    telling constant text := format('select %I.dblink_exec($1, $2)', place);
    most_rows constant int := 5000;
    fetched int;
begin
    execute telling using link,
        'begin isolation level read committed; declare kerai_answer no scroll cursor for ' || query;
    loop
        return query execute format('select * from %I.dblink_fetch($1, ''kerai_answer'', $2) as t %s', place, columns)
        using link, most_rows;
        get diagnostics fetched = row_count;
        exit when fetched < most_rows;
    end loop;
    execute telling using link, 'commit';
exception when others then
    -- So that the peer answers the next question; the connection may be lost.
    execute format('select %I.dblink_exec($1, $2, false)', place) using link, 'rollback';
    raise;
end
$$;

comment on function kerai_sync.ask_peer(text, text, text) is
'A part of kerai.sync: the answer to a query over an open dblink connection, in one transaction there. columns: as in AS t (a int), with types.';

-- Compares what both have of each author, and exchanges the proofs of forks. A vector cannot show a fork: both name
-- the same number of operations, and mean others. Hence the ids of the changesets at the latest common place.
create or replace function kerai_sync.compare_heads(
    link text, mine jsonb, theirs jsonb, checked jsonb,
    out agreed jsonb, out not_pulled text[], out not_pushed text[], out forks int, out problem text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_variable
declare
    asking constant text := 'select * from kerai_sync.ask_peer($1, $2, %1$L) as t %1$s';
    proofs constant text := 'select public_key, first_changeset, first_signature, second_changeset, second_signature '
        || 'from kerai.forks where author = %L and merged_elsewhere order by id limit 1';
    changesets constant text := 'select document, signature from kerai.changesets where author = %L and first_seq = %s';
    reporting constant text := 'select kerai.report_fork(%L::bytea, %L::json, %L::bytea, %L::json, %L::bytea, %L::bigint)';
    frozen_here constant text[] := array(select distinct f.author from kerai.forks as f where f.merged_elsewhere);
    frozen_there text[];
    frozen text[];
    differing text[];
    who text;
    mine_seq bigint;
    their_seq bigint;
    same bigint;
    other bigint;
    here record;
    there record;
    proof record;
begin
    forks := 0;
    -- A copy that is no longer compressed: it is looked into once an author.
    checked := checked || '{}';
    execute 'select coalesce(array_agg(t.author), ''{}'') from (' || format(asking, '(author text)') || ' limit 1000) as t'
    into frozen_there using link, 'select distinct author from kerai.forks where merged_elsewhere order by author limit 1000';
    frozen := array(select f from unnest(frozen_here || frozen_there) as f group by f);

    select coalesce(jsonb_object_agg(v.author, v.seq), '{}'),
        coalesce(jsonb_object_agg(v.author, v.seq) filter (
            where v.seq > coalesce((checked ->> v.author)::bigint, 0) or v.author in (select f from unnest(frozen) as f)),
        '{}')
    into agreed, checked
    from (
        select m.key as author, least(m.value::bigint, (theirs ->> m.key)::bigint) as seq
        from jsonb_each_text(mine) as m
        where theirs ? m.key
    ) as v;

    execute 'select coalesce(array_agg(h.author), ''{}'') from kerai.heads($3) as h left join ('
        || format(asking, '(author text, seq bigint, changeset_id bytea)') || ') as t using (author)
        where (h.seq, h.changeset_id) is distinct from (t.seq, t.changeset_id)'
    into differing using link, format('select author, seq, changeset_id from kerai.heads(%L::jsonb)', checked), checked;
    agreed := agreed - differing;

    -- A proof that only one side has goes to the other. Where both are on one branch of a frozen author, it is
    -- followed as far as either has merged it, since others have built on that.
    foreach who in array frozen loop
        mine_seq := coalesce((mine ->> who)::bigint, 0);
        their_seq := coalesce((theirs ->> who)::bigint, 0);
        begin
            if who = any(frozen_here) then
                select f.* into proof from kerai.forks as f where f.author = who and f.merged_elsewhere order by f.id limit 1;
            else
                execute format(asking, '(public_key bytea, first_changeset json, first_signature bytea, '
                    || 'second_changeset json, second_signature bytea)')
                into proof using link, format(proofs, who);
            end if;
            if not who = any(frozen_there) or not who = any(differing) and mine_seq > their_seq then
                begin
                    execute format(asking, '(kept boolean)') using link, format(reporting, proof.public_key, proof.first_changeset,
                        proof.first_signature, proof.second_changeset, proof.second_signature,
                        case when not who = any(differing) then mine_seq end);
                exception when others then
                    problem := coalesce(problem, format('the peer was not told that %s has forked: %s', who, sqlerrm));
                end;
            end if;
            if not who = any(frozen_here) or not who = any(differing) and their_seq > mine_seq then
                perform kerai.report_fork(proof.public_key, proof.first_changeset, proof.first_signature,
                    proof.second_changeset, proof.second_signature,
                    case when not who = any(differing) then their_seq end);
            end if;
        exception when others then
            problem := coalesce(problem, format('the proof that %s has forked was not taken: %s', who, sqlerrm));
        end;
        if who = any(differing) or their_seq <= mine_seq then
            not_pulled := not_pulled || who;
        end if;
        if who = any(differing) or mine_seq <= their_seq then
            not_pushed := not_pushed || who;
        end if;
    end loop;

    -- A fork that nobody has seen yet: where do the histories part? Up to `same` they agree, at `other` they do not.
    for who in select d from unnest(differing) as d where d not in (select f from unnest(frozen) as f) limit 20 loop
        not_pulled := not_pulled || who;
        not_pushed := not_pushed || who;
        begin
            same := 0;
            other := checked ->> who;
            while other - same > 1 loop
                select h.* into here from kerai.heads(jsonb_build_object(who, (same + other) / 2)) as h;
                execute format(asking, '(author text, seq bigint, changeset_id bytea)') into there
                using link, format('select author, seq, changeset_id from kerai.heads(%L::jsonb)',
                    jsonb_build_object(who, (same + other) / 2));
                if here.changeset_id = there.changeset_id and here.seq < other then
                    same := here.seq;
                else
                    other := (same + other) / 2;
                end if;
            end loop;
            select c.document, c.signature into here from kerai.changesets as c
            where c.author = who and c.first_seq = other;
            execute format(asking, '(document json, signature bytea)') into there using link, format(changesets, who, other);
            if there.document is null then
                problem := coalesce(problem, format('the peer does not show what it has of %s at %s', who, other));
                continue;
            end if;
            begin
                execute format(asking, '(kept boolean)') using link,
                    format(reporting, null, there.document, there.signature, here.document, here.signature, null);
            exception when others then
                problem := coalesce(problem, format('the peer was not told that %s has forked: %s', who, sqlerrm));
            end;
            perform kerai.report_fork(null, here.document, here.signature, there.document, there.signature);
            forks := forks + 1;
        exception when others then
            problem := coalesce(problem, format('the peer holds what it cannot prove of %s at %s: %s', who, other, sqlerrm));
        end;
    end loop;
    not_pulled := coalesce(not_pulled, '{}');
    not_pushed := coalesce(not_pushed, '{}');
end
$$;

comment on function kerai_sync.compare_heads(text, jsonb, jsonb, jsonb) is
'A part of kerai.sync: compares both sides'' changesets of each author at the latest common place, finds forks and exchanges their proofs over an open dblink connection.';

create or replace function kerai_sync.exchange(peer text, pulling boolean, pushing boolean, max_ops int default null)
returns kerai.sync_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_variable
declare
    contact constant kerai.peer_connections := kerai_sync.begin_contact(peer, current_user, max_ops);
    place constant text := (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'dblink');
    asking constant text := 'kerai_sync.ask_peer($1, $2, %1$L) as t %1$s';
    link constant text := 'kerai ' || gen_random_uuid();
    most_changesets constant int := 100000;  -- as kerai.accept takes
    -- Halved when one side's pages are larger than the other takes at once.
    page_ops int := least(most_changesets, (
        select s.value from kerai.settings as s where s.name = 'sync_page_ops'));
    beyond_all constant bigint := 999999999999999999;
    most_vector_bytes constant int := 268435456;
    most_refusals constant int := 1000;
    -- What this instance holds, where that is not everything; the peer's list of the nodes; and how many changesets came
    -- that count as one operation each.
    holding record := kerai_sync.scope_state();
    list record;
    stubs bigint := 0;
    result kerai.sync_result := (peer, 0, 0, 0, 0, 0, 0, 0, false, null);
    step text := 'connect';
    pulled boolean := not pulling;
    pushed boolean := not pushing;
    theirs jsonb;
    compared record;
    agreed jsonb := '{}';
    skipped jsonb := contact.skipped;
    position jsonb;
    passed jsonb;
    page record;
    answer record;
    refused jsonb := '[]';
    state text;
    problem text;
    problem_detail text;
    context text;
begin
    while step <> 'end' loop
        begin
            case step
            when 'connect' then
                execute format('select %I.dblink_connect($1, $2)', place) using link, contact.connection;
                step := 'look';

            when 'look' then
                execute 'select left(t.vector, $3) as vector from ' || format(asking, '(vector text)') into page
                using link, 'select kerai.version_vector()::text', most_vector_bytes;
                theirs := kerai.vector_merge(page.vector::jsonb, '{}');
                compared := kerai_sync.compare_heads(link, kerai.version_vector(), theirs, contact.agreed);
                result.forks := compared.forks;
                result.problem := compared.problem;
                agreed := compared.agreed;
                position := kerai.vector_merge(theirs, coalesce(skipped -> 'push', '{}')) || coalesce((
                    select jsonb_object_agg(a, beyond_all) from unnest(compared.not_pushed) as a), '{}');
                step := 'push';

            when 'push' then
                if not pushed and result.pushed_operations < coalesce(max_ops, beyond_all) then
                    select string_agg(quote_literal(p.changeset), ',' order by p.n) as documents,
                        string_agg(quote_literal(p.signature), ',' order by p.n) as signatures,
                        string_agg(quote_literal(p.public_key), ',' order by p.n) as public_keys,
                        count(*) as changesets, sum(octet_length(p.changeset::text)) as bytes,
                        jsonb_object_agg(c.author, c.last_seq order by p.n) as offered,
                        jsonb_object_agg(encode(p.id, 'hex'), c.author) as authors
                    into page
                    from (
                        select p.*, sha256(convert_to(p.changeset::text, 'UTF8')) as id
                        from kerai.changesets_since(position, least(page_ops, max_ops - result.pushed_operations)::int)
                        with ordinality as p (changeset, signature, public_key, n)
                    ) as p
                    inner join kerai.changesets as c on c.id = p.id;

                    if page.changesets = 0 then
                        pushed := true;
                        skipped := skipped - 'push';
                    else
                        execute 'select count(*) filter (where t.status = ''merged'') as merged,
                            coalesce(sum(greatest(t.applied, 0)) filter (where t.status = ''merged''), 0) as applied,
                            jsonb_agg(to_jsonb(t) || jsonb_build_object(''direction'', ''push'',
                                ''changeset_id'', encode(t.changeset_id, ''hex''))) filter (where t.status = ''refused'') as refused,
                            jsonb_object_agg($4 ->> encode(t.changeset_id, ''hex''), $5) filter (
                                where t.status = ''refused'' and $4 ? encode(t.changeset_id, ''hex'')) as passed
                            from (select * from ' || format(asking, '(changeset_id bytea, status text, applied int, author text, '
                                || 'last_seq bigint, code text, message text, detail text, hint text)') || ' limit $3) as t'
                        into answer
                        using link, format('select * from kerai.accept(array[%s]::json[], array[%s]::bytea[], array[%s]::bytea[])',
                            page.documents, page.signatures, page.public_keys), page.changesets, page.authors, beyond_all;
                        position := kerai.vector_merge(kerai.vector_merge(position, page.offered), coalesce(answer.passed, '{}'));
                        if answer.passed is not null then
                            skipped := skipped || jsonb_build_object('push',
                                kerai.vector_merge(coalesce(skipped -> 'push', '{}'), answer.passed));
                        end if;
                        refused := refused || coalesce(answer.refused, '[]');
                        result.bytes := result.bytes + page.bytes;
                        result.pushed_changesets := result.pushed_changesets + answer.merged;
                        result.pushed_operations := result.pushed_operations + answer.applied;
                    end if;
                elsif result.pushed_changesets > 0 then
                    step := 'acknowledge';
                else
                    step := 'turn';
                end if;

            when 'acknowledge' then
                execute 'select left(t.vector, $3) as vector from ' || format(asking, '(vector text)') into page
                using link, 'select kerai.version_vector()::text', most_vector_bytes;
                theirs := kerai.vector_merge(page.vector::jsonb, '{}');
                step := 'turn';

            when 'turn' then
                if holding.scope is not null and not pulled then
                    execute 'select t.served, left(t.vector, $3) as vector from ' || format(asking, '(served uuid, vector text)')
                    into list using link,
                        format('select served, vector::text from kerai_sync.serve_scope(%L)', holding.scope), most_vector_bytes;
                    theirs := kerai.vector_merge(list.vector::jsonb, '{}');
                end if;
                perform kerai_sync.begin_pull(theirs);
                position := kerai.vector_merge(kerai.version_vector(), coalesce(skipped -> 'pull', '{}')) || coalesce((
                    select jsonb_object_agg(a, beyond_all) from unnest(compared.not_pulled) as a), '{}');
                step := case when holding.scope is not null and not pulled then 'members' else 'pull' end;

            -- The nodes that have come into the scope, then what is late of them, then what is new.
            when 'members' then
                perform kerai_sync.take_members(list.served, '{}', '{}', 0);
                holding := kerai_sync.scope_state();
                execute 'select array_agg(t.node_id) as nodes, array_agg(t.inside) as inside, max(t.number) as number,
                    count(*) as members from (select * from ' || format(asking, '(node_id uuid, inside boolean, number bigint)') || ' limit $3) as t'
                into page using link, format('select * from kerai_sync.scope_members(%L, %s, %s)', list.served, holding.named,
                    most_changesets), most_changesets;
                if page.members > 0 then
                    perform kerai_sync.take_members(list.served, page.nodes, page.inside, page.number);
                else
                    step := 'late';
                end if;

            when 'late' then
                holding := kerai_sync.scope_state();
                if not holding.is_late then
                    perform kerai_sync.merge_late();
                    step := 'scope';
                elsif result.pulled_operations >= coalesce(max_ops, beyond_all) then
                    step := 'end';
                else
                    execute 'select array_agg(t.arrival) as arrivals, array_agg(t.document) as documents,
                        array_agg(t.signature) as signatures, array_agg(t.public_key) as public_keys, count(*) as changesets,
                        sum(octet_length(t.document::text)) as bytes, max(t.arrival) as arrival from (select * from '
                        || format(asking, '(arrival bigint, document json, signature bytea, public_key bytea)') || ' limit $3) as t'
                    into page using link, format('select arrival, document, signature, public_key '
                        || 'from kerai_sync.scope_late(%L, %L, %s, %s, %s)', list.served, kerai.version_vector(), holding.whole,
                        holding.late_after, least(page_ops, max_ops - result.pulled_operations)), most_changesets;
                    if page.changesets = 0 then
                        perform kerai_sync.merge_late();
                        step := 'scope';
                    elsif page.arrival <= holding.late_after then
                        problem := 'the peer sends again what it has sent';
                        step := 'end';
                    else
                        answer := kerai_sync.take_late(page.arrivals, page.documents, page.signatures, page.public_keys);
                        result.bytes := result.bytes + page.bytes;
                        result.pulled_changesets := result.pulled_changesets + answer.taken;
                        result.pulled_operations := result.pulled_operations + answer.applied;
                    end if;
                end if;

            when 'scope' then
                if result.pulled_operations + stubs >= coalesce(max_ops, beyond_all) then
                    step := 'end';
                else
                    execute 'select count(*) as changesets, sum(octet_length(t.document::text)) as bytes, array_agg(t.id) as ids,
                        array_agg(t.author) as authors, array_agg(t.first_seq) as first_seqs, array_agg(t.last_seq) as last_seqs,
                        array_agg(t.first_lamport) as first_lamports, array_agg(t.prev) as prevs, array_agg(t.base) as bases,
                        array_agg(t.document) as documents, array_agg(t.signature) as signatures,
                        array_agg(t.public_key) as public_keys from (select * from ' || format(asking, '(id bytea, author text, '
                            || 'first_seq bigint, last_seq bigint, first_lamport bigint, prev bytea, base jsonb, document json, '
                            || 'signature bytea, public_key bytea)') || ' limit $3) as t'
                    into page using link, format('select * from kerai_sync.scope_page(%L, %L, %L, %s)', list.served, position, theirs,
                        least(page_ops, max_ops - result.pulled_operations - stubs)), most_changesets;
                    if page.changesets = 0 then
                        pulled := true;
                        skipped := skipped - 'pull';
                        step := 'end';
                    else
                        answer := kerai_sync.accept_scoped(page.ids, page.authors, page.first_seqs, page.last_seqs,
                            page.first_lamports, page.prevs, page.bases, page.documents, page.signatures, page.public_keys);
                        passed := kerai.vector_merge(coalesce(skipped -> 'pull', '{}'), (
                            select coalesce(jsonb_object_agg(r ->> 'author', beyond_all), '{}')
                            from jsonb_array_elements(answer.refused) as r
                            where r ->> 'author' is not null and r ->> 'last_seq' is not null));
                        if answer.refused <> '[]' then
                            refused := refused || answer.refused;
                            skipped := skipped || jsonb_build_object('pull', passed);
                        end if;
                        passed := kerai.vector_merge(kerai.vector_merge(position, kerai.version_vector()), passed);
                        if passed = position then
                            problem := 'the peer sends what it was told is here';
                            step := 'end';
                        end if;
                        position := passed;
                        stubs := stubs + page.changesets;
                        result.bytes := result.bytes + coalesce(page.bytes, 0);
                        result.pulled_changesets := result.pulled_changesets + answer.merged;
                        result.pulled_operations := result.pulled_operations + answer.applied;
                    end if;
                end if;

            when 'pull' then
                if not pulled and result.pulled_operations < coalesce(max_ops, beyond_all) then
                    -- What the peer has merged since the locks were taken comes with the next pull.
                    execute 'select count(*) as sent, count(*) filter (where t.named) as changesets,
                        sum(octet_length(t.changeset::text)) filter (where t.named) as bytes,
                        array_agg(t.changeset) filter (where t.named) as documents,
                        array_agg(t.signature) filter (where t.named) as signatures,
                        array_agg(t.public_key) filter (where t.named) as public_keys
                        from (
                            select p.*, case when p.changeset ->> ''seq'' ~ ''^[0-9]{1,18}$'' then (p.changeset ->> ''seq'')::bigint
                                <= coalesce(($4 ->> (p.changeset ->> ''author''))::bigint, 0) end is not false as named
                            from (select * from ' || format(asking, '(changeset json, signature bytea, public_key bytea)') || ' limit $3) as p
                        ) as t'
                    into page
                    using link, format('select changeset, signature, public_key from kerai.changesets_since(%L::jsonb, %s)',
                        position, least(page_ops, max_ops - result.pulled_operations)), most_changesets + 1, theirs;

                    if page.changesets = 0 and page.sent > 0 then
                        execute 'select left(t.vector, $3) as vector from ' || format(asking, '(vector text)') into answer
                        using link, 'select kerai.version_vector()::text', most_vector_bytes;
                        if kerai.vector_compare(kerai.vector_merge(theirs, answer.vector::jsonb), theirs) = 'equal' then
                            problem := 'the peer sends what its own vector does not name';
                            step := 'end';
                            continue;
                        end if;
                    end if;
                    if page.changesets = 0 then
                        pulled := true;
                        skipped := skipped - 'pull';
                        step := 'end';
                    else
                        select count(*) filter (where r.status = 'merged') as merged,
                            coalesce(sum(r.applied) filter (where r.status = 'merged'), 0) as applied,
                            jsonb_agg(to_jsonb(r) || jsonb_build_object('direction', 'pull',
                                'changeset_id', encode(r.changeset_id, 'hex'))) filter (where r.status = 'refused') as refused,
                            jsonb_object_agg(r.author, beyond_all) filter (
                                where r.status = 'refused' and r.author is not null and r.last_seq is not null) as passed
                        into answer
                        from kerai.accept(page.documents, page.signatures, page.public_keys) as r;

                        passed := kerai.vector_merge(kerai.vector_merge(position, kerai.version_vector()), coalesce(answer.passed, '{}'));
                        if passed = position then
                            problem := 'the peer sends what it was told is here, or what is no changeset';
                            step := 'end';
                        end if;
                        position := passed;
                        if answer.passed is not null then
                            skipped := skipped || jsonb_build_object('pull',
                                kerai.vector_merge(coalesce(skipped -> 'pull', '{}'), answer.passed));
                        end if;
                        refused := refused || coalesce(answer.refused, '[]');
                        result.bytes := result.bytes + page.bytes;
                        result.pulled_changesets := result.pulled_changesets + answer.merged;
                        result.pulled_operations := result.pulled_operations + answer.applied;
                    end if;
                else
                    step := 'end';
                end if;
            end case;
            if jsonb_array_length(refused) > most_refusals then
                problem := 'more was refused than can be noted';
                step := 'end';
            end if;
        exception when query_canceled or assert_failure or others then
            get stacked diagnostics state = returned_sqlstate, problem = message_text,
                problem_detail = pg_exception_detail, context = pg_exception_context;
            -- The peer may cancel its query, then this goes on; but who cancels the call itself wants it to end.
            if state in ('57014', 'P0004') and context !~ 'on dblink connection named' then
                perform kerai_sync.hang_up(link);
                raise;
            end if;
            -- What is refused as a page, and not one by one, is too large for the other side.
            if state = 'KR005' and step in ('push', 'pull') and page_ops > 1 then
                page_ops := page_ops / 2;
                problem := null;
                continue;
            end if;
            -- Of libpq's words only those that cannot quote the connection.
            problem := format('%s: %s', state, problem) || case
                when step <> 'connect' or problem_detail ~ '^(connection to server|could not translate|Non-superusers)'
                    then coalesce(' (' || nullif(problem_detail, '') || ')', '')
                else '' end;
            step := 'end';
        end;
    end loop;
    perform kerai_sync.hang_up(link);

    result.refused := jsonb_array_length(refused);
    result.problem := left(coalesce(problem, result.problem, case when result.refused > 0 then format(
        '%s refused, see kerai.refusals; the first: %s %s', result.refused, refused -> 0 ->> 'code', refused -> 0 ->> 'message')
        when pulling and contact.skipped ? 'pull' or pushing and contact.skipped ? 'push' then
            'some were refused by earlier calls, see kerai.refusals'
        end), 2000);
    result.complete := pulled and pushed and result.problem is null;
    perform kerai_sync.end_contact(peer, theirs, case
        -- Where something did not fit, the next contact looks at everything again.
        when result.problem is null then agreed else '{}' end, skipped, result.problem, refused);
    return result;
end
$$;

comment on function kerai_sync.exchange(text, boolean, boolean, int) is
'What kerai.pull, kerai.push and kerai.sync do: one conversation with a peer, in the directions that are wanted. It ends after more than 1,000 refusals; the next one goes on from there.';

-- The pages of a pull are one transaction: it takes the locks that any of them may need at its beginning, in the order
-- that all keep.
-- An author who was introduced while this waited for the gate may wait for it himself by now: then all over again.
create or replace function kerai_sync.begin_pull(theirs jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '30s'
as $$
declare
    locked text[];
begin
    loop
        begin
            with held as (
                select a.author from kerai_private.authors as a
                where a.author in (select e.author from kerai_private.vector_entries(theirs) as e)
                order by a.author
                for update
            )

            select coalesce(array_agg(h.author), '{}') into locked from held as h;
            perform kerai_private.enter_gate(alone => true);
            exit when not exists (
                select from kerai_private.authors as a
                where a.author in (select e.author from kerai_private.vector_entries(theirs) as e)
                    and a.author not in (select u.author from unnest(locked) as u (author)));
            raise exception using errcode = 'KR999';
        exception when sqlstate 'KR999' then
            null;
        end;
    end loop;
end
$$;

comment on function kerai_sync.begin_pull(jsonb) is
'A part of kerai.sync: waits for the pushes that are under way, and keeps others waiting until the end of the transaction.';

create or replace function kerai_sync.hang_up(link text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    place constant text := (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'dblink');
    opened boolean;
begin
    execute format('select $1 = any(%I.dblink_get_connections())', place) into opened using link;
    if opened then
        execute format('select %I.dblink_disconnect($1)', place) using link;
    end if;
end
$$;

comment on function kerai_sync.hang_up(text) is 'A part of kerai.sync: closes the dblink connection of this name, if it is open.';

create or replace function kerai.pull(peer text, max_ops int default null) returns kerai.sync_result
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select * from kerai_sync.exchange(pull.peer, pulling => true, pushing => false, max_ops => pull.max_ops)
$$;

comment on function kerai.pull(text, int) is
'Brings over what a peer has and this instance has not, byte for byte, each changeset verified. An error on the way is in problem, not raised: everything merged before it stays, and the next call goes on from there. It ends after about max_ops operations, and complete says whether everything is here. Pushes wait until the transaction ends: on a busy instance pull in steps of 100,000 operations, as the command kerai pull does.';

create or replace function kerai.push(peer text, max_ops int default null) returns kerai.sync_result
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select * from kerai_sync.exchange(push.peer, pulling => false, pushing => true, max_ops => push.max_ops)
$$;

comment on function kerai.push(text, int) is
'Brings to a peer what this instance has and the peer has not. Otherwise like kerai.pull.';

create or replace function kerai.sync(peer text, max_ops int default null) returns kerai.sync_result
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select * from kerai_sync.exchange(sync.peer, pulling => true, pushing => true, max_ops => sync.max_ops)
$$;

comment on function kerai.sync(text, int) is
'Makes this instance and a peer equal: compares the heads of all authors (a fork shows there, and is kept in kerai.forks on both sides), pushes, then pulls. Otherwise like kerai.pull; max_ops counts in each direction.';

comment on type kerai.sync_result is
'What kerai.pull, push and sync answer: changesets and operations merged here (pulled) and at the peer (pushed), and bytes of changesets carried. Then changesets refused (see kerai.refusals) and forks found. If complete, nothing is left to bring; problem says what ended it early.';

-- Sync: a conversation with a peer, about its tree or one subtree. 026-sync/peers.sql says whose rights it has.
--
-- A changeset that one side refuses is noted. Nothing more of its author is asked for until the conversation has come
-- to its end, since all that follows in the author's sequence would be refused too.
--
-- It goes by steps, each in a subtransaction: what fails ends the conversation and undoes its own step only. Pushing
-- comes before pulling: while it waits for the peer's locks, nothing here is locked but the row of the peer. So two
-- instances that sync with each other at once do not wait in a ring that no server can see.

create or replace function kerai_sync.exchange(peer text, pulling boolean, pushing boolean, max_ops int default null)
returns kerai.sync_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
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
                perform kerai_sync.add_scope_nodes(list.served, '{}', '{}', 0);
                holding := kerai_sync.scope_state();
                execute 'select array_agg(t.node_id) as nodes, array_agg(t.inside) as inside, max(t.number) as number,
                    count(*) as members from (select * from ' || format(asking, '(node_id uuid, inside boolean, number bigint)') || ' limit $3) as t'
                into page using link, format('select * from kerai_sync.scope_members(%L, %s, %s)', list.served, holding.named,
                    most_changesets), most_changesets;
                if page.members > 0 then
                    perform kerai_sync.add_scope_nodes(list.served, page.nodes, page.inside, page.number);
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
                        answer := kerai_sync.backfill_documents(page.arrivals, page.documents, page.signatures, page.public_keys);
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

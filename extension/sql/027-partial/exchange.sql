-- Exchange: one conversation with a peer, about its tree or one subtree. 026-sync/peers.sql says whose rights it has.
--
-- A changeset that one side refuses is noted. Nothing more of its author is asked for until the conversation has come
-- to its end, since all that follows in the author's sequence would be refused too.
--
-- It goes by steps, each in a subtransaction: what fails ends the conversation and undoes its own step only. A step is
-- a function. It gets what is known so far, and returns it with what it has found and the step that follows. One that
-- brings pages follows itself until nothing comes. Pushing comes before pulling: while it waits for the peer's locks,
-- nothing here is locked but the row of the peer. So two instances that sync with each other at once do not wait in a
-- ring that no server can see.

create or replace function kerai_sync.exchange(peer text, pulling boolean, pushing boolean, max_ops int default null)
returns kerai.sync_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    contact constant kerai.peer_connections := kerai_sync.begin_contact(peer, current_user, max_ops);
    most_refusals constant int := 1000;
    conversation kerai_sync.conversation := kerai_sync.begin_conversation(contact, pulling, pushing, max_ops);
    state text;
    problem text;
    problem_detail text;
    context text;
begin
    while conversation.step <> 'end' loop
        begin
            conversation := case conversation.step
                when 'connect' then kerai_sync.connect(conversation, contact.connection)
                when 'look' then kerai_sync.look(conversation)
                when 'compare' then kerai_sync.compare(conversation)
                when 'push' then kerai_sync.push_page(conversation)
                when 'acknowledge' then kerai_sync.look(conversation)
                when 'list' then kerai_sync.list_scope(conversation)
                when 'turn' then kerai_sync.turn(conversation)
                -- All of the peer's tree ...
                when 'pull' then kerai_sync.pull_page(conversation)
                -- ... or a scope: the nodes that have come into it, then older changesets about them, then what is new.
                when 'members' then kerai_sync.pull_members(conversation)
                when 'backfill' then kerai_sync.pull_backfill(conversation)
                when 'scope' then kerai_sync.pull_scope(conversation)
            end;
            if jsonb_array_length(conversation.refused) > most_refusals then
                conversation.problem := 'more was refused than can be noted';
                conversation.step := 'end';
            end if;
        exception when query_canceled or assert_failure or others then
            get stacked diagnostics state = returned_sqlstate, problem = message_text,
                problem_detail = pg_exception_detail, context = pg_exception_context;
            -- The peer may cancel its query, then this goes on; but who cancels the call itself wants it to end.
            if state in ('57014', 'P0004') and context !~ 'on dblink connection named' then
                perform kerai_sync.hang_up(conversation.link);
                raise;
            end if;
            -- What is refused as a page, and not one by one, is too large for the other side.
            if state = 'KR005' and conversation.step in ('push', 'pull') and conversation.page_ops > 1 then
                conversation.page_ops := conversation.page_ops / 2;
                continue;
            end if;
            -- Of libpq's words only those that cannot quote the connection.
            conversation.problem := format('%s: %s', state, problem) || case
                when conversation.step <> 'connect'
                    or problem_detail ~ '^(connection to server|could not translate|Non-superusers)'
                    then coalesce(' (' || nullif(problem_detail, '') || ')', '')
                else '' end;
            conversation.step := 'end';
        end;
    end loop;
    perform kerai_sync.hang_up(conversation.link);
    return kerai_sync.end_conversation(conversation, contact, pulling, pushing);
end
$$;

comment on function kerai_sync.exchange(text, boolean, boolean, int) is
'What kerai.pull, kerai.push and kerai.sync do: one conversation with a peer, in the directions that are wanted. It ends after more than 1,000 refusals; the next one goes on from there.';

create or replace function kerai_sync.connect(conversation kerai_sync.conversation, connection text)
returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('select %I.dblink_connect($1, $2)', kerai_sync.dblink_schema()) using conversation.link, connection;
    conversation.step := 'look';
    return conversation;
end
$$;

comment on function kerai_sync.connect(kerai_sync.conversation, text) is
'A step of kerai.sync: opens the dblink connection.';

create or replace function kerai_sync.look(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    conversation.theirs := kerai_sync.ask_vector(conversation.link);
    conversation.step := case conversation.step when 'look' then 'compare' else 'list' end;
    return conversation;
end
$$;

comment on function kerai_sync.look(kerai_sync.conversation) is
'A step of kerai.sync: asks what the peer has, at the beginning and again when something was pushed.';

create or replace function kerai_sync.compare(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    compared constant record := kerai_sync.compare_heads(
        conversation.link, kerai.version_vector(), conversation.theirs, conversation.agreed);
begin
    conversation.result.forks := compared.forks;
    conversation.result.problem := compared.problem;
    conversation.agreed := compared.agreed;
    conversation.not_pulled := compared.not_pulled;
    conversation.position := kerai.vector_merge(conversation.theirs, coalesce(conversation.skipped -> 'push', '{}'))
        || kerai_sync.beyond(compared.not_pushed);
    conversation.step := 'push';
    return conversation;
end
$$;

comment on function kerai_sync.compare(kerai_sync.conversation) is
'A step of kerai.sync: finds forks, and what is not to be brought over because of them.';

create or replace function kerai_sync.push_page(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    room constant bigint := conversation.max_ops - (conversation.result).pushed_operations;
    page record;
    answer record;
begin
    if conversation.pushed or room <= 0 then
        conversation.step := case when (conversation.result).pushed_changesets > 0 then 'acknowledge' else 'list' end;
        return conversation;
    end if;
    select string_agg(quote_literal(p.changeset), ',' order by p.n) as documents,
        string_agg(quote_literal(p.signature), ',' order by p.n) as signatures,
        string_agg(quote_literal(p.public_key), ',' order by p.n) as public_keys,
        count(*) as changesets, sum(octet_length(p.changeset::text)) as bytes,
        jsonb_object_agg(c.author, c.last_seq order by p.n) as offered,
        jsonb_object_agg(encode(p.id, 'hex'), c.author) as authors
    into page
    from (
        select p.*, sha256(convert_to(p.changeset::text, 'UTF8')) as id
        from kerai.changesets_since(conversation.position, least(conversation.page_ops, room)::int)
        with ordinality as p (changeset, signature, public_key, n)
    ) as p
    inner join kerai.changesets as c on c.id = p.id;
    if page.changesets = 0 then
        conversation.pushed := true;
        conversation.skipped := conversation.skipped - 'push';
        return conversation;
    end if;

    select count(*) filter (where t.status = 'merged') as merged,
        coalesce(sum(greatest(t.applied, 0)) filter (where t.status = 'merged'), 0) as applied,
        jsonb_agg(kerai_sync.refusal('push', t.changeset_id, to_jsonb(t))) filter (where t.status = 'refused') as refused,
        array_agg(page.authors ->> encode(t.changeset_id, 'hex')) filter (
            where t.status = 'refused' and page.authors ? encode(t.changeset_id, 'hex')) as passed
    into answer
    from (
        select * from kerai_sync.ask_peer(conversation.link,
            format('select * from kerai.accept(array[%s]::json[], array[%s]::bytea[], array[%s]::bytea[])',
                page.documents, page.signatures, page.public_keys),
            '(changeset_id bytea, status text, applied int, author text, last_seq bigint, code text, message text, '
            || 'detail text, hint text)') as p (changeset_id bytea, status text, applied int, author text, last_seq bigint,
            code text, message text, detail text, hint text)
        limit page.changesets
    ) as t;
    conversation := kerai_sync.count_page(conversation, 'push', page.bytes, answer.merged, answer.applied);
    return kerai_sync.pass_page(conversation, 'push', page.offered, answer.refused, answer.passed);
end
$$;

comment on function kerai_sync.push_page(kerai_sync.conversation) is
'A step of kerai.sync: gives the peer a page of what it has not.';

-- What the peer acknowledges is noted before the locks are waited for.
create or replace function kerai_sync.turn(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_sync.begin_pull(conversation.theirs);
    conversation.position := kerai.vector_merge(kerai.version_vector(), coalesce(conversation.skipped -> 'pull', '{}'))
        || kerai_sync.beyond(conversation.not_pulled);
    conversation.step := case when conversation.scope is not null and not conversation.pulled then 'members' else 'pull' end;
    return conversation;
end
$$;

comment on function kerai_sync.turn(kerai_sync.conversation) is
'A step of kerai.sync: goes from pushing to pulling, and keeps other pushes waiting from here on.';

create or replace function kerai_sync.pull_page(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    room constant bigint := conversation.max_ops - (conversation.result).pulled_operations;
    before constant jsonb := conversation.position;
    page record;
    answer record;
begin
    if conversation.pulled or room <= 0 then
        conversation.step := 'end';
        return conversation;
    end if;
    page := kerai_sync.ask_page(conversation.link, before, conversation.theirs, least(conversation.page_ops, room)::int);
    if page.changesets = 0 then
        conversation.pulled := case when page.sent = 0 then true else kerai.vector_compare(kerai.vector_merge(
            conversation.theirs, kerai_sync.ask_vector(conversation.link)), conversation.theirs) <> 'equal' end;
        if conversation.pulled then
            conversation.skipped := conversation.skipped - 'pull';
        else
            conversation.problem := 'the peer sends what its own vector does not name';
        end if;
        conversation.step := 'end';
        return conversation;
    end if;

    select count(*) filter (where r.status = 'merged') as merged,
        coalesce(sum(r.applied) filter (where r.status = 'merged'), 0) as applied,
        jsonb_agg(kerai_sync.refusal('pull', r.changeset_id, to_jsonb(r))) filter (where r.status = 'refused') as refused,
        array_agg(r.author) filter (
            where r.status = 'refused' and r.author is not null and r.last_seq is not null) as passed
    into answer
    from kerai.accept(page.documents, page.signatures, page.public_keys) as r;
    conversation := kerai_sync.count_page(conversation, 'pull', page.bytes, answer.merged, answer.applied);
    conversation := kerai_sync.pass_page(conversation, 'pull', kerai.version_vector(), answer.refused, answer.passed);
    if conversation.position = before then
        conversation.problem := 'the peer sends what it was told is here, or what is no changeset';
        conversation.step := 'end';
    end if;
    return conversation;
end
$$;

comment on function kerai_sync.pull_page(kerai_sync.conversation) is
'A step of kerai.sync: merges a page of what the peer has and this instance has not.';

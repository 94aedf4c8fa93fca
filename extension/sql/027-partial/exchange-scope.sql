-- Exchange: the steps of a partial instance, which pulls one subtree. exchange.sql has the conversation.

create or replace function kerai_sync.list_scope(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    vector text;
begin
    if conversation.scope is not null and not conversation.pulled then
        select p.served, p.vector into conversation.served, vector
        from kerai_sync.ask_peer(conversation.link,
            format('select served, vector::text from kerai_sync.serve_scope(%L)', conversation.scope),
            '(served uuid, vector text)') as p (served uuid, vector text);
        conversation.theirs := kerai_sync.read_vector(vector);
    end if;
    conversation.step := 'turn';
    return conversation;
end
$$;

comment on function kerai_sync.list_scope(kerai_sync.conversation) is
'A step of kerai.sync: has the peer list the nodes of the scope, in a partial instance that pulls.';

create or replace function kerai_sync.pull_members(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    page record;
begin
    perform kerai_sync.add_scope_nodes(conversation.served, '{}', '{}', 0);
    select array_agg(t.node_id) as nodes, array_agg(t.inside) as inside, max(t.number) as number, count(*) as members
    into page
    from (
        select p.* from kerai_sync.ask_peer(conversation.link,
            format('select * from kerai_sync.scope_members(%L, %s, %s)', conversation.served,
                (select s.named from kerai_sync.scope_state() as s), kerai_sync.most_changesets()),
            '(node_id uuid, inside boolean, number bigint)') as p (node_id uuid, inside boolean, number bigint)
        limit kerai_sync.most_changesets()
    ) as t;
    if page.members > 0 then
        perform kerai_sync.add_scope_nodes(conversation.served, page.nodes, page.inside, page.number);
    else
        conversation.step := 'backfill';
    end if;
    return conversation;
end
$$;

comment on function kerai_sync.pull_members(kerai_sync.conversation) is
'A step of kerai.sync: takes the nodes that have come into the scope.';

create or replace function kerai_sync.pull_backfill(conversation kerai_sync.conversation)
returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    holding constant record := kerai_sync.scope_state();
    room constant bigint := conversation.max_ops - (conversation.result).pulled_operations;
    page record;
    answer record;
begin
    if not holding.is_backfilling then
        perform kerai_sync.merge_backfill();
        conversation.step := 'scope';
        return conversation;
    elsif room <= 0 then
        conversation.step := 'end';
        return conversation;
    end if;
    select array_agg(t.arrival) as arrivals, array_agg(t.document) as documents, array_agg(t.signature) as signatures,
        array_agg(t.public_key) as public_keys, count(*) as changesets, sum(octet_length(t.document::text)) as bytes,
        max(t.arrival) as arrival
    into page
    from (
        select p.* from kerai_sync.ask_peer(conversation.link,
            format('select arrival, document, signature, public_key from kerai_sync.scope_backfill(%L, %L, %s, %s, %s)',
                conversation.served, kerai.version_vector(), holding.complete, holding.backfilled_to,
                least(conversation.page_ops, room)),
            '(arrival bigint, document json, signature bytea, public_key bytea)')
            as p (arrival bigint, document json, signature bytea, public_key bytea)
        limit kerai_sync.most_changesets()
    ) as t;

    if page.changesets = 0 then
        perform kerai_sync.merge_backfill();
        conversation.step := 'scope';
    elsif page.arrival <= holding.backfilled_to then
        conversation.problem := 'the peer sends again what it has sent';
        conversation.step := 'end';
    else
        answer := kerai_sync.backfill_documents(page.arrivals, page.documents, page.signatures, page.public_keys);
        conversation := kerai_sync.count_page(conversation, 'pull', page.bytes, answer.taken, answer.applied);
    end if;
    return conversation;
end
$$;

comment on function kerai_sync.pull_backfill(kerai_sync.conversation) is
'A step of kerai.sync: takes a page of older changesets about nodes that have come into the scope; when all are here, merges them.';

create or replace function kerai_sync.pull_scope(conversation kerai_sync.conversation) returns kerai_sync.conversation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    room constant bigint := conversation.max_ops - (conversation.result).pulled_operations - conversation.stubs;
    before constant jsonb := conversation.position;
    page record;
    answer record;
begin
    if room <= 0 then
        conversation.step := 'end';
        return conversation;
    end if;
    select count(*) as changesets, sum(octet_length(t.document::text)) as bytes, array_agg(t.id) as ids,
        array_agg(t.author) as authors, array_agg(t.first_seq) as first_seqs, array_agg(t.last_seq) as last_seqs,
        array_agg(t.first_lamport) as first_lamports, array_agg(t.prev) as prevs, array_agg(t.base) as bases,
        array_agg(t.document) as documents, array_agg(t.signature) as signatures, array_agg(t.public_key) as public_keys
    into page
    from (
        select p.* from kerai_sync.ask_peer(conversation.link,
            format('select * from kerai_sync.scope_page(%L, %L, %L, %s)', conversation.served, before,
                conversation.theirs, least(conversation.page_ops, room)),
            '(id bytea, author text, first_seq bigint, last_seq bigint, first_lamport bigint, prev bytea, base jsonb, '
            || 'document json, signature bytea, public_key bytea)') as p (id bytea, author text, first_seq bigint,
            last_seq bigint, first_lamport bigint, prev bytea, base jsonb, document json, signature bytea, public_key bytea)
        limit kerai_sync.most_changesets()
    ) as t;
    if page.changesets = 0 then
        conversation.pulled := true;
        conversation.skipped := conversation.skipped - 'pull';
        conversation.step := 'end';
        return conversation;
    end if;

    answer := kerai_sync.accept_scoped(page.ids, page.authors, page.first_seqs, page.last_seqs, page.first_lamports,
        page.prevs, page.bases, page.documents, page.signatures, page.public_keys);
    conversation.stubs := conversation.stubs + page.changesets;
    conversation := kerai_sync.count_page(conversation, 'pull', coalesce(page.bytes, 0), answer.merged, answer.applied);
    conversation := kerai_sync.pass_page(conversation, 'pull', kerai.version_vector(), answer.refused,
        case when answer.refused <> '[]' then array(
            select r ->> 'author' from jsonb_array_elements(answer.refused) as r
            where r ->> 'author' is not null and r ->> 'last_seq' is not null) end);
    if conversation.position = before then
        conversation.problem := 'the peer sends what it was told is here';
        conversation.step := 'end';
    end if;
    return conversation;
end
$$;

comment on function kerai_sync.pull_scope(kerai_sync.conversation) is
'A step of kerai.sync: takes a page of what is new: changesets of the scope, and of all others the place in their authors'' chains.';

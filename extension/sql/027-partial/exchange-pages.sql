-- Exchange: how it begins and ends, and what its steps share. exchange.sql has the conversation.

create or replace function kerai_sync.begin_conversation(
    contact kerai.peer_connections, pulling boolean, pushing boolean, max_ops int
) returns kerai_sync.conversation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    begun kerai_sync.conversation;
begin
    begun.step := 'connect';
    begun.link := 'kerai ' || gen_random_uuid();
    begun.max_ops := max_ops;
    begun.page_ops := least(kerai_sync.most_changesets(), (
        select s.value from kerai.settings as s where s.name = 'sync_page_ops'));
    begun.scope := (select s.scope from kerai_sync.scope_state() as s);
    begun.pushed := not pushing;
    begun.pulled := not pulling;
    begun.agreed := contact.agreed;
    begun.skipped := contact.skipped;
    begun.stubs := 0;
    begun.refused := '[]';
    begun.result := (contact.name, 0, 0, 0, 0, 0, 0, 0, false, null);
    return begun;
end
$$;

comment on function kerai_sync.begin_conversation(kerai.peer_connections, boolean, boolean, int) is
'A part of kerai.sync: what a conversation with a peer begins with.';

create or replace function kerai_sync.end_conversation(
    conversation kerai_sync.conversation, contact kerai.peer_connections, pulling boolean, pushing boolean
) returns kerai.sync_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    result kerai.sync_result := conversation.result;
begin
    result.refused := jsonb_array_length(conversation.refused);
    result.problem := left(coalesce(conversation.problem, result.problem, case when result.refused > 0 then format(
        '%s refused, see kerai.refusals; the first: %s %s', result.refused, conversation.refused -> 0 ->> 'code',
        conversation.refused -> 0 ->> 'message')
        when pulling and contact.skipped ? 'pull' or pushing and contact.skipped ? 'push' then
            'some were refused by earlier calls, see kerai.refusals'
        end), 2000);
    result.complete := conversation.pulled and conversation.pushed and result.problem is null;
    perform kerai_sync.end_contact(contact.name, conversation.theirs, case
        -- Where something did not fit, the next contact looks at everything again.
        when result.problem is null then conversation.agreed else '{}' end, conversation.skipped, result.problem,
        conversation.refused);
    return result;
end
$$;

comment on function kerai_sync.end_conversation(kerai_sync.conversation, kerai.peer_connections, boolean, boolean) is
'A part of kerai.sync: notes what a conversation with a peer has shown, and says what became of it.';

-- As many as kerai.accept takes.
create or replace function kerai_sync.most_changesets() returns int
language sql immutable parallel safe
return 100000;

comment on function kerai_sync.most_changesets() is 'A part of kerai.sync: how many changesets a page may have.';

create or replace function kerai_sync.read_vector(given text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    most_characters constant int := 268435456;
begin
    return kerai.vector_merge(left(given, most_characters)::jsonb, '{}');
end
$$;

comment on function kerai_sync.read_vector(text) is
'A part of kerai.sync: a version vector as a peer has written it; an error where it is none.';

create or replace function kerai_sync.ask_vector(link text) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    given text;
begin
    select p.vector into given
    from kerai_sync.ask_peer(link, 'select kerai.version_vector()::text', '(vector text)') as p (vector text);
    return kerai_sync.read_vector(given);
end
$$;

comment on function kerai_sync.ask_vector(text) is
'A part of kerai.sync: the version vector of the peer, over an open dblink connection.';

-- What the peer has merged since the locks were taken comes with the next pull.
create or replace function kerai_sync.ask_page(
    link text, seen jsonb, theirs jsonb, max_ops int, out sent bigint, out changesets bigint, out bytes bigint,
    out documents json[], out signatures bytea[], out public_keys bytea[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    select count(*), count(*) filter (where t.named), sum(octet_length(t.changeset::text)) filter (where t.named),
        array_agg(t.changeset) filter (where t.named), array_agg(t.signature) filter (where t.named),
        array_agg(t.public_key) filter (where t.named)
    into sent, changesets, bytes, documents, signatures, public_keys
    from (
        select p.*, case when p.changeset ->> 'seq' ~ '^[0-9]{1,18}$' then (p.changeset ->> 'seq')::bigint
            <= coalesce((theirs ->> (p.changeset ->> 'author'))::bigint, 0) end is not false as named
        from kerai_sync.ask_peer(link, format(
                'select changeset, signature, public_key from kerai.changesets_since(%L::jsonb, %s)', seen, max_ops),
            '(changeset json, signature bytea, public_key bytea)')
            as p (changeset json, signature bytea, public_key bytea)
        limit kerai_sync.most_changesets() + 1
    ) as t;
end
$$;

comment on function kerai_sync.ask_page(text, jsonb, jsonb, int) is
'A part of kerai.sync: a page of what the peer has and a vector has not seen. What the vector of the peer does not name is left out, and counted in sent.';

create or replace function kerai_sync.beyond(authors text[]) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    beyond_all constant bigint := 999999999999999999;
begin
    return coalesce((select jsonb_object_agg(a.author, beyond_all) from unnest(authors) as a (author)), '{}');
end
$$;

comment on function kerai_sync.beyond(text[]) is
'A part of kerai.sync: a vector that has seen more of these authors than there can be, so that nothing of theirs is asked for.';

create or replace function kerai_sync.refusal(direction text, changeset_id bytea, answer jsonb) returns jsonb
language sql immutable parallel safe
return answer || jsonb_build_object('direction', direction, 'changeset_id', encode(changeset_id, 'hex'));

comment on function kerai_sync.refusal(text, bytea, jsonb) is
'A part of kerai.sync: what kerai.accept answers of a changeset that it refuses, as it is noted.';

create or replace function kerai_sync.count_page(
    conversation kerai_sync.conversation, direction text, bytes bigint, changesets bigint, operations bigint
) returns kerai_sync.conversation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    result kerai.sync_result := conversation.result;
begin
    result.bytes := result.bytes + bytes;
    if direction = 'push' then
        result.pushed_changesets := result.pushed_changesets + changesets;
        result.pushed_operations := result.pushed_operations + operations;
    else
        result.pulled_changesets := result.pulled_changesets + changesets;
        result.pulled_operations := result.pulled_operations + operations;
    end if;
    conversation.result := result;
    return conversation;
end
$$;

comment on function kerai_sync.count_page(kerai_sync.conversation, text, bigint, bigint, bigint) is
'A part of kerai.sync: adds to its result what was merged of a page.';

create or replace function kerai_sync.pass_page(
    conversation kerai_sync.conversation, direction text, reached jsonb, refused jsonb, passed text[]
) returns kerai_sync.conversation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    beyond constant jsonb := kerai_sync.beyond(passed);
begin
    conversation.position := kerai.vector_merge(kerai.vector_merge(conversation.position, reached), beyond);
    conversation.refused := conversation.refused || coalesce(refused, '[]');
    if passed is not null then
        conversation.skipped := conversation.skipped || jsonb_build_object(
            direction, kerai.vector_merge(coalesce(conversation.skipped -> direction, '{}'), beyond));
    end if;
    return conversation;
end
$$;

comment on function kerai_sync.pass_page(kerai_sync.conversation, text, jsonb, jsonb, text[]) is
'A part of kerai.sync: what comes after a page, how far the side that takes it has got. Of the authors that it has refused, nothing more is asked for.';

-- Conversation: one question to a peer, and its answer. 027-partial/exchange.sql has the whole of it.

-- No SQL function, which would be planned at every call.
create or replace function kerai_sync.dblink_schema() returns name
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'dblink');
end
$$;

comment on function kerai_sync.dblink_schema() is 'A part of kerai.sync: the schema that dblink was created in.';

-- A question to the peer. dblink() waits for its answer whatever the session is told; dblink_exec and dblink_fetch end
-- when they are cancelled. At the peer's own isolation level a push would fail whenever others push there.
create or replace function kerai_sync.ask_peer(link text, query text, columns text) returns setof record
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    place constant name := kerai_sync.dblink_schema();
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

-- The pages of a pull are one transaction: it takes the locks that any of them may need at its beginning, in the order
-- that all keep.
-- An author who was introduced while this waited for the tree lock may wait for it himself by now: then all over again.
create or replace function kerai_sync.begin_pull(theirs jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '30s'
as $$
declare
    locked text[];
begin
    perform kerai_private.bound_lock_waits();
    loop
        begin
            with held as (
                select a.author from kerai_private.authors as a
                where a.author in (select e.author from kerai_private.vector_entries(theirs) as e)
                order by a.author
                for update
            )

            select coalesce(array_agg(h.author), '{}') into locked from held as h;
            perform kerai_private.lock_tree(exclusive => true);
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
    place constant name := kerai_sync.dblink_schema();
    opened boolean;
begin
    execute format('select $1 = any(%I.dblink_get_connections())', place) into opened using link;
    if opened then
        execute format('select %I.dblink_disconnect($1)', place) using link;
    end if;
end
$$;

comment on function kerai_sync.hang_up(text) is 'A part of kerai.sync: closes the dblink connection of this name, if it is open.';

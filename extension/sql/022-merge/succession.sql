-- Succession: a changeset follows on what its author has pushed before, and two that follow on one thing are a fork.

-- Refuses KR003, and keeps both changesets in kerai.forks. apart: the refusal rolls this transaction back, so a session
-- of its own keeps them. When the server does not let itself in, the refusal says so. Of a batch
-- kerai_private.keep_forks keeps them.
create or replace function kerai_private.refuse_fork(
    author text, seq bigint, kept_id bytea, document json, signature bytea, apart boolean
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    evidence text := 'both are kept in kerai.forks';
    new_id bytea := sha256(convert_to(document::text, 'UTF8'));
begin
    begin
        perform kerai_private.execute_autonomously(format(
            'insert into kerai.forks (author, seq, public_key, first_id, first_changeset, first_signature, '
            || 'second_id, second_changeset, second_signature) '
            -- Sixteen proofs against one author are enough; more would be a way to fill the disk.
            || 'select %L, %s, %L, %L, %L, %L, %L, %L, %L where (select count(*) from kerai.forks where author = %1$L) < 16 '
            || 'on conflict do nothing',
            refuse_fork.author, refuse_fork.seq, a.public_key, c.id, c.document, c.signature, new_id, refuse_fork.document,
            refuse_fork.signature))
        from kerai.changesets as c
        inner join kerai_private.authors as a on a.author = c.author
        where c.id = kept_id and apart;
    exception when others then
        evidence := format('they could not be kept in kerai.forks (%s)', sqlerrm);
    end;

    perform kerai_private.refuse('KR003', 'fork: this author has signed another changeset at the same place',
        format('author: %s, seq: %s, merged here: %s, refused: %s; %s', refuse_fork.author, refuse_fork.seq,
            encode(kept_id, 'hex'), encode(new_id, 'hex'), evidence));
end
$$;

-- Runs one statement in a transaction of its own, over the server's own socket and as its own superuser.
create or replace function kerai_private.execute_autonomously(statement text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    -- A list of paths, each in double quotes when it has anything but lower-case letters in it.
    folders constant text := btrim(current_setting('unix_socket_directories'));
    folder constant text := case when folders like '"%'
        then replace(substring(folders from '^"((?:[^"]|"")*)"'), '""', '"')
        else btrim(split_part(folders, ',', 1)) end;
    place constant text := (
        select n.nspname from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'dblink');
    way constant text := (
        select string_agg(format('%s=''%s''', o.key, regexp_replace(o.value, E'([''\\\\])', E'\\\\\\1', 'g')), ' ')
        from (values
            ('host', coalesce(nullif(folder, ''), 'localhost')),
            ('port', current_setting('port')),
            ('dbname', current_database()::text),
            ('user', (select a.rolname::text from pg_authid as a where a.oid = 10)),
            ('connect_timeout', '5'),
            -- What this transaction has locked itself it would wait for in vain.
            ('options', E'-c search_path=pg_catalog -c lock_timeout=2s -c default_transaction_read_only=off '
                || E'-c default_transaction_isolation=read\\ committed'),
            ('application_name', 'kerai')) as o (key, value));
    -- A name that nobody can have opened before: dblink_exec takes its argument for a connection's name first.
    name constant text := 'kerai ' || gen_random_uuid();
begin
    execute format('select %I.dblink_connect($1, $2)', place) using name, way;
    begin
        execute format('select %I.dblink_exec($1, $2)', place) using name, statement;
    exception when query_canceled or assert_failure or others then
        execute format('select %I.dblink_disconnect($1)', place) using name;
        raise;
    end;
    execute format('select %I.dblink_disconnect($1)', place) using name;
end
$$;

-- Refuses unless the changeset follows directly on what its author has pushed before.
create or replace function kerai_private.require_succession(
    item kerai_private.verified_changeset, head kerai_private.authors, enforce_policy boolean, apart boolean
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    rival bytea;
begin
    if item.first_seq = head.seq + 1 and item.prev is not distinct from head.changeset_id then
        perform kerai_private.require_unfrozen(head.author, item.last_seq, follows => not enforce_policy);
        return;
    end if;

    -- An author's changesets cover his sequence without gaps: the last that starts no later is the one to look at.
    select c.id into rival
    from (
        select k.id, k.last_seq from kerai.changesets as k
        where k.author = head.author and k.first_seq <= item.first_seq
        order by k.first_seq desc
        limit 1
    ) as c
    where c.last_seq >= item.first_seq;
    if rival is null and item.prev is distinct from head.changeset_id then
        select c.id into rival from kerai.changesets as c
        where c.author = head.author and c.first_seq = coalesce(
            (select p.last_seq + 1 from kerai.changesets as p where p.author = head.author and p.id = item.prev),
            case when item.prev is null then 1 end);
    end if;
    if rival is not null then
        perform kerai_private.refuse_fork(head.author, item.first_seq, rival, item.document, item.signature, apart);
    end if;
    perform kerai_private.require_unfrozen(head.author, item.last_seq, follows => not enforce_policy);

    if item.first_seq <> head.seq + 1 then
        perform kerai_private.refuse('KR004', 'a gap in the author''s sequence',
            format('author: %s, missing: %s-%s', head.author, head.seq + 1, item.first_seq - 1),
            'Push the author''s earlier changesets first, then this one again.');
    end if;
    perform kerai_private.refuse('KR004', 'prev names a changeset that is not here',
        format('author: %s, prev: %s, the latest here: %s', head.author, coalesce(encode(item.prev, 'hex'), 'null'),
            coalesce(encode(head.changeset_id, 'hex'), 'null')),
        'prev is the id of the author''s previous changeset, null for the first.');
end
$$;

-- 1 + the highest Lamport timestamp among the operations that the vector and the author's last changeset name.
create or replace function kerai_private.next_lamport(base jsonb, own_lamport bigint) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select 1 + greatest(next_lamport.own_lamport, max(
            case when a.seq = e.seq then a.lamport else kerai_private.lamport_of(e.author, e.seq) end))
        from kerai_private.vector_entries(next_lamport.base) as e
        inner join kerai_private.authors as a on a.author = e.author);
end
$$;

create or replace function kerai_private.lamport_of(author text, seq bigint) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select c.first_lamport + lamport_of.seq - c.first_seq from kerai.changesets as c
        where c.author = lamport_of.author and c.first_seq <= lamport_of.seq
        order by c.first_seq desc limit 1);
end
$$;

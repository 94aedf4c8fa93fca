-- Push: who says it, whether it follows on what is here, and then the merge.

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

-- Has an operation of another author, not covered by base, touched the subtree? Another member's counts, when the
-- author is a swarm that groups its members. An operation touches it on a node that is below the guard now, or was
-- placed below it by an earlier insert or move. So does the deletion, restoration or move of an ancestor of the guard.
-- Too much rather than too little: the price is one more test run.
create or replace function kerai_private.touched_since(guard uuid, author text, member text, base jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
    with recursive unseen as materialized (
        select distinct t.node_id, o.op_type in ('node_move', 'node_delete', 'node_restore') as reshapes,
            o.op_type = 'node_move' as moves
        from kerai_private.authors as a
        left join kerai_private.vector_entries(touched_since.base) as e on e.author = a.author
        inner join kerai.operations as o on o.author = a.author and o.author_seq > coalesce(e.seq, 0)
        -- A relation touches both its ends.
        cross join lateral (values
            (o.node_id), ((o.payload ->> 'target')::uuid), ((o.payload ->> 'context')::uuid)) as t (node_id)
        where t.node_id is not null and a.seq > coalesce(e.seq, 0) and (
            a.author <> touched_since.author
            or touched_since.member <> (select c.member from kerai.changesets as c where c.id = o.changeset_id))
    ),

    below (id) as (
        select u.node_id from unseen as u
        union
        select m.parent_id from unseen as u inner join kerai_private.moves as m on m.node_id = u.node_id where u.moves
        union
        select (o.payload ->> 'parent')::uuid from unseen as u
        inner join kerai.operations as o on o.node_id = u.node_id and o.op_type = 'node_insert'
        where u.moves
    ),

    climb (id) as (
        select b.id from below as b
        union
        select n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.id
    ),

    above (id) as (
        select n.parent_id from kerai.nodes as n where n.id = touched_since.guard
        union
        select n.parent_id from above as a inner join kerai.nodes as n on n.id = a.id
    )

    select exists (select from climb as c where c.id = touched_since.guard)
        or exists (select from unseen as u inner join above as a on a.id = u.node_id where u.reshapes));
end
$$;

-- The guard of a change that was made from, and tested on, the whole state: a second tree beside the first counts too.
create or replace function kerai_private.whole_state() returns uuid
language sql immutable parallel safe
return uuid 'ffffffff-ffff-ffff-ffff-ffffffffffff';

-- Is there any operation of another author, or of another member, that base does not cover?
create or replace function kerai_private.merged_since(author text, member text, base jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from kerai_private.authors as a
        left join kerai_private.vector_entries(merged_since.base) as e on e.author = a.author
        where a.seq > coalesce(e.seq, 0) and (
            a.author <> merged_since.author
            or exists (
                select from kerai.operations as o
                inner join kerai.changesets as c on c.id = o.changeset_id
                where o.author = a.author and o.author_seq > coalesce(e.seq, 0) and c.member <> merged_since.member)));
end
$$;

-- Which nodes the operations name, and whether it is by inserting them. Inlined: it has no settings of its own. UNNEST
-- stands where its rows are not copied first.
create or replace function kerai_private.named_nodes(ops kerai_private.operation[])
returns table (c int, n int, node uuid, born boolean)
language sql immutable parallel safe
begin atomic
    select (u.o).c as c, (u.o).n as n, (u.o).node as node, (u.o).op = 'node_insert' as born
    from (select unnest(ops) as o) as u
    where (u.o).node is not null
    union all
    select (u.o).c as c, (u.o).n as n, (u.o).parent as node, false as born
    from (select unnest(ops) as o) as u
    where (u.o).parent is not null
    union all
    select (u.o).c as c, (u.o).n as n, x.node, false as born
    from (select unnest(ops) as o) as u
    cross join lateral (values ((u.o).source), ((u.o).target), ((u.o).context)) as x (node)
    where not starts_with((u.o).op, 'node_') and x.node is not null;
end;

-- Refuses KR006 or KR004 unless the author had seen the insert of every node that an operation names. It is earlier in
-- this changeset, earlier by the same author, or covered by base. Only so do all instances, in whatever order they
-- receive the changesets, take and refuse the same ones.
create or replace function kerai_private.require_known_nodes(
    ops kerai_private.operation[], author text, base jsonb
) returns kerai_private.known_parents
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_bitmapscan = off
as $$
declare
    -- Only a changeset that does nothing but move is merged before anything of this changes.
    since constant text collate "C" := case when (ops[1]).op = 'node_move' then (ops[1]).stamp end;
    nodes uuid[];
    seen record;
    bad record;
begin
    -- But not those that this changeset inserts before it names them. Sorted as in the index that finds them.
    if exists (select from (select unnest(ops) as o) as u where (u.o).op = 'node_insert') then
        nodes := array(
            select r.node from kerai_private.named_nodes(ops) as r
            group by r.node
            having min(r.n) filter (where not r.born) <= coalesce(min(r.n) filter (where r.born), 2147483647)
            order by r.node);
    else
        nodes := array(select distinct r.node from kerai_private.named_nodes(ops) as r order by r.node);
    end if;
    select count(*) as found,
        row(string_agg(uuid_send(n.id), '') filter (where coalesce(n.placed_stamp, '') < since),
            string_agg(uuid_send(coalesce(n.parent_id, n.id)), '') filter (where coalesce(n.placed_stamp, '') < since),
            min(n.path::text collate "C") filter (where since is not null)
            = max(n.path::text collate "C") filter (where since is not null)
        )::kerai_private.known_parents as known_parents
    into seen
    from kerai.nodes as n
    where n.id = any(nodes)
        and kerai_private.has_seen(require_known_nodes.author, base, n.created_stamp, n.created_seq);
    if seen.found = cardinality(nodes) then
        return seen.known_parents;
    end if;

    -- Two authors may have inserted one node; then the one that was seen need not be the one that counts. Asked apart:
    -- it locks all partitions of the log.
    select e.node, e.n, x.created_stamp is not null as known,
        kerai_private.stamp_author(x.created_stamp) as creator, x.created_seq into bad
    from (
        select r.node, min(r.n) filter (where not r.born) as n from kerai_private.named_nodes(ops) as r
        where r.node in (select u.id from unnest(nodes) as u (id))
        group by r.node
        order by n
        offset 0
    ) as e
    left join lateral (
        select k.created_stamp, k.created_seq from kerai.nodes as k where k.id = e.node offset 0
    ) as x on true
    where kerai_private.has_seen(require_known_nodes.author, base, x.created_stamp, x.created_seq) is not true
    -- What is not here at all nobody has inserted.
    and (x.created_stamp is null or not exists (
        select from kerai.operations as o
        where o.node_id = e.node and o.op_type = 'node_insert'
            and (o.author = require_known_nodes.author or o.author_seq <= coalesce((base ->> o.author)::bigint, 0))))
    order by e.n
    limit 1;

    if found then
        if bad.known then
            perform kerai_private.refuse('KR004', 'an operation names a node that base does not cover',
                format('operation %s names node %s; missing in base: %s %s', bad.n, bad.node, bad.creator, bad.created_seq),
                'Take base from kerai.version_vector() after reading the node, and lamport with it.');
        end if;
        perform kerai_private.refuse('KR006', 'no such node', format('operation %s names node %s', bad.n, bad.node),
            'Insert a node before naming it; SELECT id, path FROM kerai.nodes shows what there is.');
    end if;
    return null;
end
$$;

-- Merges a batch whose changesets were found to be their authors' next ones. The caller is in the gate.
create or replace function kerai_private.apply_changesets(
    items kerai_private.verified_changeset[], ops kerai_private.operation[], alone boolean,
    known_parents kerai_private.known_parents default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    author text;
    lamport bigint;
    id bytea;
begin
    insert into kerai.changesets
        (id, author, first_seq, last_seq, first_lamport, last_lamport, prev, base, guard, task_id, message, document,
        signature, member, member_signature, draft_id)
    select i.id, i.author, i.first_seq, i.last_seq, i.first_lamport, i.last_lamport, i.prev, i.base, i.guard, i.task,
        i.message, i.document, i.signature, i.member, i.member_signature, i.draft_id
    from unnest(items) as i;

    if cardinality(items) = 1 then
        author := (items[1]).author;
        lamport := (items[1]).first_lamport;
        id := (items[1]).id;
        insert into kerai.operations (author, author_seq, lamport_ts, op_type, node_id, payload, changeset_id)
        select author, o.seq, lamport + o.n, o.op, coalesce(o.node, o.source), o.payload, id
        from unnest(ops) as o;
    else
        insert into kerai.operations (author, author_seq, lamport_ts, op_type, node_id, payload, changeset_id)
        select i.author, o.seq, i.first_lamport + o.seq - i.first_seq, o.op, coalesce(o.node, o.source), o.payload, i.id
        from unnest(ops) as o
        inner join (
            select row_number() over () as c, u.id, u.author, u.first_seq, u.first_lamport from unnest(items) as u
        ) as i on i.c = o.c;
    end if;

    perform kerai_private.merge_operations(ops, alone, known_parents);

    update kerai_private.authors as a
    set seq = h.last_seq, lamport = h.last_lamport, changeset_id = h.id
    from (
        select distinct on (i.author) i.author, i.last_seq, i.last_lamport, i.id from unnest(items) as i
        order by i.author, i.last_seq desc
    ) as h
    where a.author = h.author;
end
$$;

-- Does an operation change the shape of the tree, so that its merge has to be alone? Inlined.
create or replace function kerai_private.changes_tree(op jsonb) returns boolean
language sql immutable parallel safe
return op ->> 'op' = 'node_move' or (op -> 'set') ? 'name';

-- Holds a changeset against what is here, and merges it. enforce_policy: whether guard and task are looked at, as they
-- are where it is pushed first. alone: whether the caller has locked the tree for itself; NULL when it has no lock.
-- apart: see kerai_private.refuse_fork.
create or replace function kerai_private.receive(
    item kerai_private.verified_changeset, enforce_policy boolean, alone boolean default null,
    apart boolean default true
) returns kerai.push_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    kept record;
    head kerai_private.authors;
    sealed kerai_private.verified_changeset[];
    ops kerai_private.operation[];
begin
    if item.author is null then
        item.author := kerai_private.writer_of(item);
    end if;
    -- One author's pushes go one after another.
    select a.* into head from kerai_private.authors as a where a.author = item.author for update;
    if head.author is null then
        -- Introduced in the gate: see kerai_private.lock_for_merge.
        head := (item.author, item.public_key, 0, 0, null, null);
    elsif head.public_key <> item.public_key then
        perform kerai_private.refuse_key(item.author, head.public_key, item.public_key);
    end if;
    select c.id, c.first_seq, c.last_seq into kept from kerai.changesets as c where c.id = item.id;
    if item.id is null then
        select c.id, c.first_seq, c.last_seq into kept
        from (select k.* from kerai.changesets as k where k.draft_id = item.draft_id offset 0) as c
        where c.author = item.author;
    end if;
    if kept.id is not null then
        return (kept.id, 'duplicate'::text, 0, kept.first_seq, kept.last_seq);
    end if;

    if item.id is not null then
        perform kerai_private.require_succession(item, head, enforce_policy, apart);
    end if;
    perform kerai_private.require_covered(item.base);
    perform kerai_private.require_above_horizon(item.base,
        'Take a new checkout, make the change there, and push it on that base.');
    if item.id is null then
        sealed := kerai_private.wrap_drafts(array[item]);
        if sealed is null then
            perform kerai_private.refuse_lost_key(head.author, head.public_key);
        end if;
        item := sealed[1];
    else
        perform kerai_private.require_lamport(item.first_lamport, item.base, head.lamport);
    end if;

    ops := kerai_private.unpack_operations(array[item]);
    if alone is not null then
        return kerai_private.receive_locked(item, ops, enforce_policy, alone);
    end if;
    if enforce_policy and item.task is not null then
        perform kerai_private.lock_budgets(array[item]);
    end if;
    if item.guard is not null and enforce_policy
        or exists (select from jsonb_array_elements(item.ops) as o (op) where kerai_private.changes_tree(o.op)) then
        perform kerai_private.lock_tree(true);
        return kerai_private.receive_locked(item, ops, enforce_policy, alone => true);
    end if;
    -- Two sessions that share the gate and both want it for themselves would wait for each other: undoing this much
    -- gives up the share.
    begin
        perform kerai_private.lock_tree(false);
        return kerai_private.receive_locked(item, ops, enforce_policy, alone => false);
    exception when unique_violation then
        -- It inserts a node that another author has inserted too.
        perform kerai_private.lock_tree(true);
        return kerai_private.receive_locked(item, ops, enforce_policy, alone => true);
    end;
end
$$;

create or replace function kerai_private.receive_locked(
    item kerai_private.verified_changeset, ops kerai_private.operation[], enforce_policy boolean, alone boolean
) returns kerai.push_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    head kerai_private.authors;
    agent kerai.agents;
    overtaken boolean;
    known_parents kerai_private.known_parents;
begin
    if item.first_seq = 1 then
        perform kerai_private.introduce_author(item.author, item.public_key);
        select a.* into head from kerai_private.authors as a where a.author = item.author for update;
        if head.seq > 0 then
            -- Another session has introduced the author, and pushed for it, at the same time.
            return kerai_private.receive(item, enforce_policy, alone);
        end if;
    end if;
    if enforce_policy and item.guard is not null then
        if item.guard <> kerai_private.whole_state() then
            perform kerai_private.require_node(item.guard);
            overtaken := kerai_private.touched_since(item.guard, item.author, item.member, item.base);
        else
            overtaken := kerai_private.merged_since(item.author, item.member, item.base);
        end if;
        if overtaken then
            return (item.id, 'stale'::text, 0, item.first_seq, item.last_seq);
        end if;
    end if;
    known_parents := kerai_private.require_known_nodes(ops, item.author, item.base);
    if enforce_policy then
        perform kerai_private.require_metadata_bound(ops);
    end if;

    -- Tasks are this instance's own: a foreign author's changeset may name one that is not here.
    if enforce_policy and item.task is not null then
        select a.* into agent from kerai.agents as a where a.author = coalesce(item.member, item.author);
        if agent.id is not null then
            perform kerai_private.check_task(item.task, agent, ops);
        end if;
    end if;
    perform kerai_private.enter_scope(ops);
    perform kerai_private.apply_changesets(array[item], ops, alone, known_parents);
    return (item.id, 'merged'::text, cardinality(ops), item.first_seq, item.last_seq);
end
$$;

create or replace function kerai_private.require_node(node uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from kerai.nodes as n where n.id = node) then
        perform kerai_private.refuse('KR006', 'no such node', format('node: %s', coalesce(node::text, 'null')),
            'SELECT id, path FROM kerai.nodes shows what there is.');
    end if;
end
$$;

-- The hosted agent that the caller acts as: the one that `SET kerai.agent` names, else the newest of the role.
create or replace function kerai_private.hosted_agent() returns kerai.agents
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted text := nullif(current_setting('kerai.agent', true), '');
    agent kerai.agents;
begin
    select a.* into agent from kerai.agents as a
    where a.hosted and a.owner = any(kerai_private.own_owners()) and a.name = coalesce(wanted, a.name)
    order by a.created_at desc, a.name limit 1;
    if agent.id is null then
        perform kerai_private.refuse('KR006', 'you have no hosted agent to act for you',
            format('role: %s%s', session_user, ', kerai.agent: ' || wanted),
            'SELECT kerai.register_agent(''your-name'', ''human''); then push again.');
    end if;
    return agent;
end
$$;

-- Writes and signs the changeset of a hosted agent: the caller gives the operations, or a draft: an object with ops
-- and, if wanted, base, guard, task and message. The rest is filled in.
create or replace function kerai_private.push_hosted(draft json) returns kerai.push_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    bare constant boolean := json_typeof(draft) = 'array';
    ops constant json := case when bare then draft else draft -> 'ops' end;
    agent constant kerai.agents := kerai_private.hosted_agent();
    head kerai_private.authors;
    base jsonb;
    document json;
    changeset jsonb;
    signature bytea;
begin
    -- Held until the end, so that nobody can take the same sequence number meanwhile.
    select a.* into head from kerai_private.authors as a where a.author = agent.author for update;
    base := coalesce(case when not bare then nullif((draft -> 'base')::jsonb, 'null') end, kerai.version_vector());
    document := format(
        '{"v":1,"author":%s,"seq":%s,"lamport":%s,"prev":%s,"base":%s,"guard":%s,"task":%s,"message":%s,"ops":%s}',
        to_json(agent.author), head.seq + 1, kerai_private.next_lamport(base, head.lamport),
        coalesce(to_json(encode(head.changeset_id, 'hex'))::text, 'null'), base,
        coalesce(case when not bare then (draft -> 'guard')::text end, 'null'),
        coalesce(case when not bare then (draft -> 'task')::text end, 'null'),
        coalesce(case when not bare then (draft -> 'message')::text end, '""'), ops)::json;
    changeset := kerai_private.parse_changeset(document);
    signature := kerai_private.sign_as_instance(document::text, current_setting('data_directory'), agent.public_key);
    if signature is null then
        perform kerai_private.refuse_lost_key(agent.name, agent.public_key);
    end if;
    return kerai_private.receive((kerai_private.check_changesets(
        array[row(document, signature, null)::kerai_private.incoming], array[changeset]))[1], enforce_policy => true);
end
$$;

create or replace function kerai_private.refuse_lost_key(signer text, public_key bytea) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.refuse('KR011', 'the key of this instance is not on this server',
        format('signer: %s, key file: kerai/%s.key in the data directory', signer,
            left(encode(sha256(public_key), 'hex'), 16)),
        'After a restore on another server, copy the key file over; or register an agent that has its own key.');
end
$$;

create or replace function kerai.push_ops(changeset json, signature bytea default null, public_key bytea default null)
returns kerai.push_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set random_page_cost = 1.1
set work_mem = '64MB'
set lock_timeout = '30s'
as $$
declare
    parsed constant jsonb := kerai_private.parse_changeset(changeset);
    draft_keys constant text[] := '{ops,base,guard,task,message}';
begin
    perform kerai_private.discard_stale_plans();
    if signature is null and public_key is null then
        if jsonb_typeof(parsed) = 'array' then
            perform kerai_private.require_operations(parsed);
            return kerai_private.push_hosted(changeset);
        elsif jsonb_typeof(parsed) = 'object' and parsed - draft_keys = '{}' and jsonb_typeof(parsed -> 'ops') = 'array' then
            perform kerai_private.require_operations(parsed -> 'ops');
            return kerai_private.push_hosted(changeset);
        end if;
    end if;
    return kerai_private.receive((kerai_private.check_changesets(
        array[row(changeset, signature, public_key)::kerai_private.incoming], array[parsed]))[1], enforce_policy => true);
exception when lock_not_available or deadlock_detected then
    -- Somebody holds his push open: one transaction, one push, and a commit right after it.
    perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm,
        'Nothing was merged. Push the same changeset again in a second.');
end
$$;

comment on function kerai.push_ops(json, bytea, bytea) is
'Merges one signed changeset, all or nothing, and says what became of it: merged, duplicate (it was here already) or stale (its guard was touched; nothing was merged). The signature is Ed25519 over kerai-changeset-v1, a newline and the exact text; public_key introduces an author. A JSON array of operations without a signature acts for your hosted agent: SELECT kerai.push_ops(''[{"op": "node_update", ...}]''). So does an object of ops and, as wanted, base, guard, task and message. A guard is a node''s id, or ffffffff-ffff-ffff-ffff-ffffffffffff for the whole state.';

comment on type kerai.push_result is
'What kerai.push_ops answers. status: merged, duplicate or stale; applied: how many operations were merged now; first_seq and last_seq: the author''s sequence numbers of the changeset.';

create or replace function kerai.next_changeset(author text, seen jsonb default null)
returns table (seq bigint, lamport bigint, prev text, base jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    vector constant jsonb := coalesce(seen, kerai.version_vector());
begin
    perform kerai_private.require_covered(vector);
    return query
    select coalesce(a.seq, 0) + 1, kerai_private.next_lamport(vector, coalesce(a.lamport, 0)),
        encode(a.changeset_id, 'hex'), vector
    from (select $1 as author) as wanted
    left join kerai_private.authors as a on a.author = wanted.author;
end
$$;

comment on function kerai.next_changeset(text, jsonb) is
'What the next changeset of an author must carry: seq, lamport, prev and base. seen is the vector that the author has seen, by default everything that is merged here.';

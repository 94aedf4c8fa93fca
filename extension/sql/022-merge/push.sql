-- Push: one changeset is received, judged and merged.

-- Merges a batch whose changesets were found to be their authors' next ones. The caller has the tree lock.
create or replace function kerai_private.apply_changesets(
    items kerai_private.verified_changeset[], ops kerai_private.operation[], exclusive boolean
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

    perform kerai_private.merge_operations(ops, exclusive);

    update kerai_private.authors as a
    set seq = h.last_seq, lamport = h.last_lamport, changeset_id = h.id
    from (
        select distinct on (i.author) i.author, i.last_seq, i.last_lamport, i.id from unnest(items) as i
        order by i.author, i.last_seq desc
    ) as h
    where a.author = h.author;
end
$$;

-- Does an operation change the shape of the tree, so that its merge needs the tree lock for itself? Inlined.
create or replace function kerai_private.changes_tree(op jsonb) returns boolean
language sql immutable parallel safe
return op ->> 'op' = 'node_move' or (op -> 'set') ? 'name';

-- Holds a changeset against what is here, and merges it. enforce_policy: whether guard and task are looked at, as they
-- are where it is pushed first. exclusive: whether the caller has locked the tree for itself; NULL when it has no lock.
-- apart: see kerai_private.refuse_fork.
create or replace function kerai_private.receive(
    item kerai_private.verified_changeset, enforce_policy boolean, exclusive boolean default null,
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
        -- Introduced with the tree lock: see kerai_private.lock_for_merge.
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
    if exclusive is not null then
        return kerai_private.receive_locked(item, ops, enforce_policy, exclusive);
    end if;
    if enforce_policy and item.task is not null then
        perform kerai_private.lock_budgets(array[item]);
    end if;
    if item.guard is not null and enforce_policy
        or exists (select from jsonb_array_elements(item.ops) as o (op) where kerai_private.changes_tree(o.op)) then
        perform kerai_private.lock_tree(true);
        return kerai_private.receive_locked(item, ops, enforce_policy, exclusive => true);
    end if;
    -- Two sessions that share the tree lock and both want it for themselves would wait for each other: undoing this much
    -- gives up the share.
    begin
        perform kerai_private.lock_tree(false);
        return kerai_private.receive_locked(item, ops, enforce_policy, exclusive => false);
    exception when unique_violation then
        -- It inserts a node that another author has inserted too.
        perform kerai_private.lock_tree(true);
        return kerai_private.receive_locked(item, ops, enforce_policy, exclusive => true);
    end;
end
$$;

create or replace function kerai_private.receive_locked(
    item kerai_private.verified_changeset, ops kerai_private.operation[], enforce_policy boolean, exclusive boolean
) returns kerai.push_result
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    head kerai_private.authors;
    agent kerai.agents;
    overtaken boolean;
begin
    if item.first_seq = 1 then
        perform kerai_private.introduce_author(item.author, item.public_key);
        select a.* into head from kerai_private.authors as a where a.author = item.author for update;
        if head.seq > 0 then
            -- Another session has introduced the author, and pushed for it, at the same time.
            return kerai_private.receive(item, enforce_policy, exclusive);
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
    perform kerai_private.require_known_nodes(ops, item.author, item.base);
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
    perform kerai_private.apply_changesets(array[item], ops, exclusive);
    return (item.id, 'merged'::text, cardinality(ops), item.first_seq, item.last_seq);
end
$$;

-- The plan settings: a session keeps plans from when a table was empty, and with them looks nodes up by index all the
-- same. See docs/decisions/018-plan-settings.md.
create or replace function kerai.push_ops(changeset json, signature bytea default null, public_key bytea default null)
returns kerai.push_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set random_page_cost = 1.1
set lock_timeout = '30s'
as $$
declare
    parsed constant jsonb := kerai_private.parse_changeset(changeset);
    draft_keys constant text[] := '{ops,base,guard,task,message}';
begin
    perform kerai_private.bound_lock_waits();
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

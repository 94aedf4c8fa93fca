-- Convergence: when a task's success command passes on the shared state, once, and who is paid for it.

-- Nodes and all their ancestors: where they stand, and the stamps of what was last written to them. By index, since the
-- planner cannot know how few they are of a large tree.
create or replace function kerai_private.with_ancestors(nodes uuid[])
returns table (
    id uuid, parent_id uuid, deleted boolean, created_stamp text, placed_stamp text, deleted_stamp text, written text[]
)
language sql stable rows 10000
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    with recursive climb as (
        select n.id, n.parent_id from unnest(with_ancestors.nodes) as u (id) inner join kerai.nodes as n on n.id = u.id
        union
        select n.id, n.parent_id from climb as c inner join kerai.nodes as n on n.id = c.parent_id
    )

    select n.id, n.parent_id, n.deleted, n.created_stamp, n.placed_stamp, n.deleted_stamp,
        array[n.kind_stamp, n.name_stamp, n.language_stamp, n.content_stamp]
        || array(select m.value from jsonb_each_text(n.metadata_stamps) as m)
    from climb as c inner join kerai.nodes as n on n.id = c.id
$$;

-- How many operations of a task's changesets still show in the tree, by author. An insert shows while its node is
-- visible. An update shows while one of the fields or metadata keys that it wrote is as it left it. A move shows while
-- the node stands where it put it. A deletion shows while it is what hides the node, and a relation while it is the
-- last word on it.
create or replace function kerai_private.surviving_operations(task uuid)
returns table (author text, operations bigint)
language sql stable
set search_path = pg_catalog, pg_temp
set enable_mergejoin = off
set enable_nestloop = off
as $$
    with recursive done as materialized (
        select o.*
        from (
            select k.*, coalesce(k.member, k.author) as writer from kerai.changesets as k
            where k.task_id = surviving_operations.task
        ) as c
        cross join lateral (
            select c.writer, o.op_type, o.node_id, kerai_private.stamp(o.lamport_ts, o.author) as stamp,
                case when o.op_type not like 'node%' then o.payload end as payload
            from kerai.operations as o
            where o.author = c.author and o.author_seq between c.first_seq and c.last_seq
            offset 0
        ) as o
    ),

    tree as materialized (
        select n.* from kerai_private.with_ancestors(array(select distinct d.node_id from done as d)) as n
    ),

    hidden as (
        select t.id from tree as t where t.deleted
        union
        select t.id from hidden as h inner join tree as t on t.parent_id = h.id
    )

    select d.writer, count(*)
    from done as d
    inner join tree as n on n.id = d.node_id
    left join hidden as self on self.id = n.id
    left join hidden as parent on parent.id = n.parent_id
    where case
        when d.op_type = 'node_insert' then self.id is null and n.created_stamp = d.stamp
        when d.op_type = 'node_update' then self.id is null and d.stamp = any(n.written)
        when d.op_type = 'node_move' then self.id is null and n.placed_stamp = d.stamp
        when d.op_type = 'node_restore' then self.id is null and n.deleted_stamp = d.stamp
        when d.op_type = 'node_delete' then n.deleted and n.deleted_stamp = d.stamp and parent.id is null
        when d.op_type in ('edge_insert', 'edge_delete') then exists (
            select from kerai.edges as e
            where e.source = d.node_id and e.target = (d.payload ->> 'target')::uuid
                and e.relation = d.payload ->> 'relation' and e.stamp = d.stamp)
        when d.op_type in ('perspective_set', 'perspective_delete') then exists (
            select from kerai.perspectives as p
            where p.node_id = d.node_id and p.author = d.writer
                and p.context_id is not distinct from (d.payload ->> 'context')::uuid and p.stamp = d.stamp)
        else exists (
            select from kerai.associations as a
            where a.source = d.node_id and a.target = (d.payload ->> 'target')::uuid
                and a.relation = d.payload ->> 'relation' and a.author = d.writer and a.stamp = d.stamp)
    end
    group by d.writer
$$;

-- Whether a vector is the shared state as far as the scope can tell: what it does not cover lies outside.
create or replace function kerai_private.is_shared_state(vector jsonb, scope uuid) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    unseen bigint;
    near jsonb;
begin
    -- `near` is the vector brought forward to the last few operations of each author.
    select count(*) filter (where a.seq > coalesce(e.seq, 0)),
        jsonb_object_agg(a.author, greatest(coalesce(e.seq, 0), a.seq - 10))
    into unseen, near
    from kerai_private.authors as a
    left join kerai_private.vector_entries(vector) as e on e.author = a.author;
    if unseen = 0 then
        return true;
    end if;
    if scope is null or not exists (
        select from kerai.nodes as n
        where n.id = scope
            and n.created_seq <= coalesce((vector ->> kerai_private.stamp_author(n.created_stamp))::bigint, 0)) then
        return false;
    end if;
    -- A vector that is far behind nearly always lacks something new in the scope: found without reading all of it.
    -- No author has the empty id, so nobody's operations are left out.
    return not kerai_private.touched_since(scope, '', null, near) and not kerai_private.touched_since(scope, '', null, vector);
end
$$;

-- sha256 of a test result, so that the ground of a payment can be told from another, also when test_results is lost.
create or replace function kerai_private.result_digest(result kerai.test_results) returns bytea
language sql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
    select sha256(convert_to(to_jsonb(result)::text, 'UTF8'))
$$;

-- How a reward is split: each agent's part of the surviving operations, rounded down. The rest, and the part of authors
-- who are no agents here, goes to the reporter.
create or replace function kerai_private.split_reward(task uuid, reward bigint, reporter kerai.agents)
returns table (agent_id uuid, name text, wallet_id uuid, operations bigint, nkoi bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with survivors as (
        select s.author, s.operations,
            div(split_reward.reward::numeric * s.operations, sum(s.operations) over ())::bigint as nkoi
        from kerai_private.surviving_operations(split_reward.task) as s
    ),

    parts as (
        select a.id, a.name, a.wallet_id, s.operations, s.nkoi
        from survivors as s inner join kerai.agents as a on a.author = s.author
        union all
        select reporter.id, reporter.name, reporter.wallet_id, 0, split_reward.reward - coalesce((
            select sum(s.nkoi) from survivors as s inner join kerai.agents as a on a.author = s.author), 0)::bigint
    )

    select p.id, p.name, p.wallet_id, sum(p.operations)::bigint, sum(p.nkoi)::bigint
    from parts as p
    group by p.id, p.name, p.wallet_id
    order by p.name
$$;

-- Called with a passing result of an unfinished task; does nothing unless the result is about the shared state. Of any
-- number of sessions that report at once, one gets the task's row first, and the others find the task succeeded.
create or replace function kerai_private.converge(result kerai.test_results, reporter kerai.agents) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    job kerai.tasks := kerai_private.require_task(result.task_id);
    reward bigint;
    shares jsonb;
    wallets uuid[];
    amounts bigint[];
begin
    if kerai_private.has_one_snapshot() then
        perform kerai_private.lock_tree_with_one_snapshot();
    end if;
    if not kerai_private.is_shared_state(result.version_vector, job.scope_node_id) then
        return;
    end if;
    select t.* into job from kerai.tasks as t where t.id = result.task_id for no key update;
    if job.status in ('succeeded', 'failed') then
        return;
    end if;

    update kerai.tasks as t set status = 'succeeded', finished_at = clock_timestamp() where t.id = job.id;
    update kerai.swarms as s set status = 'converged', stopped_at = clock_timestamp()
    where s.task_id = job.id and s.status = 'running';

    select r.reward into reward from kerai.reward_schedule as r where r.work_type = 'swarm_convergence' and r.enabled;
    reward := coalesce(reward, 0);
    select jsonb_agg(jsonb_build_object('agent', s.agent_id, 'name', s.name, 'operations', s.operations, 'nkoi', s.nkoi)
            order by s.name),
        array_agg(s.wallet_id) filter (where s.nkoi > 0), array_agg(s.nkoi) filter (where s.nkoi > 0)
    into shares, wallets, amounts
    from kerai_private.split_reward(job.id, reward, reporter) as s;

    insert into kerai.convergences
        (task_id, agent_id, test_result_id, version_vector, result_digest, output_tail, reward, shares)
    values (job.id, reporter.id, result.id, result.version_vector, kerai_private.result_digest(result),
        right(result.output, 4000), reward, shares)
    on conflict do nothing;
    if found and reward > 0 then
        perform kerai_private.post_mint('swarm_convergence', job.id, wallets, amounts);
    end if;
end
$$;

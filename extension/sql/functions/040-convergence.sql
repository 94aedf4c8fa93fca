-- 040 convergence: when a task's success command passes on the shared state, once, and who is paid for it.

-- How many operations of a task's changesets still show in the tree, by author. An insert shows while its node is
-- visible; an update while one of the fields or metadata keys that it wrote is as it left it; a move while the node
-- stands where it put it; a deletion while it is what hides the node; a relation while it is the last word on it.
create or replace function kerai_private.surviving_operations(task uuid)
returns table (author text, operations bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive done as materialized (
        select o.author, o.op_type, o.node_id, o.payload, kerai_private.stamp(o.lamport_ts, o.author) as stamp
        from kerai.changesets as c
        inner join kerai.operations as o on o.author = c.author and o.author_seq between c.first_seq and c.last_seq
        where c.task_id = surviving_operations.task
    ),

    above as (
        select n.id, n.parent_id, n.deleted from kerai.nodes as n where n.id in (select d.node_id from done as d)
        union
        select n.id, n.parent_id, n.deleted from above as a inner join kerai.nodes as n on n.id = a.parent_id
    ),

    visible as (
        select a.id from above as a where a.parent_id is null and not a.deleted
        union all
        select a.id from visible as v inner join above as a on a.parent_id = v.id where not a.deleted
    )

    select d.author, count(*)
    from done as d
    inner join kerai.nodes as n on n.id = d.node_id
    left join visible as self on self.id = n.id
    left join visible as parent on parent.id = n.parent_id
    where case
        when d.op_type = 'node_insert' then self.id is not null and n.created_stamp = d.stamp
        when d.op_type = 'node_update' then self.id is not null and (
            d.stamp in (n.kind_stamp, n.name_stamp, n.language_stamp, n.content_stamp)
            or exists (select from jsonb_each_text(n.metadata_stamps) as m where m.value = d.stamp))
        when d.op_type = 'node_move' then self.id is not null and n.placed_stamp = d.stamp
        when d.op_type = 'node_restore' then self.id is not null and n.deleted_stamp = d.stamp
        when d.op_type = 'node_delete' then n.deleted and n.deleted_stamp = d.stamp
            and (n.parent_id is null or parent.id is not null)
        when d.op_type in ('edge_insert', 'edge_delete') then exists (
            select from kerai.edges as e
            where e.source = d.node_id and e.target = (d.payload ->> 'target')::uuid
                and e.relation = d.payload ->> 'relation' and e.stamp = d.stamp)
        when d.op_type in ('perspective_set', 'perspective_delete') then exists (
            select from kerai.perspectives as p
            where p.node_id = d.node_id and p.author = d.author
                and p.context_id is not distinct from (d.payload ->> 'context')::uuid and p.stamp = d.stamp)
        else exists (
            select from kerai.associations as a
            where a.source = d.node_id and a.target = (d.payload ->> 'target')::uuid
                and a.relation = d.payload ->> 'relation' and a.author = d.author and a.stamp = d.stamp)
    end
    group by d.author
$$;

-- Whether a vector is the shared state as far as the scope can tell: what it does not cover lies outside.
create or replace function kerai_private.is_shared_state(vector jsonb, scope uuid) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from kerai_private.authors as a
        left join kerai_private.vector_entries(vector) as e on e.author = a.author
        where a.seq > coalesce(e.seq, 0)) then
        return true;
    end if;
    -- No author has the empty id: nobody's operations are left out.
    return scope is not null and not kerai_private.touched_since(scope, '', vector);
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

-- How a reward is split: each agent's part of the surviving operations, rounded down; what is left over, and the part
-- of authors who are no agents here, goes to the reporter.
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
    wallets uuid [];
    amounts bigint [];
begin
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

-- Reports: reading test results and attempts that were not pushed. Both are unlogged, so a standby has none: there
-- a query that names such a table fails before it begins. Hence only functions in PL/pgSQL name them, and look first.

create or replace function kerai_private.has_reports() returns boolean
language sql stable parallel safe
return not pg_is_in_recovery();

create or replace function kerai_private.require_reports() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not kerai_private.has_reports() then
        perform kerai_private.refuse('KR011', 'test results are not on a standby',
            'kerai.test_results and kerai.failed_operations are unlogged: they are not replicated.', 'Ask the primary.');
    end if;
end
$$;

-- What each agent reported on a task in a span of time; nothing on a standby.
create or replace function kerai_private.result_counts(task uuid, since timestamptz, until timestamptz)
returns table (
    agent_id uuid, attempts bigint, passes bigint, total_cost numeric, best_failing int, last_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if kerai_private.has_reports() then
        return query
        select t.agent_id, count(*), count(*) filter (where t.passed), sum(t.compute_cost),
            min(t.failing) filter (where t.pushed),
            max(t.created_at)
        from kerai.test_results as t
        where t.task_id = task and t.created_at between since and until
        group by t.agent_id;
    end if;
end
$$;

-- How many tests failed in an agent's last result in a span of time.
create or replace function kerai_private.last_failing(task uuid, agent uuid, since timestamptz, until timestamptz)
returns int
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not kerai_private.has_reports() then
        return null;
    end if;
    return (
        select t.failing from kerai.test_results as t
        where t.task_id = last_failing.task and t.agent_id = last_failing.agent
            and t.created_at between last_failing.since and last_failing.until
        order by t.created_at desc limit 1);
end
$$;

-- Failing tests in the shared state, as far as is known. Of the newest reports about merged states, those about the
-- largest vector count: the least of them, since a test may fail by chance.
create or replace function kerai_private.failing_now(task uuid, since timestamptz) returns int
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not kerai_private.has_reports() then
        return null;
    end if;
    return (
        select min(f.failing)
        from (
            select r.failing, rank() over (order by v.covered desc) as place
            from (
                select t.failing, t.version_vector
                from kerai.test_results as t
                where t.task_id = failing_now.task and t.created_at >= failing_now.since and t.pushed
                    and t.failing is not null
                order by t.created_at desc limit 32
            ) as r
            cross join lateral (
                select coalesce(sum(e.value::numeric), 0) as covered from jsonb_each_text(r.version_vector) as e
            ) as v
        ) as f
        where f.place = 1);
end
$$;

-- What an agent reported, as kerai.agent_trace shows it.
create or replace function kerai_private.reports_of(agent uuid)
returns table (
    at timestamptz, event text, task_id uuid, reference text, operations bigint, failing int, duration_ms int,
    nkoi bigint, message text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if kerai_private.has_reports() then
        return query
        select r.created_at, case when r.passed then 'passed' else 'failed' end, r.task_id, r.id::text, null::bigint,
            r.failing, r.duration_ms, r.compute_cost, null::text
        from kerai.test_results as r
        where r.agent_id = agent
        union all
        select f.created_at, 'discarded', f.task_id, f.id::text, json_array_length(f.operations), f.failing, null, null,
            f.reason
        from kerai.failed_operations as f
        where f.agent_id = agent;
    end if;
end
$$;

-- All results that passed, numbered as they came. Their vectors are not looked into.
create or replace function kerai_private.passing_results()
returns table (id uuid, created_at timestamptz, version_vector jsonb, number bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if kerai_private.has_reports() then
        return query
        select t.id, t.created_at, t.version_vector, row_number() over (order by t.created_at, t.id)
        from kerai.test_results as t where t.passed;
    end if;
end
$$;

-- Results: what agents report, and the log of attempts that were not pushed. How both expire: ephemera.sql.

-- How many tests a failed run counted as failing, summed over all runs of test runners that the output shows; NULL when
-- that is not known. Called once a report, when it is recorded without a count. Agents count with the same package.
create or replace function kerai_private.failing_tests(output text) returns int
language plpython3u immutable
set search_path = pg_catalog, pg_temp
as $$
if output is None:
    return None
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].results.count_failing(output)
$$;

create or replace function kerai.record_test_result(
    task uuid,
    agent uuid,
    version_vector jsonb,
    passed boolean,
    output text default null,
    duration_ms int default null,
    compute_cost bigint default 0,
    failing int default null,
    pushed boolean default true
) returns kerai.test_results
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    longest constant bigint := kerai_private.setting('max_output_bytes');
    cost constant bigint := coalesce(compute_cost, 0);
    reporter constant kerai.agents := kerai_private.require_agent(agent);
    job kerai.tasks := kerai_private.require_task(task);
    result kerai.test_results;
begin
    if passed is null then
        perform kerai_private.refuse('KR005', 'a test result says whether it passed', 'passed: null',
            'Pass true when the success command exited with 0, else false.');
    end if;
    if passed and not pushed then
        perform kerai_private.refuse('KR005', 'only a merged state passes', 'passed: true, pushed: false',
            'Push the change, then report the vector that it got. Or report it as not passed.');
    end if;
    perform kerai_private.require_count(failing);
    if octet_length(output) > longest then
        perform kerai_private.refuse('KR005', 'the output is too long',
            format('%s bytes, at most %s are taken', octet_length(output), longest),
            'Send the end of it: that is where test runners put their summary.');
    end if;
    if least(duration_ms, cost) < 0 then
        perform kerai_private.refuse('KR005', 'durations and costs are not negative',
            concat_ws(', ', 'duration_ms: ' || duration_ms, 'compute_cost: ' || compute_cost),
            'Pass milliseconds and nKoi, 0 or more.');
    end if;
    perform kerai_private.require_covered(version_vector);

    -- The account of a task closes when it succeeds: reports that come later are kept, free of charge.
    if job.status <> 'succeeded' then
        perform kerai_private.require_open(job, reporter);
        if cost > 0 then
            update kerai.tasks as t
            set spent_nkoi = t.spent_nkoi + cost
            where t.id = task and t.status in ('pending', 'running')
                and t.spent_nkoi <= coalesce(t.budget_nkoi, 9223372036854775807) - cost
            returning t.* into job;
            if not found then
                job := kerai_private.require_task(task);
                if job.status <> 'succeeded' then
                    perform kerai_private.require_open(job, reporter);
                    perform kerai_private.refuse('KR008', 'the task''s money is used up',
                        format('task %s: %s of %s nKoi spent, this result cost %s', job.id, job.spent_nkoi,
                            coalesce(job.budget_nkoi, 9223372036854775807), cost),
                        'Stop working on it; ask the sponsor for a new task with a larger budget_nkoi.');
                end if;
            end if;
        end if;
    end if;

    insert into kerai.test_results as r
        (task_id, agent_id, version_vector, passed, output, duration_ms, compute_cost, failing, pushed)
    values (task, agent, version_vector, passed, output, duration_ms, cost,
        case when passed then 0 else coalesce(nullif(failing, 0), kerai_private.failing_tests(output)) end,
        coalesce(pushed, true))
    returning r.* into result;

    if passed and job.status <> 'succeeded' then
        perform kerai_private.converge(result, reporter);
    end if;
    return result;
end
$$;

comment on function kerai.record_test_result(uuid, uuid, jsonb, boolean, text, int, bigint, int, boolean) is
'Reports one run of the task''s success command by your agent. In version_vector: the merged state that was tested. With pushed => false an attempt was tested that was not pushed, and that state is where it started. In failing: how many tests failed; without it they are counted in output, as far as its runner is known. In compute_cost: nKoi, counted against the task''s budget. When the command passed and nothing in the scope is newer than the vector, the task succeeds and swarm_convergence is minted, once a task.';

create or replace function kerai_private.require_count(failing int) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if failing < 0 then
        perform kerai_private.refuse('KR005', 'a count of failing tests is not negative', format('failing: %s', failing),
            'Pass how many tests failed, or NULL when that is not known.');
    end if;
end
$$;

-- The work was done and has cost what it has, whatever the budget says. The output begins with the refusal, and may be
-- the solver's: no tests are counted in it.
create or replace function kerai.record_refused_attempt(
    task uuid,
    agent uuid,
    version_vector jsonb,
    output text,
    duration_ms int default null,
    compute_cost bigint default 0,
    failing int default null
) returns kerai.test_results
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    longest constant bigint := kerai_private.setting('max_output_bytes');
    most constant bigint := 9223372036854775807;
    cost constant bigint := coalesce(compute_cost, 0);
    reporter constant kerai.agents := kerai_private.require_agent(agent);
    job constant kerai.tasks := kerai_private.require_task(task);
    result kerai.test_results;
begin
    perform from kerai_private.vector_entries(version_vector);
    if output is null or octet_length(output) > longest then
        perform kerai_private.refuse('KR005', 'a refused attempt has an output that begins with the reason',
            format('output: %s, at most %s bytes are taken', coalesce(octet_length(output) || ' bytes', 'null'), longest),
            'Put the refusal into the first line, and the end of the test runner''s output after it.');
    end if;
    if least(duration_ms, cost) < 0 then
        perform kerai_private.refuse('KR005', 'durations and costs are not negative',
            concat_ws(', ', 'duration_ms: ' || duration_ms, 'compute_cost: ' || compute_cost),
            'Pass milliseconds and nKoi, 0 or more.');
    end if;
    perform kerai_private.require_count(failing);
    if cost > 0 then
        update kerai.tasks as t set spent_nkoi = t.spent_nkoi + least(cost, most - t.spent_nkoi)
        where t.id = job.id and t.status <> 'succeeded';
    end if;
    insert into kerai.test_results as r
        (task_id, agent_id, version_vector, passed, output, duration_ms, compute_cost, failing, pushed)
    values (job.id, reporter.id, version_vector, false, output, duration_ms, cost, nullif(failing, 0), false)
    returning r.* into result;
    return result;
end
$$;

comment on function kerai.record_refused_attempt(uuid, uuid, jsonb, text, int, bigint, int) is
'Reports an attempt of your agent that the server has refused (KR007, KR008, KR011 ...), so that it shows in status, trace and economics. The version_vector is the state that it started from, and output begins with the reason. In failing: how many tests failed; they are not counted in output. Taken also when the budget is used up or the swarm is stopped; its cost is counted until the task succeeds.';

create or replace function kerai_private.drop_oldest_attempts(newest bigint) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    -- A few of each at a time, by index: each new attempt removes more than it adds, and none pays for all.
    delete from kerai.failed_operations as f
    where f.id in (
        select e.id from kerai.failed_operations as e
        where e.expires_at <= now() order by e.expires_at limit 4 for update skip locked);

    delete from kerai.failed_operations as f
    where f.arrival in (
        select e.arrival from kerai.failed_operations as e
        where e.arrival <= drop_oldest_attempts.newest - kerai_private.setting('max_failed_operations')
        order by e.arrival limit 4 for update skip locked);
$$;

create or replace function kerai.record_failed_attempt(
    task uuid, agent uuid, base jsonb, ops json, reason text, output text default null, failing int default null
) returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    most_bytes constant bigint := kerai_private.setting('max_changeset_bytes');
    most_ops constant bigint := kerai_private.setting('max_changeset_ops');
    reporter constant kerai.agents := kerai_private.require_agent(agent);
    job constant kerai.tasks := kerai_private.require_task(task);
    attempt record;
begin
    perform from kerai_private.vector_entries(base);
    if ops is null or json_typeof(ops) <> 'array' then
        perform kerai_private.refuse('KR005', 'an attempt is an array of operations',
            format('given: %s', coalesce(json_typeof(ops), 'null')), 'Pass the operations that were not pushed.');
    end if;
    if octet_length(ops::text) > most_bytes or json_array_length(ops) > most_ops then
        perform kerai_private.refuse('KR005', 'the attempt is too large',
            format('%s bytes and %s operations, at most %s and %s are taken', octet_length(ops::text),
                json_array_length(ops), most_bytes, most_ops),
            'Leave it out: a failed attempt is for study only.');
    end if;
    if reason is null or length(reason) not between 1 and 1000 then
        perform kerai_private.refuse('KR005', 'a failed attempt has a reason of 1 to 1000 characters',
            format('reason: %s', coalesce(length(reason) || ' characters', 'null')),
            'For example: more tests failed, timeout, does not parse.');
    end if;
    if octet_length(output) > kerai_private.setting('max_output_bytes') then
        perform kerai_private.refuse('KR005', 'the output is too long',
            format('%s bytes, at most %s are taken', octet_length(output), kerai_private.setting('max_output_bytes')),
            'Send the end of it: that is where test runners put their summary.');
    end if;
    perform kerai_private.require_count(failing);

    insert into kerai.failed_operations as f
        (task_id, agent_id, base, operations, reason, failing, output_tail, expires_at)
    values (job.id, reporter.id, base, ops, reason,
        coalesce(nullif(failing, 0), kerai_private.failing_tests(output)), right(output, 4000),
        now() + kerai_private.setting('failed_operations_ttl_seconds') * interval '1 second')
    returning f.id, f.arrival into attempt;
    perform kerai_private.drop_oldest_attempts(attempt.arrival);
    return attempt.id;
end
$$;

comment on function kerai.record_failed_attempt(uuid, uuid, jsonb, json, text, text, int) is
'Keeps an attempt that was not pushed, for study: base is the vector that it started from, ops its operations, reason why it was given up. In failing: how many tests failed; without it they are counted in output. Removed after failed_operations_ttl_seconds (kerai.settings).';

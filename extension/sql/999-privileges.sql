-- Privileges, last: PUBLIC has nothing; each role gets what is listed for it and what the role below it has.
--   kerai_reader < kerai_agent < kerai_operator
--   kerai_reader < kerai_peer  < kerai_operator    another instance's login at this one
-- A public function that is not listed here is for reading. kerai_private is for nobody.

do $$
declare
    member record;
    agent_functions constant text [] := '{
        register_agent, push_ops, push_together, submit, settle, settle_more, withdraw, join_swarm, record_test_result, record_failed_attempt,
        record_refused_attempt, instance_key}';
    operator_functions constant text [] := '{
        create_task, launch_swarm, give_agent, stop_swarm, expire_failed_operations, maintain, verify, rebuild, compact,
        add_peer, remove_peer, pull, push, sync, exchange, compare_heads, ask_peer, hang_up, begin_contact, end_contact, begin_pull,
        begin_scope, take_members, take_late, merge_late, accept_scoped,
        schedule_sync, unschedule_sync, note_schedule}';
    peer_functions constant text [] := '{accept, report_fork, serve_scope, scope_members, scope_late, scope_page}';
begin
    revoke all on schema kerai, kerai_private from public;
    grant usage on schema kerai to kerai_reader;

    for member in
        select p.oid::regprocedure as signature, p.proname, n.nspname
        from pg_proc as p
        inner join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in ('kerai', 'kerai_private')
    loop
        execute format('revoke all on routine %s from public', member.signature);
        if member.nspname = 'kerai' then
            execute format('grant execute on routine %s to %s', member.signature, case
                when member.proname = any(operator_functions) then 'kerai_operator'
                when member.proname = any(agent_functions) then 'kerai_agent'
                when member.proname = any(peer_functions) then 'kerai_peer'
                else 'kerai_reader' end);
        end if;
    end loop;

    for member in
        select t.oid::regtype as name
        from pg_type as t
        inner join pg_namespace as n on n.oid = t.typnamespace
        left join pg_class as c on c.oid = t.typrelid
        where n.nspname in ('kerai', 'kerai_private') and t.typelem = 0 and coalesce(c.relkind, 'c') = 'c'
    loop
        execute format('revoke all on type %s from public', member.name);
    end loop;

    for member in
        select c.oid::regclass as relation, n.nspname
        from pg_class as c
        inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in ('kerai', 'kerai_private') and c.relkind in ('r', 'p', 'v', 'm')
    loop
        execute format('revoke all on %s from public', member.relation);
        if member.nspname = 'kerai' then
            execute format('grant select on %s to kerai_reader', member.relation);
        end if;
    end loop;

    -- Passwords are in it. Who has added a peer is not for him to say.
    revoke all on kerai.peer_connections from kerai_reader;
    grant select, insert (name, connection) on kerai.peer_connections to kerai_operator;
    grant update (value) on kerai.settings to kerai_operator;
    grant update (reward, enabled) on kerai.reward_schedule to kerai_operator;
end
$$;

-- A server without the Python package, or with another version of it, is told now and not at the first push.
select kerai_private.load_python();

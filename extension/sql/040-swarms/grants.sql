-- Who may use what of this domain.

grant select on table
    kerai.tasks, kerai.swarms, kerai.swarm_members, kerai.test_results, kerai.convergences, kerai.failed_operations
to kerai_reader;

grant execute on function kerai.swarm_hotspots, kerai.lineage, kerai.swarm_progress to kerai_reader;

grant execute on function
    kerai.record_test_result, kerai.record_refused_attempt, kerai.record_failed_attempt, kerai.join_swarm
to kerai_agent;

grant execute on function
    kerai.maintain, kerai.expire_failed_operations, kerai.create_task, kerai.launch_swarm, kerai.stop_swarm
to kerai_operator;

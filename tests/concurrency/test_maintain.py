"""kerai.maintain() beside sessions that report and read: it waits for no lock, and nobody loses a report."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from psycopg import Connection
from tests.merge.observe import scalar

REPORT = "select kerai.record_test_result(%s, %s, '{}', false)"
# Of each of the last 14 weeks and days but for those that go on, something that has expired.
EXPIRED = """
insert into kerai.test_results (task_id, agent_id, version_vector, passed, created_at)
select gen_random_uuid(), gen_random_uuid(), '{}', false, now() - i * interval '168 hours'
from generate_series(1, 14) as i"""


def expired(connection: Connection[Any]) -> int:
    """Count the test results that maintain() is to remove."""
    count = "select count(*) from kerai.test_results where created_at < now() - interval '100 hours'"
    return int(scalar(connection, count))


@pytest.fixture
def admin(connect: Any) -> Any:
    """A session in an instance where test results are kept for a minute."""
    connection = connect()
    connection.execute("update kerai.settings set value = 60 where name = 'test_results_ttl_seconds'")
    connection.execute(EXPIRED)
    return connection


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_what_others_use_is_left_for_the_next_call(admin: Any, connect: Any, isolation: str) -> None:
    reader, other = connect(), connect()
    other.execute(f"set default_transaction_isolation = '{isolation}'")
    other.execute("set lock_timeout = 1")
    oldest = "select tableoid::regclass::text from kerai.test_results order by created_at limit 1"
    partition = scalar(admin, oldest)
    with reader.transaction():
        reader.execute(f"select from {partition}")
        done = other.execute("select * from kerai.maintain()").fetchall()
        assert partition not in {row["relation"] for row in done}
        assert {(row["action"], row["row_count"]) for row in done} == {("emptied", 1)}
        assert len(done) == 13
    (left,) = other.execute("select * from kerai.maintain()").fetchall()
    assert left == {"action": "emptied", "relation": partition, "row_count": 1}
    assert expired(admin) == 0


# In a period of the ring that is over, what has expired, and what others commit later and is still wanted.
OLD_AND_NEW = {
    "test_results": """
        insert into kerai.test_results (task_id, agent_id, version_vector, passed, created_at)
        select gen_random_uuid(), gen_random_uuid(), '{}', false,
            now() - interval '%(age)s seconds' + %(days)s * interval '1 day'""",
    "failed_operations": """
        insert into kerai.failed_operations
            (task_id, agent_id, base, operations, reason, created_at, expires_at)
        select gen_random_uuid(), gen_random_uuid(), '{}', '[]', 'r', now() - interval '5 days',
            now() + %(days)s * interval '1 day'""",
}


@pytest.mark.parametrize("relation", OLD_AND_NEW)
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_what_is_committed_since_the_snapshot_is_not_emptied(
    connect: Any, isolation: str, relation: str
) -> None:
    """As a restore commits rows of earlier times."""
    one, other = connect(), connect()
    # The middle of a week, some weeks ago.
    age = scalar(one, "select extract(epoch from now())::bigint % 604800 + 604800 * 5 - 302400")
    one.execute("update kerai.settings set value = %s where name = 'test_results_ttl_seconds'", [age])
    one.execute(OLD_AND_NEW[relation] % {"age": age, "days": -1})
    other.execute(f"begin isolation level {isolation}")
    other.execute("select")
    one.execute(OLD_AND_NEW[relation] % {"age": age, "days": 1})
    assert other.execute("select * from kerai.maintain()").fetchall() == []
    other.execute("commit")
    assert scalar(one, f"select count(*) from kerai.{relation}") == 2
    one.execute(f"delete from kerai.{relation} where ctid = '(0,2)'")
    done = other.execute("select * from kerai.maintain()").fetchall()
    assert [(row["action"], row["row_count"]) for row in done] == [("emptied", 1)]


@pytest.mark.read_committed
def test_a_session_reports_beside_what_it_keeps_from_being_emptied(admin: Any, connect: Any) -> None:
    """It is not the victim of a deadlock: maintain() does not wait for its lock while it holds another."""
    agent = scalar(admin, "select id from kerai.register_agent('a', 'llm')")
    task = scalar(admin, "select id from kerai.create_task('d', 'true')")
    reader, other = connect(), connect()
    reader.execute("set deadlock_timeout = 1")
    for session in (reader, other):
        session.execute("set default_transaction_isolation = 'read committed'")
    admin.execute("delete from kerai.test_results where created_at < now() - interval '200 hours'")
    partition = scalar(admin, "select tableoid::regclass::text from kerai.test_results")
    waits = "select wait_event_type, wait_event from pg_stat_activity where pid = %s and state = 'active'"
    with reader.transaction():
        reader.execute(f"select from {partition}")
        thread = threading.Thread(target=other.execute, args=["select * from kerai.maintain()"])
        thread.start()
        for _ in range(500):
            found = admin.execute(waits, [other.info.backend_pid]).fetchone() or {}
            if found.get("wait_event_type") in {"Lock", "Timeout"}:
                break
            time.sleep(0.01)
        assert found == {"wait_event_type": "Timeout", "wait_event": "PgSleep"}
        reader.execute(REPORT, [task, agent])
        reader.execute("select count(*) from kerai.test_results")
    thread.join()
    assert scalar(admin, "select count(*) from kerai.test_results where task_id = %s", [task]) == 1


@pytest.mark.read_committed
def test_sessions_report_and_read_while_others_maintain(admin: Any, connect: Any) -> None:
    """No session is ever the victim of a deadlock: each would find one within a millisecond."""
    agent = scalar(admin, "select id from kerai.register_agent('a', 'llm')")
    task = scalar(admin, "select id from kerai.create_task('d', 'true')")
    admin.execute("update kerai.settings set value = 3600 where name = 'test_results_ttl_seconds'")
    connections = [connect() for _ in range(6)]
    problems: list[BaseException] = []
    done = threading.Event()

    def work(number: int) -> None:
        connection = connections[number]
        try:
            connection.execute("set deadlock_timeout = 1")
            if number >= 3:
                while not done.is_set():
                    connection.execute("select * from kerai.maintain()")
            else:
                for _ in range(25):
                    with connection.transaction():
                        connection.execute(REPORT, [task, agent])
                        connection.execute("select * from kerai.swarm_progress(%s)", [task])
                        connection.execute(EXPIRED)
                        connection.execute("select count(*) from kerai.test_results")
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(connections))]
    for thread in threads:
        thread.start()
    for thread in threads[:3]:
        thread.join()
    done.set()
    for thread in threads[3:]:
        thread.join()
    assert not problems
    assert scalar(admin, "select count(*) from kerai.test_results where task_id = %s", [task]) == 75
    admin.execute("select * from kerai.maintain()")
    assert expired(admin) == 0

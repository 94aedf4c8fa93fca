"""kerai.maintain() beside sessions that report: it waits for nobody long, and nobody loses a report."""

from __future__ import annotations

import threading
from typing import Any

from tests.merge.observe import scalar

REPORT = "select kerai.record_test_result(%s, %s, '{}', false)"


def test_maintain_gives_up_where_a_report_is_not_committed(connect: Any) -> None:
    one, other = connect(), connect()
    agent = scalar(one, "select id from kerai.register_agent('a', 'llm')")
    task = scalar(one, "select id from kerai.create_task('d', 'true')")
    with one.transaction():
        one.execute(REPORT, [task, agent])
        made = [row["relation"] for row in other.execute("select * from kerai.maintain()").fetchall()]
        assert made, "the other table has nobody in it"
        assert not [name for name in made if "test_results" in name]
    assert other.execute("select * from kerai.maintain() where relation ~ 'test_results'").fetchall()
    assert scalar(one, "select count(*) from kerai.test_results") == 1


def test_sessions_report_while_others_maintain(connect: Any) -> None:
    first = connect()
    agent = scalar(first, "select id from kerai.register_agent('a', 'llm')")
    task = scalar(first, "select id from kerai.create_task('d', 'true')")
    connections = [connect() for _ in range(5)]
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(25):
                if number < 3:
                    connections[number].execute(REPORT, [task, agent])
                else:
                    connections[number].execute("select * from kerai.maintain()")
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert scalar(first, "select count(*) from kerai.test_results") == 75
    assert scalar(first, "select count(*) from kerai_private.partitions_of('kerai.failed_operations')") == 8

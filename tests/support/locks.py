"""Sessions that wait for each other's locks."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from psycopg import Connection


def set_lock_wait(connection: Connection[Any], milliseconds: int) -> None:
    """Let pushes, syncs and rebuilds give up after this long; users wait 30 seconds."""
    change = "update kerai.settings set value = %s where name = 'max_lock_wait_ms'"
    assert connection.execute(change, [milliseconds]).rowcount == 1


def blocked_first(
    observer: Connection[Any], answer: Future[Any], waiting: Connection[Any], holder: Connection[Any]
) -> bool:
    """Wait until a session waits for another's lock or has answered; say whether it waits."""
    blocked = "select %s = any(pg_blocking_pids(%s)) from pg_sleep(0.002)"
    pids = [holder.info.backend_pid, waiting.info.backend_pid]
    while not answer.done():
        row = observer.execute(blocked, pids).fetchone()
        assert row is not None
        if any(row.values()):
            return True
    return False

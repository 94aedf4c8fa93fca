"""Connections, named queries, and trying again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from kerai_client.database import Connection, Database, Queries, is_transient, queries, retry
from kerai_client.database import connect as connect_to
from kerai_client.errors import KeraiError


class Clock:
    """A time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_retry_goes_on_until_it_succeeds() -> None:
    clock, errors = Clock(), [psycopg.errors.DeadlockDetected(), psycopg.errors.SerializationFailure()]

    def operation() -> str:
        if errors:
            raise errors.pop()
        return "done"

    told: list[type[BaseException]] = []
    result = retry(
        operation,
        sleep=clock.sleep,
        clock=clock.time,
        on_retry=lambda error, _: told.append(type(error)),
    )
    assert result == "done"
    assert told == [psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected]
    assert len(clock.slept) == 2


def test_retry_ends_in_time_and_its_pauses_grow() -> None:
    clock = Clock()

    def operation() -> None:
        raise psycopg.OperationalError("connection refused")

    with pytest.raises(psycopg.OperationalError, match="refused"):
        retry(operation, seconds=120, sleep=clock.sleep, clock=clock.time)
    assert clock.now <= 120
    assert max(clock.slept[:2]) <= 0.2
    assert 1 < max(clock.slept) <= 5


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.TooManyConnections(), True),
        (psycopg.errors.ConnectionFailure(), True),
        (psycopg.OperationalError('connection failed: socket "/x": No such file or directory'), True),
        (psycopg.InterfaceError("the connection is closed"), True),
        (psycopg.OperationalError('FATAL:  database "x" does not exist'), False),
        (psycopg.OperationalError("FATAL:  password authentication failed"), False),
        (type("InTheWay", (psycopg.DatabaseError,), {"sqlstate": "KR009"})(), True),
        (psycopg.errors.UniqueViolation(), False),
        (psycopg.ProgrammingError("the query has 1 placeholder"), False),
        (OSError("connection refused"), False),
    ],
)
def test_what_is_transient(error: BaseException, transient: bool) -> None:
    assert is_transient(error) is transient


def test_an_error_of_the_statement_is_not_tried_again() -> None:
    calls = []

    def operation() -> None:
        calls.append(1)
        raise psycopg.errors.UniqueViolation()

    with pytest.raises(psycopg.errors.UniqueViolation):
        retry(operation)
    assert calls == [1]


def test_a_lost_connection_is_made_again(database: Any, connect: Any) -> None:
    with Database(database.dsn, seconds=10) as client:
        first = client.run(_backend)
        connect().execute("select pg_terminate_backend(%s)", [first])
        assert client.run(_backend) != first


def _backend(connection: Connection) -> int:
    row = connection.execute("select pg_backend_pid() as pid").fetchone()
    assert row is not None
    return int(row["pid"])


def test_connect_says_who_it_is(database: Any, connect: Any) -> None:
    connection = connect()
    assert connection.autocommit
    assert connection.execute("show application_name").fetchone() == {"application_name": "kerai"}
    named = connect(database.dsn + "&application_name=mine")
    assert named.execute("show application_name").fetchone() == {"application_name": "mine"}


def test_a_dsn_that_is_none() -> None:
    with pytest.raises(KeraiError, match="not a connection string"):
        connect_to("nonsense nonsense")


def test_transaction_pooling(pgbouncer: str, connect: Any) -> None:
    """More clients than server connections, and the same statement so often that it would be prepared."""
    clients = [connect(pgbouncer) for _ in range(12)]
    for number in range(12):
        for client in clients:
            assert client.execute("select %s::int as n", [number]).fetchone() == {"n": number}


def test_the_clients_queries_load() -> None:
    assert "database_status" in queries()
    assert all(text and not text.startswith("-- name:") for text in queries().values())


def test_queries(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text(
        "-- A comment.\n\n-- name: one\nselect 1;\n-- why\n\n-- name: two\nselect 2"
    )
    assert dict(Queries(tmp_path)) == {"one": "select 1;\n-- why", "two": "select 2"}
    (tmp_path / "b.sql").write_text("-- name: one\nselect 3")
    with pytest.raises(ValueError, match="two queries named one"):
        Queries(tmp_path)
    (tmp_path / "b.sql").write_text("select 3;\n-- name: three\nselect 3")
    with pytest.raises(ValueError, match="before the first"):
        Queries(tmp_path)

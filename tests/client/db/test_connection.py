"""Connections, named queries, and trying again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from kerai_client.db.connection import Connection, Database, Queries, is_transient, queries, retry
from kerai_client.db.connection import connect as connect_to
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
        (psycopg.OperationalError("failed to resolve host 'x': [Errno -2] Name or service not known"), False),
        (psycopg.OperationalError("[Errno -3] Temporary failure in name resolution"), True),
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


def test_who_waits_for_the_server_is_told_so_once(tmp_path: Path) -> None:
    told: list[str] = []
    client = Database(f"host={tmp_path} dbname=kerai", seconds=1, waiting=told.append)
    with pytest.raises(psycopg.OperationalError):
        client.run(_backend)
    assert len(told) == 1 and told[0].startswith("waiting for the server, at most 1 seconds: ")
    assert str(tmp_path) in told[0]


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


ODD = {
    "standard_conforming_strings": "off",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kolkata",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "array_nulls": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "search_path": "nowhere",
}
READ = """
select timestamptz '2024-05-03 12:00:00+00' as at, interval '1 day 2 hours' as lasts, %s::text as words,
    array_position(%s::text[], null) as place, bytea '\\x005c' as bytes, 0.1::float8 + 0.2 as number,
    current_setting('transaction_isolation') as level, 'a'::public.ltree = 'a' as same"""
VALUES = {
    "at": datetime(2024, 5, 3, 12, tzinfo=UTC),
    "lasts": timedelta(days=1, hours=2),
    "words": "Čapek ü",
    "place": 2,
    "bytes": b"\0\\",
    "number": 0.30000000000000004,
    "level": "read committed",
    "same": True,
}


def read(connection: Connection) -> dict[str, Any] | None:
    """Read what depends on settings."""
    return connection.execute(READ, ["Čapek ü", ["null", None]]).fetchone()


def test_a_connection_has_the_settings_that_the_client_needs(
    make_database: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_database(settings=ODD) as database:
        assert read(connect(database.dsn)) == VALUES
    environment = {k: v for k, v in ODD.items() if k not in ("datestyle", "timezone", "client_encoding")}
    options = " ".join(f"-c {name}={value}" for name, value in environment.items())
    monkeypatch.setenv("PGOPTIONS", f"{options} -c work_mem=123kB")
    monkeypatch.setenv("PGDATESTYLE", ODD["datestyle"])
    monkeypatch.setenv("PGTZ", ODD["timezone"])
    monkeypatch.setenv("PGCLIENTENCODING", ODD["client_encoding"])
    connection = connect()
    assert read(connection) == VALUES
    with connection.transaction():
        assert read(connection) == VALUES
    # What is the user's stays: the paths that he searches, limits, his time zone.
    kept = (
        "select current_setting('search_path') as path, current_setting('work_mem') as memory, now() as now"
    )
    row = connection.execute(kept).fetchone()
    assert (row["path"], row["memory"]) == ("nowhere, public", "123kB")
    assert row["now"].utcoffset() == timedelta(hours=5, minutes=30)


def test_a_service_file_has_its_say(
    database: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ways = conninfo_to_dict(database.dsn)
    lines = [f"{key}={value}" for key, value in ways.items()]
    options = "options=-c datestyle=SQL,DMY -c work_mem=123kB"
    (tmp_path / "services").write_text(
        "\n".join(["[kerai]", *lines, options, "client_encoding=LATIN1"]) + "\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    connection = connect("service=kerai")
    assert read(connection) == VALUES
    assert connection.execute("show work_mem").fetchone() == {"work_mem": "123kB"}


def test_a_pooled_connection_is_left_as_it_was(
    database: Any, connect: Any, request: pytest.FixtureRequest
) -> None:
    """Who uses the server's process next has not asked for kerai's settings."""
    for name in ("default_transaction_isolation", "datestyle", "intervalstyle"):
        connect().execute(f"alter database {database.name} set {name} = '{ODD[name]}'")
    pooler = request.getfixturevalue("pgbouncer")
    shown = "select current_setting('default_transaction_isolation'), current_setting('datestyle')"
    with psycopg.connect(pooler, autocommit=True) as stranger:
        for pooled in [connect(pooler) for _ in range(6)]:
            at = pooled.execute("select timestamptz '2024-05-03 12:00+00' as at").fetchone()
            assert at == {"at": VALUES["at"]}
            with pooled.transaction():
                level = pooled.execute("show transaction_isolation").fetchone()
            assert level == {"transaction_isolation": "read committed"}
            assert stranger.execute(shown).fetchone() == ("serializable", "German, DMY")

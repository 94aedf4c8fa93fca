"""Talking to the database: connections, the named queries, and trying again when a connection is lost."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, LiteralString, TypeVar, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from kerai_client.errors import KeraiError

T = TypeVar("T")
Connection = psycopg.Connection[DictRow]

QUERIES = Path(__file__).with_name("queries")
NAME_LINE = re.compile(r"^-- name: *(\S+) *$", re.MULTILINE)

# The same call may succeed a moment later: connection exceptions, shutdown and restart of the server,
# too many connections, serialization failure, deadlock, other pushes in the way.
TRANSIENT_CLASSES = ("08",)
TRANSIENT_CODES = {"57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03", "KR009"}
# libpq gives no SQLSTATE for a refused connection, only these words.
PERMANENT_WORDS = (
    "does not exist",
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "Name or service not known",
)

QUOTED = re.compile(r'"(?!.").*', re.DOTALL)
PORTS = re.compile(r"[0-9,]*")
ESCAPES = "; in a URI the characters @ : / ? # % of a password are written as %40 %3A %2F %3F %23 %25"

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0


def connect(dsn: str) -> Connection:
    """Return a connection in autocommit mode whose rows are dicts.

    The settings that the client relies on are its own, whatever the role, the database, the server or the
    environment say. Nothing is prepared on the server side, so that it also works through PgBouncer's
    transaction pooling, where the next statement may meet another server process.

    :param dsn: a libpq connection string or URI.
    :raises psycopg.OperationalError: when there is no way to the server.
    """
    try:
        settings = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        # From the first quote on libpq repeats the DSN, of which any part may be the password.
        raise KeraiError(
            "the DSN is not a connection string",
            detail=QUOTED.sub("…", str(error).strip()),
            hint=f"for example postgresql://user@host:5432/kerai{ESCAPES}",
        ) from None
    # What stands where host and port belong, and is none, is a part of a password that libpq has cut.
    hosts, ports = str(settings.get("host", "")), str(settings.get("port", ""))
    if any("@" in host[1:] for host in hosts.split(",")) or not PORTS.fullmatch(ports):
        raise KeraiError(
            "the DSN is not a connection string",
            detail="its host has an @ in it, or its port is no number",
            hint=ESCAPES.removeprefix("; "),
        )
    settings.setdefault("application_name", "kerai")
    settings.setdefault("connect_timeout", 10)
    settings["client_encoding"] = "UTF8"
    connection = psycopg.connect(
        **cast("dict[str, Any]", settings), autocommit=True, prepare_threshold=None, row_factory=dict_row
    )
    try:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.execute(queries()["pin_settings"], {"pid": connection.info.backend_pid})
    except BaseException:
        connection.close()
        raise
    return connection


def is_transient(error: BaseException) -> bool:
    """Say whether an error is one of those that may be gone at the next try."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return error.sqlstate in TRANSIENT_CODES or error.sqlstate.startswith(TRANSIENT_CLASSES)
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return not any(word in str(error) for word in PERMANENT_WORDS)


def retry(
    operation: Callable[[], T],
    *,
    seconds: float = 60.0,
    on_retry: Callable[[psycopg.Error, float], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call an operation until it does not fail for a transient reason, and return what it returns.

    Exponential backoff with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS, 2015).

    :param operation: what to call. A connection can be lost after the commit, so the call may be repeated
        after it has taken effect. It must allow that, as a push of a changeset does.
    :param seconds: no new try starts later than this after the first one.
    :param on_retry: told about each error and the seconds until the next try.
    :raises psycopg.Error: the last error, when the time is up or it is not transient.
    """
    deadline = clock() + seconds
    longest = FIRST_DELAY
    while True:
        try:
            return operation()
        except psycopg.Error as error:
            delay = random.uniform(0, longest)
            if not is_transient(error) or clock() + delay > deadline:
                raise
            if on_retry is not None:
                on_retry(error, delay)
            sleep(delay)
            longest = min(2 * longest, LONGEST_DELAY)


class Database:
    """One database, and a connection to it that is made when needed and made again when lost."""

    def __init__(
        self, dsn: str, *, seconds: float = 60.0, waiting: Callable[[str], None] | None = None
    ) -> None:
        """:param seconds: how long :meth:`run` tries, see :func:`retry`.
        :param waiting: told once when the server cannot be reached, and why.
        """
        self.dsn = dsn
        self.seconds = seconds
        self._waiting = waiting
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        """Return the open connection, or a new one."""
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = connect(self.dsn)
        return self._connection

    def run(
        self,
        operation: Callable[[Connection], T],
        *,
        on_retry: Callable[[psycopg.Error, float], None] | None = None,
    ) -> T:
        """Call an operation with a connection; see :func:`retry` for what happens when it is lost."""

        def attempt() -> T:
            try:
                return operation(self.connection())
            except psycopg.Error as error:
                if error.sqlstate is None or not error.sqlstate.startswith(("40", "KR")):
                    self.close()
                raise

        def between(error: psycopg.Error, delay: float) -> None:
            if self._waiting is not None and self._connection is None:
                why = next(iter(str(error).strip().splitlines()), "it is gone")
                self._waiting(f"waiting for the server, at most {self.seconds:.0f} seconds: {why}")
                self._waiting = None
            if on_retry is not None:
                on_retry(error, delay)

        return retry(attempt, seconds=self.seconds, on_retry=between)

    def close(self) -> None:
        """Close the connection, if there is one. The next call of :meth:`run` makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Queries(Mapping[str, LiteralString]):
    """The client's SQL by name, from ``queries/*.sql``, where ``-- name: …`` starts each query.

    (The way of procrastinate's ``sql/queries.sql``.)
    """

    def __init__(self, folder: Path = QUERIES) -> None:
        self._queries: dict[str, LiteralString] = {}
        for file in sorted(folder.glob("*.sql")):
            before, *parts = NAME_LINE.split(file.read_text("utf-8"))
            if re.sub(r"^--.*", "", before, flags=re.MULTILINE).strip():
                raise ValueError(f"{file.name}: SQL before the first `-- name:` line")
            for name, text in zip(parts[::2], parts[1::2], strict=True):
                if name in self._queries:
                    raise ValueError(f"{file.name}: there are two queries named {name}")
                # The package's own files, as fixed as a literal in the code.
                self._queries[name] = cast("LiteralString", text.strip())

    def __getitem__(self, name: str) -> LiteralString:
        return self._queries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)


@cache
def queries() -> Queries:
    """Return the client's named queries, read once."""
    return Queries()

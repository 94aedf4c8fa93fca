"""A mix of everything that goes on in one instance at the same time, and what must hold when it is over.

Sessions push; others rebuild, compact, verify, dump, maintain and report; others cancel statements, terminate
sessions and kill the server. What the authors were told and what they have sent is kept outside the server.
"""

from __future__ import annotations

import re
import threading
import time
import traceback
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from tests.merge.model import Operation, State, fold
from tests.merge.observe import assert_state, digest, scalar

from kerai import changeset
from kerai_client.db.connection import Connection
from kerai_client.db.connection import connect as connect_to
from kerai_client.server.private import PrivateServer

PATIENCE = 120.0  # seconds for the server to come back, and for an author to learn what became of a changeset
MOST_FINDINGS = 20
CANCELED = "57014"
GONE = {"57P01", "57P02", "57P03"}
# What may stand in the server's log: refusals, overtaken transactions, cancels, ends of sessions.
# 55000, XX000: a worker of a parallel query finds that its leader has ended, or the leader that a worker has.
LOST_WORKER = "lost connection to parallel worker"
EXPECTED = re.compile(
    r"(KR\d\d\d|40001|57014|57P0[123]|08\w\w\w) |F0001 lock file "
    r"|55000 could not (attach to (dynamic shared area|a SharedFileSet)|map dynamic shared memory segment)"
    rf"|55000 {LOST_WORKER}|XX000 could not attach to per-session DSM segment"
)
LOGGED = re.compile(r"^.{23} \S+ \[\d+\] (\w{5}) (?:ERROR|FATAL|PANIC): +(.*)", re.MULTILINE)


class Interrupted(Exception):
    """A cancel, a terminated session or a killed server has ended the call; what it did is not known."""


@dataclass
class Sent:
    """A changeset or draft that an author has sent: what is in it, and the latest that he was told of it."""

    author: str
    body: Mapping[str, Any]
    answer: str = "unknown"


@dataclass
class Mix:
    """What all threads of a run share."""

    server: PrivateServer
    folder: Path
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    sent: dict[bytes, Sent] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """Note that something has happened once more."""
        with self.lock:
            self.counts[what] += 1

    def found(self, what: str) -> None:
        """Note something that must not be, and end the run. The first few say enough."""
        with self.lock:
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(what)
        self.stop.set()

    def send(self, author: str, document: str, body: Mapping[str, Any]) -> Sent:
        """Note what an author is about to send."""
        sent = Sent(author, body)
        with self.lock:
            self.sent[bytes.fromhex(changeset.changeset_id(document))] = sent
        return sent

    def acknowledged(self) -> set[bytes]:
        """Return the ids of all changesets and drafts that were said to be merged."""
        with self.lock:
            return {i for i, sent in self.sent.items() if sent.answer == "merged"}

    def run(self, name: str, step: Callable[[], None]) -> threading.Thread:
        """Start a thread that repeats a step until the run ends."""

        def loop() -> None:
            try:
                while not self.stop.is_set():
                    step()
            except BaseException:
                self.found(f"{name}: {traceback.format_exc()}")

        thread = threading.Thread(target=loop, name=name)
        thread.start()
        return thread


class Session:
    """A connection that is made again when it is lost."""

    def __init__(self, mix: Mix, name: str, level: str = "read committed") -> None:
        self.mix = mix
        self.name = name
        self.level = level
        self.dsn = make_conninfo(mix.server.dsn, application_name=f"chaos {name}")
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The open connection, or a new one as soon as the server is there."""
        deadline = time.monotonic() + PATIENCE
        while self._connection is None or self._connection.closed or self._connection.broken:
            self.close()
            try:
                self._connection = connect_to(self.dsn)
                # The client itself asks for READ COMMITTED when it connects.
                statement = f"set session characteristics as transaction isolation level {self.level}"
                self._connection.execute(statement.encode())
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        return self._connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return all rows of a query.

        :raises Interrupted: when somebody has canceled it, or the session has ended.
        :raises psycopg.Error: what the query itself raises.
        """
        return interruptible(lambda: self.connection.execute(query.encode(), parameters).fetchall())


def interruptible(call: Callable[[], Any]) -> Any:
    """Return what a call returns; tell what has been done to it from what it raises itself."""
    try:
        return call()
    except psycopg.Error as error:
        lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        lost = lost or (error.sqlstate == "55000" and LOST_WORKER in str(error))
        if lost or error.sqlstate in {CANCELED, *GONE} or str(error.sqlstate).startswith("08"):
            raise Interrupted(str(error)) from error
        raise


def check_dump_of(mix: Mix, connection: Connection, acknowledged: set[bytes]) -> None:
    """Check a restored database: sound, with everything that was merged before it was dumped."""
    for row in connection.execute("select * from kerai.verify()"):
        mix.found(f"a restored dump is damaged: {row}")
    there = connection.execute("select id, draft_id from kerai.changesets").fetchall()
    missing = acknowledged - {i for row in there for i in (row["id"], row["draft_id"])}
    if missing:
        mix.found(f"a dump lacks {len(missing)} of {len(acknowledged)} changesets merged before it began")


def check_peer(mix: Mix, connection: Connection, name: str, wanted: str) -> None:
    """Sync with the other instance once more, and compare the two."""
    result = connection.execute("select * from kerai.sync(%s)", [name]).fetchone()
    if result is None or not result["complete"]:
        mix.found(f"the last sync: {result}")
    with connect_to(mix.server.dsn_of(name)) as other:
        for row in other.execute("select * from kerai.verify()"):
            mix.found(f"verify at the peer: {row}")
        if (there := digest(other)) != wanted:
            mix.found(f"the digest is {wanted}, that of the peer {there}")


def check_log(mix: Mix) -> None:
    """Look for errors in the server's log that no call should raise."""
    for file in sorted((mix.server.data / "log").glob("*.log")):
        for code, message in LOGGED.findall(file.read_text(errors="replace")):
            if EXPECTED.match(f"{code} {message}"):
                with mix.lock:
                    mix.counts[f"logged {code}"] += 1
            else:
                mix.found(f"the server has logged {code}: {message}")


def check_end(mix: Mix, connection: Connection) -> str:
    """Check all that must hold when the last author has his answer; return the digest.

    The fold is that of the documents that the authors have kept, placed as kerai.changesets says.
    """
    for row in connection.execute("select * from kerai.verify()"):
        mix.found(f"verify: {row}")
    before = digest(connection)
    if scalar(connection, "select changed from kerai.rebuild()"):
        mix.found("a rebuild has changed the state")
    if (after := digest(connection)) != before:
        mix.found(f"the digest was {before}, after a rebuild it is {after}")

    rows = connection.execute(
        "select id, author, first_seq, last_seq, first_lamport, member, draft_id from kerai.changesets"
    ).fetchall()
    merged = {i for row in rows for i in (row["id"], row["draft_id"]) if i is not None}
    for i, sent in mix.sent.items():
        if (sent.answer == "merged") != (i in merged):
            mix.found(f"{sent.author} was told {sent.answer!r} of {i.hex()}; it is merged: {i in merged}")
    check_fold(mix, connection, rows)
    return after


def check_fold(mix: Mix, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Compare the state with the fold of what was sent, placed as the rows of kerai.changesets say."""
    log: list[Operation] = []
    views = State()
    for row in rows:
        sent = mix.sent.get(row["id"]) or mix.sent.get(row["draft_id"] or b"")
        if sent is None:
            mix.found(f"nobody has sent {row['id'].hex()} of {row['author']}")
            return
        place = row["author"], row["first_seq"], row["first_lamport"], row["last_seq"] - row["first_seq"] + 1
        body, ops = sent.body, sent.body["ops"]
        said = (body["author"], body["seq"], body["lamport"]) if "seq" in body else place[:3]
        if place != (*said, len(ops)):
            mix.found(f"{row['id'].hex()} stands at {place}, and says {said} with {len(ops)} operations")
        for n, op in enumerate(ops):
            log.append(Operation(row["author"], row["first_seq"] + n, row["first_lamport"] + n, op))
    writers = {(row["author"], row["first_seq"]): row["member"] or row["author"] for row in rows}
    firsts = sorted(writers)
    for operation in sorted(log, key=lambda each: each.stamp):
        if operation.body["op"].startswith(("perspective", "association")):
            first = firsts[bisect(firsts, (operation.author, operation.seq)) - 1]
            views.apply(replace(operation, author=writers[first]))
    expected = fold(log)
    expected.perspectives, expected.associations = views.perspectives, views.associations
    try:
        assert_state(connection, expected)
    except AssertionError:
        mix.found(f"the state is not the fold of what was sent: {traceback.format_exc()}")
    if scalar(connection, "select kerai.version_vector()") != dict(Counter(each.author for each in log)):
        mix.found("the version vector does not name the operations of the changesets")
    mix.counts["operations folded"] = len(log)
    mix.counts["nodes"] = len(expected.nodes)

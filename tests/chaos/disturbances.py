"""What goes on beside the pushes: operators at work, cancels, terminated sessions, kills."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from nacl.signing import SigningKey
from psycopg import sql
from tests.chaos.mix import PATIENCE, Interrupted, Mix, Session, check_dump_of
from tests.merge.live import insert, move, update

from kerai import changeset
from kerai_client.db.connection import connect as connect_to
from kerai_client.errors import KeraiError
from kerai_client.server.postgres import processes_in, program

RESTORED = "chaos_restored"
PEER = "chaos_peer"
# A sync says what has ended it: a cancel, a lost connection, pushes in the way.
SYNC_PROBLEM = re.compile(r"(57014|57P0[123]|08\w\w\w|KR009|55P03|55000: lost connection to parallel)\b")


class Operator(Session, ABC):
    """A session that does one thing again and again, after a pause of about so many seconds."""

    def __init__(self, mix: Mix, name: str, pause: float) -> None:
        super().__init__(mix, name)
        self.chance = random.Random(f"{mix.seed} {name}")
        self.pause = pause

    def step(self) -> None:
        """Wait a moment, then do it."""
        if self.mix.stop.wait(self.pause * self.chance.uniform(0.3, 1.7)):
            return
        try:
            self.act()
            self.mix.count(self.name)
        except Interrupted:
            self.mix.count(f"{self.name} interrupted")
        except psycopg.Error as error:
            if error.sqlstate != "KR009":
                raise
            self.mix.count(f"{self.name} refused with KR009")

    @abstractmethod
    def act(self) -> None:
        """Do it once."""


class Rebuild(Operator):
    """Rebuilds, which changes nothing."""

    def act(self) -> None:
        for row in self.call("select * from kerai.rebuild()"):
            if row["changed"]:
                self.mix.found(f"a rebuild has changed the state: {row}")


class Compact(Operator):
    """Drops what is older than a moment."""

    def act(self) -> None:
        seconds = self.chance.uniform(1, 8)
        self.call("select kerai.compact(clock_timestamp() - %s * interval '1 second')", [seconds])


class Verify(Operator):
    """Verifies, and finds nothing."""

    def act(self) -> None:
        for row in self.call("select * from kerai.verify()"):
            self.mix.found(f"verify: {row}")


class Maintain(Operator):
    """Makes and drops partitions."""

    def act(self) -> None:
        self.call("select * from kerai.maintain()")


class Report(Operator):
    """Reports test results of a task."""

    def __init__(self, mix: Mix, name: str, pause: float, task: str, agent: str) -> None:
        super().__init__(mix, name, pause)
        self.task, self.agent = task, agent

    def act(self) -> None:
        report = "select kerai.record_test_result(%s, %s, kerai.version_vector(), false, 'no')"
        self.call(report, [self.task, self.agent])


class Sync(Operator):
    """Brings another instance up to date."""

    def act(self) -> None:
        result = self.call("select * from kerai.sync(%s)", [PEER])[0]
        problem = result["problem"]
        if problem and not SYNC_PROBLEM.match(problem):
            self.mix.found(f"sync: {problem}")
        if not result["complete"]:
            raise Interrupted(str(problem))


class Spoil(Operator):
    """Submits what is wrong in some way, and leaves it to others to settle it."""

    def act(self) -> None:
        key = SigningKey(hashlib.sha256(f"{self.mix.seed} {self.name}".encode()).digest())
        public_key = bytes(key.verify_key)
        author = changeset.author_id(self.name, public_key)
        stranger = str(UUID(int=self.chance.getrandbits(128), version=4))
        ops: list[Any] = self.chance.choice(
            [
                [update(stranger, content="of a node that is not there")],
                [insert(stranger), {"op": "node_paint", "node": stranger}],
                [insert(stranger, metadata={"n": 10**400})],
                [insert(stranger, content="\0")],
                [insert(stranger), move(stranger, stranger), update(str(UUID(int=0)), name="x")],
            ]
        )
        document = changeset.build(author, self.chance.choice([1, 1, 1, 7]), 1, ops)
        signature = changeset.sign(document, key) if self.chance.random() < 0.8 else bytes(64)
        try:
            self.call("select kerai.submit_push(%s::json, %s, %s)", [document, signature, public_key])
        except psycopg.Error as error:
            if not str(error.sqlstate).startswith("KR"):
                raise


class Dump(Operator):
    """Dumps, restores that into another database, and looks at what has come over."""

    def act(self) -> None:
        acknowledged = self.mix.acknowledged()
        folder = Path(self.mix.folder) / "dump"
        server = self.mix.server
        server.owner.run(["rm", "-rf", folder])
        dumped = server.owner.run(
            [
                program("pg_dump"),
                "-Fd",
                "-j2",
                "-f",
                folder,
                "-d",
                f"{server.dsn}&application_name=chaos dump",
            ]
        )
        if dumped.returncode != 0:
            raise Interrupted(self.blame("pg_dump", dumped.stdout))
        self.restore(folder, acknowledged)

    def restore(self, folder: Path, acknowledged: set[bytes]) -> None:
        server = self.mix.server
        try:
            with connect_to(server.dsn_of("postgres")) as admin:
                admin.execute(
                    sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(RESTORED))
                )
                admin.execute(
                    sql.SQL("create database {} template template0").format(sql.Identifier(RESTORED))
                )
            restored = server.owner.run(
                [program("pg_restore"), "-d", server.dsn_of(RESTORED), "--exit-on-error", folder]
            )
            if restored.returncode != 0:
                raise Interrupted(self.blame("pg_restore", restored.stdout))
            with connect_to(server.dsn_of(RESTORED)) as connection:
                check_dump_of(self.mix, connection, acknowledged)
        except psycopg.OperationalError as error:
            raise Interrupted(str(error)) from error

    def blame(self, program: str, output: str) -> str:
        """Return what a program has printed; it is a finding, unless the server went away under it."""
        words = (
            "canceling statement",
            "terminating connection",
            "server closed",
            "connection to server",
            "recovery mode",
            "could not obtain lock on relation",  # said of whatever ends a worker of pg_dump while it locks
        )
        if not any(word in output for word in words):
            self.mix.found(f"{program}: {output}")
        return output


class Watch(Operator):
    """Counts the deadlocks that the server has resolved: it forgets them in a crash."""

    seen = 0

    def act(self) -> None:
        query = "select deadlocks from pg_stat_database where datname = current_database()"
        now = self.call(query)[0]["deadlocks"]
        for _ in range(now - self.seen):
            self.mix.count("deadlocks")
        self.seen = now


class Signal(Operator):
    """Cancels or terminates what some session does."""

    def __init__(self, mix: Mix, name: str, pause: float, function: str) -> None:
        super().__init__(mix, name, pause)
        self.function = function

    def act(self) -> None:
        rows = self.call(
            "select pid from pg_stat_activity where application_name like 'chaos%%' and state <> 'idle' "
            "and application_name not in ('chaos cancels', 'chaos terminates', 'chaos watches', 'chaos dump')"
        )
        if not rows:
            raise Interrupted("nobody is at work")
        self.call(f"select {self.function}(%s)", [self.chance.choice(rows)["pid"]])


class Kill(Operator):
    """Kills one of the server's processes, or all by way of the postmaster, and starts the server again."""

    done = 0

    def act(self) -> None:
        server = self.mix.server
        postmaster = server.pid()
        others = sorted(processes_in(server.data) - {postmaster})
        if postmaster is None or not others:
            raise Interrupted("the server is not up")
        self.done += 1
        victim = postmaster if self.done % 2 else self.chance.choice(others)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            raise Interrupted("it has ended") from None
        self.start_again()

    def start_again(self) -> None:
        """Wait until the server takes sessions again; start it when it does not come back by itself."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.mix.server.up()
                connect_to(self.mix.server.dsn).close()
                return
            except (KeraiError, psycopg.OperationalError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def operators(mix: Mix, seconds: float, task: str, agent: str, *, kills: bool) -> list[Operator]:
    """Return all of them; in a short run each comes sooner."""
    often = min(1.0, max(0.2, seconds / 60))
    return [
        Rebuild(mix, "rebuilds", 3 * often),
        Compact(mix, "compactions", 2 * often),
        Verify(mix, "verifies", 1 * often),
        Maintain(mix, "maintains", 2 * often),
        Report(mix, "reports", 0.3 * often, task, agent),
        Spoil(mix, "spoils", 0.5 * often),
        Sync(mix, "syncs", 2 * often),
        Dump(mix, "dumps", 8 * often),
        Signal(mix, "cancels", 0.3 * often, "pg_cancel_backend"),
        Signal(mix, "terminates", 1.5 * often, "pg_terminate_backend"),
        *([Kill(mix, "kills", min(25.0, seconds / 3))] if kills else []),
        Watch(mix, "watches", 1.0),
    ]

"""Sync of 1,000,000 operations (75 % insert, 25 % update, changesets of 1,000 by eight authors in turn) into
an empty instance. The pull goes by transactions of 100,000 operations, against pg_dump of the same database,
piped into psql of an empty one on the same server. Bytes are those of the changesets, and of the text that
pg_dump writes. A page at the end of that history is compared with one at its beginning, too: paging must not
get slower on the way. KERAI_BENCH_SCALE makes the history smaller, 0.1 for 100,000 operations.
"""

from __future__ import annotations

import os
import subprocess
import time
from random import Random
from statistics import median
from typing import Any

import psycopg
from psycopg import sql
from report import Row
from support import Author, Codebase, push

from kerai_client.server.private import PrivateServer

SCALE = float(os.environ.get("KERAI_BENCH_SCALE", "1"))
CHANGESETS = max(8, round(1000 * SCALE))
OPERATIONS = 1000
INSERTS = 750
AUTHORS = 8
PAGE = 100_000  # operations a transaction, as `kerai pull` has it
SOURCE, CLONE, RESTORED = "bench_sync_source", "bench_sync_clone", "bench_sync_restored"


def build(connection: psycopg.Connection[Any]) -> None:
    """Push the history."""
    codebase = Codebase(Random(1))
    authors = [Author(f"bench-{number}") for number in range(AUTHORS)]
    last = authors[-1]
    for number in range(CHANGESETS):
        author = authors[number % AUTHORS]
        author.seen, author.lamport = last.vector, last.lamport
        push(connection, author.document(codebase.edit(INSERTS, OPERATIONS - INSERTS)))
        last = author


def pull(connection: psycopg.Connection[Any]) -> int:
    """Pull everything; return the bytes of it."""
    size = 0
    while True:
        row = connection.execute(
            "select complete, bytes, problem from kerai.pull('source', %s)", [PAGE]
        ).fetchone()
        assert row is not None
        if row[2] is not None:
            raise RuntimeError(f"the pull has ended early: {row[2]}")
        size += row[1]
        if row[0]:
            return size


def dump(source: str, target: str) -> int:
    """Pipe a dump into an empty database; return its bytes."""
    size = 0
    with (
        subprocess.Popen(["pg_dump", source], stdout=subprocess.PIPE) as out,
        subprocess.Popen(
            ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        ) as into,
    ):
        assert out.stdout is not None and into.stdin is not None
        while piece := out.stdout.read(1 << 20):
            size += len(piece)
            into.stdin.write(piece)
        into.stdin.close()
    if out.returncode or into.returncode:
        raise RuntimeError("pg_dump | psql has failed")
    return size


def page_times(connection: psycopg.Connection[Any]) -> tuple[float, float]:
    """Return the seconds of a page after the first and before the last tenth of the history."""
    found = []
    for share in (0.1, 0.9):
        row = connection.execute(
            """select coalesce(jsonb_object_agg(a.author, a.seq), '{}')::text from (
                select author, max(last_seq) as seq from kerai.changesets
                where arrival <= %s * (select max(arrival) from kerai.changesets) group by author) as a""",
            [share],
        ).fetchone()
        assert row is not None
        times = []
        for _ in range(9):
            started = time.perf_counter()
            connection.execute("select count(*) from kerai.changesets_since(%s, 10000)", [row[0]]).fetchone()
            times.append(time.perf_counter() - started)
        found.append(median(times))
    return found[0], found[1]


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratios of the seconds, pg_dump's over ours, and of the bytes."""
    names = [sql.Identifier(name) for name in (SOURCE, CLONE, RESTORED)]
    with psycopg.connect(server.dsn_of("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(sql.SQL("create database {} template template0").format(name))
        try:
            with (
                psycopg.connect(server.dsn_of(SOURCE), autocommit=True) as source,
                psycopg.connect(server.dsn_of(CLONE), autocommit=True) as clone,
            ):
                for connection in (source, clone):
                    connection.execute("create extension kerai cascade")
                build(source)
                clone.execute("select kerai.add_peer('source', %s)", [server.dsn_of(SOURCE)])

                started = time.perf_counter()
                our_bytes = pull(clone)
                our_seconds = time.perf_counter() - started
                same = "select kerai.state_digest(), kerai.version_vector()::text"
                if source.execute(same).fetchone() != clone.execute(same).fetchone():
                    raise RuntimeError("the clone is not what it was cloned from")

                started = time.perf_counter()
                dump_bytes = dump(server.dsn_of(SOURCE), server.dsn_of(RESTORED))
                dump_seconds = time.perf_counter() - started
                early, late = page_times(source)
        finally:
            for name in names:
                admin.execute(sql.SQL("drop database if exists {} with (force)").format(name))
    operations = CHANGESETS * OPERATIONS
    return [
        Row(
            f"sync of {operations:,} operations into an empty instance, against pg_dump | psql",
            f"{our_seconds:.1f} s",
            f"{dump_seconds:.1f} s",
            dump_seconds / our_seconds,
        ),
        Row("the same, bytes", f"{our_bytes:,}", f"{dump_bytes:,}", dump_bytes / our_bytes),
        Row(
            "a page of 10,000 operations at the end of that history, against one at its beginning",
            f"{late * 1000:.1f} ms",
            f"{early * 1000:.1f} ms",
            early / late,
            0.5,
        ),
    ]

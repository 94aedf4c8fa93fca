"""A push of 10,000 operations into a history of 2,000,000, against one of 100,000. Both do the same kind of
work on a tree that has grown with its history: 75 % insert, 25 % update of any earlier statement of the
author. Ten authors have pushed it in changesets of 1,000; what is measured is the next one of one of them.

Both histories are databases of one server. VACUUM and ANALYZE have run; two rounds come before the first that
counts. Each round pushes a changeset of its own into either, in turns, and rolls it back when the clock has
stopped, so that the histories keep their lengths; medians.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from statistics import median

import psycopg
from report import Row
from support import Author, Codebase, Document, new_database, push

from kerai_client.server.private import PrivateServer

AUTHORS = 10
CHANGESET = 1_000
PUSH = 10_000
WARM_UP = 2
ROUNDS = 7
SESSIONS = 2  # that make a history


@dataclass
class History:
    """A database with so many operations, and what one of its authors pushes next."""

    operations: int
    dsn: str
    next: list[Document]


def make(server: PrivateServer, operations: int) -> History:
    """Push a history."""
    dsn = new_database(server, f"history_{operations}")
    team = [(Author(f"author-{i}"), Codebase(Random(i))) for i in range(AUTHORS)]

    def work(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _ in range(operations // AUTHORS // CHANGESET):
                for author, code in team[number::SESSIONS]:
                    push(connection, author.document(code.edit(CHANGESET * 3 // 4, CHANGESET // 4)))

    with ThreadPoolExecutor(SESSIONS) as pool:
        list(pool.map(work, range(SESSIONS)))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("vacuum analyze")
    author, code = team[0]
    following = []
    for number in range(WARM_UP + ROUNDS):
        changed = deepcopy(code)
        changed.random.seed(number)
        following.append(deepcopy(author).document(changed.edit(PUSH * 3 // 4, PUSH // 4)))
    return History(operations, dsn, following)


def measure(connection: psycopg.Connection[object], document: Document) -> float:
    """Push and roll back; return the seconds of the push."""
    with connection.transaction(force_rollback=True):
        started = time.perf_counter()
        push(connection, document)
        return time.perf_counter() - started


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratio of the rates in operations a second."""
    short, long = make(server, 100_000), make(server, 2_000_000)
    seconds: dict[int, list[float]] = {short.operations: [], long.operations: []}
    with (
        psycopg.connect(short.dsn, autocommit=True) as into_short,
        psycopg.connect(long.dsn, autocommit=True) as into_long,
    ):
        into_long.execute("checkpoint")
        for few, many in zip(short.next, long.next, strict=True):
            seconds[short.operations].append(measure(into_short, few))
            seconds[long.operations].append(measure(into_long, many))
    rates = {each: PUSH / median(times[WARM_UP:]) for each, times in seconds.items()}
    return [
        Row(
            f"push of {PUSH:,} operations into a history of {long.operations:,}, "
            f"against one of {short.operations:,}",
            f"{rates[long.operations]:,.0f} op/s",
            f"{rates[short.operations]:,.0f} op/s",
            rates[long.operations] / rates[short.operations],
            1 / 1.25,
        )
    ]

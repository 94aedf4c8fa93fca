"""Signed push and merge of changesets of 1,000 operations (75 % insert, 25 % update).

One session, 40 changesets, against plain SQL of the same rows. That is INSERT into an equally indexed and
partitioned log, and INSERT and UPDATE of an equally indexed tree. Each is one multi-row statement with array
parameters, in one transaction for 1,000 operations. The sides take turns, client time for building and
signing is not counted, and the medians of the rates are compared.

Two sessions against one: two authors, a thread and a session each, push 10 changesets each at the same time.
The time is from a common start to the end of the later one. They take turns with one of them pushing 10
alone. The client only waits: documents are signed and encoded beforehand, and the row says how much of one
processor it used. It also says what the machine had to give meanwhile: how two sessions that only count
compare with one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from statistics import median
from typing import Any

import psycopg
from report import Row
from support import Author, Codebase, push

from kerai_client.server.private import PrivateServer

CHANGESETS = 40
WARM_UP = 4
OPERATIONS = 1000
INSERTS = 750  # the rest are updates
TOGETHER = 10
ROUNDS = 7
COUNT = b"select count(*) from generate_series(1, 1000000) as i where i % 3 = 0"
PUSH = b"select status from kerai.push_ops($1::json, $2, $3)"

PLAIN = """
create schema plain;
create table plain.operations (like kerai.operations including all) partition by hash (author);
do $$ begin
    for i in 0 .. 15 loop
        execute format('create table plain.operations_p%s partition of plain.operations
            for values with (modulus 16, remainder %s)', i, i);
    end loop;
end $$;
create table plain.nodes (like kerai.nodes including all);
"""

LOG = """
insert into plain.operations (author, author_seq, lamport_ts, op_type, node_id, payload, changeset_id)
select * from unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::uuid[], %s::jsonb[], %s::bytea[])
"""
INSERT = """
insert into plain.nodes
    (id, parent_id, position, kind, name, language, content, path, created_stamp, created_seq)
select * from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::ltree[], %s::text[], %s::bigint[])
"""
UPDATE = """
update plain.nodes as n set content = u.content, content_stamp = u.stamp
from unnest(%s::uuid[], %s::text[], %s::text[]) as u (id, content, stamp) where n.id = u.id
"""


def array(values: list[Any]) -> str:
    """Return an array literal, made before the clock starts."""
    quoted = (
        '"' + str(v).replace("\\", "\\\\").replace('"', '\\"') + '"' if v is not None else "NULL"
        for v in values
    )
    return "{" + ",".join(quoted) + "}"


def plain_parameters(
    kerai: psycopg.Connection[Any], first: int, last: int
) -> tuple[list[str], list[str], list[str]]:
    """Return the parameters of the plain statements: the very rows that kerai has just written."""
    rows = kerai.execute(
        """select author, author_seq, lamport_ts, op_type, node_id, payload::text, changeset_id
        from kerai.operations where author_seq between %s and %s order by author_seq""",
        [first, last],
    ).fetchall()
    log = [
        array([("\\x" + v.hex()) if isinstance(v, bytes) else v for v in column])
        for column in zip(*rows, strict=True)
    ]
    nodes = kerai.execute(
        """select n.id, n.parent_id, n.position, n.kind, n.name, n.language, n.content,
            n.path::text, n.created_stamp, n.created_seq
        from kerai.nodes as n where n.created_seq between %s and %s order by n.id""",
        [first, last],
    ).fetchall()
    insert = [array(list(column)) for column in zip(*nodes, strict=True)]
    updates = [
        (node, json.loads(payload)["set"]["content"], f"{lamport:016x}:{author}")
        for author, _, lamport, kind, node, payload, _ in rows
        if kind == "node_update"
    ]
    update = [array(list(column)) for column in zip(*sorted(updates), strict=True)]
    return log, insert, update


def changes(code: Codebase) -> list[dict[str, Any]]:
    """Return the operations of a changeset."""
    return code.edit(INSERTS, OPERATIONS - INSERTS)


class Session:
    """A session of its own with the encoded pushes of one author."""

    def __init__(self, server: PrivateServer, name: str, pushes: int) -> None:
        author, code = Author(name), Codebase(Random(name))
        self.connection = psycopg.connect(server.dsn, autocommit=True)
        self.waiting = [
            [text.encode(), b"\\x" + signature.hex().encode(), b"\\x" + public_key.hex().encode()]
            for text, signature, public_key in (author.document(changes(code)) for _ in range(pushes))
        ]

    def push(self) -> None:
        """Push the next changesets. All that the driver does is to wait, and other threads may run."""
        for _ in range(TOGETHER):
            result = self.connection.pgconn.exec_params(PUSH, self.waiting.pop(0))
            if result.get_value(0, 0) != b"merged":
                raise RuntimeError(f"not merged: {result.error_message!r}")

    def count(self) -> None:
        """Keep one processor busy with what needs nothing else."""
        self.connection.pgconn.exec_(COUNT)


def together(*work: Callable[[], None]) -> tuple[float, float]:
    """Do these at the same time; return the seconds until all are done, and this process' own work."""
    with ThreadPoolExecutor(len(work)) as pool:
        start = threading.Barrier(len(work) + 1)
        running = [pool.submit(lambda each=each: (start.wait(), each())) for each in work]
        start.wait()
        started, used = time.perf_counter(), time.process_time()
        for each in running:
            each.result()
        return time.perf_counter() - started, time.process_time() - used


def two_sessions(server: PrivateServer) -> Row:
    """Return how many times the rate of one session two reach."""
    pushes = (ROUNDS + 1 + (ROUNDS + 1) // 2) * TOGETHER
    one, two = pair = [Session(server, name, pushes) for name in ("one", "two")]
    together(one.push, two.push)
    alone, both, counted_alone, counted_both, client = [], [], [], [], 0.0
    for number in range(ROUNDS):
        first = pair[number % 2]
        alone.append(together(first.push)[0])
        seconds, used = together(one.push, two.push)
        both.append(seconds)
        client += used
        counted_alone.append(together(first.count)[0])
        counted_both.append(together(one.count, two.count)[0])
    for session in pair:
        session.connection.close()
    one_rate = TOGETHER * OPERATIONS / median(alone)
    two_rate = 2 * TOGETHER * OPERATIONS / median(both)
    machine = 2 * median(counted_alone) / median(counted_both)
    return Row(
        f"push by two sessions, against one; the machine had {machine:.2f} processors to give, "
        f"the client used {client / sum(both):.2f}",
        f"{two_rate:,.0f} op/s",
        f"{one_rate:,.0f} op/s",
        two_rate / one_rate,
        1.4,
    )


def against_plain_sql(server: PrivateServer) -> Row:
    """Return the ratio of the rates of one session and of plain SQL."""
    author, code = Author("bench"), Codebase(Random(1))
    ours: list[float] = []
    plain: list[float] = []
    with (
        psycopg.connect(server.dsn, autocommit=True) as kerai,
        psycopg.connect(server.dsn, autocommit=True) as other,
    ):
        other.execute(PLAIN)
        for _ in range(CHANGESETS + WARM_UP):
            first = author.seq + 1
            parameters = author.document(changes(code))
            started = time.perf_counter()
            push(kerai, parameters)
            ours.append(time.perf_counter() - started)

            log, insert, update = plain_parameters(kerai, first, author.seq)
            started = time.perf_counter()
            with other.transaction():
                other.execute(LOG, log)
                other.execute(INSERT, insert)
                other.execute(UPDATE, update)
            plain.append(time.perf_counter() - started)
        same = kerai.execute(
            """select count(*) from kerai.nodes as n inner join plain.nodes as p on p.id = n.id
            and p.content is not distinct from n.content and p.path = n.path"""
        ).fetchone()
        if same != ((CHANGESETS + WARM_UP) * INSERTS,):
            raise RuntimeError(f"the two trees differ: {same}")
    our_rate = OPERATIONS / median(ours[WARM_UP:])
    plain_rate = OPERATIONS / median(plain[WARM_UP:])
    return Row(
        f"push of {CHANGESETS} changesets of {OPERATIONS:,} signed operations, against plain SQL",
        f"{our_rate:,.0f} op/s",
        f"{plain_rate:,.0f} op/s",
        our_rate / plain_rate,
        0.7,
    )


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratios of the rates in operations a second."""
    return [against_plain_sql(server), two_sessions(server)]

"""Signed push and merge of 40 changesets of 1,000 operations (75 % insert, 25 % update), one session,
against plain SQL of the same rows: INSERT into an equally indexed and partitioned log, INSERT and UPDATE
of an equally indexed tree, one multi-row statement each with array parameters, one transaction for 1,000
operations. The sides take turns, client time for building and signing is not counted, and the medians of
the rates are compared.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from statistics import median
from typing import Any

import psycopg
from nacl.signing import SigningKey
from report import Row

from kerai import changeset
from kerai_client.server import PrivateServer

CHANGESETS = 40
WARM_UP = 4
OPERATIONS = 1000
INSERTS = 750
Operations = list[dict[str, Any]]

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


def workload(rng: random.Random, changesets: int = CHANGESETS + WARM_UP) -> Iterator[Operations]:
    """Yield the operations of each changeset: files of statements, and edits of earlier statements."""

    def new_id() -> str:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    root = new_id()
    leaves: list[str] = []
    for number in range(changesets):
        operations: Operations = []
        if not number:
            operations.append(
                {"op": "node_insert", "node": root, "parent": None, "position": "a", "kind": "directory"}
            )
        fresh: list[str] = []
        file = function = ""
        while len(operations) < INSERTS:
            place = len(operations)
            node = new_id()
            operation = {"op": "node_insert", "node": node, "position": f"a{place:05d}"}
            if place % 250 == 1:
                file = node
                operation |= {
                    "parent": root,
                    "kind": "file",
                    "name": f"module_{number}_{place}.py",
                    "language": "python",
                }
            elif place % 25 in (0, 2) or not function:
                function = node
                operation |= {
                    "parent": file or root,
                    "kind": "function_definition",
                    "name": f"function_{place}",
                }
            else:
                content = f"    total = combine(total, values[{place}], weight={rng.random():.6f})\n"
                operation |= {"parent": function, "kind": "expression_statement", "content": content}
                fresh.append(node)
            operations.append(operation)
        for target in rng.sample(leaves or fresh, OPERATIONS - INSERTS):
            text = f"    total = combine(total, weight={rng.random():.6f})\n"
            operations.append({"op": "node_update", "node": target, "set": {"content": text}})
        leaves += fresh
        yield operations


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


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratio of the rates in operations a second."""
    key = SigningKey.generate()
    public_key = bytes(key.verify_key)
    author = changeset.author_id("bench", public_key)
    ours: list[float] = []
    plain: list[float] = []
    with (
        psycopg.connect(server.dsn, autocommit=True) as kerai,
        psycopg.connect(server.dsn, autocommit=True) as other,
    ):
        other.execute(PLAIN)
        prev = None
        for number, operations in enumerate(workload(random.Random(1))):
            first = number * OPERATIONS + 1
            base = {author: first - 1} if number else {}
            document = changeset.build(author, first, first, operations, prev=prev, base=base)
            signature = changeset.sign(document, key)
            prev = changeset.changeset_id(document)

            started = time.perf_counter()
            result = kerai.execute(
                "select status from kerai.push_ops(%s::json, %s, %s)", [document, signature, public_key]
            ).fetchone()
            ours.append(time.perf_counter() - started)
            if result != ("merged",):
                raise RuntimeError(f"changeset {number} was not merged: {result}")

            log, insert, update = plain_parameters(kerai, first, first + OPERATIONS - 1)
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
    return [
        Row(
            f"push of {CHANGESETS} changesets of {OPERATIONS:,} signed operations, against plain SQL",
            f"{our_rate:,.0f} op/s",
            f"{plain_rate:,.0f} op/s",
            our_rate / plain_rate,
            0.6,
        )
    ]

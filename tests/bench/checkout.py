"""Checkout of 100,000 nodes, some 400 files of text, against COPY of the same rows, complete, to the same
client over the same socket. Also the checkout as of a vector 1,000 operations back against the current one;
half of these are edits, the others inserts, deletes and moves. The sides take turns, and medians are
compared. A ratio is of rates: 0.33 is three times the time of COPY.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable
from statistics import median
from typing import Any

import psycopg
from nacl.signing import SigningKey
from psycopg import sql
from report import Row

from kerai import changeset
from kerai_client.db.connection import connect
from kerai_client.db.instance import ensure_extension
from kerai_client.server.private import PrivateServer

NODES = 100_000
SINCE = 1_000
PAGE = 5_000
ROUNDS = 9
Operation = dict[str, Any]


class Tree:
    """The operations that make a tree: packages, modules, functions, and statements, some in blocks."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.operations: list[Operation] = []
        self.blocks: list[str] = []
        self.statements: list[str] = []

    def insert(self, parent: str | None, place: int, kind: str, **fields: str) -> str:
        node = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        op = {"op": "node_insert", "node": node, "parent": parent, "position": f"a{place:04d}", "kind": kind}
        self.operations.append({**op, **fields})
        return node

    def statement(self, block: str, place: int) -> None:
        text = f"    total = combine(total, values[{place}], weight={self.rng.random():.6f})\n"
        self.statements.append(self.insert(block, place, "expression_statement", content=text))

    def function(self, module: str, number: int) -> None:
        function = self.insert(module, number, "function_definition", name=f"function_{number}")
        self.insert(function, 0, "header", content=f"def function_{number}(values):\n")
        self.blocks.append(function)
        for place in range(1, 13):
            self.statement(function, place)
        if number % 3 == 0:
            block = self.insert(function, 13, "if_statement")
            self.insert(block, 0, "header", content="    if total:\n")
            self.blocks.append(block)
            for place in range(1, 7):
                self.statement(block, place)
            self.statement(function, 14)

    def grow(self, nodes: int) -> None:
        root = self.insert(None, 0, "directory")
        package = ""
        number = 0
        while len(self.operations) < nodes:
            if number % 20 == 0:
                package = self.insert(root, number, "directory", name=f"package_{number}")
            module = self.insert(package, number, "file", name=f"module_{number}.py", language="python")
            for place in range(13):
                self.function(module, place)
            number += 1

    def change(self, number: int) -> Operation:
        """Return one of the later operations."""
        statement = self.rng.choice(self.statements)
        match number % 8:
            case 0 | 1 | 2 | 3:
                text = f"    total = {number}\n"
                return {"op": "node_update", "node": statement, "set": {"content": text}}
            case 4 | 5:
                self.insert(
                    self.rng.choice(self.blocks), number, "expression_statement", content="    pass\n"
                )
                return self.operations.pop()
            case 6:
                return {"op": "node_delete", "node": statement}
            case _:
                block = self.rng.choice(self.blocks)
                return {"op": "node_move", "node": statement, "parent": block, "position": f"b{number}"}


def fill(connection: psycopg.Connection[Any], tree: Tree) -> str:
    """Push a tree and what changes it; return the vector before the changes, as JSON."""
    key = SigningKey.generate()
    author = changeset.author_id("bench", bytes(key.verify_key))
    tree.grow(NODES)
    grown = len(tree.operations)
    pages = [tree.operations[n : n + PAGE] for n in range(0, grown, PAGE)]
    pages.append([tree.change(number) for number in range(SINCE)])
    seq, prev = 1, None
    for page in pages:
        base = {author: seq - 1} if seq > 1 else {}
        document = changeset.build(author, seq, seq, page, prev=prev, base=base)
        connection.execute(
            "select kerai.push_ops(%s::json, %s, %s)",
            [document, changeset.sign(document, key), bytes(key.verify_key)],
        )
        seq, prev = seq + len(page), changeset.changeset_id(document)
    connection.execute("vacuum analyze")
    return json.dumps({author: grown})


def copied(connection: psycopg.Connection[Any]) -> None:
    with connection.cursor().copy("copy (select * from kerai.nodes) to stdout") as stream:
        for _ in stream:
            pass


def timed(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(all_of_them) for name, all_of_them in seconds.items()}


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return both ratios."""
    name = "checkout"
    with psycopg.connect(server.dsn_of("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with connect(server.dsn_of(name)) as connection:
        ensure_extension(connection)
    with psycopg.connect(server.dsn_of(name), autocommit=True) as connection:
        at = fill(connection, Tree(random.Random(1)))
        before = connection.execute("select count(*) from kerai.checkout(null, %s)", [at]).fetchone()
        now = connection.execute("select count(*), count(source) from kerai.checkout()").fetchone()
        if now is None or before != (now[0],):
            raise RuntimeError(f"not the same files: {before}, {now}")
        seconds = timed(
            {
                "copy": lambda: copied(connection),
                "now": lambda: connection.execute("select * from kerai.checkout()").fetchall(),
                "then": lambda: connection.execute("select * from kerai.checkout(null, %s)", [at]).fetchall(),
            }
        )
    shown = {which: f"{1000 * took:.0f} ms" for which, took in seconds.items()}
    return [
        Row(
            f"checkout of {NODES:,} nodes, against COPY of the same rows",
            shown["now"],
            shown["copy"],
            seconds["copy"] / seconds["now"],
            0.33,
        ),
        Row(
            f"checkout as of {SINCE:,} operations back, against the current one",
            shown["then"],
            shown["now"],
            seconds["now"] / seconds["then"],
            0.5,
        ),
    ]

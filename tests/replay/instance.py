"""What kerai makes of a merge: two authors who have not seen each other, in one instance."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from nacl.signing import SigningKey
from psycopg import sql
from psycopg.types.json import Json

from kerai.changeset import author_id, build, changeset_id, sign
from kerai_client.agent.pages import Operation, paged
from kerai_client.db.connection import Connection, connect, queries
from kerai_client.server.private import DATABASE, PrivateServer
from kerai_client.source import Snapshot, Tree, diff, snapshot_of
from kerai_client.source.tree.positions import tag

Vector = dict[str, int]

RUN = "replay"
MOST_MERGES = 20
"""A database is made anew after so many."""


class Author:
    """An author with the same key in every run, so that a merge comes out the same every time."""

    def __init__(self, name: str) -> None:
        self.key = SigningKey(hashlib.sha256(name.encode()).digest())
        self.public_key = bytes(self.key.verify_key)
        self.id = author_id(name, self.public_key)

    def operations(self, tree: Tree, snapshot: Snapshot) -> list[Operation]:
        """Return what the client sends for an edited directory."""
        return list(diff(tree, snapshot, author=self.id, run=RUN))

    def handed_over(self, operations: Sequence[Operation], author: Author) -> list[Operation]:
        """Return the author's operations as another author makes them: the positions bear his tag."""
        before, after = tag(self.id, RUN), tag(author.id, RUN)
        return [
            {**each, "position": each["position"].replace(before, after)} if "position" in each else each
            for each in operations
        ]

    def documents(self, operations: Sequence[Operation], base: Vector) -> Iterator[dict[str, Any]]:
        """Yield signed changesets: the author's first ones, after what ``base`` names."""
        seq, lamport, prev = 1, 1 + sum(base.values()), None
        for page in paged(operations):
            text = build(self.id, seq, lamport, page, prev=prev, base=base)
            yield {
                "document": Json(text, dumps=str),
                "signature": sign(text, self.key),
                "public_key": self.public_key,
            }
            seq, lamport, prev = seq + len(page), lamport + len(page), changeset_id(text)


FIRST, LOW, HIGH = Author("base"), Author("side-1"), Author("side-2")
"""``LOW`` sorts before ``HIGH``, so its write loses where both write a register at the same Lamport time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one order of the authors gives.

    ``recorded``: the paths of files for which kerai.conflicts has a row. ``contested``: whether both sides
    write one register, or put something below one node: then the order of authors may decide.
    """

    files: Snapshot
    recorded: frozenset[str]
    operations: int
    contested: bool


@dataclass(slots=True)
class Clock:
    """The seconds that went to git, to the client and to the server."""

    spent: dict[str, float] = field(default_factory=lambda: {"git": 0.0, "client": 0.0, "server": 0.0})
    _since: float = field(default_factory=time.perf_counter)

    def to(self, whom: str) -> None:
        """Count the time since the last call."""
        now = time.perf_counter()
        self.spent[whom] += now - self._since
        self._since = now


class Instance:
    """A database in which merges are made and taken back, one after another.

    What is rolled back leaves dead rows behind, so the database is made anew after some merges. The server
    has no autovacuum: it would count no living rows, and plans of a push would rest on that.
    """

    def __init__(self, server: PrivateServer, number: int) -> None:
        """:param number: tells the databases of a server apart."""
        self.server = server
        self.name = f"replay_{number}"
        self.connection: Connection | None = None
        self.merges = 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _ready(self) -> Connection:
        if self.merges % MOST_MERGES == 0 or self.connection is None or self.connection.closed:
            self.close()
            with connect(self.server.dsn_of("postgres")) as connection:
                names = sql.Identifier(self.name), sql.Identifier(DATABASE)
                connection.execute(sql.SQL("drop database if exists {} with (force)").format(names[0]))
                connection.execute(sql.SQL("create database {} template {}").format(*names))
            self.connection = connect(self.server.dsn_of(self.name))
        self.merges += 1
        return self.connection

    def merge(self, base: Snapshot, ours: Snapshot, theirs: Snapshot, clock: Clock) -> list[Outcome]:
        """Merge two sides in both orders of their authors; the instance is as before afterwards.

        :raises KeraiError: when the client refuses a side.
        :raises psycopg.Error: when the instance does.
        """
        outcomes = []
        connection = self._ready()
        with connection.transaction(force_rollback=True):
            first = FIRST.operations(Tree(), base)
            clock.to("client")
            _push(connection, FIRST, first, {})
            tree = _tree(connection)
            clock.to("server")
            seen = {FIRST.id: len(first)} if first else {}
            mine, others = LOW.operations(tree, ours), HIGH.operations(tree, theirs)
            for left, right in ((LOW, HIGH), (HIGH, LOW)):
                if left is not LOW:
                    mine, others = LOW.handed_over(mine, left), HIGH.handed_over(others, right)
                clock.to("client")
                with connection.transaction(force_rollback=True):
                    _push(connection, left, mine, seen)
                    _push(connection, right, others, seen)
                    merged = _tree(connection)
                    recorded = paths_of(_recorded(connection), (tree, merged))
                clock.to("server")
                touched = contested(mine, others)
                outcomes.append(Outcome(snapshot_of(merged), recorded, len(mine) + len(others), touched))
            clock.to("client")
        return outcomes


def _push(connection: Connection, author: Author, operations: Sequence[Operation], base: Vector) -> None:
    for document in author.documents(operations, base):
        row = connection.execute(queries()["push_ops"], document).fetchone()
        if row is None or row["status"] != "merged":
            raise psycopg.DataError(f"not merged: {row}")


def _tree(connection: Connection) -> Tree:
    return Tree.from_rows(connection.execute(queries()["tree"], {"at": None}).fetchall())


def _recorded(connection: Connection) -> list[UUID | None]:
    """Return the nodes that kerai.conflicts names; none before there is such a view."""
    row = connection.execute("select to_regclass('kerai.conflicts') as there").fetchone()
    if row is None or row["there"] is None:
        return []
    return [row["node_id"] for row in connection.execute("select node_id from kerai.conflicts").fetchall()]


def paths_of(nodes: Sequence[UUID | None], trees: Sequence[Tree]) -> frozenset[str]:
    """Return the paths of the files that hold some nodes, in whatever tree shows them."""
    found = set()
    for node in nodes:
        for tree in trees:
            if node is not None and node in tree:
                found.add(tree.path_of(node))
    return frozenset(found)


def contested(mine: Sequence[Operation], others: Sequence[Operation]) -> bool:
    """Say whether both write one register, or put something below one node."""
    return bool(_written(mine) & _written(others))


def _written(operations: Sequence[Operation]) -> set[tuple[str, str]]:
    made = {str(op["node"]) for op in operations if op["op"] == "node_insert"}
    found = set()
    for op in operations:
        if op["op"] in ("node_insert", "node_move"):
            found.add((str(op["parent"]), "children"))
        if op["op"] == "node_move":
            found.add((str(op["node"]), "place"))
        elif op["op"] in ("node_delete", "node_restore"):
            found.add((str(op["node"]), "deleted"))
        elif op["op"] == "node_update":
            found |= {(str(op["node"]), key) for key in (*op.get("set", {}), *op.get("metadata", {}))}
    return {(node, what) for node, what in found if node not in made}

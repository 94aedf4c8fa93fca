"""Two replicas move 10,000 nodes each, without having seen each other's moves; one replica's moves are then
pushed into the other. Against Loro (https://loro.dev), which keeps the tree in memory, importing the same
moves. W1: any of 100,000 nodes to below any other; W3: the same within files of 200 nodes; W2: any of 1,000.

Every move was valid where it was made; after the merge 2 of the 20,000 are void in W1, 677 in W2 and 96 in
W3. Both sides order them alike: one operation is one tick of the Lamport clock, and the authors' names break
ties as the peers' numbers do. Both must come to the same parents, else the run fails. The nodes have no
names, contents or metadata, as Loro's have none; Loro keeps no positions: its fractional index is off, which
is not slower.

kerai: psycopg, one session, one push a transaction, signed before the clock starts. A copy of replica B's
database for each run, read into the cache first, and one push that is rolled back, so that plans and
interpreter are warm. Loro: replica B's document, in which its own moves were made, so that it is warm too.
All 10,000 moves come as one update, which is its fastest way: as ten updates of 1,000 it takes four times as
long. The sides take turns, one right after the other. A rate is 10,000 over the median of the seconds. The
ratio is the median of the rounds' ratios, since the machine's speed changes from round to round.

KERAI_BENCH_ONLY=W2 runs one workload, "W1 W3" two.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from statistics import median
from typing import Any

import loro
import psycopg
from report import Row
from support import Author, administer, new_database, push

from kerai_client.server.private import PrivateServer

MOVES = 10_000
ROUNDS = 5
FILE = 200
BUILD = 50_000  # nodes a changeset, the most that is taken by default
WARM_UP = 10

Parents = list[int | None]
Move = tuple[int, int]  # a node and its new parent


@dataclass(frozen=True)
class Workload:
    """A tree and where moves go in it; ``aims`` is the least ratio by operations a changeset."""

    name: str
    what: str
    nodes: int
    within: int  # a move stays among so many nodes
    aims: dict[int, float]


WORKLOADS = (
    Workload("W1", "anywhere on 100,000 nodes", 100_000, 100_000, {1_000: 0.6, 10_000: 1.0}),
    Workload("W2", "anywhere on 1,000 nodes", 1_000, 1_000, {1_000: 0.3, 10_000: 0.5}),
    Workload("W3", "within files of 200 nodes, 100,000 nodes", 100_000, FILE, {1_000: 0.6, 10_000: 1.0}),
)


def random_tree(work: Workload, rng: random.Random) -> Parents:
    """Return the parent of each node: a random recursive tree for each part that moves stay within."""
    tops = (i - i % work.within for i in range(work.nodes))
    return [None if i == top else rng.randrange(top, i) for i, top in enumerate(tops)]


def can_move(parents: Parents, node: int, parent: int) -> bool:
    """Say whether a move would change the tree and leave it one."""
    above: int | None = parent
    while above is not None and above != node:
        above = parents[above]
    return above is None and parents[node] != parent


def random_moves(work: Workload, tree: Parents, rng: random.Random) -> list[Move]:
    """Return moves each of which is valid after the ones before it."""
    parents, moves = list(tree), list[Move]()
    while len(moves) < MOVES:
        top = rng.randrange(work.nodes // work.within) * work.within
        node, parent = top + rng.randrange(1, work.within), top + rng.randrange(work.within)
        if can_move(parents, node, parent):
            parents[node] = parent
            moves.append((node, parent))
    return moves


class Loro:
    """Loro's side: three peers, of which the first makes the tree."""

    def __init__(self, tree: Parents, moves: Sequence[list[Move]]) -> None:
        self.first, self.second = moves
        document = self._document(1)
        nodes = document.get_tree("tree")
        self.ids: list[Any] = []
        for parent in tree:
            self.ids.append(nodes.create(None if parent is None else self.ids[parent]))
        document.commit()
        self.seen = document.oplog_vv
        self.snapshot = document.export(loro.ExportMode.Snapshot())
        self.update = self._replica(2, self.first).export(loro.ExportMode.Updates(self.seen))

    def run(self) -> tuple[float, Parents]:
        """Import the first replica's moves into the second; return the seconds and the parents."""
        replica = self._replica(3, self.second)
        started = time.perf_counter()
        replica.import_(self.update)
        seconds = time.perf_counter() - started
        number = {(each.peer, each.counter): i for i, each in enumerate(self.ids)}
        parents: Parents = [None] * len(self.ids)
        for node in replica.get_tree("tree").get_nodes(False):
            if node.parent is not None:
                parents[number[node.id.peer, node.id.counter]] = number[node.parent.peer, node.parent.counter]
        return seconds, parents

    def _document(self, peer: int) -> Any:
        document = loro.LoroDoc()
        document.peer_id = peer
        document.get_tree("tree").disable_fractional_index()
        return document

    def _replica(self, peer: int, moves: list[Move]) -> Any:
        document = self._document(peer)
        document.import_(self.snapshot)
        nodes = document.get_tree("tree")
        for node, parent in moves:
            nodes.mov(self.ids[node], self.ids[parent])
        document.commit()
        if document.len_ops != len(self.ids) + MOVES:
            raise RuntimeError("a move is not one operation: the clocks would not run alike")
        return document


class Kerai:
    """kerai's side: a database that is replica B, copied for each run, and replica A's changesets."""

    def __init__(
        self, server: PrivateServer, work: Workload, tree: Parents, moves: Sequence[list[Move]]
    ) -> None:
        self.server, self.template = server, f"moves_{work.name.lower()}"
        self.sizes = tuple(work.aims)
        self.ids = [str(uuid.uuid4()) for _ in tree]
        builder = Author("builder")
        inserts = [
            {
                "op": "node_insert",
                "node": self.ids[i],
                "parent": None if parent is None else self.ids[parent],
                "position": f"a{i:06d}",
                "kind": "statement",
            }
            for i, parent in enumerate(tree)
        ]
        built = builder.documents(inserts, BUILD)
        first, second = (self._moves(each) for each in moves)
        writer = Author("a", builder.vector, builder.lamport)
        self.documents = {size: copy(writer).documents(first, size) for size in self.sizes}
        self.warm_up = copy(writer).document(first[:WARM_UP])
        with psycopg.connect(new_database(server, self.template), autocommit=True) as connection:
            connection.execute("create extension if not exists pg_prewarm")
            for document in built:
                push(connection, document)
            push(connection, Author("b", builder.vector, builder.lamport).document(second))
            connection.execute("vacuum analyze")

    def run(self, size: int) -> tuple[float, Parents]:
        """Push replica A's moves in changesets of this size; return the seconds and the parents."""
        name = f"{self.template}_{size}"
        administer(self.server, "create database {} template {}", name, self.template)
        try:
            with psycopg.connect(self.server.dsn_of(name), autocommit=True) as connection:
                connection.execute(
                    "select sum(pg_prewarm(c.oid)) from pg_class as c where c.relkind in ('r', 'i', 't')"
                )
                with connection.transaction(force_rollback=True):
                    push(connection, self.warm_up)
                started = time.perf_counter()
                for document in self.documents[size]:
                    push(connection, document)
                seconds = time.perf_counter() - started
                rows = connection.execute("select id::text, parent_id::text from kerai.nodes").fetchall()
        finally:
            administer(self.server, "drop database {}", name)
        number = {each: i for i, each in enumerate(self.ids)}
        parents: Parents = [None] * len(self.ids)
        for node, parent in rows:
            parents[number[node]] = None if parent is None else number[parent]
        return seconds, parents

    def _moves(self, moves: list[Move]) -> list[dict[str, Any]]:
        return [
            {"op": "node_move", "node": self.ids[node], "parent": self.ids[parent], "position": f"b{i:06d}"}
            for i, (node, parent) in enumerate(moves)
        ]


def measure(server: PrivateServer, work: Workload) -> list[Row]:
    """Let both sides take turns on one workload."""
    rng = random.Random(work.name)
    tree = random_tree(work, rng)
    moves = random_moves(work, tree, rng), random_moves(work, tree, rng)
    kerai, other = Kerai(server, work, tree, moves), Loro(tree, moves)
    seconds: dict[int, list[tuple[float, float]]] = {size: [] for size in work.aims}
    for _ in range(ROUNDS):
        for size, pairs in seconds.items():
            theirs, expected = other.run()
            ours, parents = kerai.run(size)
            pairs.append((ours, theirs))
            if parents != expected:
                wrong = sum(a != b for a, b in zip(parents, expected, strict=True))
                raise RuntimeError(
                    f"{work.name}, changesets of {size}: {wrong} nodes stand elsewhere than in Loro"
                )
    return [
        Row(
            f"{work.name}: 10,000 concurrent moves {work.what}, changesets of {size:,}, against Loro",
            *(f"{MOVES / median(each):,.0f} op/s" for each in zip(*seconds[size], strict=True)),
            median(theirs / ours for ours, theirs in seconds[size]),
            aim,
        )
        for size, aim in work.aims.items()
    ]


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratio of the rates in operations a second."""
    only = os.environ.get("KERAI_BENCH_ONLY", "").split()
    return [row for work in WORKLOADS if not only or work.name in only for row in measure(server, work)]

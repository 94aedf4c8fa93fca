"""What the benchmarks share: databases, signed changesets, and the operations of somebody who writes code."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from nacl.signing import SigningKey
from psycopg import sql

from kerai import changeset
from kerai_client.db.connection import connect
from kerai_client.db.instance import ensure_extension
from kerai_client.server.private import PrivateServer
from kerai_client.source.tree.node import new_id

FILE = 250  # inserts a file
FUNCTION = 25  # inserts a function

Operations = Sequence[changeset.Operation]
Document = tuple[str, bytes, bytes]  # the parameters of kerai.push_ops


class Author:
    """Somebody who signs changesets, one after another."""

    def __init__(self, name: str, base: dict[str, int] | None = None, lamport: int = 0) -> None:
        """
        :param base: what the author has seen of others, who push nothing more that matters.
        :param lamport: the highest Lamport timestamp in it.
        """
        self.key = SigningKey.generate()
        self.public_key = bytes(self.key.verify_key)
        self.id = changeset.author_id(name, self.public_key)
        self.seen, self.lamport = base or {}, lamport
        self.seq = 0
        self.prev: str | None = None

    @property
    def vector(self) -> dict[str, int]:
        """What the author has seen, his own changesets too."""
        return self.seen | ({self.id: self.seq} if self.seq else {})

    def document(self, operations: Operations, task: str | None = None) -> Document:
        """Return the next changeset."""
        seq, lamport = self.seq + 1, self.lamport + 1
        text = changeset.build(self.id, seq, lamport, operations, prev=self.prev, base=self.vector, task=task)
        self.seq += len(operations)
        self.lamport += len(operations)
        self.prev = changeset.changeset_id(text)
        return text, changeset.sign(text, self.key), self.public_key

    def draft(self, swarm: str, operations: Operations, task: str) -> Document:
        """Return a changeset for a swarm that groups its members: it gets its place in a sequence there."""
        text = changeset.draft(self.id, swarm, operations, task=task)
        return text, changeset.sign(text, self.key), self.public_key

    def documents(self, operations: Operations, size: int) -> list[Document]:
        """Return the next changesets, with so many operations each."""
        parts = range(0, len(operations), size)
        return [self.document(operations[first : first + size]) for first in parts]


class Codebase:
    """A directory of files of functions of statements that grows and is edited, with ids as the client's."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.directory = self.file = self.function = str(new_id())
        self.inserted = 0
        self.statements: list[str] = []

    def edit(self, inserts: int, updates: int) -> list[dict[str, Any]]:
        """Return the operations of a changeset: inserts, then updates of older statements."""
        old = len(self.statements)
        operations = [self._insert() for _ in range(inserts)]
        choice = self.random.sample(range(old or len(self.statements)), updates)
        for target in choice:
            content = f"    total = combine(total, weight={self.random.random():.6f})\n"
            operations.append(
                {"op": "node_update", "node": self.statements[target], "set": {"content": content}}
            )
        return operations

    def _insert(self) -> dict[str, Any]:
        number, self.inserted = self.inserted, self.inserted + 1
        node = str(new_id())
        insert = {"op": "node_insert", "node": node, "parent": self.function, "position": f"a{number:07d}"}
        if number == 0:
            insert |= {"node": self.directory, "parent": None, "kind": "directory"}
        elif number % FILE == 1:
            self.file = node
            name = f"module_{number}.py"
            insert |= {"parent": self.directory, "kind": "file", "name": name, "language": "python"}
        elif number % FUNCTION == 2:
            self.function = node
            insert |= {"parent": self.file, "kind": "function_definition", "name": f"function_{number}"}
        else:
            self.statements.append(node)
            content = f"    total = combine(total, values[{number}], weight={self.random.random():.6f})\n"
            insert |= {"kind": "expression_statement", "content": content}
        return insert


def push(connection: Any, document: Document) -> None:
    """Push one changeset, in a transaction of its own unless one is open."""
    result = connection.execute("select status from kerai.push_ops(%s::json, %s, %s)", document).fetchone()
    if result != ("merged",):
        raise RuntimeError(f"not merged: {result}")


def administer(server: PrivateServer, statement: str, *names: str) -> None:
    """Run a statement that no transaction takes; each {} in it becomes a name."""
    with connect(server.dsn_of("postgres")) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def new_database(server: PrivateServer, name: str) -> str:
    """Make a database with the extension; return its DSN."""
    administer(server, "create database {}", name)
    with connect(server.dsn_of(name)) as connection:
        ensure_extension(connection)
    return server.dsn_of(name)

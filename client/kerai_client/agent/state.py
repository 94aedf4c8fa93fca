"""States of the tree, as a database has them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from kerai_client.db.connection import Connection, Database, queries
from kerai_client.source import Tree

Vector = dict[str, int]
"""Of each author the number of the last operation: what a state holds."""


@dataclass(frozen=True, slots=True)
class State:
    """The tree as of a version vector, both from one snapshot of the database."""

    tree: Tree
    vector: Vector


def read_vector(database: Database) -> Vector:
    """Return the version vector, which changes with every merge: a cheap way to see whether one happened."""

    return database.run(_vector)


def _vector(connection: Connection) -> Vector:
    row = connection.execute(queries()["version_vector"]).fetchone()
    assert row is not None
    vector: Vector = row["vector"]
    return vector


def read_state(database: Database, at: Vector | None = None) -> State:
    """Return the whole tree and its vector, now or as of ``at``, read in one REPEATABLE READ transaction."""

    def read(connection: Connection) -> State:
        with connection.transaction():
            connection.execute(queries()["begin_snapshot"])
            vector = _vector(connection)
            rows = connection.execute(queries()["tree"], {"at": None if at is None else Jsonb(at)}).fetchall()
            return State(Tree.from_rows(rows), vector if at is None else dict(at))

    return database.run(read)

"""Authors who push into a database that others push into at the same time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nacl.signing import SigningKey
from psycopg import Connection
from tests.merge.model import Operation

from kerai import changeset

Body = dict[str, Any]


class LiveAuthor:
    """One author with a session of his own."""

    def __init__(self, connection: Connection[Any], name: str, key: SigningKey | None = None) -> None:
        self.connection = connection
        self.key = key or SigningKey.generate()
        self.public_key = bytes(self.key.verify_key)
        self.author = changeset.author_id(name, self.public_key)

    def write(self, operations: Sequence[Body], *, seen: dict[str, int] | None = None, **keys: Any) -> str:
        """Return his next changeset, on what is merged now or on what he has seen. It is not pushed."""
        found = self.connection.execute(
            "select seq, lamport, prev, base from kerai.next_changeset(%s, %s)",
            [self.author, None if seen is None else json.dumps(seen)],
        ).fetchone()
        assert found is not None
        return changeset.build(self.author, ops=operations, **{**found, **keys})

    def send(self, document: str) -> str:
        """Sign and push a document; return the status."""
        found = self.connection.execute(
            "select status from kerai.push_ops(%s::json, %s, %s)",
            [document, changeset.sign(document, self.key), self.public_key],
        ).fetchone()
        assert found is not None
        return str(found["status"])

    def push(self, *operations: Body, **keys: Any) -> str:
        """Write, sign and push; return the status."""
        return self.send(self.write(operations, **keys))


def insert(node: str, parent: str | None = None, **keys: Any) -> Body:
    """Return a node_insert."""
    return {"op": "node_insert", "node": node, "parent": parent, "position": "a", "kind": "file", **keys}


def move(node: str, parent: str | None, position: str = "a") -> Body:
    """Return a node_move."""
    return {"op": "node_move", "node": node, "parent": parent, "position": position}


def update(node: str, **fields: str | None) -> Body:
    """Return a node_update."""
    return {"op": "node_update", "node": node, "set": fields}


def logged(connection: Connection[Any]) -> list[Operation]:
    """Return every operation that kerai.operations shows."""
    rows = connection.execute("select author, author_seq, lamport_ts, payload from kerai.operations")
    return [Operation(row["author"], row["author_seq"], row["lamport_ts"], row["payload"]) for row in rows]

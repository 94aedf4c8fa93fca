"""What a database says its state is, in the shapes of the model."""

from __future__ import annotations

import json
from typing import Any

from psycopg import Connection
from tests.merge.model import Row, State, Vector
from tests.merge.worlds import Signed

NODES = """
select n.id::text, n.parent_id::text as parent, n.position, n.kind, n.name, n.language, n.content, n.metadata,
    n.deleted, n.path::text
from kerai.nodes as n"""
TREE = """
select t.id::text, t.parent_id::text, t.position, t.depth, t.kind, t.name, t.language, t.content,
    t.path::text, t.metadata
from kerai.tree(%s, %s) as t"""
EDGES = """
select e.source::text, e.target::text, e.relation, case when not e.deleted then e.metadata end as metadata
from kerai.edges as e"""
PERSPECTIVES = """
select p.author, p.node_id::text, p.context_id::text, p.weight, p.reasoning, p.deleted
from kerai.perspectives as p"""
ASSOCIATIONS = """
select a.author, a.source::text, a.target::text, a.relation, a.weight, a.reasoning, a.deleted
from kerai.associations as a"""


def push(connection: Connection[Any], signed: Signed) -> str:
    """Push a changeset as another instance or an agent does, and return the status."""
    found = connection.execute(
        "select status, applied from kerai.push_ops(%s::json, %s, %s)",
        [signed.document, signed.signature, signed.public_key],
    ).fetchone()
    assert found is not None
    assert found["applied"] == (len(signed.operations) if found["status"] == "merged" else 0)
    return str(found["status"])


def scalar(connection: Connection[Any], query: str, parameters: list[Any] | None = None) -> Any:
    """Return the one value of a query."""
    found = connection.execute(query, parameters).fetchone()
    assert found is not None
    (value,) = found.values()
    return value


def digest(connection: Connection[Any]) -> str:
    """Return kerai.state_digest()."""
    return str(scalar(connection, "select kerai.state_digest()"))


def tree(connection: Connection[Any], root: str | None = None, at: Vector | None = None) -> list[Row]:
    """Return kerai.tree(root, at)."""
    vector = None if at is None else json.dumps(at)
    return [Row(**row) for row in connection.execute(TREE, [root, vector])]


def checkout(
    connection: Connection[Any], scope: str | None = None, at: Vector | None = None
) -> list[tuple[str, str]]:
    """Return kerai.checkout(scope, at)."""
    vector = None if at is None else json.dumps(at)
    rows = connection.execute("select path, source from kerai.checkout(%s, %s)", [scope, vector])
    return [(row["path"], row["source"]) for row in rows]


def assert_state(connection: Connection[Any], expected: State) -> None:
    """Compare everything that is stored with the model: tables, order and visibility."""
    nodes = {row.pop("id"): row for row in connection.execute(NODES)}
    wanted = {
        i: {
            "parent": node.parent,
            "position": node.position,
            "kind": node.kind,
            "name": node.name,
            "language": node.language,
            "content": node.content,
            "metadata": node.metadata,
            "deleted": node.deleted,
            "path": expected.path(i),
        }
        for i, node in expected.nodes.items()
    }
    assert nodes == wanted
    assert tree(connection) == expected.tree()

    edges = {(r["source"], r["target"], r["relation"]): r["metadata"] for r in connection.execute(EDGES)}
    assert edges == expected.edges
    perspectives = {
        (r["author"], r["node_id"], r["context_id"]): None if r["deleted"] else (r["weight"], r["reasoning"])
        for r in connection.execute(PERSPECTIVES)
    }
    assert perspectives == expected.perspectives
    associations = {
        (r["author"], r["source"], r["target"], r["relation"]): None
        if r["deleted"]
        else (r["weight"], r["reasoning"])
        for r in connection.execute(ASSOCIATIONS)
    }
    assert associations == expected.associations


def assert_reads(connection: Connection[Any], expected: State, at: Vector | None = None) -> None:
    """Compare tree, source and checkout with the model, now or as of a vector, from every node down."""
    if at is not None:
        assert tree(connection, at=at) == expected.tree()
    for node in expected.nodes:
        assert tree(connection, node, at) == expected.tree(node)
    vector = None if at is None else json.dumps(at)
    sources = {
        row["id"]: row["source"]
        for row in connection.execute(
            "select u.id::text, kerai.source(u.id, %s) as source from unnest(%s::uuid[]) as u (id)",
            [vector, list(expected.nodes)],
        )
    }
    assert sources == {node: expected.source(node) for node in expected.nodes}
    assert checkout(connection, at=at) == expected.checkout()
    for node in list(expected.nodes)[:5]:
        assert checkout(connection, node, at) == expected.checkout(node)

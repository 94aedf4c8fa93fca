"""Keep an agent's operations when the state has changed under them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from kerai_client.source import Node, Tree

Operation = Mapping[str, Any]


def rebase(old: Tree, new: Tree, ops: Sequence[Operation]) -> list[Operation]:
    """Return those of the operations, made from ``old``, that still make sense on ``new``.

    Changes that others have merged meanwhile were tested, so they stand. An update of the same field, a move
    of the same node, and a deletion of something in which others worked are dropped. So is everything whose
    node or parent is gone.
    """
    there = {node.id for top in new.tops() for node in new.subtree(top.id)}
    kept: list[Operation] = []
    for op in ops:
        kind = op["op"]
        if kind == "node_insert":
            parent = op["parent"]
            if parent is not None and UUID(parent) not in there:
                continue
            there.add(UUID(op["node"]))
        elif kind.startswith("node_"):
            node = UUID(op["node"])
            if node not in there or not _as_before(old, new, node, op, there):
                continue
        kept.append(op)
    return kept


def _as_before(old: Tree, new: Tree, node: UUID, op: Operation, there: set[UUID]) -> bool:
    """Say whether what an operation changes is still as it was when the operation was made."""
    kind = op["op"]
    if node not in old or node not in new:
        return node not in old  # the agent's own insert, earlier in the list
    before, after = old[node], new[node]
    if kind == "node_update":
        fields = op.get("set") or {}
        keys = op.get("metadata") or {}
        return all(getattr(before, field) == getattr(after, field) for field in fields) and all(
            before.metadata.get(key) == after.metadata.get(key) for key in keys
        )
    if kind == "node_move":
        parent = op["parent"]
        return _place(before) == _place(after) and (parent is None or UUID(parent) in there)
    if kind == "node_delete":
        return list(contents_below(old, node)) == list(contents_below(new, node))
    return True


def _place(node: Node) -> tuple[UUID | None, str]:
    return node.parent, node.position


def contents_below(tree: Tree, top: UUID) -> Iterator[tuple[UUID, str, str | None, str | None]]:
    """Yield what a node and all below it are, but for where they stand."""
    for node in tree.subtree(top):
        yield node.id, node.kind, node.name, node.content

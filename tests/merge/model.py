"""What the merged state must be: the fold of all operations in the order of their stamps, one by one.

This is the definition, written as plainly as it can be and without a line of the implementation: no
registers with stamps, no undo and redo, no sets. The tests compare the database with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

Vector = Mapping[str, int]
Metadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the log: ``body`` is the JSON object that was pushed."""

    author: str
    seq: int
    lamport: int
    body: Mapping[str, Any]

    @property
    def stamp(self) -> tuple[int, bytes, int]:
        """Its place in the order of the fold."""
        return self.lamport, self.author.encode(), self.seq


@dataclass(slots=True)
class Node:
    """A node as the fold leaves it. ``placed`` is the stamp of the operation that put it where it is."""

    parent: str | None
    position: str
    placed: tuple[int, bytes, int]
    kind: str
    name: str | None
    language: str | None
    content: str | None
    metadata: Metadata
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row of kerai.tree()."""

    id: str
    parent_id: str | None
    position: str
    depth: int
    kind: str
    name: str | None
    language: str | None
    content: str | None
    path: str
    metadata: Metadata


@dataclass(slots=True)
class State:
    """Everything that operations can change. A relation that was deleted is None."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[tuple[str, str, str], Metadata | None] = field(default_factory=dict)
    perspectives: dict[tuple[str, str, str | None], tuple[float, str | None] | None] = field(
        default_factory=dict
    )
    associations: dict[tuple[str, str, str, str], tuple[float, str | None] | None] = field(
        default_factory=dict
    )

    def apply(self, operation: Operation) -> None:
        """Take in the next operation of the order."""
        body = operation.body
        match body["op"]:
            case "node_insert":
                self._insert(operation)
            case "node_update":
                node = self.nodes[body["node"]]
                for key, value in body.get("set", {}).items():
                    setattr(node, key, value)
                node.metadata = without_nulls(node.metadata | body.get("metadata", {}))
            case "node_move":
                if not self.is_below(body["parent"], body["node"]):
                    node = self.nodes[body["node"]]
                    node.parent, node.position, node.placed = (
                        body["parent"],
                        body["position"],
                        operation.stamp,
                    )
            case "node_delete" | "node_restore":
                self.nodes[body["node"]].deleted = body["op"] == "node_delete"
            case "edge_insert" | "edge_delete":
                inserted = body["op"] == "edge_insert"
                key = body["source"], body["target"], body["relation"]
                self.edges[key] = (body.get("metadata") or {}) if inserted else None
            case "perspective_set" | "perspective_delete":
                view = (
                    (float(body["weight"]), body.get("reasoning"))
                    if body["op"] == "perspective_set"
                    else None
                )
                self.perspectives[operation.author, body["node"], body.get("context")] = view
            case "association_set" | "association_delete":
                view = (
                    (float(body["weight"]), body.get("reasoning"))
                    if body["op"] == "association_set"
                    else None
                )
                place = operation.author, body["source"], body["target"], body["relation"]
                self.associations[place] = view

    def _insert(self, operation: Operation) -> None:
        body = operation.body
        if body["node"] not in self.nodes:
            self.nodes[body["node"]] = Node(
                parent=body["parent"],
                position=body["position"],
                placed=operation.stamp,
                kind=body["kind"],
                name=body.get("name"),
                language=body.get("language"),
                content=body.get("content"),
                metadata=without_nulls(body.get("metadata") or {}),
            )

    def is_below(self, node: str | None, ancestor: str) -> bool:
        """Say whether a node is the other one or one of its descendants."""
        return node == ancestor or ancestor in self.way_up(node)[0]

    def is_visible(self, node: str | None) -> bool:
        """Say whether the node hangs from the top, and neither it nor any of its ancestors is tombstoned."""
        passed, end = self.way_up(node)
        return end is None and not any(self.nodes[each].deleted for each in passed)

    def way_up(self, node: str | None) -> tuple[list[str], str | None]:
        """Return a node and its ancestors, and where that ends.

        None is the top; else it is a node that is not there, or one that was passed already: inserts may
        make a ring (see :func:`fold_any`).
        """
        passed: dict[str, None] = {}
        while node in self.nodes and node not in passed:
            passed[node] = None
            node = self.nodes[node].parent
        return list(passed), node

    def path(self, node: str | None) -> str:
        """Return a node's ltree path: the names on the way from the root, cleaned, joined by dots.

        A path of more than 400 characters or of 32 levels goes no deeper.
        """
        names: list[str] = []
        while node is not None:
            if name := self.nodes[node].name:
                names.insert(0, name)
            node = self.nodes[node].parent
        path = ""
        for name in names:
            if len(path) <= 400 and path.count(".") < 31:
                path += "." * bool(path) + re.sub("[^A-Za-z0-9_]", "_", name)[:200]
        return path

    def children(self, parent: str | None) -> list[str]:
        """Return the children of a node, tombstoned ones too, in the order of siblings."""
        own = [
            (node.position.encode(), node.placed, UUID(i), i)
            for i, node in self.nodes.items()
            if node.parent == parent
        ]
        return [i for *_, i in sorted(own)]

    def tree(self, root: str | None = None) -> list[Row]:
        """Return what kerai.tree(root) must return."""
        rows: list[Row] = []

        def walk(i: str, depth: int) -> None:
            node = self.nodes[i]
            if node.deleted:
                return
            fields = node.kind, node.name, node.language, node.content
            rows.append(Row(i, node.parent, node.position, depth, *fields, self.path(i), node.metadata))
            for child in self.children(i):
                walk(child, depth + 1)

        tops = self.children(None) if root is None else [root] if root in self.nodes else []
        for top in tops:
            if self.is_visible(top):
                walk(top, 0)
        return rows

    def source(self, node: str) -> str | None:
        """Return what kerai.source(node) must return: None for a node that is not visible."""
        rows = self.tree(node)
        return "".join(row.content or "" for row in rows) if rows else None

    def checkout(self, scope: str | None = None) -> list[tuple[str, str]]:
        """Return what kerai.checkout(scope) must return, in the order of the tree.

        Files are what no other file is above of. Their names are escaped, and numbered where they clash.
        """
        places: dict[str | None, str] = {None: ""}
        directories: set[tuple[str, str]] = set()
        files: list[tuple[str, str, str]] = []
        for row in self.tree():
            if row.parent_id not in places:
                continue
            place, entry = places[row.parent_id], _entry(row)
            if row.kind == "file":
                files.append((place, entry, row.id))
                continue
            places[row.id] = "/".join(filter(None, (place, entry)))
            if entry:
                directories.add((place, entry))
        taken = directories | {(place, entry) for place, entry, _ in files}
        kept: set[tuple[str, str]] = set(directories)
        found = []
        for place, entry, node in files:
            name = entry
            if (place, name) in kept:
                name = next(n for n in (f"{entry}~{i}" for i in count(2)) if (place, n) not in taken)
                taken.add((place, name))
            kept.add((place, name))
            if scope is None or self.is_below(node, scope):
                found.append(("/".join(filter(None, (place, name))), self.source(node) or ""))
        return found


def _entry(row: Row) -> str:
    if not row.name:
        return f"unnamed-{row.id}" if row.kind == "file" else ""
    if row.name in (".", "..", ".git", ".kerai"):
        return row.name.replace(".", "%2E")
    return row.name.replace("/", "%2F")


def fold(operations: Iterable[Operation]) -> State:
    """Return the state that these operations make, whatever order they are given in."""
    state = State()
    for operation in sorted(operations, key=lambda each: each.stamp):
        state.apply(operation)
    return state


def fold_any(operations: Iterable[Operation]) -> State:
    """Return the state of operations that need not hold what they rest on.

    First all inserts, then everything else in its order; what names a node that is not there is left out. A
    move below such a node takes effect: what it moves is there, and not visible. So is what hangs from a ring
    of inserts. Of a node inserted twice only the later insert may be among these operations, and may put it
    below a node that had been inserted below it. (Of operations that hold what they rest on this makes the
    same as :func:`fold`.)
    """
    state = State()
    for operation in sorted(operations, key=lambda each: (each.body["op"] != "node_insert", each.stamp)):
        if operation.body["op"] == "node_insert" or operation.body.get("node") in {None, *state.nodes}:
            state.apply(operation)
    return state


def restrict(operations: Iterable[Operation], vector: Vector) -> list[Operation]:
    """Return the operations that a version vector names."""
    return [each for each in operations if each.seq <= vector.get(each.author, 0)]


def without_nulls(metadata: Metadata) -> Metadata:
    """Return metadata without the keys whose value is null: null means that there is no such key."""
    return {key: value for key, value in metadata.items() if value is not None}

"""From matched parts to operations, in an order that applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from kerai_client.source.compare.part import Part
from kerai_client.source.compare.sequence import increasing
from kerai_client.source.tree.positions import integer, keys, prefix, room
from kerai_client.source.tree.tree import Tree

Operation = dict[str, Any]


class Emitter:
    """Collects the operations that turn one tree into another.

    Parents come before the nodes that are inserted or moved below them, and deletions come last. So no move
    is refused for a cycle, and a node that leaves a deleted container is gone from it before.
    """

    def __init__(self, tree: Tree, block: str, new_id: Callable[[], UUID]) -> None:
        self.tree = tree
        self.block = block
        self.new_id = new_id
        self.ops: list[Operation] = []
        self.deletions: list[Operation] = []
        self._appended: dict[UUID, int] = {}
        self._starts: dict[UUID, str] = {}

    def insert(self, parent: UUID | None, position: str, kind: str, **fields: Any) -> UUID:
        """Insert a node; fields that are None or empty are left out. Nobody else can insert below it yet."""
        node = self.new_id()
        self._starts[node] = ""
        self.insert_as(node, parent, position, kind, **fields)
        return node

    def insert_as(self, node: UUID, parent: UUID | None, position: str, kind: str, **fields: Any) -> None:
        """Insert a node with a given id."""
        given = {key: value for key, value in fields.items() if value is not None and value != {}}
        self.ops.append(
            {
                "op": "node_insert",
                "node": str(node),
                "parent": None if parent is None else str(parent),
                "position": position,
                "kind": kind,
                **given,
            }
        )

    def update(self, node: UUID, fields: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        """Set registers of a node, when there are any to set."""
        op: Operation = {"op": "node_update", "node": str(node)}
        if fields:
            op["set"] = fields
        if metadata:
            op["metadata"] = metadata
        if len(op) > 2:
            self.ops.append(op)

    def move(self, node: UUID, parent: UUID, position: str) -> None:
        """Move a node below another parent, or to another position."""
        self.ops.append({"op": "node_move", "node": str(node), "parent": str(parent), "position": position})

    def delete(self, node: UUID) -> None:
        """Delete a node with all below it, once everything else is done."""
        self.deletions.append({"op": "node_delete", "node": str(node)})

    def append_position(self, parent: UUID) -> str:
        """Return a position after all children of a directory, and after those appended before."""
        count = self._appended.get(parent, 0)
        self._appended[parent] = count + 1
        if parent not in self._starts:
            last = max((child.position for child in self.tree.children(parent)), default=None)
            self._starts[parent] = prefix(last, None, self.block)
        return self._starts[parent] + integer(count)

    def parts(self, node: UUID, old: Part | None, new: Part) -> None:
        """Make the children of ``node`` those of ``new``.

        :param old: what the node holds now, matched with ``new``; None when the node is new.
        """
        pending: list[tuple[UUID, Part | None, Part]] = [(node, old, new)]
        for parent, before, after in pending:
            places = self._places(before, after)
            for child, position in zip(after.children, places, strict=True):
                match = child.match
                if match is None or match.id is None:
                    made = self.insert(
                        parent, position or "", child.kind, name=child.name, content=child.content
                    )
                    if child.children:
                        pending.append((made, None, child))
                    continue
                if position is not None:
                    self.move(match.id, parent, position)
                if not child.whole:
                    self.registers(match, child)
                    pending.append((match.id, match, child))

    def registers(self, old: Part, new: Part) -> None:
        changed = {}
        for field in ("kind", "name", "content"):
            value = getattr(new, field)
            if getattr(old, field) != value:
                changed[field] = value
        if old.id is not None:
            self.update(old.id, changed)

    def _places(self, old: Part | None, new: Part) -> list[str | None]:
        """Return a position for each child of ``new``; None for those that stay where they are."""
        if old is None:
            return list(keys(None, None, len(new.children), None))
        index = {id(child): at for at, child in enumerate(old.children)}
        there = [at for at, child in enumerate(new.children) if id(child.match) in index]
        stay = {there[at] for at in increasing([index[id(new.children[place].match)] for place in there])}
        places: list[str | None] = []
        left: str | None = None
        waiting = 0
        for at, child in enumerate(new.children):
            here = self._position(child) if at in stay else None
            if here is None or (left is not None and here < left) or (waiting and not room(left, here)):
                waiting += 1
                continue
            places.extend(keys(left, here, waiting, self.block))
            places.append(None)
            waiting, left = 0, here
        places.extend(keys(left, None, waiting, self.block))
        return places

    def _position(self, child: Part) -> str | None:
        return None if child.match is None or child.match.id is None else self.tree[child.match.id].position

    def leftovers(self, old: Part, gone: bool = False) -> None:
        """Delete what is below ``old`` and has no counterpart; only the top of each deleted subtree.

        :param gone: whether ``old`` itself is deleted, so that only what has moved out of it is looked at.
        """
        stack = [(old, gone)]
        while stack:
            part, gone = stack.pop()
            for child in part.children:
                if child.match is not None:
                    if not child.whole:
                        stack.append((child, False))
                    continue
                if not gone and not child.empty and child.id is not None:
                    self.delete(child.id)
                stack.append((child, gone or not child.empty))

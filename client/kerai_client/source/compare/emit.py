"""From a plan to operations, in an order that applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from kerai_client.source.compare.plan import Change, Children, KeptChild, Make, MakeRoot, Plan, Ref, Relocate
from kerai_client.source.tree.node import ROOT_ID
from kerai_client.source.tree.positions import integer, keys, prefix
from kerai_client.source.tree.tree import Tree

Operation = dict[str, Any]

_ROOT_POSITION = keys(None, None, 1, None)[0]


class Emitter:
    """Makes the operations that turn one tree into another, and the ids of new nodes.

    Parents come before the nodes that are inserted or moved below them, and deletions come last. So no move
    is refused for a cycle, and a node that leaves a deleted container is gone from it before.
    """

    def __init__(self, tree: Tree, block: str, new_id: Callable[[], UUID]) -> None:
        self.tree = tree
        self.block = block
        self.new_id = new_id
        self._ops: list[Operation] = []
        self._deletions: list[Operation] = []
        self._made: dict[int, UUID] = {}
        self._appended: dict[UUID, int] = {}
        self._starts: dict[UUID, str] = {}

    def add(self, plan: Plan) -> None:
        """Carry out a plan."""
        for step in plan.outline:
            if isinstance(step, MakeRoot):
                self._insert(ROOT_ID, None, _ROOT_POSITION, "directory")
                self._ops.append({"op": "node_restore", "node": str(ROOT_ID)})
            elif isinstance(step, Make):
                self._make(step)
            elif isinstance(step, Relocate):
                parent = self.node(step.parent)
                self._move(step.node, parent, self._append_position(parent))
            else:
                self._change(step)
        for part in plan.contents:
            if isinstance(part, Change):
                self._change(part)
            else:
                self._place(part)
        self._deletions += [{"op": "node_delete", "node": str(node)} for node in plan.deletions]

    def operations(self) -> list[Operation]:
        """Return the operations of all plans, deletions last."""
        return self._ops + self._deletions

    def node(self, ref: Ref) -> UUID:
        """Return the id of a node, also of one that was made here."""
        return self._made[ref] if isinstance(ref, int) else ref

    def _make(self, step: Make) -> None:
        if step.parent is None:
            parent, position = None, _ROOT_POSITION
        else:
            parent = self.node(step.parent)
            position = self._append_position(parent)
        fields = {"name": step.name, "language": step.language, "metadata": step.metadata}
        node = self._new(step.number)
        self._insert(node, parent, position, step.kind, **fields)

    def _place(self, part: Children) -> None:
        parent = self.node(part.parent)
        for child, position in zip(part.children, self._positions(part), strict=True):
            if isinstance(child, KeptChild):
                if position is not None:
                    self._move(child.node, parent, position)
                self._update(child.node, child.changes, {})
            else:
                node = self._new(child.number)
                self._insert(node, parent, position or "", child.kind, name=child.name, content=child.content)

    def _positions(self, part: Children) -> list[str | None]:
        """Return a position for each child; None for those that stay where they are."""
        if isinstance(part.parent, int):
            return list(keys(None, None, len(part.children), None))
        positions: list[str | None] = []
        left: str | None = None
        waiting = 0
        for child in part.children:
            if isinstance(child, KeptChild) and child.stays:
                here = self.tree[child.node].position
                positions.extend(keys(left, here, waiting, self.block))
                positions.append(None)
                waiting, left = 0, here
            else:
                waiting += 1
        positions.extend(keys(left, None, waiting, self.block))
        return positions

    def _append_position(self, parent: UUID) -> str:
        """Return a position after all children of a directory, and after those appended before."""
        count = self._appended.get(parent, 0)
        self._appended[parent] = count + 1
        if parent not in self._starts:
            last = max((child.position for child in self.tree.children(parent)), default=None)
            self._starts[parent] = prefix(last, None, self.block)
        return self._starts[parent] + integer(count)

    def _new(self, number: int) -> UUID:
        """Return the id of a new node. Nobody else can insert below it yet."""
        node = self._made[number] = self.new_id()
        self._starts[node] = ""
        return node

    def _insert(self, node: UUID, parent: UUID | None, position: str, kind: str, **fields: Any) -> None:
        """Insert a node; fields that are None or empty are left out."""
        given = {key: value for key, value in fields.items() if value is not None and value != {}}
        self._ops.append(
            {
                "op": "node_insert",
                "node": str(node),
                "parent": None if parent is None else str(parent),
                "position": position,
                "kind": kind,
                **given,
            }
        )

    def _move(self, node: UUID, parent: UUID, position: str) -> None:
        self._ops.append({"op": "node_move", "node": str(node), "parent": str(parent), "position": position})

    def _change(self, step: Change) -> None:
        self._update(step.node, step.fields, step.metadata)

    def _update(self, node: UUID, fields: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Set registers of a node, when there are any to set."""
        op: Operation = {"op": "node_update", "node": str(node)}
        if fields:
            op["set"] = dict(fields)
        if metadata:
            op["metadata"] = dict(metadata)
        if len(op) > 2:
            self._ops.append(op)

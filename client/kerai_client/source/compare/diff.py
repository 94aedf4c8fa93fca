"""From an edited directory to few operations on the tree that it came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from posixpath import basename, dirname
from typing import Any
from uuid import UUID

from kerai_client.source.compare.contents import rewritten, written
from kerai_client.source.compare.emit import Emitter, Operation
from kerai_client.source.compare.goal import Goal, make_goal
from kerai_client.source.compare.plan import Change, Plan
from kerai_client.source.compare.planner import file_to_make, make_plan
from kerai_client.source.syntax.parse import parse_file
from kerai_client.source.tree.layout import SourceError
from kerai_client.source.tree.node import new_id
from kerai_client.source.tree.positions import tag
from kerai_client.source.tree.state import Snapshot
from kerai_client.source.tree.tree import Tree, apply_operations, paused_collector


def diff(
    tree: Tree,
    snapshot: Snapshot,
    *,
    author: str,
    run: str | None = None,
    into: str = "",
    scope: UUID | None = None,
    unread: Collection[str] = (),
    ids: Callable[[], UUID] = new_id,
) -> list[Operation]:
    """Return the operations that make a tree hold the files of a directory.

    Applied to the tree (see :func:`.apply_operations`) they give exactly the snapshot; this is checked
    before they are returned. What did not change keeps its nodes; renamed files and directories and moved
    functions keep theirs too.

    :param snapshot: the files, by posix path relative to ``into``.
    :param author: the author id; with ``run`` it keeps blocks that are inserted at one place at the same
        time apart, see :mod:`kerai_client.source.tree.positions`.
    :param into: the directory of the tree that the snapshot stands for; made when missing.
    :param scope: only edits at and below this node become operations; :func:`outside_scope` names the
        files with other edits.
    :param unread: paths (of files or directories, relative to ``into``) that could not be read; they stay
        as they are in the tree although the snapshot lacks them.
    :param ids: makes the ids of new nodes.
    :return: operations in an order that applies: parents first, deletions last. Empty when nothing changed.
    :raises SourceError: when a path or the scope does not fit the tree.
    """
    with paused_collector():
        goal = make_goal(tree, snapshot, into, scope, unread)
        plan = make_plan(tree, goal)
        emitter = Emitter(tree, tag(author, run), ids)
        emitter.add(plan)
        check = _Check(tree, goal, plan, emitter)
        del plan  # a first import's is large
        return check.operations()


def outside_scope(
    tree: Tree, snapshot: Snapshot, *, scope: UUID, into: str = "", unread: Collection[str] = ()
) -> list[str]:
    """Return the paths with edits that :func:`diff` leaves out for this scope, sorted."""
    return sorted(make_goal(tree, snapshot, into, scope, unread).outside)


def reshaping_late(operations: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return operations with moves and new names after inserts and updates: they come to the same.

    From the first of them on, a push of several changesets keeps all others out until it has committed.
    """

    def place(operation: Mapping[str, Any]) -> int:
        if operation["op"] == "node_delete":
            return 2
        return int(operation["op"] == "node_move" or "name" in (operation.get("set") or {}))

    return sorted(operations, key=place)


class _Check:
    """Applies the operations of a plan, and mends them where they do not give what is wanted."""

    def __init__(self, tree: Tree, goal: Goal, plan: Plan, emitter: Emitter) -> None:
        self.tree = tree
        self.goal = goal
        self.emitter = emitter
        self.places = {emitter.node(node): path for node, path in plan.places.items()}
        self.homes = {path: emitter.node(node) for path, node in plan.homes.items()}

    def operations(self) -> list[Operation]:
        """Return the operations once they are known to give what is wanted."""
        ops = self.emitter.operations()
        old, want = self.goal.old, self.goal.want
        same = old.keys() == want.keys() and all(self.tree.state(old[path].id) == want[path] for path in want)
        if same and not ops:
            return ops
        for attempt in range(3):
            after = apply_operations(self.tree, ops)
            mending = self.names(after) or self.rewritten(after)
            if not mending:
                return ops
            if attempt == 2:
                break
            ops += mending
        raise SourceError("the edit could not be expressed as operations", detail=repr(mending[:2]))

    def names(self, after: Tree) -> list[Operation]:
        """Name the files whose path came out otherwise: those that share a name with a sibling."""
        paths = after.layout().paths
        wrong = [node for node, path in self.places.items() if paths.get(node) not in (path, None)]
        mending = Emitter(after, self.emitter.block, self.emitter.new_id)
        mending.add(Plan(tuple(Change(node, {"name": basename(self.places[node])}) for node in wrong)))
        return mending.operations()

    def rewritten(self, after: Tree) -> list[Operation]:
        """Replace whatever does not hold the wanted text: an edit is never lost."""
        mending = Emitter(after, self.emitter.block, self.emitter.new_id)
        layout = after.layout()
        numbers = count()
        for path, state in self.goal.want.items():
            file = layout.files.get(path)
            if file is not None and after.state(file.id) == state:
                continue
            draft = parse_file(path, state)
            if file is None:
                made = next(numbers)
                make = file_to_make(made, self.homes[dirname(path)], path, draft)
                mending.add(Plan((make,), tuple(written(after, made, draft, numbers))))
                self.places[mending.node(made)] = path
            else:
                below = tuple(child.id for child in after.children(file.id))
                mending.add(Plan((), tuple(rewritten(after, file.id, draft, numbers)), below))
        kept = self.goal.want.keys() | (self.tree.layout().files.keys() - self.goal.old.keys())
        extra = sorted(layout.files.keys() - kept)
        mending.add(Plan(deletions=tuple(layout.files[path].id for path in extra)))
        return mending.operations()

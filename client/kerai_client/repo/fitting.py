"""Fit an import's operations to what others have done since the state that it was made from.

Most operations merge as they are. But deleting a directory would hide what others have put below it, and a
new file would be hidden in a directory that others have deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from kerai_client.agent.pages import Operation
from kerai_client.repo.rebase import contents_below, rebase
from kerai_client.source import Tree, apply_operations, new_id


@dataclass(slots=True)
class Fitted:
    """The operations to push, and the paths of files where both have done something.

    ``kept``: deleted here and changed by others, so it stays. ``hidden``: changed here and deleted by others,
    so it does not show. ``met``: the same place was changed by both, and the later change shows.
    """

    operations: list[Operation]
    kept: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)


def fit(old: Tree, new: Tree, operations: Sequence[Operation]) -> Fitted:
    """Return what of the operations, made from ``old``, takes nothing of ``new`` back.

    :param new: the present state, with all that ``old`` has seen.
    """
    replacements = _Replacements(old, new)
    redirected = replacements.redirected(operations)
    deletions = [operation for operation in redirected if operation["op"] == "node_delete"]
    rest = [operation for operation in redirected if operation["op"] != "node_delete"]
    fitted = Fitted(rest)
    undisturbed = {id(operation) for operation in rebase(old, new, rest)}
    for operation in rest:
        if id(operation) not in undisturbed:
            place = UUID(str(operation["parent" if operation["op"] == "node_insert" else "node"]))
            (fitted.met if place in replacements.visible else fitted.hidden).add(_path(old, operation))
    if deletions:
        before, after = apply_operations(old, rest), apply_operations(new, rest)
        there = _visible(after)
        for operation in deletions:
            for node in _spared(before, after, there, UUID(str(operation["node"])), fitted.kept):
                fitted.operations.append({"op": "node_delete", "node": str(node)})
    return fitted


def _visible(tree: Tree) -> set[UUID]:
    return {node.id for top in tree.tops() for node in tree.subtree(top.id)}


def _spared(before: Tree, after: Tree, there: set[UUID], top: UUID, kept: set[str]) -> Iterator[UUID]:
    """Yield a node, or what is in it when others have changed something below."""
    pending = [top]
    while pending:
        node = pending.pop()
        if node not in there:
            continue  # others have deleted it, too
        if list(contents_below(before, node)) == list(contents_below(after, node)):
            yield node
        elif before.is_directory(node):
            pending += [child.id for child in reversed(before.children(node))]
        else:
            kept.add(before.path_of(node))


class _Replacements:
    """Directories in place of those that others have deleted."""

    def __init__(self, old: Tree, new: Tree) -> None:
        self.old = old
        self.new = new
        self.visible = _visible(new)
        self.directories: dict[UUID, UUID] = {}
        self.made: list[Operation] = []

    def redirected(self, operations: Sequence[Operation]) -> list[Operation]:
        """Return the operations with new files where they show."""
        found: list[Operation] = []
        for operation in operations:
            parent = operation.get("parent")
            if (
                parent is not None
                and self.old.is_directory(node := UUID(str(parent)))
                and node not in self.visible
            ):
                directory = str(self.directory_for(node))
                found += self.made
                self.made.clear()
                found.append({**operation, "parent": directory})
            else:
                found.append(operation)
        return found

    def directory_for(self, node: UUID) -> UUID:
        """Return the directory that stands where a directory stood; made when there is none."""
        if node in self.visible or node in self.directories:
            return self.directories.get(node, node)
        was = self.old[node]
        there = self.new.layout().directories.get(self.old.path_of(node))
        if there:
            self.directories[node] = there[0].id
        elif was.parent is None:
            self.directories[node] = node
        else:
            parent, made = self.directory_for(was.parent), new_id()
            self.directories[node] = made
            self.made.append(
                {
                    "op": "node_insert",
                    "node": str(made),
                    "parent": str(parent),
                    "position": was.position,
                    "kind": was.kind,
                    "name": was.name,
                }
            )
        return self.directories[node]


def _path(tree: Tree, operation: Operation) -> str:
    """Return the path of the file or directory that an operation works on, as it was."""
    for key in ("node", "parent"):
        node = operation.get(key)
        if node is not None and UUID(str(node)) in tree:
            return tree.path_of(UUID(str(node)))
    return ""

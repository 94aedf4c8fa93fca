"""A state of the codebase in memory, and operations upon it."""

from __future__ import annotations

import gc
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from kerai_client.source.tree.layout import Layout, lay_out, settled
from kerai_client.source.tree.node import Node
from kerai_client.source.tree.state import FileState, Snapshot, state_of

_COLUMNS = ("id", "parent_id", "position", "depth", "kind", "name", "language", "content", "path", "metadata")


class Tree:
    """The nodes of a tree, with their children in order. Operations make a new tree, see
    :func:`apply_operations`; a tree itself does not change, so what is computed from it is kept."""

    def __init__(self) -> None:
        self._nodes: dict[UUID, Node] = {}
        self._children: dict[UUID | None, list[UUID]] = {None: []}
        self._tops: set[UUID] = set()
        self._deleted: set[UUID] = set()
        self._states: dict[UUID, FileState] = {}  # before links are settled: that depends on other files
        self._layout: Layout | None = None

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any] | Sequence[Any]]) -> Tree:
        """Build a tree from the rows of ``kerai.tree()``: mappings, or sequences in its column order.

        :param rows: parents before children, siblings in order. A row whose parent is not among the rows
            before it is a top of the tree, so a subtree can be read as well.
        """
        tree = cls()
        with paused_collector():
            for row in rows:
                tree._append(_node(row))
        return tree

    def _append(self, node: Node) -> None:
        key = node.parent if node.parent in self._nodes else None
        if key is None:
            self._tops.add(node.id)
        self._nodes[node.id] = node
        siblings = self._children.get(key)
        if siblings is None:
            self._children[key] = [node.id]
        else:
            siblings.append(node.id)

    @property
    def root(self) -> Node | None:
        """The first node without a parent; None when the tree is empty."""
        tops = self.tops()
        return tops[0] if tops else None

    def __contains__(self, node: UUID) -> bool:
        return node in self._nodes

    def __getitem__(self, node: UUID) -> Node:
        return self._nodes[node]

    def __len__(self) -> int:
        return len(self._nodes)

    def tops(self) -> list[Node]:
        """Return the visible nodes without a parent, in order."""
        return self._visible(None)

    def children(self, node: UUID) -> list[Node]:
        """Return a node's children in order, without deleted ones."""
        return self._visible(node)

    def _visible(self, key: UUID | None) -> list[Node]:
        ids = self._children.get(key, ())
        if self._deleted:
            return [self._nodes[child] for child in ids if child not in self._deleted]
        return [self._nodes[child] for child in ids]

    def subtree(self, node: UUID) -> Iterator[Node]:
        """Yield a node and all visible nodes below it, parents first, siblings in order."""
        stack = [self._nodes[node]]
        while stack:
            here = stack.pop()
            yield here
            if here.id in self._children:
                stack.extend(reversed(self._visible(here.id)))

    def text(self, node: UUID) -> str:
        """Return the contents at and below a node, concatenated in order."""
        return "".join([below.content for below in self.subtree(node) if below.content is not None])

    def state(self, file: UUID) -> FileState:
        """Return what a file node stands for in a directory."""
        found = self._states.get(file)
        if found is None:
            found = self._states[file] = state_of(self.text(file), self._nodes[file].metadata)
        if not found.symlink:
            return found
        layout = self.layout()
        return settled(layout.paths.get(file, ""), found, layout.files)

    def layout(self) -> Layout:
        """Return which path belongs to which node."""
        if self._layout is None:
            self._layout = lay_out(self.tops(), self.children)
        return self._layout

    def files(self) -> Iterator[tuple[str, Node]]:
        """Yield every visible file with its posix path."""
        yield from self.layout().files.items()

    def find(self, path: str) -> Node | None:
        """Return the file or directory at a posix path, None when there is none; ``''`` is the root."""
        layout = self.layout()
        path = path.strip("/")
        if path in layout.files:
            return layout.files[path]
        return next(iter(layout.directories.get(path, ())), None)

    def is_directory(self, node: UUID) -> bool:
        """Whether a node stands for a directory, as a package does too: it is no file, and not in one."""
        return node in self._nodes and self._nodes[node].kind != "file" and node in self.layout().paths

    def path_of(self, node: UUID) -> str:
        """Return the posix path of a file or directory; for a node within a file, the file's.

        :raises KeyError: when the node is not there or not visible.
        """
        paths = self.layout().paths
        here: UUID | None = node
        while here is not None and here not in paths:
            if here in self._deleted:
                break
            here = self._nodes[here].parent
        if here is None or here not in paths:
            raise KeyError(node)
        return paths[here]

    def within(self, node: UUID, ancestor: UUID) -> bool:
        """Whether ``node`` is ``ancestor`` or below it."""
        here: UUID | None = node
        while here is not None:
            if here == ancestor:
                return True
            known = self._nodes.get(here)
            here = None if known is None or here in self._tops else known.parent
        return False


@contextmanager
def paused_collector() -> Iterator[None]:
    """Keep the garbage collector from walking a large tree again and again while it is being built, which
    takes longer than building it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def snapshot_of(tree: Tree) -> Snapshot:
    """Return the directory that a tree stands for, whatever the tree holds: names and links that a directory
    cannot or must not have are changed by the rule in :mod:`kerai_client.source.tree.layout`."""
    return {path: tree.state(file.id) for path, file in tree.files()}


def apply_operations(tree: Tree, ops: Sequence[Mapping[str, Any]]) -> Tree:
    """Return the tree after one later author's operations, as the server would merge them.

    What names an unknown node changes nothing; so do inserting a known node and moving a node below
    itself. Of equal positions the later placed one comes later. Operations on edges, perspectives and
    associations are passed over: they are not part of the tree.
    """
    editor = _Editor(tree)
    for op in ops:
        editor.apply(op)
    return editor.tree


class _Editor:
    """A copy of a tree that changes; lists of children are copied when first written."""

    def __init__(self, tree: Tree) -> None:
        copy = self.tree = Tree()
        copy._nodes = dict(tree._nodes)
        copy._children = dict(tree._children)
        copy._tops = set(tree._tops)
        copy._deleted = set(tree._deleted)
        copy._states = dict(tree._states)
        self._own: set[UUID | None] = set()
        self._ids: dict[object, UUID] = {}  # reading an id takes longer than all else

    def apply(self, op: Mapping[str, Any]) -> None:
        kind = op["op"]
        if not kind.startswith("node_"):
            return
        node = self.id(op["node"])
        if kind == "node_insert":
            self.insert(node, op)
            return
        if node not in self.tree._nodes:
            return
        if kind == "node_update":
            self.update(node, op)
        elif kind == "node_move":
            self.move(node, None if op["parent"] is None else self.id(op["parent"]), op["position"])
        elif kind == "node_delete":
            self.tree._deleted.add(node)
        elif kind == "node_restore":
            self.tree._deleted.discard(node)
        self.forget(node)

    def id(self, value: object) -> UUID:
        found = self._ids.get(value)
        if found is None:
            found = self._ids[value] = _uuid(value)
        return found

    def insert(self, node: UUID, op: Mapping[str, Any]) -> None:
        if node in self.tree._nodes:
            return
        parent = None if op["parent"] is None else self.id(op["parent"])
        # only a node that others were put below before it was made can be above its own parent
        if parent is not None and node in self.tree._children and self.tree.within(parent, node):
            return
        given = op.get("metadata")
        metadata = {key: value for key, value in given.items() if value is not None} if given else {}
        self.tree._nodes[node] = Node(
            node,
            parent,
            op["position"],
            op["kind"],
            op.get("name"),
            op.get("language"),
            op.get("content"),
            metadata,
        )
        self.place(node, parent)
        if parent is not None:
            self.forget(parent)

    def update(self, node: UUID, op: Mapping[str, Any]) -> None:
        old = self.tree._nodes[node]
        metadata = {**old.metadata, **(op.get("metadata") or {})}
        metadata = {key: value for key, value in metadata.items() if value is not None}
        self.tree._nodes[node] = replace(old, **(op.get("set") or {}), metadata=metadata)

    def move(self, node: UUID, parent: UUID | None, position: str) -> None:
        if parent is not None and self.tree.within(parent, node):
            return
        self.forget(node)
        old = self.tree._nodes[node]
        key = None if node in self.tree._tops else old.parent
        siblings = self.siblings(key)
        # at or after the first of its position: comparing ids one by one would take far longer
        at = bisect_left(siblings, old.position, key=lambda sibling: self.tree._nodes[sibling].position)
        del siblings[siblings.index(node, at)]
        self.tree._tops.discard(node)
        self.tree._nodes[node] = replace(old, parent=parent, position=position)
        self.place(node, parent)

    def place(self, node: UUID, parent: UUID | None) -> None:
        """Put a node after all siblings whose position is not greater: theirs are older."""
        if parent is None:
            self.tree._tops.add(node)
        siblings = self.siblings(parent)
        position = self.tree._nodes[node].position
        at = bisect_right(siblings, position, key=lambda sibling: self.tree._nodes[sibling].position)
        siblings.insert(at, node)

    def siblings(self, key: UUID | None) -> list[UUID]:
        if key not in self._own:
            self._own.add(key)
            self.tree._children[key] = list(self.tree._children.get(key, ()))
        return self.tree._children[key]

    def forget(self, node: UUID) -> None:
        """Drop what is known of the file that holds a node."""
        states, nodes = self.tree._states, self.tree._nodes
        here = nodes.get(node) if states else None
        while here is not None:
            states.pop(here.id, None)
            here = nodes.get(here.parent) if here.parent is not None and here.kind != "file" else None


def _uuid(value: object) -> UUID:
    return value if isinstance(value, UUID) else UUID(str(value))


def _node(row: Mapping[str, Any] | Sequence[Any]) -> Node:
    get = row if isinstance(row, Mapping) else dict(zip(_COLUMNS, row, strict=True))
    metadata = get["metadata"]
    return Node(
        _uuid(get["id"]),
        None if get["parent_id"] is None else _uuid(get["parent_id"]),
        get["position"],
        get["kind"],
        get["name"],
        get["language"],
        get["content"],
        json.loads(metadata) if isinstance(metadata, str) else metadata or {},
    )

"""From an edited directory to few operations on the tree that it came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from posixpath import basename, dirname
from typing import Any
from uuid import UUID

from kerai_client.source.compare.contents import Contents
from kerai_client.source.compare.emit import Emitter, Operation
from kerai_client.source.compare.part import new_parts, old_parts
from kerai_client.source.compare.plan import Plan, make_plan
from kerai_client.source.compare.renames import renamed_directories, renamed_files
from kerai_client.source.syntax.draft import FileDraft
from kerai_client.source.syntax.parse import parse_file
from kerai_client.source.tree.layout import SourceError, parents
from kerai_client.source.tree.node import ROOT_ID, new_id
from kerai_client.source.tree.positions import keys, tag
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
    into = "/".join(part for part in into.split("/") if part not in ("", "."))
    with paused_collector():
        plan = make_plan(tree, snapshot, into, scope, unread)
        work = _Diff(tree, plan, Emitter(tree, tag(author, run), ids), into, scope)
        work.run()
        return work.checked()


def outside_scope(
    tree: Tree, snapshot: Snapshot, *, scope: UUID, into: str = "", unread: Collection[str] = ()
) -> list[str]:
    """Return the paths with edits that :func:`diff` leaves out for this scope, sorted."""
    into = "/".join(part for part in into.split("/") if part not in ("", "."))
    return sorted(make_plan(tree, snapshot, into, scope, unread).outside)


def reshaping_late(operations: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return operations with moves and new names after inserts and updates: they come to the same.

    From the first of them on, a push of several changesets keeps all others out until it has committed.
    """

    def place(operation: Mapping[str, Any]) -> int:
        if operation["op"] == "node_delete":
            return 2
        return int(operation["op"] == "node_move" or "name" in (operation.get("set") or {}))

    return sorted(operations, key=place)


class _Diff:
    def __init__(self, tree: Tree, plan: Plan, emitter: Emitter, into: str, scope: UUID | None) -> None:
        self.tree = tree
        self.plan = plan
        self.emitter = emitter
        self.into = into
        self.scope = scope
        self.layout = tree.layout()
        self.directories: dict[str, list[UUID]] = {
            path: [node.id for node in nodes] for path, nodes in self.layout.directories.items() if nodes
        }
        self.places: dict[UUID, str] = {}  # the path that each surviving file node shall have

    def run(self) -> None:
        old, want = self.plan.old, self.plan.want
        changed = [path for path in want if path in old and self.tree.state(old[path].id) != want[path]]
        gone = {path: self.tree.state(old[path].id) for path in old if path not in want}
        added = {path: want[path] for path in want if path not in old}
        self.places = {old[path].id: path for path in want if path in old}
        renames = renamed_files(gone, added)
        for path in renames.values():
            del gone[path]
        if added or (self.into not in self.directories and (self.into or not len(self.tree))):
            self.make_directories(renames, added)
        for path, before in sorted(renames.items()):
            self.relocate(old[before].id, path)
            self.places[old[before].id] = path
        kept = {path: old[path].id for path in changed} | {path: old[was].id for path, was in renames.items()}
        contents = Contents(self.tree, self.plan, self.emitter)
        for path, node in kept.items():
            contents.change(path, node)
        for path in gone:
            contents.drop(old[path].id)
        for path in sorted(added.keys() - renames.keys()):
            draft = parse_file(path, want[path])
            contents.fill(self.make_file(path, draft), draft)
        contents.finish()
        self.delete(list(gone))
        self.emitter.ops += self.emitter.deletions

    def make_directories(self, renames: dict[str, str], added: Snapshot) -> None:
        """Make, rename or move the directories that the new paths need, upper ones first."""
        emitter = self.emitter
        if "" not in self.directories:
            place = keys(None, None, 1, None)[0]
            root = emitter.insert(None, place, "directory") if ROOT_ID in self.tree else ROOT_ID
            if root == ROOT_ID:  # else somebody has given it a name
                emitter.insert_as(ROOT_ID, None, place, "directory")
                # in case that somebody had deleted it: inserting a known node does nothing
                emitter.ops.append({"op": "node_restore", "node": str(ROOT_ID)})
            self.directories[""] = [root]
        needed = {above for path in added for above in parents(path)}
        if self.into:
            needed |= {self.into, *parents(self.into)}
        missing = {path for path in needed if path not in self.directories}
        kept = {above for path in self.plan.want for above in parents(path)} | {self.into}
        free = {path for path in self.directories if path and path not in kept and self.may_go(path)}
        moved = renamed_directories(
            renames, missing, {path for path in free if len(self.directories[path]) == 1}
        )
        for path in sorted(missing, key=lambda path: (path.count("/"), path)):
            if path in moved:
                before = moved[path]
                (node,) = self.directories[path] = self.directories.pop(before)
                self.relocate(node, path)
                if basename(path) != basename(before):
                    emitter.update(node, {"name": basename(path)})
            else:
                parent = self.home(dirname(path))
                node = emitter.insert(
                    parent, emitter.append_position(parent), "directory", name=basename(path)
                )
                self.directories[path] = [node]

    def may_go(self, path: str) -> bool:
        """Whether a directory lies properly below where edits are allowed."""
        if self.into and not path.startswith(self.into + "/"):
            return False
        nodes = self.directories[path]
        return self.scope is None or all(
            node != self.scope and self.tree.within(node, self.scope) for node in nodes
        )

    def home(self, path: str) -> UUID:
        """Return the node of a directory: of several the scope, or the root that all clients share."""
        nodes = self.directories[path]
        return next((node for node in (self.scope, ROOT_ID) if node is not None and node in nodes), nodes[0])

    def relocate(self, node: UUID, path: str) -> None:
        """Give a file or directory its new parent, where it differs."""
        parents_there = self.directories[dirname(path)]
        if self.tree[node].parent not in parents_there:
            home = self.home(dirname(path))
            self.emitter.move(node, home, self.emitter.append_position(home))

    def make_file(self, path: str, draft: FileDraft) -> UUID:
        parent = self.home(dirname(path))
        node = self.emitter.insert(
            parent,
            self.emitter.append_position(parent),
            "file",
            name=basename(path),
            language=draft.language,
            metadata=draft.metadata,
        )
        self.places[node] = path
        return node

    def delete(self, gone: list[str]) -> None:
        """Delete files, and the directories that lose their last file, only the topmost of them."""
        left = {above for path in self.plan.want for above in parents(path)} | {"", self.into}
        lost = {above for path in self.plan.old if path not in self.plan.want for above in parents(path)}
        going: set[str] = set()
        for path in sorted(lost, key=lambda path: -path.count("/")):
            if path in left or path not in self.directories or not self.may_go(path):
                continue
            if self.only_files(path, going):
                going.add(path)
        for path in sorted(going):
            if dirname(path) not in going:
                for node in self.directories[path]:
                    self.emitter.delete(node)
        for path in gone:
            if dirname(path) not in going:
                self.emitter.delete(self.plan.old[path].id)

    def only_files(self, path: str, going: set[str]) -> bool:
        """Whether nothing but files, and directories that go or have gone, stands in a directory."""
        for directory in self.directories[path]:
            if self.tree[directory].kind != "directory":
                return False
            for child in self.tree.children(directory):
                if child.kind == "directory":
                    below = self.layout.paths.get(child.id)  # None: its path would be too long
                    if below is not None and (below in (path, *going) or below not in self.directories):
                        continue
                    if all(node.kind == "directory" for node in self.tree.subtree(child.id)):
                        continue
                    return False
                if child.kind != "file":
                    return False
        return True

    def checked(self) -> list[Operation]:
        """Return the operations once they are known to give what is wanted; where they do not, mend them."""
        ops = self.emitter.ops
        old, want = self.plan.old, self.plan.want
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
        mending = Emitter(after, self.emitter.block, self.emitter.new_id)
        paths = after.layout().paths
        for node, path in self.places.items():
            if paths.get(node) not in (path, None):
                mending.update(node, {"name": basename(path)})
        return mending.ops

    def rewritten(self, after: Tree) -> list[Operation]:
        """Replace whatever does not hold the wanted text: an edit is never lost."""
        mending = Emitter(after, self.emitter.block, self.emitter.new_id)
        layout = after.layout()
        for path, state in self.plan.want.items():
            node = layout.files.get(path)
            if node is not None and after.state(node.id) == state:
                continue
            draft = parse_file(path, state)
            new = new_parts("file", draft.text, draft.children)
            if node is None:
                self.emitter, before = mending, self.emitter
                mending.parts(self.make_file(path, draft), None, new)
                self.emitter = before
                continue
            for child in after.children(node.id):
                mending.delete(child.id)
            metadata = {key: draft.metadata.get(key) for key in ("executable", "symlink", "encoding")}
            mending.update(node.id, {"language": draft.language}, metadata)
            mending.parts(node.id, old_parts(after, node.id), new)
        extra = (
            layout.files.keys() - self.plan.want.keys() - (self.layout.files.keys() - self.plan.old.keys())
        )
        for path in sorted(extra):
            mending.delete(layout.files[path].id)
        return mending.ops + mending.deletions

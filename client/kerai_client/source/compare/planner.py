"""From a goal to a plan: which directories and files are which, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from posixpath import basename, dirname
from uuid import UUID

from kerai_client.source.compare.contents import Contents
from kerai_client.source.compare.goal import Goal
from kerai_client.source.compare.plan import Change, Make, MakeRoot, Plan, Ref, Relocate
from kerai_client.source.compare.renames import renamed_directories, renamed_files
from kerai_client.source.syntax.draft import FileDraft
from kerai_client.source.syntax.parse import parse_file
from kerai_client.source.tree.layout import parents
from kerai_client.source.tree.node import ROOT_ID
from kerai_client.source.tree.state import FileState
from kerai_client.source.tree.tree import Tree


def make_plan(tree: Tree, goal: Goal) -> Plan:
    """Return what makes a tree hold what is wanted. What did not change keeps its nodes."""
    return _Planner(tree, goal).plan()


def file_to_make(number: int, home: Ref, path: str, draft: FileDraft) -> Make:
    """Return the step that makes a file, without what is in it."""
    return Make(number, home, "file", basename(path), draft.language, draft.metadata)


class _Planner:
    def __init__(self, tree: Tree, goal: Goal) -> None:
        self.tree = tree
        self.goal = goal
        self.layout = tree.layout()
        self.numbers = count()
        self.outline: list[MakeRoot | Make | Relocate | Change] = []
        self.places: dict[Ref, str] = {}
        self.directories: dict[str, list[Ref]] = {
            path: [node.id for node in nodes] for path, nodes in self.layout.directories.items() if nodes
        }

    def plan(self) -> Plan:
        old, want = self.goal.old, self.goal.want
        changed = [path for path in want if path in old and self.tree.state(old[path].id) != want[path]]
        gone = {path: self.tree.state(old[path].id) for path in self.goal.gone}
        added = {path: want[path] for path in want if path not in old}
        renames = renamed_files(gone, added)
        for path in renames.values():
            del gone[path]
        self.places = {old[path].id: path for path in want if path in old}
        self.places |= {old[before].id: path for path, before in sorted(renames.items())}
        self.make_directories(renames, added)
        for path, before in sorted(renames.items()):
            self.relocate(old[before].id, path)
        contents = Contents(self.tree, self.goal, self.numbers)
        kept = {path: old[path].id for path in changed} | {path: old[was].id for path, was in renames.items()}
        self.outline += [contents.change(path, node) for path, node in kept.items()]
        for path in gone:
            contents.drop(old[path].id)
        for path in sorted(added.keys() - renames.keys()):
            draft = parse_file(path, want[path])
            contents.fill(self.make_file(path, draft), draft)
        steps, deletions = contents.compare()
        deletions += self.deleted(list(gone))
        homes = {path: self.home(path) for path in self.directories}
        return Plan(tuple(self.outline), tuple(steps), tuple(deletions), self.places, homes)

    def make_directories(self, renames: Mapping[str, str], added: Mapping[str, FileState]) -> None:
        """Make, rename or move the directories that the new paths need, upper ones first."""
        into = self.goal.into
        if not added and (into in self.directories or not (into or not len(self.tree))):
            return
        if "" not in self.directories:
            self.make_root()
        needed = {above for path in added for above in parents(path)}
        if into:
            needed |= {into, *parents(into)}
        missing = {path for path in needed if path not in self.directories}
        kept = {above for path in self.goal.want for above in parents(path)} | {into}
        free = {path for path in self.directories if path and path not in kept and self.may_go(path)}
        moved = renamed_directories(
            renames, missing, {path for path in free if len(self.directories[path]) == 1}
        )
        for path in sorted(missing, key=lambda path: (path.count("/"), path)):
            if path in moved:
                self.rename_directory(moved[path], path)
            else:
                number = next(self.numbers)
                self.outline.append(Make(number, self.home(dirname(path)), "directory", basename(path)))
                self.directories[path] = [number]

    def make_root(self) -> None:
        if ROOT_ID in self.tree:  # somebody has given it a name
            number = next(self.numbers)
            self.outline.append(Make(number, None, "directory"))
            self.directories[""] = [number]
        else:
            self.outline.append(MakeRoot())
            self.directories[""] = [ROOT_ID]

    def rename_directory(self, before: str, path: str) -> None:
        (node,) = self.known(before)
        self.directories[path] = self.directories.pop(before)
        self.relocate(node, path)
        if basename(path) != basename(before):
            self.outline.append(Change(node, {"name": basename(path)}))

    def known(self, path: str) -> list[UUID]:
        """Return the nodes of a directory that are in the tree already."""
        return [node for node in self.directories[path] if not isinstance(node, int)]

    def may_go(self, path: str) -> bool:
        """Whether a directory lies properly below where edits are allowed."""
        into, scope = self.goal.into, self.goal.scope
        if into and not path.startswith(into + "/"):
            return False
        return scope is None or all(
            node != scope and self.tree.within(node, scope) for node in self.known(path)
        )

    def home(self, path: str) -> Ref:
        """Return the node of a directory: of several the scope, or the root that all clients share."""
        nodes = self.directories[path]
        preferred = (self.goal.scope, ROOT_ID)
        return next((node for node in preferred if node is not None and node in nodes), nodes[0])

    def relocate(self, node: UUID, path: str) -> None:
        """Give a file or directory its new parent, where it differs."""
        if self.tree[node].parent not in self.directories[dirname(path)]:
            self.outline.append(Relocate(node, self.home(dirname(path))))

    def make_file(self, path: str, draft: FileDraft) -> int:
        number = next(self.numbers)
        self.outline.append(file_to_make(number, self.home(dirname(path)), path, draft))
        self.places[number] = path
        return number

    def deleted(self, gone: list[str]) -> list[UUID]:
        """Return the files that go, and the topmost directories that lose their last file."""
        left = {above for path in self.goal.want for above in parents(path)} | {"", self.goal.into}
        lost = {above for path in self.goal.gone for above in parents(path)}
        going: set[str] = set()
        for path in sorted(lost, key=lambda path: -path.count("/")):
            if path in left or path not in self.directories or not self.may_go(path):
                continue
            if self.only_files(path, going):
                going.add(path)
        tops = [path for path in sorted(going) if dirname(path) not in going]
        files = [path for path in gone if dirname(path) not in going]
        return [node for path in tops for node in self.known(path)] + [
            self.goal.old[path].id for path in files
        ]

    def only_files(self, path: str, going: set[str]) -> bool:
        """Whether nothing but files, and directories that go or have gone, stands in a directory."""
        for directory in self.known(path):
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

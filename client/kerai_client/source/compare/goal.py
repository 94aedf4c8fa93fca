"""What a comparison has to achieve: the paths of the tree and of the directory, within a scope."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from kerai_client.source.compare.match import Matcher
from kerai_client.source.compare.part import Part, new_parts, old_parts, pair
from kerai_client.source.compare.splice import clip_parts
from kerai_client.source.syntax.parse import parse_file
from kerai_client.source.tree.layout import SourceError, check_paths, parents, settled
from kerai_client.source.tree.node import Node
from kerai_client.source.tree.state import FileState, Snapshot, text_of
from kerai_client.source.tree.tree import Tree


@dataclass(frozen=True, slots=True)
class Goal:
    """What a tree shall hold.

    :param old: the files of the tree that are compared, by full path.
    :param want: the files that are wanted, by full path.
    :param into: the directory of the tree that the comparison is confined to, ``''`` for all.
    :param scope: the node that edits are confined to.
    :param outside: the paths whose edits are left out.
    :param inner: the path of the file with the scope in it, and the scope's old and new parts.
    """

    old: Mapping[str, Node]
    want: Snapshot
    into: str
    scope: UUID | None
    outside: tuple[str, ...] = ()
    inner: tuple[str, Part, Part] | None = None

    @property
    def gone(self) -> list[str]:
        """The paths of the tree that are not wanted."""
        return [path for path in self.old if path not in self.want]


def make_goal(tree: Tree, snapshot: Snapshot, into: str, scope: UUID | None, unread: Collection[str]) -> Goal:
    """Compare paths and leave out what the caller does not want changed.

    :raises SourceError: when a path is no path, ``into`` is a file, or the scope is not in the tree.
    """
    into = "/".join(part for part in into.split("/") if part not in ("", "."))
    layout = tree.layout()
    prefix = into + "/" if into else ""
    for above in [*parents(into), into]:
        if above in layout.files:
            raise SourceError(f"{above!r} is a file in the tree, so nothing can be put below it")
    old = {path: node for path, node in layout.files.items() if path.startswith(prefix)}
    want = {prefix + path: state for path, state in snapshot.items()}
    check_paths(want)
    if into:
        check_paths({into: FileState(b"")})
    hidden = {prefix + path.strip("/") for path in unread}
    for path, node in old.items():
        if path in hidden or any(above in hidden for above in parents(path)):
            want.setdefault(path, tree.state(node.id))
    files = want.keys() | (layout.files.keys() - old.keys())
    want = {path: settled(path, state, files) for path, state in want.items()}
    if scope is None:
        return Goal(old, want, into, scope)
    confined = _Confined(tree, scope, old, want)
    confined.run()
    return Goal(old, want, into, scope, tuple(confined.outside), confined.inner)


class _Confined:
    """Makes ``want`` hold the old state wherever the scope does not reach."""

    def __init__(self, tree: Tree, scope: UUID, old: Mapping[str, Node], want: Snapshot) -> None:
        self.tree = tree
        self.scope = scope
        self.old = old
        self.want = want
        self.outside: list[str] = []
        self.inner: tuple[str, Part, Part] | None = None

    def run(self) -> None:
        if self.scope not in self.tree:
            hint = "it may have been deleted meanwhile"
            raise SourceError(f"the scope {self.scope} is not in the tree", hint=hint)
        layout = self.tree.layout()
        home = self.tree.path_of(self.scope)
        directory = any(node.id == self.scope for node in layout.directories.get(home, ()))
        for path in sorted(self.old.keys() | self.want.keys()):
            node = self.old.get(path)
            state = self.tree.state(node.id) if node is not None else None
            if self.want.get(path) == state:
                continue
            if directory:
                below = not home or path.startswith(home + "/")
                if below if node is None else self.tree.within(node.id, self.scope):
                    continue
            elif path == home and (self.scope == layout.files[home].id or self.confine_file(path)):
                continue
            self.outside.append(path)
            if state is None:
                del self.want[path]
            else:
                self.want[path] = state

    def confine_file(self, path: str) -> bool:
        """Confine the edits of a file to one node in it; False when none of them can be."""
        file = self.old[path]
        if path not in self.want:
            return False
        now, wish = self.tree.state(file.id), self.want[path]
        text, metadata = text_of(wish)
        if metadata != text_of(now)[1]:
            return False
        root = old_parts(self.tree, file.id)
        part = next(below for below in root.walk() if below.id == self.scope)
        before, after = root.source[: part.start], root.source[part.end :]
        new = _parsed(path, wish, file)
        if not _surrounds(before, after, text):
            # There are edits outside as well: take over only what the node itself became.
            self.outside.append(path)
            matcher = Matcher()
            matcher.add(root, new)
            matcher.run()
            middle = part.text if part.match is None or part.whole else _text(part.match)
            wish = FileState((before + middle + after).encode(), wish.executable, wish.symlink)
            text, new = before + middle + after, _parsed(path, wish, file)
            part = next(below for below in old_parts(self.tree, file.id).walk() if below.id == self.scope)
        self.want[path] = wish
        if wish == now:
            return True
        low, high = len(before), len(text) - len(after)
        self.inner = (path, part, _as_one(part, clip_parts(new.children, low, high), text[low:high]))
        return True


def _surrounds(before: str, after: str, text: str) -> bool:
    return len(before) + len(after) <= len(text) and text.startswith(before) and text.endswith(after)


def _parsed(path: str, state: FileState, file: Node) -> Part:
    draft = parse_file(path, state, file.language)
    return new_parts("file", draft.text, draft.children)


def _text(new: Part) -> str:
    """Return the text of a new part; a mirror of an old one has its text in its children."""
    if new.whole or not new.children:
        return new.text if new.content is None else new.content
    return "".join(map(_text, new.children))


def _as_one(old: Part, pieces: list[Part], text: str) -> Part:
    """Return one new part that stands for ``old`` and holds ``pieces``."""
    if len(pieces) == 1 and pieces[0].is_container == old.is_container and pieces[0].is_leaf == old.is_leaf:
        new = pieces[0]
    else:
        new = Part(old.kind, text, 0, len(text), name=old.name, content=text if old.is_leaf else None)
        if not old.is_leaf:
            new.adopt(pieces)
    pair(old, new)
    return new

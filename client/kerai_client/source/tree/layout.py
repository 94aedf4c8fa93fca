"""Where a tree's files stand in a directory: which path belongs to which node.

A tree may hold any names: an author can push names that no directory can hold. So each file and directory of
the tree gets a path that can be written, and a name that can be written stays. ``kerai.checkout()`` repeats
the rule in SQL, so a change here is a change there. A directory here is any node that is no file and not
below one, such as a package. The rule:

1. *Entry.* The entry of a node is its name, but

   - a directory without a name (NULL or empty), such as the root, adds nothing to paths: its files stand
     where it stands itself. A file without a name is ``unnamed-<id>``;
   - ``.``, ``..``, ``.git`` and ``.kerai`` are ``%2E``, ``%2E%2E``, ``%2Egit`` and ``%2Ekerai`` (the last two
     would tell programs in the directory what to run);
   - ``/`` is ``%2F``, and NUL, which PostgreSQL cannot hold, is ``%00``. No other character is replaced, also
     no ``%``;
   - when it has more than 255 bytes of UTF-8 then, it is its first 50 characters, ``~``, and the node's id.

2. *Clashes.* Directories of one path are one directory. Of the files in it that have the same entry, the
   first in pre-order keeps it, unless a directory has it. The others follow in pre-order. The stem is the
   entry or, when that has more than 240 bytes, its first 50 characters, ``~`` and the id. The file gets
   ``<stem>~<number>`` with the smallest number from 2 that is free. A number is free when no file or
   directory there (of step 1) has that entry, and no name was given before. So the n-th file of a stem gets
   the n-th number that is free.

3. *Too long.* What would have a path of more than 2000 bytes is left out, with all below it.

The id is written in lower case with hyphens. A node below a file has no path of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from posixpath import dirname
from uuid import UUID

from kerai_client.errors import KeraiError
from kerai_client.source.tree.node import Node
from kerai_client.source.tree.state import FileState, Snapshot

MAX_ENTRY_BYTES = 255
MAX_PATH_BYTES = 2000  # the system takes 4096, with the directory that the tree is written to
RESERVED = (".git", ".kerai")
"""Names that a directory has for programs: never read into a tree, and never written from one."""

_ESCAPED = (".", "..", *RESERVED)
_STEM_BYTES = 240


class SourceError(KeraiError, ValueError):
    """A tree or directory that cannot be worked on as asked."""


class UnsafeTree(SourceError):
    """Files that must not be written: a path or a link that would lead out of the directory."""


def entry_of(name: str, node: UUID) -> str:
    """Return the entry of a directory that stands for a name, step 1 of the rule; ``''`` for no name."""
    if name in _ESCAPED:
        return name.replace(".", "%2E")
    entry = name.replace("/", "%2F").replace("\0", "%00")
    return entry if _size(entry) <= MAX_ENTRY_BYTES else _shortened(entry, node)


def _shortened(entry: str, node: UUID) -> str:
    return f"{entry[:50]}~{node}"


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def path_problem(path: str) -> str | None:
    """Return why no file of a tree can have this path, None when one can. Such a path is clean, relative and
    not too long, and its parts are entries that stand for themselves."""
    if _size(path) > MAX_PATH_BYTES:
        return f"its path has more than {MAX_PATH_BYTES} bytes"
    for part in path.split("/"):
        if part in RESERVED:
            return f"{part} is not kept in a tree"
        if not part or part in _ESCAPED or "\0" in part:
            return "it is not a clean relative path"
        if _size(part) > MAX_ENTRY_BYTES:
            return f"a name in it has more than {MAX_ENTRY_BYTES} bytes"
    return None


def check_paths(snapshot: Snapshot) -> None:
    """Check that every path is one that a tree's file can have, and that no file is also a directory.

    :raises UnsafeTree: on the first that is not.
    """
    above: set[str] = set()
    for path in snapshot:
        problem = path_problem(path)
        if problem is not None:
            raise UnsafeTree(f"{path[:200]!r} cannot be a file's path: {problem}")
        above.update(parents(path))
    for path in above:
        if path in snapshot:
            raise UnsafeTree(f"{path!r} cannot be both a file and a directory")


def parents(path: str) -> Iterable[str]:
    """Yield the directories above a path, nearest first, without the empty one."""
    path = dirname(path)
    while path:
        yield path
        path = dirname(path)


def settled(path: str, state: FileState, files: Container[str]) -> FileState:
    """Return a file as it may stand at a path: a symlink that could lead out of the directory is a file that
    holds the target.

    A target stays inside when it is relative and none of its ``..`` goes above the top or comes after
    a file (which may be a link). Then it stays inside through other such links too, by induction: each
    ``..`` is taken from a real directory, and the rest only leads down.

    :param files: the paths of all files.
    """
    if not state.symlink:
        return state
    if _stays_inside(path, state.data, files):
        return FileState(state.data, False, True) if state.executable else state
    return FileState(state.data, state.executable)


def _stays_inside(path: str, data: bytes, files: Container[str]) -> bool:
    try:
        target = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if not target or target.startswith("/") or "\0" in target or len(data) > MAX_PATH_BYTES:
        return False
    here = path.split("/")[:-1]
    after_file = False
    for step in target.split("/"):
        if step == "..":
            if not here or after_file:
                return False
            here.pop()
        elif step not in ("", "."):
            here.append(step)
            after_file = after_file or "/".join(here) in files
    return True


@dataclass(slots=True)
class Layout:
    """The files and directories of a tree by posix path, and back.

    A directory has several nodes when two authors made it at the same time; their entries mingle.
    """

    files: dict[str, Node] = field(default_factory=dict)
    directories: dict[str, list[Node]] = field(default_factory=dict)
    paths: dict[UUID, str] = field(default_factory=dict)


def lay_out(tops: Iterable[Node], children: Callable[[UUID], list[Node]]) -> Layout:
    """Give every visible file and directory its path, by the rule above: equal trees get equal paths.

    :param tops: the nodes without a parent.
    :param children: the visible children of a node, in order.
    """
    layout = Layout()
    pending: list[tuple[str, list[Node], list[Node]]] = [("", [], list(tops))]
    while pending:
        path, nodes, entries = pending.pop()
        files: list[Node] = []
        directories: dict[str, list[Node]] = {}
        entries.reverse()
        while entries:
            entry = entries.pop()
            if entry.kind == "file":
                files.append(entry)
            elif entry.name:
                directories.setdefault(entry_of(entry.name, entry.id), []).append(entry)
            else:
                nodes.append(entry)
                entries.extend(reversed(children(entry.id)))
        layout.directories[path] = nodes
        layout.paths.update((node.id, path) for node in nodes)
        prefix = path + "/" if path else ""
        free = MAX_PATH_BYTES - _size(prefix)
        for name, entry in _distinct(files, set(directories)):
            if _size(name) <= free:
                layout.files[prefix + name] = entry
                layout.paths[entry.id] = prefix + name
        for name, same in directories.items():
            if _size(name) <= free:
                below = [child for directory in same for child in children(directory.id)]
                pending.append((prefix + name, same, below))
    return layout


def _distinct(files: list[Node], taken: set[str]) -> list[tuple[str, Node]]:
    """Pair files with names of which no two are equal and none is in ``taken``: step 2 of the rule."""
    named: list[tuple[str, Node]] = []
    again: list[tuple[str, Node]] = []
    for file in files:
        entry = entry_of(file.name or "", file.id) or f"unnamed-{file.id}"
        if entry in taken:
            again.append((entry, file))
        else:
            taken.add(entry)
            named.append((entry, file))
    last: dict[str, int] = {}
    for entry, file in again:
        stem = entry if _size(entry) <= _STEM_BYTES else _shortened(entry, file.id)
        number = last.get(stem, 1) + 1
        while f"{stem}~{number}" in taken:
            number += 1
        last[stem] = number
        taken.add(f"{stem}~{number}")
        named.append((f"{stem}~{number}", file))
    return named

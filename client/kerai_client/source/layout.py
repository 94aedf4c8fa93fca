"""Where a tree's files stand in a directory: which path belongs to which node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

from kerai_client.errors import KeraiError

from .node import Node


class SourceError(KeraiError, ValueError):
    """A tree or directory that cannot be worked on as asked."""


class UnsafeTree(SourceError):
    """A tree that must not become files: a name or a link that would lead out of the directory."""


def check_name(name: str | None, where: str) -> str:
    """Return ``name`` when it names one entry of a directory.

    :param where: the directory's path, for the message.
    :raises UnsafeTree: when it is empty, ``.``, ``..``, or holds a slash or NUL.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise UnsafeTree(
            f"{name!r} is not a name that a file or directory can have",
            detail=f"it stands in the directory {where or '.'!r} of the tree",
            hint="rename or delete that node; nothing was written",
        )
    return name


@dataclass(slots=True)
class Layout:
    """The files and directories of a tree by posix path, and back.

    A directory has several nodes when two authors made it at the same time; their entries mingle.
    """

    files: dict[str, Node] = field(default_factory=dict)
    directories: dict[str, list[Node]] = field(default_factory=dict)
    paths: dict[UUID, str] = field(default_factory=dict)


def lay_out(tops: Iterable[Node], children: Callable[[UUID], list[Node]]) -> Layout:
    """Give every visible file and directory its path.

    An unnamed directory (the root) adds nothing to paths. Of several files of one name, or a file and a
    directory of one name, the first file in sibling order keeps the name if no directory has it, and the
    others get ``~2``, ``~3`` … appended: nothing is hidden, and equal trees get equal paths.

    :param tops: the nodes without a parent.
    :param children: the visible children of a node, in order.
    :raises UnsafeTree: when a name is not the name of a directory entry.
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
            elif entry.kind == "directory" and entry.name:
                directories.setdefault(check_name(entry.name, path), []).append(entry)
            elif entry.kind == "directory":
                nodes.append(entry)
                entries.extend(reversed(children(entry.id)))
        layout.directories[path] = nodes
        layout.paths.update((node.id, path) for node in nodes)
        prefix = path + "/" if path else ""
        for name, entry in _distinct(files, set(directories), path):
            layout.files[prefix + name] = entry
            layout.paths[entry.id] = prefix + name
        for name, same in directories.items():
            below = [child for directory in same for child in children(directory.id)]
            pending.append((prefix + name, same, below))
    return layout


def _distinct(files: list[Node], taken: set[str], path: str) -> list[tuple[str, Node]]:
    """Pair files with names of which no two are equal and none is in ``taken``."""
    named: list[tuple[str, Node]] = []
    again: list[Node] = []
    for file in files:
        name = check_name(file.name, path)
        if name in taken:
            again.append(file)
        else:
            taken.add(name)
            named.append((name, file))
    for file in again:
        number = 2
        while f"{file.name}~{number}" in taken:
            number += 1
        taken.add(f"{file.name}~{number}")
        named.append((f"{file.name}~{number}", file))
    return named

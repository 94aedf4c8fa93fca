"""Make the tree, or a part of it, mirror a directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerai_client.errors import KeraiError
from kerai_client.session import Session, read_state
from kerai_client.source import Problem, Snapshot, diff, read_directory, snapshot_of

# stage, how much is done, of how much (None: not known)
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did. ``nodes`` counts the tree's nodes that the operations made or touched."""

    files: int
    nodes: int
    operations: int
    problems: list[Problem]


def import_directory(
    session: Session,
    directory: Path,
    *,
    into: str = "",
    message: str = "",
    replace: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Push what makes the tree at ``into`` hold the same files as a directory.

    :param replace: also when most of the files there would be deleted.
    :raises KeraiError: when most would, and ``replace`` is not given: that is rather a wrong directory.
    """
    tell = progress or (lambda stage, done, total: None)
    state = read_state(session.database)
    into = "/".join(part for part in into.split("/") if part not in ("", "."))
    prefix = f"{into}/" if into else ""
    there = {
        path[len(prefix) :]: file for path, file in snapshot_of(state.tree).items() if path.startswith(prefix)
    }
    snapshot, problems = read_directory(
        directory,
        progress=lambda done: tell("reading", done, None),
        tracked=there.keys(),
        git=True,
    )
    unread = {problem.path for problem in problems} - snapshot.keys()
    if not replace:
        _refuse_mass_deletion(there, snapshot, unread, directory)
    tell("comparing", 0, None)
    operations = diff(state.tree, snapshot, author=session.author, into=into, unread=unread)
    tell("pushing", 0, len(operations))
    session.push(
        operations,
        state.vector,
        message=message,
        progress=lambda done: tell("pushing", done, len(operations)),
    )
    nodes = len({operation["node"] for operation in operations if "node" in operation})
    return Report(len(snapshot), nodes, len(operations), problems)


def _refuse_mass_deletion(there: Snapshot, new: Snapshot, unread: set[str], directory: Path) -> None:
    # A file that was only renamed is not lost.
    kept = {state.data for state in new.values()}
    lost = sorted(
        path
        for path, state in there.items()
        if path not in new and path not in unread and state.data not in kept
    )
    if 2 * len(lost) > len(there):
        raise KeraiError(
            f"this would delete {len(lost)} of the {len(there)} files in the tree",
            detail=f"{directory} does not have {', '.join(lost[:5])}{' …' if len(lost) > 5 else ''}",
            hint="import another directory beside them with --into PATH, or say --replace",
        )

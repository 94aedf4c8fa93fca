"""Write a state of the tree into a directory, without losing what a user has changed there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kerai_client.agent.state import State
from kerai_client.db.connection import Database
from kerai_client.errors import KeraiError, reason_of
from kerai_client.repo.record import (
    DIRECTORY,
    Place,
    Record,
    digest,
    digests,
    found_digest,
    instance_or_none,
    known_record,
)
from kerai_client.source import Snapshot, snapshot_of, write_directory


@dataclass(frozen=True, slots=True)
class Written:
    """How many files a checkout wrote, and how many it removed.

    ``not_remembered``: why the next checkout will not know what this one wrote, None when it will.
    """

    files: int
    removed: int
    not_remembered: str | None


def write_checkout(
    database: Database, state: State, directory: Path, *, scope: str = "", force: bool = False
) -> Written:
    """Make a directory hold the files of a state.

    :param database: where the state was read.
    :param scope: only the file at this path and those below it.
    :param force: overwrite what the user has changed, and take a directory that is no checkout.
    :raises KeraiError: when the scope is not in the tree, or the directory holds something to lose.
    """
    scope = "" if scope == "." else scope
    snapshot = {
        path: file
        for path, file in snapshot_of(state.tree).items()
        if scope in ("", path) or path.startswith(f"{scope}/")
    }
    if scope and not snapshot:
        raise KeraiError(
            f"there is no file at or below {scope!r} in the tree", hint="kerai checkout DIR writes all"
        )
    place = Place(directory, "")
    with place.locked():
        former = known_record(place, database, lenient=force)
        before = _files_before(place, former, snapshot, scope, force)
        if not force:
            _refuse_overwriting(directory, before, snapshot)
        gone = [path for path in before if path not in snapshot and found_digest(directory, path) is not None]
        write_directory(snapshot, directory, previous=before.keys())
        record = Record(instance_or_none(database), state.vector, digests(snapshot), scope)
        return Written(len(snapshot), len(gone), _remember(place, record, former))


def _files_before(
    place: Place, former: Record | None, snapshot: Snapshot, scope: str, force: bool
) -> Mapping[str, str]:
    """Return the digests of the files that are known to be in the tree, by path."""
    if former is not None:
        return former.files or {}
    records = place.read(lenient=force)
    if force:
        return (records[0].files or {}) if records else {}
    if records:
        raise KeraiError(
            f"{place.directory} was made from a state that this database does not have",
            hint="`kerai sync` it with the one that has, name another directory, or write over it: --force",
        )
    if not place.directory.exists() or _nothing_else(place.directory, snapshot):
        return {}
    if scope and Place(place.directory, scope).read(lenient=True):
        raise KeraiError(
            f"{place.directory} was imported into {scope}, and a checkout writes whole paths",
            detail=f"the files would go to {place.directory / scope}",
            hint="check out into a new directory, and work there",
        )
    raise KeraiError(
        f"{place.directory} is not empty, and not an earlier checkout",
        hint="name another directory, or write over it with --force",
    )


def _nothing_else(directory: Path, snapshot: Snapshot) -> bool:
    """Whether all that a directory holds is to be written there: a checkout that was cut off left it."""
    above = {parent.as_posix() for path in snapshot for parent in PurePosixPath(path).parents}
    for here, folders, files in os.walk(directory):
        inside = Path(here).relative_to(directory)
        for name in [*files, *folders]:
            path = (inside / name).as_posix()
            if name in folders and path in above and not (directory / path).is_symlink():
                continue
            if path not in snapshot or found_digest(directory, path) != digest(snapshot[path]):
                return False
    return True


def _remember(place: Place, record: Record, former: Record | None) -> str | None:
    """Keep the record of a checkout, whole or not at all; return why not, None when it is kept.

    The files are written by then, and an account without a writable home can do without the record.
    """
    try:
        place.write(record, former)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        return reason_of(error)
    return None


def _all_ours(directory: Path, path: str, before: Mapping[str, str]) -> bool:
    """Whether a directory will be gone when the earlier checkout's files are: they are all that is in it."""
    for here, folders, files in os.walk(directory / path):
        links = [name for name in folders if Path(here, name).is_symlink()]
        inside = [Path(here, name).relative_to(directory).as_posix() for name in files + links]
        if not (folders or files) or not before.keys() >= set(inside):
            return False
    return True


def _refuse_overwriting(directory: Path, before: Mapping[str, str], snapshot: Snapshot) -> None:
    changed = []
    for path in sorted(before.keys() | snapshot.keys()):
        found = found_digest(directory, path)
        if found is None or (path in snapshot and found == digest(snapshot[path])):
            continue
        if path in before:
            expected = found == before[path]
        else:
            expected = found == DIRECTORY and _all_ours(directory, path, before)
        if not expected:
            changed.append(path)
    if changed:
        raise KeraiError(
            f"{len(changed)} files in {directory} have changes that a checkout would lose",
            detail=", ".join(changed[:5]) + (" …" if len(changed) > 5 else ""),
            hint="`kerai import` them first, or write over them with --force",
        )

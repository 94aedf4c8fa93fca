"""Write a state of the tree into a directory, without losing what a user has changed there."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerai_client.errors import KeraiError
from kerai_client.session import State
from kerai_client.source import FileState, Snapshot, snapshot_of, write_directory

DIRECTORY = "directory"


def record_file(directory: Path) -> Path:
    """Return where it is kept what a checkout wrote: with the user's state, so that the directory holds
    the tree's files and nothing else."""
    base = os.environ.get("XDG_STATE_HOME", "")
    state = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()
    return state / "kerai" / "checkouts" / f"{name}.json"


@dataclass(frozen=True, slots=True)
class Written:
    """How many files a checkout wrote, and how many it removed.

    ``not_remembered``: why the next checkout will not know what this one wrote, None when it will.
    """

    files: int
    removed: int
    not_remembered: str | None


def write_checkout(state: State, directory: Path, *, scope: str = "", force: bool = False) -> Written:
    """Make a directory hold the files of a state.

    :param scope: only the file at this path and those below it.
    :param force: overwrite what the user has changed, and take a directory that is no checkout.
    :raises KeraiError: when the scope is not in the tree, or the directory holds something to lose.
    """
    snapshot = {
        path: file
        for path, file in snapshot_of(state.tree).items()
        if scope in ("", ".", path) or path.startswith(f"{scope}/")
    }
    if scope not in ("", ".") and not snapshot:
        raise KeraiError(
            f"there is no file at or below {scope!r} in the tree", hint="kerai checkout DIR writes all"
        )
    before = _record_of(directory, lenient=force)
    if before is None and directory.exists() and any(directory.iterdir()) and not force:
        raise KeraiError(
            f"{directory} is not empty, and not an earlier checkout",
            hint="name another directory, or write over it with --force",
        )
    before = before or {}
    if not force:
        _refuse_overwriting(directory, before, snapshot)
    gone = [path for path in before if path not in snapshot and _found(directory, path) is not None]
    write_directory(snapshot, directory, previous=before)
    record = {
        "vector": state.vector,
        "directory": _identity(directory),
        "files": {path: _digest(file) for path, file in snapshot.items()},
    }
    return Written(len(snapshot), len(gone), _remember(directory, record))


def _identity(directory: Path) -> list[int]:
    found = directory.stat()
    return [found.st_dev, found.st_ino]


def _digest(file: FileState) -> str:
    kind = b"l" if file.symlink else b"x" if file.executable else b"f"
    return hashlib.sha256(kind + file.data).hexdigest()


def _found(directory: Path, path: str) -> str | None:
    """Return the digest of what is at a path of the directory, None when nothing is.

    What cannot be read, or is neither file nor symlink, has a digest that no file has.
    """
    place = directory / path
    try:
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            return _digest(FileState(os.fsencode(place.readlink()), False, True))
        if stat.S_ISREG(mode):
            return _digest(FileState(place.read_bytes(), bool(mode & stat.S_IXUSR), False))
        return DIRECTORY if stat.S_ISDIR(mode) else "other"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return "unreadable"


def _all_ours(directory: Path, path: str, before: dict[str, str]) -> bool:
    """Whether a directory will be gone when the earlier checkout's files are: they are all that is in it."""
    for here, folders, files in os.walk(directory / path):
        links = [name for name in folders if Path(here, name).is_symlink()]
        inside = [Path(here, name).relative_to(directory).as_posix() for name in files + links]
        if not (folders or files) or not before.keys() >= set(inside):
            return False
    return True


def _remember(directory: Path, record: dict[str, Any]) -> str | None:
    """Keep the record of a checkout, whole or not at all; return why not, None when it is kept.

    The files are written by then, and an account without a writable home can do without the record.
    """
    temporary = None
    try:
        file = record_file(directory)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(record, stream)
        Path(temporary).replace(file)
        return None
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return str(error)


def _record_of(directory: Path, lenient: bool) -> dict[str, str] | None:
    """Return what an earlier checkout wrote into a directory, None when there was none."""
    try:
        record = json.loads(record_file(directory).read_text("utf-8"))
        if record["directory"] != _identity(directory):
            return None  # another directory stands there now
        return {str(path): str(digest) for path, digest in record["files"].items()}
    except (OSError, RuntimeError):  # there is none, or no home to have one in
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if lenient:
            return None
        raise KeraiError(
            f"cannot read {record_file(directory)}", detail=str(error), hint="write over it with --force"
        ) from error


def _refuse_overwriting(directory: Path, before: dict[str, str], snapshot: Snapshot) -> None:
    changed = []
    for path in sorted(before.keys() | snapshot.keys()):
        found = _found(directory, path)
        if found is None or (path in snapshot and found == _digest(snapshot[path])):
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

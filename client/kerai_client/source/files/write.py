"""Writing a snapshot into a directory, and never outside of it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

from kerai_client.errors import path_in_errors
from kerai_client.source.tree.layout import UnsafeTree, check_paths, parents, settled
from kerai_client.source.tree.state import FileState, Snapshot
from kerai_client.source.tree.tree import Tree, snapshot_of


def write_directory(tree: Tree | Snapshot, directory: Path, previous: Collection[str] = ()) -> None:
    """Make a directory hold the files of a tree: bytes, executable bits, symlinks.

    Files that are right already keep their modification time. Other files in the directory stay, except
    those of ``previous``. Each file appears at once, by renaming, so a reader never sees half of one.

    :param tree: a tree, or a snapshot of one.
    :param directory: made when missing.
    :param previous: paths that an earlier call wrote: what the tree no longer has of them is removed,
        with the directories that this empties.
    :raises UnsafeTree: when a path or a symlink leads out of the directory, by its name or because of
        a symlink that is there already. Names are checked before anything is written. Also when a
        directory that holds other files stands where a file belongs.
    :raises OSError: when something cannot be written.
    """
    snapshot = snapshot_of(tree) if isinstance(tree, Tree) else tree
    check_paths(snapshot)
    for path, state in snapshot.items():
        if state.symlink and not settled(path, state, snapshot).symlink:
            raise UnsafeTree(
                f"the symlink {path!r} is not one that stays inside of the directory",
                detail=f"its target is {state.data[:200]!r}",
                hint="delete that node; nothing was written",
            )
    directory.mkdir(parents=True, exist_ok=True)
    writer = _Writer(Path(os.path.realpath(directory)))
    writer.remove([path for path in previous if path not in snapshot])
    for path, state in snapshot.items():
        writer.write(path, state)


class _Writer:
    def __init__(self, top: Path) -> None:
        self.top = top
        self.umask = os.umask(0)
        os.umask(self.umask)
        self.made: set[str] = set()  # directories that are known to be directories

    def remove(self, paths: Collection[str]) -> None:
        """Remove files, and the directories that are empty then."""
        check_paths({path: FileState(b"") for path in paths if not set(parents(path)) & set(paths)})
        for path in paths:
            if not self.is_real(path):
                continue
            with contextlib.suppress(
                FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
            ):
                (self.top / path).unlink()
            for above in parents(path):
                try:
                    (self.top / above).rmdir()
                except OSError:
                    break

    def is_real(self, path: str) -> bool:
        """Whether everything above a path is a directory, and no symlink."""
        for above in parents(path):
            try:
                if not stat.S_ISDIR((self.top / above).lstat().st_mode):
                    return False
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def write(self, path: str, state: FileState) -> None:
        for above in reversed(list(parents(path))):
            self.directory(above, path)
        place = self.top / path
        if self.is_right(place, state):
            return
        descriptor, name = tempfile.mkstemp(prefix=".kerai-", dir=place.parent)
        temporary = Path(name)
        try:
            if state.symlink:
                os.close(descriptor)
                temporary.unlink()
                temporary.symlink_to(state.data.decode("utf-8"))
            else:
                with path_in_errors(place), os.fdopen(descriptor, "wb") as file:
                    file.write(state.data)
                    os.fchmod(file.fileno(), (0o777 if state.executable else 0o666) & ~self.umask)
            self.put(temporary, place, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    @staticmethod
    def put(temporary: Path, place: Path, path: str) -> None:
        """Rename a file to its place. An empty directory gives way; what is in a full one is not lost."""
        try:
            temporary.replace(place)
        except IsADirectoryError:
            try:
                place.rmdir()
            except OSError:
                raise UnsafeTree(
                    f"cannot write {path!r}: a directory with other files in it is there",
                    detail=str(place),
                    hint="move it away",
                ) from None
            temporary.replace(place)

    def directory(self, path: str, wanted: str) -> None:
        if path in self.made:
            return
        place = self.top / path
        with contextlib.suppress(FileExistsError):
            place.mkdir()
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise UnsafeTree(
                f"cannot write {wanted!r}: {path!r} is there already and is no directory",
                hint="remove it; nothing is written through a symlink",
            )
        self.made.add(path)

    def is_right(self, place: Path, state: FileState) -> bool:
        """Whether a file is as it should be; a wrong executable bit alone is corrected on the spot."""
        try:
            found = place.lstat()
        except FileNotFoundError:
            return False
        if state.symlink:
            return stat.S_ISLNK(found.st_mode) and os.readlink(os.fsencode(place)) == state.data  # noqa: PTH115
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(state.data):
            return False
        try:
            if place.read_bytes() != state.data:
                return False
        except PermissionError:
            return False
        if bool(found.st_mode & stat.S_IXUSR) != state.executable:
            wanted = (0o777 if state.executable else 0o666) & ~self.umask
            place.chmod(wanted)
        return True

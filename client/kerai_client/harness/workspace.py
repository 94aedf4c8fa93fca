"""The folder that an agent works in, and the removal of those that dead agents have left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

OWNER = "owner"
TURN_POLL_SECONDS = 0.05
TURNS = 2**48  # so many bytes of the file of turns are for turns; reserved names lie behind them


class Workspace:
    """A temporary folder: ``tree`` is the working tree, what the solver is told lies beside it, and
    ``temporary`` is for what solver and tests make themselves.

    An agent that is killed with -9 cannot remove its folder. Its lock in the folder dies with it, and the
    next workspace that is made removes every folder without a lock.
    """

    def __init__(self, name: str, parent: Path | None = None) -> None:
        self._base = _base(parent or Path(tempfile.gettempdir()))
        with _locked(self._base / "lock"):
            _remove_abandoned(self._base)
            self.path = Path(tempfile.mkdtemp(prefix=f"{name[:40]}-".replace("/", "_"), dir=self._base))
            self._owner = self._own()
        self._turns = os.open(
            self._base / "turns", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self.tree = self.path / "tree"
        self.temporary = self.path / "tmp"
        self.task_file = self.path / "task.md"
        self.test_output = self.path / "test-output.txt"

    def clear(self) -> None:
        """Empty the working tree, and what was temporary, whatever a solver has made of them."""
        self._keep()
        for folder in (self.tree, self.temporary):
            remove(folder)
            folder.mkdir()

    def require_tree(self) -> None:
        """Check that the working tree is still a folder, and no link to another one.

        :raises OSError: when it is not.
        """
        if not stat.S_ISDIR(self.tree.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.tree))

    def reserve(self, name: str) -> bool:
        """Hold an agent's name until this process ends; say whether no other of this user's holds it."""
        start = TURNS + int.from_bytes(sha256(name.encode()).digest()[:6])
        try:
            fcntl.lockf(self._turns, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _own(self) -> int:
        """Return the lock that says that the folder has an owner who lives."""
        owner = os.open(self.path / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(owner, fcntl.LOCK_EX)
        os.write(owner, f"{os.getpid()}\n".encode())
        return owner

    def _keep(self) -> None:
        """Make the folder again when it is gone, or no folder of this user's any more."""
        try:
            kept = os.path.samestat((self.path / OWNER).lstat(), os.fstat(self._owner))
        except OSError:
            kept = False
        if kept and not self.path.is_symlink():
            return
        self._base.mkdir(mode=0o700, exist_ok=True)
        with _locked(self._base / "lock"):
            remove(self.path)
            self.path.mkdir(mode=0o700)
            os.close(self._owner)
            self._owner = self._own()

    @contextmanager
    def turn(self, number: int, waiting: Callable[[], None]) -> Iterator[None]:
        """Be the only agent of this machine (and user) that is in the turn of this number.

        A record lock on one byte of a file that all workspaces share: it ends with the process, too.

        :param waiting: called again and again while another agent has the turn.
        """
        start = number % TURNS
        while True:
            try:
                fcntl.lockf(self._turns, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
                break
            except (BlockingIOError, PermissionError):
                waiting()
                time.sleep(TURN_POLL_SECONDS)
        try:
            yield
        finally:
            fcntl.lockf(self._turns, fcntl.LOCK_UN, 1, start)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder."""
        remove(self.path)
        os.close(self._turns)
        os.close(self._owner)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, read-only folders too; what is gone already is fine."""

    def make_writable(function: object, path: str, info: object) -> None:
        try:
            Path(path).parent.chmod(0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                Path(path).chmod(0o700)
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink()
        except OSError:
            return

    shutil.rmtree(folder, onerror=make_writable)


def _base(parent: Path) -> Path:
    """Return the folder that holds this user's workspaces, nobody else's."""
    base = parent / f"kerai-agents-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        # Somebody else was there first: in a shared /tmp that may be on purpose.
        return Path(tempfile.mkdtemp(prefix="kerai-agents-", dir=parent))
    return base


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(base: Path) -> None:
    for folder in base.iterdir():
        if not folder.is_dir() or folder.is_symlink():
            continue
        try:
            descriptor = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            remove(folder)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            remove(folder)
        finally:
            os.close(descriptor)

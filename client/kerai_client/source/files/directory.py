"""Reading a directory: every file that belongs to it, and a line for every one that could not be read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kerai_client.source.files.ignore import Ignore
from kerai_client.source.files.worktree import GitRefusal, WorkTree
from kerai_client.source.tree.layout import RESERVED, path_problem, settled
from kerai_client.source.tree.state import FileState, Snapshot

MAX_FILE_BYTES = 4 << 20
_DATA_DIRECTORY = {"PG_VERSION", "global", "pg_wal"}  # what PostgreSQL's data are recognised by


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a directory that was left out, and why. The path is relative, as the file is named."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_directory(
    directory: Path,
    *,
    ignore: bool = True,
    max_file_bytes: int = MAX_FILE_BYTES,
    progress: Callable[[int], None] | None = None,
    exclude: Sequence[str] = (),
    tracked: Collection[str] = (),
    git: bool = False,
    without: Collection[str] = (),
) -> tuple[Snapshot, list[Problem]]:
    """Read a working tree. Symlinks are kept as such and never followed; nothing outside is read.

    :param directory: the directory to read.
    :param ignore: honour .gitignore files. ``.git`` and ``.kerai`` are always left out, other hidden files
        never.
    :param max_file_bytes: a larger file is a problem.
    :param progress: called with the number of files read so far.
    :param exclude: more patterns in the .gitignore syntax, also with ``ignore`` off.
    :param tracked: paths that are read although a pattern ignores them, for they are in the tree already.
    :param git: in a git work tree, read the files that ``git add --all`` would take: git itself says what it
        tracks and what it ignores, for a repository within the directory too. Not when ``ignore`` is off.
    :param without: paths of files and directories that are never read, tracked or not.
    :return: the files by posix path, in order of their names, and what was left out.
    :raises NotADirectoryError: when there is no such directory.
    :raises OSError: when the directory itself cannot be read.
    """
    reader = _Reader(directory, ignore, max_file_bytes, tracked, without)
    if not reader.top.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(directory))
    next(reader.top.iterdir(), None)  # an error here is the caller's; further down it is a problem
    with ExitStack() as trees:
        for count, _ in enumerate(reader.walk(Ignore(exclude), trees if git and ignore else None), 1):
            if progress is not None:
                progress(count)
    reader.settle()
    return dict(sorted(reader.files.items())), sorted(reader.problems, key=lambda problem: problem.path)


class _Reader:
    def __init__(
        self, directory: Path, ignore: bool, limit: int, tracked: Collection[str], without: Collection[str]
    ) -> None:
        self.top = Path(os.path.realpath(directory))
        self.ignore = ignore
        self.limit = limit
        self.tracked: set[str] = set()
        self.tracked_above: set[str] = set()
        self.keep(tracked)
        self.without = frozenset(without)
        self.files: Snapshot = {}
        self.problems: list[Problem] = []

    def keep(self, paths: Iterable[str]) -> None:
        """Read these paths although a pattern ignores them."""
        for path in paths:
            self.tracked.add(path)
            while (path := path.rpartition("/")[0]) and path not in self.tracked_above:
                self.tracked_above.add(path)

    def problem(self, path: str, reason: str) -> None:
        readable = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self.problems.append(Problem(readable, reason))

    def walk(self, rules: Ignore, trees: ExitStack | None) -> Iterator[str]:
        """Read everything, yielding each path that was read.

        :param trees: holds the git work trees that are met; None when git is not asked.
        """
        above: tuple[str, WorkTree] | None = None
        pending = [("", rules, above)]
        if trees is not None:
            pending = [("", rules, self.work_tree("", None, trees))]
        while pending:
            prefix, rules, above = pending.pop()
            try:
                with os.scandir(self.top / prefix) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                self.problem(prefix.rstrip("/"), _reason(error))
                continue
            names = {entry.name for entry in entries}
            if names >= _DATA_DIRECTORY:
                self.problem(prefix.rstrip("/") or ".", "is the data directory of a PostgreSQL server")
                continue
            if trees is not None and prefix and ".git" in names:
                above = self.work_tree(prefix, above, trees)
            if self.ignore and above is None and ".gitignore" in names:
                rules = self.nested(prefix, rules)
            entries = [
                entry
                for entry in entries
                if entry.name not in RESERVED and prefix + entry.name not in self.without
            ]
            ignored = self.ignored(prefix, entries, rules, above)
            below = []
            for entry in entries:
                path = prefix + entry.name
                if path in ignored:
                    continue
                if not _is_text(entry.name):
                    self.problem(path, "its name is not UTF-8")
                elif reason := path_problem(path):
                    self.problem(path, reason)
                elif entry.is_dir(follow_symlinks=False):
                    below.append((path + "/", rules, above))
                elif self.entry(path, entry):
                    yield path
            pending.extend(reversed(below))

    def work_tree(
        self, prefix: str, above: tuple[str, WorkTree] | None, trees: ExitStack
    ) -> tuple[str, WorkTree] | None:
        """Return where a directory's git work tree begins, and git's answers; ``above`` when it has none."""
        try:
            found = WorkTree.find(self.top / prefix)
        except GitRefusal as error:
            self.problem(prefix + ".git", f"{error}; the .gitignore files alone say what is left out")
            return above
        if found is None:
            return above
        trees.enter_context(found)
        self.keep(prefix + path for path in found.tracked)
        return prefix, found

    def ignored(
        self,
        prefix: str,
        entries: Sequence[os.DirEntry[str]],
        rules: Ignore,
        above: tuple[str, WorkTree] | None,
    ) -> set[str]:
        """Return the paths of a directory's entries that are left out."""
        kinds = {prefix + entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        found = {path for path, directory in kinds.items() if rules(path + "/" if directory else path)}
        if above is not None:
            start, tree = above
            found |= {start + path for path in tree.ignored([path[len(start) :] for path in kinds])}
        return {
            path
            for path in found
            if path not in self.tracked and not (kinds[path] and path in self.tracked_above)
        }

    def nested(self, prefix: str, rules: Ignore) -> Ignore:
        """Add a directory's .gitignore; like git, not when it is a symlink."""
        path = prefix + ".gitignore"
        try:
            state = self.regular(path, self.limit)
        except OSError:
            return rules  # reading it as a file reports the problem
        if state is None:
            return rules
        rules, bad = rules.with_file(prefix, state.data)
        for pattern in bad:
            self.problem(path, f"the pattern {pattern!r} is not valid and was passed over")
        return rules

    def entry(self, path: str, entry: os.DirEntry[str]) -> bool:
        """Read one file or symlink; say whether it could be."""
        try:
            if entry.is_symlink():
                state = self.link(path)
            elif entry.is_file(follow_symlinks=False):
                state = self.regular(path, self.limit)
                if state is None:
                    size = entry.stat(follow_symlinks=False).st_size
                    self.problem(path, f"has {_size(size)}, more than the limit of {_size(self.limit)}")
            else:
                self.problem(path, f"is {_special(entry.stat(follow_symlinks=False).st_mode)}, not a file")
                return False
        except OSError as error:
            self.problem(path, _reason(error))
            return False
        if state is None:
            return False
        self.files[path] = state
        return True

    def regular(self, path: str, limit: int) -> FileState | None:
        """Read a regular file; None when it is larger than ``limit``.

        :raises OSError: when it cannot be read or has become something else.
        """
        # not through a link, and not waiting for the other end of a pipe, should the file have changed
        descriptor = os.open(self.top / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file")
            data = file.read(limit + 1)
        return None if len(data) > limit else FileState(data, bool(status.st_mode & stat.S_IXUSR))

    def link(self, path: str) -> FileState | None:
        target = os.readlink(self.top / path)  # noqa: PTH115 - a Path would drop "./"
        if not _is_text(target):
            self.problem(path, "is a symlink to a name that is not UTF-8")
            return None
        lexical = os.path.normpath((self.top / path).parent / target)
        if target.startswith("/") or not self.inside(lexical):
            self.problem(path, f"is a symlink to {target!r}, outside of the directory")
            return None
        try:
            real = os.path.realpath(self.top / path, strict=True)
        except OSError as error:
            loop = error.errno == errno.ELOOP
            self.problem(path, f"is a symlink to {target!r}, " + ("a loop" if loop else "which is not there"))
            return None
        if not self.inside(real):
            self.problem(path, f"is a symlink to {target!r}, which leads outside of the directory")
            return None
        return FileState(target.encode("utf-8"), False, True)

    def settle(self) -> None:
        """Leave out the symlinks that a tree does not keep as such."""
        for path, state in list(self.files.items()):
            if state != settled(path, state, self.files):
                self.problem(
                    path, f"is a symlink to {state.data.decode()!r}, through another one and up again"
                )
                del self.files[path]

    def inside(self, path: str) -> bool:
        return Path(path).is_relative_to(self.top)


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _reason(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count} bytes"


def _special(mode: int) -> str:
    kinds = [
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    ]
    return next((name for test, name in kinds if test(mode)), "something else")

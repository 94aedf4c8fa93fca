"""The merges of a git repository: what both sides had, what git makes of it, and what a person made of it.

Only files that differ between the base and a side, or that git's merge changes, are read. Other files are the
same on both sides, and no operation would be about them. A file that one side alone has changed comes out as
that side has it, whatever else is merged, so most of those are left out too: see :func:`meeting`.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kerai_client.source import FileState, Snapshot
from kerai_client.source.tree.layout import path_problem

MOST_BYTES = 4 << 20
"""A merge whose changed files have more bytes, all versions together, is left out."""

_REGULAR = {"100644", "100755"}
_ABSENT = "000000"
_RAW = re.compile(rb":(\d+) (\d+) ([0-9a-f]+) ([0-9a-f]+) \w\d*\0([^\0]*)\0")


class Unreadable(Exception):
    """A merge that cannot be replayed, and why: an object is absent, or its files are too large."""


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge commit with its two parents and their only merge base."""

    commit: str
    ours: str
    theirs: str
    base: str


@dataclass(frozen=True, slots=True)
class Case:
    """The files of a merge that differ somewhere, in each of its five versions.

    ``conflicted``: the paths where git finds a conflict. ``clean``: git finds none at all, not even one of
    renamed directories. ``changed_lines``: of both sides, where a changed line counts once. ``left_out``: how
    many paths are no regular files.
    """

    merge: Merge
    base: Snapshot
    ours: Snapshot
    theirs: Snapshot
    git: Snapshot
    human: Snapshot
    conflicted: frozenset[str]
    clean: bool
    changed_lines: int
    left_out: int


@dataclass(slots=True)
class Found:
    """How many merge commits were seen, and why most of them are not replayed."""

    merges: int = 0
    criss_cross: int = 0
    unrelated: int = 0
    apart: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: str
    blob: str


_Change = tuple[_Entry, _Entry]  # before and after


class Repository:
    """A git repository that is only read. What git's merges write goes to a folder of their own."""

    def __init__(self, place: Path) -> None:
        """:param place: a work tree, a bare repository, or a ``.git`` directory."""
        self.directory = place / ".git" if (place / ".git").is_dir() else place
        self._objects = tempfile.TemporaryDirectory(prefix="kerai-replay-")
        there = self._git("rev-parse", "--git-path", "objects").decode().strip()
        self._environment = {
            "GIT_OBJECT_DIRECTORY": self._objects.name,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((Path.cwd() / there).absolute()),
        }
        self._blobs: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._blobs is not None:
            self._blobs.communicate()
        self._objects.cleanup()

    def merges(self, found: Found, only: str | None = None) -> Iterator[Merge]:
        """Yield the merges of all branches, newest first, in which both sides changed one file at least.

        :param found: counts what is seen.
        :param only: a commit; nothing else is looked at.
        """
        which = ["--no-walk", only] if only else ["--all", "--date-order"]
        listed = self._git("log", "--min-parents=2", "--max-parents=2", "--format=%H %P", *which)
        for line in listed.decode().splitlines():
            commit, ours, theirs = line.split()
            found.merges += 1
            try:
                bases = self._git("merge-base", "--all", ours, theirs, codes=(0, 1)).decode().split()
                if len(bases) != 1:
                    found.criss_cross += len(bases) > 1
                    found.unrelated += not bases
                    continue
                if self._changes(bases[0], ours).keys() & self._changes(bases[0], theirs).keys():
                    yield Merge(commit, ours, theirs, bases[0])
                else:
                    found.apart += 1
            except Unreadable as problem:
                found.unreadable[commit] = str(problem)

    def case(self, merge: Merge, *, whole: bool = False) -> Case:
        """Read a merge, and let git make it.

        :param whole: also the files that one side alone has changed.
        :raises Unreadable: when an object is absent, or the files are too large.
        """
        # No --merge-base: git 2.39, which Debian 12 has, finds the base itself, and there is only one.
        merged = self._git("merge-tree", "--write-tree", "-z", merge.ours, merge.theirs, codes=(0, 1))
        tree, *rest = merged.split(b"\0")
        conflicted = set()
        for line in rest:
            if not line:
                break
            conflicted.add(line.partition(b"\t")[2].decode("utf-8", "surrogateescape"))
        sides = [
            self._changes(merge.base, each)
            for each in (merge.ours, merge.theirs, tree.decode(), merge.commit)
        ]
        before = {path: change[0] for side in sides for path, change in side.items()}
        paths = {path for side in sides[:3] for path in side}
        odd = {
            path
            for path in paths
            if path_problem(path)
            or any(
                entry.mode not in (*_REGULAR, _ABSENT)
                for side in sides
                if path in side
                for entry in side[path]
            )
        }
        kept = paths - odd
        entries = [{path: before[path] for path in kept}]
        entries += [
            {path: side[path][1] if path in side else before[path] for path in kept} for side in sides
        ]
        data = self._data(
            {entry.blob for each in entries for entry in each.values() if entry.mode in _REGULAR}
        )
        versions = [_snapshot(version, data) for version in entries]
        if not whole and all(path in sides[0] or path in sides[1] for path in kept):
            # else git has renamed a directory on its own, and any file may be in it
            met = meeting(*versions[:3]) | conflicted
            versions = [{path: each[path] for path in each if path in met} for each in versions]
        base, ours, theirs, git, human = versions
        lines = sum(_distance(base, side) for side in (ours, theirs))
        files = frozenset(conflicted - odd)
        clean = len(rest) < 2 or (not conflicted and b"CONFLICT" not in merged)
        return Case(merge, base, ours, theirs, git, human, files, clean, lines, len(odd))

    def _changes(self, before: str, after: str) -> dict[str, _Change]:
        raw = self._git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", before, after)
        return {
            path.decode("utf-8", "surrogateescape"): (
                _Entry(mode_before.decode(), blob_before.decode()),
                _Entry(mode_after.decode(), blob_after.decode()),
            )
            for mode_before, mode_after, blob_before, blob_after, path in _RAW.findall(raw)
        }

    def _data(self, blobs: set[str]) -> dict[str, bytes]:
        found, size = {}, 0
        for blob in sorted(blobs):
            found[blob] = self._blob(blob)
            size += len(found[blob])
            if size > MOST_BYTES:
                raise Unreadable(
                    f"its changed files have more than {MOST_BYTES} bytes in all versions together"
                )
        return found

    def _blob(self, blob: str) -> bytes:
        """Return a blob's bytes, from one process that answers for all of them."""
        if self._blobs is None:
            self._blobs = subprocess.Popen(
                self._command("cat-file", "--batch"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._env(),
            )
        assert self._blobs.stdin is not None and self._blobs.stdout is not None
        self._blobs.stdin.write(f"{blob}\n".encode())
        self._blobs.stdin.flush()
        head = self._blobs.stdout.readline().split()
        if len(head) != 3:
            raise Unreadable(f"object {blob} is absent")
        data = self._blobs.stdout.read(int(head[2]))
        self._blobs.stdout.read(1)
        return data

    def _git(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> bytes:
        done = subprocess.run(self._command(*arguments), capture_output=True, env=self._env(), check=False)
        if done.returncode not in codes:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise Unreadable(words[0] if words else f"git {arguments[0]} ended with {done.returncode}")
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        return ["git", "--git-dir", str(self.directory), *arguments]

    def _env(self) -> dict[str, str]:
        """Return an environment in which nobody's settings change what git does."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        return own | quiet | getattr(self, "_environment", {})


def _snapshot(entries: dict[str, _Entry], data: dict[str, bytes]) -> Snapshot:
    return {
        path: FileState(data[entry.blob], entry.mode == "100755")
        for path, entry in sorted(entries.items())
        if entry.mode in _REGULAR
    }


def meeting(base: Snapshot, ours: Snapshot, theirs: Snapshot) -> set[str]:
    """Return the paths that both sides have changed, and those that lines move to or from, on one side.

    A file that is renamed, and a definition that moves to another file, leave lines in one path and put them
    into another. No other file that one side alone has changed has to do with what the other side did.
    """
    changed = [
        {path for path in base.keys() | side.keys() if base.get(path) != side.get(path)}
        for side in (ours, theirs)
    ]
    met = changed[0] & changed[1]
    for paths, side in zip(changed, (ours, theirs), strict=True):
        gone, come = (
            {path: _lines(before.get(path)) - _lines(after.get(path)) for path in paths}
            for before, after in ((base, side), (side, base))
        )
        left = {line for path in met & paths for line in gone[path]}
        put = {line for path in met & paths for line in come[path]}
        met |= {path for path in paths if come[path] & left or gone[path] & put}
    return met


def _lines(file: FileState | None) -> set[bytes]:
    """Return the lines that say something, without their indentation."""
    return (
        set() if file is None else {line.strip() for line in file.data.split(b"\n") if len(line.strip()) > 8}
    )


def _distance(base: Snapshot, side: Snapshot) -> int:
    """Return how many lines a side has changed; a changed line counts once."""
    count = 0
    for path in base.keys() | side.keys():
        before, after = (
            Counter() if file is None else Counter(file.data.split(b"\n"))
            for file in (base.get(path), side.get(path))
        )
        count += max((before - after).total(), (after - before).total())
    return count

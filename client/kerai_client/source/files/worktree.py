"""A git work tree: git itself says which files it tracks and which it ignores."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# One write of this size fits into a pipe, so that neither side waits for the other with a full one.
_CHUNK_BYTES = 16 << 10
# A repository's own settings may name a program that lists changed files; reading a directory runs none.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false")


class GitRefusal(OSError):
    """A directory lies in a git work tree, but git cannot be asked about it; the message says why."""


class WorkTree:
    """What git says of the paths below a directory. It holds a process of git: use it in a ``with``.

    :ivar tracked: the files that git tracks, relative to the directory.
    """

    def __init__(self, directory: Path, tracked: frozenset[str]) -> None:
        self.tracked = tracked
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [*_GIT, "check-ignore", "--no-index", "--stdin", "-z", "--verbose", "--non-matching"],
            cwd=directory,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    @classmethod
    def find(cls, directory: Path) -> WorkTree | None:
        """Return the work tree that a directory belongs to, as git sees it from there.

        A directory that the repository ignores as a whole does not belong to it.

        :return: None when there is none.
        :raises GitRefusal: when there is one, but no git, or git refuses to read it.
        """
        if not any((above / ".git").exists() for above in (directory, *directory.parents)):
            return None
        if shutil.which("git") is None:
            raise GitRefusal("git is not installed")
        listed = _run(directory, "ls-files", "-z")
        if listed.returncode != 0:
            told = os.fsdecode(listed.stderr).strip().splitlines()
            raise GitRefusal(told[0] if told else f"git ls-files ended with {listed.returncode}")
        tracked = frozenset(os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
        if not tracked and _run(directory, "check-ignore", "--quiet", "--no-index", ".").returncode == 0:
            return None
        return cls(directory, tracked)

    def ignored(self, paths: Sequence[str]) -> set[str]:
        """Return those of the paths (relative to the directory) that git ignores, tracked or not.

        :raises GitRefusal: when git ends before it has answered.
        """
        found = set()
        for chunk in _chunks(paths):
            # "./" keeps git from taking a name that starts with a colon for a pattern
            names = [b"./" + os.fsencode(path) for path in chunk]
            fields = self._ask(b"".join(name + b"\0" for name in names), 4 * len(names))
            for path, source, pattern in zip(chunk, fields[::4], fields[2::4], strict=True):
                if source and not pattern.startswith(b"!"):
                    found.add(path)
        return found

    def _ask(self, names: bytes, count: int) -> list[bytes]:
        """Send names to git and read the ``count`` fields that answer them."""
        assert self._process.stdin is not None and self._process.stdout is not None
        answer = b""
        try:
            self._process.stdin.write(names)
            self._process.stdin.flush()
            while answer.count(b"\0") < count:
                read = os.read(self._process.stdout.fileno(), 1 << 16)
                if not read:
                    raise BrokenPipeError
                answer += read
        except BrokenPipeError as error:
            self._errors.seek(0)
            told = os.fsdecode(self._errors.read()).strip()
            raise GitRefusal(told or "git check-ignore ended") from error
        return answer.split(b"\0")[:-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def _chunks(paths: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for path in paths:
        chunk.append(path)
        size += len(os.fsencode(path)) + 3
        if size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*_GIT, *arguments], cwd=directory, env=_environment(), capture_output=True, check=False
    )


def _environment() -> dict[str, str]:
    """Return the environment without what would lead git to another repository, as in a hook."""
    kept = ("GIT_CONFIG", "GIT_CEILING", "GIT_DISCOVERY", "GIT_EXEC_PATH")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(kept)
    }
    return {**environment, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}

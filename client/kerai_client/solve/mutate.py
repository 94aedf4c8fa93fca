"""`kerai solve mutate`: one improvement of the project in a directory, found without a language model."""

from __future__ import annotations

import difflib
import hashlib
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kerai_client.solve.matrix import Matrix
from kerai_client.solve.runner import LEFT_OUT, CannotTest, TestRunner
from kerai_client.solve.search import Fix, Search
from kerai_client.solve.statements import NotPython, SourceFile
from kerai_client.solve.success import TestCommand

LARGEST_SOURCE = 1 << 20  # bytes
TEST_FILE = re.compile(r"test_.*\.py|.*_test\.py|tests?\.py|conftest\.py|setup\.py")
TEST_DIRECTORIES = {"test", "tests", "testing"}
STRIDE = 7919  # a prime: successive attempts of one agent start at different groups of tests


class Misuse(Exception):
    """The directory or the options cannot be worked with; the text says why."""


@dataclass(slots=True)
class Result:
    """What a call has found and done."""

    fixes: list[Fix] = field(default_factory=list)
    failing_before: int = 0
    failing_after: int = 0
    candidates: int = 0
    seconds: float = 0.0


def seed_for(agent: str, attempt: int) -> int:
    """The default seed of an agent's attempt; numbered agents get neighbouring seeds, so they spread out."""
    number = re.search(r"(\d+)$", agent)
    if number:
        return int(number[1]) + STRIDE * attempt
    return int.from_bytes(hashlib.sha256(agent.encode()).digest()[:4]) + STRIDE * attempt


def find_sources(directory: Path, chosen: Sequence[str]) -> list[str]:
    """Python files that are not tests, relative to the directory. Raises Misuse when there are none."""
    found: set[str] = set()
    for start in chosen or ["."]:
        path = directory / start
        if not path.resolve().is_relative_to(directory.resolve()):
            raise Misuse(f"{start} is outside the directory {directory}")
        if not path.exists():
            raise Misuse(f"{start}: no such file or directory")
        found.update(file.relative_to(directory).as_posix() for file in _python_files(path, directory))
    if not found:
        raise Misuse(f"no Python source to repair in {', '.join(chosen) or directory}")
    return sorted(found)


def _python_files(path: Path, directory: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.py")):
        parts = file.relative_to(directory).parts
        inside = LEFT_OUT.isdisjoint(parts) and TEST_DIRECTORIES.isdisjoint(parts[:-1])
        if inside and not TEST_FILE.fullmatch(file.name) and file.is_file() and not file.is_symlink():
            yield file


def nearest_existing(directory: Path, scope: str) -> str:
    """The scope, or the part of it that is a file or directory: a scope may name something inside a file."""
    path = directory / scope
    while not path.exists() and path != directory:
        path = path.parent
    return path.relative_to(directory).as_posix()


def read_sources(directory: Path, paths: Sequence[str]) -> list[SourceFile]:
    """Parse sources; those that are not Python in UTF-8, or very large, are left alone."""
    files = []
    for path in paths:
        data = (directory / path).read_bytes()
        if len(data) <= LARGEST_SOURCE:
            try:
                files.append(SourceFile(path, data))
            except NotPython:
                continue
    return files


def repair(
    directory: Path,
    sources: Sequence[str],
    command: TestCommand,
    *,
    seed: int,
    time_limit: float,
    max_fixes: int = 1,
) -> Result:
    """Make up to `max_fixes` repairs in `directory`, each of which makes fewer tests fail and breaks none.

    `sources` are the files that may change, relative to the directory; `time_limit` is in seconds. The
    outcome depends on the files, the tests and the seed; the limit only cuts the search short. Raises
    Misuse when the tests cannot be run or a file changes meanwhile.
    """
    started = time.monotonic()
    result = Result()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler thinks of candidates
        try:
            with TestRunner(
                directory,
                sources,
                command.tests,
                python=command.python,
                options=command.options,
                environment=command.environment,
                time_limit=time_limit,
            ) as runner:
                _repair(
                    runner,
                    directory,
                    sources,
                    seed=seed,
                    deadline=started + time_limit,
                    max_fixes=max_fixes,
                    result=result,
                )
        except CannotTest as error:
            raise Misuse(str(error)) from None
    result.seconds = time.monotonic() - started
    return result


def _repair(
    runner: TestRunner,
    directory: Path,
    sources: Sequence[str],
    *,
    seed: int,
    deadline: float,
    max_fixes: int,
    result: Result,
) -> None:
    for number in range(max_fixes):
        baseline = runner.baseline()
        order = [*runner.files, *baseline.broken]
        failed = [name for name in order if name in baseline.outcome.failed]
        passed = [name for name in order if name in baseline.outcome.passed]
        result.failing_after = len(failed)
        if number == 0:
            result.failing_before = len(failed)
        if not failed:
            return
        failed = [name for name in failed if name not in baseline.crashed]
        matrix = Matrix(read_sources(runner.directory, sources), baseline.lines, failed, passed)
        steady = runner.steady([name for name in failed if name in runner.files], passed)
        search = Search(runner, matrix, steady, spawning=baseline.spawning, seed=seed, deadline=deadline)
        fix = search.run()
        result.candidates += search.tried
        if fix is None:
            return
        write_back(directory, fix)
        runner.write(runner.directory / fix.path, fix.after)
        result.fixes.append(fix)
        result.failing_after -= len(fix.mended)
        if search.is_late():
            return


def write_back(directory: Path, fix: Fix) -> None:
    """Put a repair into the working directory. Raises Misuse when the file is not what was tested."""
    path = directory / fix.path
    try:
        if path.read_bytes() != fix.before:
            raise Misuse(f"{fix.path} has changed while its tests ran; nothing is written")
        path.write_bytes(fix.after)
    except OSError as error:
        raise Misuse(f"{fix.path} cannot be written: {error.strerror}") from None


def difference(fix: Fix) -> str:
    """The repair as a unified diff."""
    before = fix.before.decode().splitlines(keepends=True)
    after = fix.after.decode().splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, f"a/{fix.path}", f"b/{fix.path}"))


def describe(result: Result) -> Mapping[str, object]:
    """The result for `--json`."""
    return {
        "failing_before": result.failing_before,
        "failing_after": result.failing_after,
        "candidates": result.candidates,
        "seconds": round(result.seconds, 3),
        "fixes": [
            {
                "path": fix.path,
                "line": fix.line,
                "operator": fix.operator,
                "mended": fix.mended,
                "diff": difference(fix),
            }
            for fix in result.fixes
        ],
    }

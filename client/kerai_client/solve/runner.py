"""The solver's end of the test server: a scratch copy of the project and the questions asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import kerai_client
from kerai_client.solve.scratch import Scratch

LEFT_OUT = {".git", ".hg", ".svn", ".kerai", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox"}
LEFT_OUT |= {".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".eggs"}
MEMORY = 1 << 30  # bytes a run may take beyond what the session has
SLOWDOWN = 10  # times its own duration that a test may take with an edit in place
SLACK = 0.2  # seconds of processor time on top of that
WAITING = 5.0  # seconds on top of that for tests that wait rather than compute
START = """
import sys
sys.path.insert(0, sys.argv[1])
from kerai_client.solve.testserver import main
main(sys.argv[2])
"""
PYTEST_OPTIONS = ["-q", "-s", "--assert=plain", "--tb=no", "--maxfail=0"]
PYTEST_OPTIONS += ["-p", "no:cacheprovider", "-p", "no:randomly"]
MOST_CRASHES = 10  # tests that may end their process


class CannotTest(Exception):
    """The tests cannot be run; the text says why."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes `start` to `end` of a source replaced by `text`, in a function that `line` of it is in."""

    path: str
    start: int
    end: int
    text: str
    line: int


@dataclass(slots=True)
class Outcome:
    """What became of some tests. A test that is in neither was not run, or skipped itself."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    end: str = "done"  # or timeout, crash, reimport, invalid
    running: str | None = None  # the test that the end came in


@dataclass(slots=True)
class Baseline:
    """The state before any edit: outcomes and which test runs which line."""

    outcome: Outcome
    crashed: list[str]  # tests that end the process that they run in; they fail, and have no lines
    spawning: list[str]  # tests that start processes
    broken: list[str]  # test files that cannot be collected
    lines: dict[str, dict[str, list[int]]]  # source -> test -> lines


class TestRunner:
    """A scratch copy of `directory` with a test server in it. Use as a context manager.

    `sources` and `tests` are paths relative to the directory; `options` go to pytest before the tests.
    Raises CannotTest when the interpreter lacks pytest, or pytest refuses to start.
    """

    __test__ = False  # not a test class, whatever pytest makes of its name

    def __init__(
        self,
        directory: Path,
        sources: Sequence[str],
        tests: Sequence[str],
        *,
        python: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        time_limit: float = 60.0,
    ) -> None:
        self.held = Scratch()
        self.scratch = self.held.path
        self.directory = self.scratch / directory.resolve().name
        self.time_limit = time_limit
        self.tests = list(tests)
        self.seconds: dict[str, float] = {}  # how long each test takes, without measuring
        self.typical = 0.0  # of the tests that pass
        self.files: dict[str, str] = {}
        self.edits = 0
        self.server: subprocess.Popen[bytes] | None = None
        try:
            self._start(directory.resolve(), sources, python, options, environment or {})
        except BaseException:
            self.close()
            raise

    def _start(
        self,
        original: Path,
        sources: Sequence[str],
        python: str,
        options: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        pytest = find_spec("pytest")
        assert pytest is not None  # a dependency of ours
        assert pytest.origin is not None
        library = Path(pytest.origin).parent.parent
        temporary = self.scratch / "tmp"
        temporary.mkdir()
        search = self._search_path(original, {**os.environ, **environment}.get("PYTHONPATH", ""))
        settings = {
            "directory": str(self.directory),
            "scratch": str(self.scratch),
            "output": str(self.scratch / "output"),
            "library": str(library),
            "sources": [str(self.directory / source) for source in sources],
            "tests": self.tests,
            "options": [*PYTEST_OPTIONS, f"--basetemp={temporary / 'pytest'}", *options],
            "memory": MEMORY,
            "collect_cpu": self.time_limit / 2,
            "collect_wall": self.time_limit,
        }
        self.server = subprocess.Popen(
            [python, "-c", START, str(Path(kerai_client.__file__).parent.parent), str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            env={
                **os.environ,
                **environment,
                "PYTHONPATH": search,
                "TMPDIR": str(temporary),
                "PYTHONDONTWRITEBYTECODE": "1",
                "COVERAGE_CORE": "ctrace",
            },
        )
        copy_project(original, self.directory)  # while the server starts
        reply = self._ask(settings, self.time_limit)
        if reply["end"] == "error":
            raise CannotTest(reply["text"])

    def _search_path(self, original: Path, search: str) -> str:
        """PYTHONPATH with what leads into the project leading into the copy; relative entries do."""
        found = []
        for entry in filter(None, search.split(os.pathsep)):
            path = Path(os.path.normpath(original / entry))
            inside = path.is_relative_to(original)
            found.append(str(self.directory / path.relative_to(original) if inside else path))
        return os.pathsep.join(found)

    def __enter__(self) -> TestRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and remove the copy."""
        if self.server and self.server.stdin and self.server.stdout:
            with contextlib.suppress(OSError):
                self.server.stdin.close()
            try:
                self.server.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.server.pid, signal.SIGKILL)
                self.server.wait()
            self.server.stdout.close()
        self.held.remove()

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self.server is not None
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.server.stdin.write(json.dumps(message).encode() + b"\n")
            self.server.stdin.flush()
        line = read_line(self.server.stdout, time.monotonic() + seconds + 10)
        if not line:
            raise CannotTest("the test server has ended")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def baseline(self) -> Baseline:
        """Collect the tests and run each with its lines measured. Raises CannotTest when pytest refuses."""
        ready = self._ask({"do": "open"}, self.time_limit)
        if ready["end"] != "ready":
            raise CannotTest(self._why(ready))
        self.files = dict(ready["tests"])
        lines = ready["lines"]
        outcome = Outcome(failed=set(ready["broken"]))
        waiting, crashed, spawning = list(self.files), [], []
        for _ in range(MOST_CRASHES):
            reply = self._ask(self._request([], waiting, cover=True), self.time_limit)
            if reply["end"] == "done":
                outcome = merged(outcome, reply)
                spawning = reply["spawning"]
                for path, contexts in reply["lines"].items():
                    lines.setdefault(path, {}).update(contexts)
                break
            if reply.get("running") not in waiting:
                raise CannotTest(f"the tests end early ({reply['end']})")
            # measurements are lost with the process: once more without the test that ended it
            crashed.append(reply["running"])
            waiting.remove(reply["running"])
        else:
            raise CannotTest(f"more than {MOST_CRASHES} tests end the process that they run in")
        outcome.failed.update(crashed)
        relative = {str(Path(path).relative_to(self.directory)): found for path, found in lines.items()}
        return Baseline(outcome, crashed, spawning, list(ready["broken"]), relative)

    def _why(self, reply: dict[str, Any]) -> str:
        with contextlib.suppress(OSError):
            output = (self.scratch / "output").read_text(errors="replace").strip().splitlines()
            if output:
                return "pytest does not start: " + "\n".join(output[-20:])
        return f"pytest does not start ({reply['end']})"

    def _request(
        self,
        first: Sequence[str],
        then: Sequence[str],
        *,
        edit: dict[str, Any] | None = None,
        fail_fast: bool = False,
        cover: bool = False,
    ) -> dict[str, Any]:
        processor = self._processor([*first, *then])
        return {
            "do": "run",
            "first": list(first),
            "then": list(then),
            "edit": edit,
            "edits": None,
            "fail_fast": fail_fast,
            "cover": cover,
            "test_cpu": self.time_limit / 20 if cover else None,
            "cpu": None if cover else processor,
            "wall": self.time_limit if cover else 2 * processor + WAITING,
        }

    def steady(self, failed: Sequence[str], passed: Sequence[str]) -> Outcome:
        """Run tests without measuring, the failed ones first: those that come out as before can be relied on.

        Also learns how long they take, which later time limits rest on.
        """
        self.seconds = {}
        request = self._request(failed, passed)
        request |= self._each_limited()
        outcome = merged(Outcome(), self._ask(request, self.time_limit))
        limit = self.time_limit / 20
        # a test that used up its time says nothing about how long its repaired self takes
        self.seconds = {name: seconds for name, seconds in outcome.seconds.items() if seconds < limit}
        self.typical = sum(self.seconds.get(name, 0.0) for name in passed) / max(1, len(passed))
        return outcome

    def run(self, tests: Sequence[str]) -> Outcome:
        """Run tests with the files as they are."""
        request = self._request(tests, [])
        return merged(Outcome(), self._ask(request, request["wall"]))

    def _each_limited(self) -> dict[str, Any]:
        """For a request: a limit for each test, which fails it, not one for all, which ends the run."""
        return {"test_cpu": self.time_limit / 20, "cpu": None, "wall": self.time_limit}

    def _processor(self, tests: Sequence[str]) -> float:
        """Seconds of processor time that tests may take with an edit in place."""
        # a test that fails may have taken less time than it will when it passes
        return SLOWDOWN * sum(max(self.seconds.get(name, 0.0), self.typical) for name in tests) + SLACK

    def first_hit(self, edits: Sequence[Edit], tests: Sequence[Sequence[str]]) -> tuple[int, str]:
        """Try edits in one process until one makes one of its tests pass. Returns its number and why.

        The reason is 'hit', 'done' (none does), 'reimport' (that one needs a fresh import), 'crash' or
        'timeout' (that one ends or blocks its process).
        """
        limits = [self._processor(names) for names in tests]
        request = self._request([], [])
        request["edits"] = [
            {**self._live(edit), "tests": list(names), "cpu": limit}
            for edit, names, limit in zip(edits, tests, limits, strict=True)
        ]
        request["wall"] = 2 * sum(limits) + WAITING
        reply = self._ask(request, request["wall"])
        return reply["at"], reply["end"]

    def _live(self, edit: Edit) -> dict[str, Any]:
        return asdict(edit) | {"path": str(self.directory / edit.path)}

    def try_in_session(self, edit: Edit, first: Sequence[str], then: Sequence[str]) -> Outcome:
        """Run `first`, and `then` if any passes, in a process in which one function has the edit."""
        request = self._request(first, then, edit=self._live(edit), fail_fast=True)
        return merged(Outcome(), self._ask(request, request["wall"]))

    def try_reimported(
        self, path: str, data: bytes, first: Sequence[str], then: Sequence[str], *, everything: bool = False
    ) -> Outcome:
        """The same with the edit on the disk and all imported anew; with `everything` the whole suite."""
        file = self.directory / path
        before = file.read_bytes()
        with self._bytes_in(file, data):
            files = list(dict.fromkeys(self.files[name] for name in [*first, *then] if name in self.files))
            unknown = any(name not in self.files for name in first)  # a test file that could not be collected
            request = self._request(first, then, fail_fast=not everything)
            request |= {"do": "once", "files": self.tests if everything or unknown else files}
            if everything:
                request |= self._each_limited()
            reply = self._ask(request, request["wall"] + self.time_limit)
        assert file.read_bytes() == before
        outcome = merged(Outcome(), reply)
        broken = set(reply.get("broken", first))
        outcome.failed |= broken
        if reply["end"] == "done":
            outcome.passed |= {name for name in first if name not in self.files} - broken
        return outcome

    @contextlib.contextmanager
    def _bytes_in(self, file: Path, data: bytes) -> Any:
        before, status = file.read_bytes(), file.stat()
        try:
            self.write(file, data)
            yield
        finally:
            file.write_bytes(before)
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def write(self, file: Path, data: bytes) -> None:
        """Change a file of the copy; its time is one that no cached bytecode can have."""
        self.edits += 1
        moment = file.stat().st_mtime + 10 * self.edits
        file.write_bytes(data)
        os.utime(file, (moment, moment))


def merged(outcome: Outcome, reply: dict[str, Any]) -> Outcome:
    """An outcome with a reply of the server added."""
    for name, (status, seconds) in reply.get("outcomes", {}).items():
        outcome.seconds[name] = seconds
        if status == "passed":
            outcome.passed.add(name)
        elif status == "failed":
            outcome.failed.add(name)
    outcome.end, outcome.running = reply["end"], reply.get("running")
    return outcome


def read_line(stream: IO[bytes], deadline: float) -> bytes:
    """One line of a pipe; nothing when its writer is gone or the time is over."""
    data = b""
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(stream.fileno(), 1 << 16) if ready else b""
        if not part:
            return b""
        data += part
    return data


def copy_project(source: Path, target: Path) -> None:
    """Copy a directory without what version control, environments and caches keep in it."""

    def ignored(_: str, names: list[str]) -> set[str]:
        return {name for name in names if name in LEFT_OUT}

    # it copies all it can before it raises; what remains are sockets, pipes and files that may not be read
    with contextlib.suppress(shutil.Error):
        shutil.copytree(source, target, symlinks=True, ignore=ignored)

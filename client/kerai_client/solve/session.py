"""A process in which pytest has collected, and which forks to run tests with edits in live functions."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NoReturn

from kerai_client.solve.processes import Child, Lines, limit_resources, send, silence

SPAWNING = {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec"}
CO_OPTIMIZED = 1  # set on functions, clear on module and class bodies


class TestTimedOut(BaseException):
    """Raised in a test that has used up its processor time; no Exception, so that tests do not catch it."""


class NeedsReimport(Exception):
    """The edit cannot be put into live functions: the files have to be imported anew."""


def changed_function(old: CodeType, new: CodeType, line: int) -> tuple[CodeType, CodeType]:
    """The outermost function around `line` of the old text, before and after. Raises NeedsReimport."""
    before = [const for const in old.co_consts if isinstance(const, CodeType)]
    after = [const for const in new.co_consts if isinstance(const, CodeType)]
    if len(before) != len(after):
        raise NeedsReimport
    starting = [pair for pair in zip(before, after, strict=True) if pair[0].co_firstlineno <= line]
    if not starting:
        raise NeedsReimport
    # of those on one line the last: a default value's lambda comes before its function
    pair = max(enumerate(starting), key=lambda entry: (entry[1][0].co_firstlineno, entry[0]))[1]
    return pair if pair[0].co_flags & CO_OPTIMIZED else changed_function(*pair, line)


class Session:
    """pytest plugin: lets pytest configure and collect, then serves requests in place of its test loop."""

    def __init__(self, settings: dict[str, Any], requests: int, replies: int, cover: Any) -> None:
        self.settings = settings
        self.requests = Lines(requests)
        self.replies = replies
        self.cover = cover  # coverage.Coverage, or None
        self.broken: list[str] = []  # what could not be collected
        self.outcomes: dict[str, tuple[str, float]] = {}  # test -> status, seconds; in a run process
        self.sources: dict[str, tuple[bytes, CodeType]] = {}  # source file -> bytes, code; as on the disk
        self.functions: dict[CodeType, list[FunctionType]] = {}
        self.items: dict[str, Any] = {}
        self.running = ""  # the test that is being measured
        self.spawning: dict[str, None] = {}  # tests that start processes
        self.progress = mmap.mmap(-1, 4)  # shared with run processes: the edit they are at

    # hooks of pytest; main() marks pytest_runtestloop as the one to call first

    def pytest_collectstart(self, collector: Any) -> None:
        if self.cover:
            self.cover.switch_context("collect " + collector.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.broken.append(report.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        status, seconds = self.outcomes.get(report.nodeid, ("skipped", 0.0))
        if report.failed:
            status = "failed"
        elif report.when == "call" and report.passed and status != "failed":
            status = "passed"
        self.outcomes[report.nodeid] = status, seconds + report.duration

    def pytest_runtestloop(self, session: Any) -> bool:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.items = {item.nodeid: item for item in session.items}
        ready: dict[str, Any] = {
            "end": "ready",
            "tests": [[item.nodeid, str(item.path)] for item in session.items],
            "broken": self.broken,
        }
        if self.cover:
            ready["lines"] = self.lines()
            ready["modules"] = outside_modules(self.settings["directory"])
            self.index_functions()
        gc.collect()
        gc.freeze()  # keeps the garbage collector of a forked run from copying our pages
        send(self.replies, ready)
        with contextlib.suppress(EOFError):
            while True:
                self.answer(self.requests.wait())
        return True

    # requests

    def answer(self, request: dict[str, Any]) -> None:
        """Fork a run process for a request and pass its reply on. Raises EOFError when the server is gone."""
        reply: dict[str, Any] = {}
        if self.cover and not request["cover"]:
            self.cover.stop()  # this run and the later ones need no measuring
            self.cover = None
        self.progress[:4] = bytes(4)
        child = Child(lambda _, replies: self.run(request, replies), grace=0.0)
        for message in child.listen(self.requests.descriptor, request["wall"]):
            reply.update(message)
        child.kill()
        reply["at"] = int.from_bytes(self.progress[:4])
        send(self.replies, reply)

    def run(self, request: dict[str, Any], replies: int) -> None:
        """Body of a run process: put the edit in, run the tests that are asked for, report."""
        pid = os.getpid()
        silence()
        limit_resources(self.settings["memory"])
        end: dict[str, Any] = {"end": "done"}
        try:
            if request["edits"]:
                end = {"end": self.first_hit(request["edits"])}
            else:
                self.run_tests(request, replies)
            end["outcomes"] = self.outcomes
            if request["cover"]:
                self.cover.stop()
                end |= {"lines": self.lines(), "spawning": list(self.spawning)}
        except NeedsReimport:
            end = {"end": "reimport"}
        if os.getpid() == pid:  # not a process that a test has forked
            send(replies, end)

    def first_hit(self, edits: list[dict[str, Any]]) -> str:
        """Put edit after edit into the live functions, until one makes one of its tests pass: 'hit'.

        One process for many edits that most likely are wrong; what it finds is tried again in a fresh one.
        Raises NeedsReimport at an edit that cannot be put in.
        """
        for number, edit in enumerate(edits):
            self.progress[:4] = number.to_bytes(4)
            limit_processor(edit["cpu"])
            with contextlib.suppress(SyntaxError, ValueError), self.applied(edit):
                for name in edit["tests"]:
                    if self.run_test(name, None):
                        return "hit"
        return "done"

    def run_tests(self, request: dict[str, Any], replies: int) -> None:
        """Run `first`; when one of them passes, run `then`, up to the first that does not pass.

        Raises NeedsReimport when the edit cannot be put in.
        """
        if request["test_cpu"]:
            signal.signal(signal.SIGPROF, time_is_over)
            signal.signal(signal.SIGALRM, time_is_over)
        else:
            limit_processor(request["cpu"])
        if request["cover"]:
            sys.addaudithook(self.notice)
        with contextlib.suppress(SyntaxError, ValueError), self.applied(request["edit"]):
            self.run_in_order(request, replies)

    def notice(self, event: str, _arguments: tuple[Any, ...]) -> None:
        """Audit hook: remember tests that start processes, for those see no edits of live functions."""
        if event in SPAWNING:
            self.spawning[self.running] = None

    def run_in_order(self, request: dict[str, Any], replies: int) -> None:
        """The tests of a request, as `run_tests` says."""
        names = [name for name in request["first"] + request["then"] if name in self.items]
        then = set(request["then"]) if request["fail_fast"] else set()
        hope = False
        for name, following in zip(names, [*names[1:], None], strict=True):
            if name in then and not hope:
                return
            if request["cover"]:
                send(replies, {"running": name})  # for a test that ends its process
                self.running = name
                self.cover.switch_context(name)
            passed = self.run_test(name, following, request["test_cpu"])
            hope = passed if name in then else hope or passed

    def run_test(self, name: str, following: str | None, limit: float | None = None) -> bool:
        """Run one test and say whether it has passed; `limit` is in seconds of processor time."""
        pid = os.getpid()
        self.outcomes.pop(name, None)
        if limit:
            signal.setitimer(signal.ITIMER_PROF, limit, limit)
            signal.setitimer(signal.ITIMER_REAL, 3 * limit, limit)
        item = self.items[name]
        item.repr_failure = briefly
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following and self.items[following])
        except TestTimedOut:
            self.outcomes[name] = "failed", limit or 0.0
        if os.getpid() != pid:  # a test has forked and this is its child
            os._exit(0)
        if limit:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.outcomes.setdefault(name, ("failed", 0.0))[0] == "passed"

    def index_functions(self) -> None:
        """Remember the code of the sources and the live functions made from it."""
        for path in self.settings["sources"]:
            with contextlib.suppress(OSError, SyntaxError, ValueError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = Path(path).read_bytes()
                self.sources[path] = data, compile(data, path, "exec", dont_inherit=True)
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename in self.sources:
                self.functions.setdefault(thing.__code__, []).append(thing)

    @contextlib.contextmanager
    def applied(self, edit: dict[str, Any] | None) -> Iterator[None]:
        """Give the live function that an edit is in its new code for a while.

        Raises SyntaxError or ValueError when the new text does not compile; NeedsReimport without a function.
        """
        if edit is None:
            yield
            return
        data, old = self.sources[edit["path"]]
        data = data[: edit["start"]] + edit["text"].encode() + data[edit["end"] :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            new = compile(data, edit["path"], "exec", dont_inherit=True)
        before, after = changed_function(old, new, edit["line"])
        live = [function for function in self.functions.get(before, ()) if is_from(function, edit["path"])]
        if not live or before.co_freevars != after.co_freevars:
            raise NeedsReimport
        for function in live:
            function.__code__ = after
        yield
        for function in live:
            function.__code__ = before

    def lines(self) -> dict[str, dict[str, list[int]]]:
        """What has been measured: path -> context -> line numbers."""
        data = self.cover.get_data()
        result: dict[str, dict[str, list[int]]] = {}
        for path in data.measured_files():
            contexts = result.setdefault(path, {})
            for line, names in data.contexts_by_lineno(path).items():
                for name in names:
                    contexts.setdefault(name, []).append(line)
        return result


def is_from(function: FunctionType, path: str) -> bool:
    """Whether a function was made from a file."""
    return function.__code__.co_filename == path


def limit_processor(seconds: float) -> None:
    """End this process after so much more processor time."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def briefly(_error: object, _style: object = None) -> str:
    """In place of pytest's report of a failure, which takes longer than most tests and has no reader."""
    return "failed"


def time_is_over(_number: int, _frame: FrameType | None) -> NoReturn:
    """Signal handler: end the test that is running."""
    raise TestTimedOut("the test has used up its processor time")


def is_inside(module: Any, directory: str) -> bool:
    """Whether a module comes from the project."""
    paths = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(str(path).startswith(directory + os.sep) for path in paths if path)


def outside_modules(directory: str) -> list[str]:
    """Names of the imported modules that are not the project's: what a server may import beforehand."""
    found = []
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name == name and not is_inside(module, directory):
            found.append(name)
    return found

"""A pytest fork server: import and collect once, then fork for every candidate repair.

Runs in the interpreter that the project under repair uses, so it needs nothing but the standard library,
pytest and coverage. Three kinds of process, each the leader of its own group:

    server    has imported pytest and nothing of the project      reads requests from stdin
    session   forked from the server; pytest has collected        one for each state of the files
    run       forked from a session; runs some tests and ends     one a candidate, a few milliseconds

Every process watches the pipe from the one above it and ends when that one is gone: killing the solver with
SIGKILL leaves nothing behind. A candidate that changes the inside of a function needs no new session: the run
process replaces the code object of the live function. PraPR does so with JVM byte code (Ghanbari, Benton and
Zhang, "Practical Program Repair via Bytecode Mutation", ISSTA 2019).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from kerai_client.solve.processes import Child, Lines, send, silence
from kerai_client.solve.session import Session, is_inside, limit_processor


def without_helpers() -> list[str]:
    """Options that keep plugins from taking tests to other processes, or measuring lines as well."""
    if os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        return []
    helpers = {"xdist": "-n0", "pytest_cov": "--no-cov"}
    return [option for name, option in helpers.items() if importlib.util.find_spec(name)]


def preload(names: list[str], directory: str) -> None:
    """Import modules that every session will want; take back those that pull in the project."""
    for name in names:
        if name in sys.modules:
            continue
        before = set(sys.modules)
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
        new = set(sys.modules) - before
        if any(is_inside(sys.modules[other], directory) for other in new):
            for other in new:
                del sys.modules[other]


def start_session(settings: dict[str, Any], files: list[str], cover: bool) -> Child:
    """Fork a process that collects tests from the files as they are now; with `cover` it can measure."""
    import coverage  # noqa: PLC0415 - main() has to set the path first
    import pytest  # noqa: PLC0415

    def body(requests: int, replies: int) -> None:
        os.dup2(os.open(settings["output"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), 1)
        os.dup2(1, 2)
        # in the copy, bytecode of the files as they are is worth keeping, that of candidates is not
        sys.dont_write_bytecode = not cover
        measure = None
        if cover:
            measure = coverage.Coverage(data_file=None, include=settings["sources"], config_file=False)
            measure.start()
        limit_processor(settings["collect_cpu"])
        session = Session(settings, requests, replies, measure)
        status = pytest.main([*settings["options"], *files], plugins=[session])
        send(replies, {"end": "error", "status": int(status)})

    return Child(body)


class Server:
    """Answers the solver's requests until it is gone.

    `open` starts the session that later `run` requests use; `once` starts one for a single run.
    """

    def __init__(self, settings: dict[str, Any], requests: Lines, replies: int) -> None:
        self.settings = settings
        self.requests = requests
        self.replies = replies
        self.session: Child | None = None

    def serve(self) -> None:
        """Answer requests. Raises EOFError, or BrokenPipeError, when the solver is gone."""
        while True:
            request = self.requests.wait()
            send(self.replies, getattr(self, "do_" + request["do"])(request))

    def do_open(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Collect all tests, in a session that stays."""
        self.close()
        self.session = start_session(self.settings, self.settings["tests"], cover=True)
        ready = last(self.session.listen(self.requests.descriptor, self.settings["collect_wall"]))
        preload(ready.pop("modules", []), self.settings["directory"])
        return ready

    def do_run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run tests in a fork of the session."""
        if self.session is None:
            return {"end": "crash"}
        try:
            send(self.session.down, request)
        except BrokenPipeError:
            return {"end": "crash"}
        return last(self.session.listen(self.requests.descriptor, request["wall"] + 1))

    def do_once(self, request: dict[str, Any]) -> dict[str, Any]:
        """Collect some tests from the files as they are now, run them, forget all that."""
        passing = start_session(self.settings, request["files"], cover=False)
        try:
            reply = last(passing.listen(self.requests.descriptor, self.settings["collect_wall"]))
            if reply["end"] == "ready":
                send(passing.down, request)
                reply |= last(passing.listen(self.requests.descriptor, request["wall"] + 1))
        finally:
            passing.close()
        return reply

    def close(self) -> None:
        """End the session."""
        if self.session:
            self.session.close()
            self.session = None


def last(messages: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The last message of a conversation."""
    *_, message = messages
    return message


def main(scratch: str) -> None:
    """Read settings, then requests, from stdin until it ends; answer on the descriptor that was stdout.

    Removes the directory `scratch` at the end, for the solver may have been killed.
    """
    requests = Lines(os.dup(0))
    replies = os.dup(1)
    silence()
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            settings = requests.wait()
            fault = prepare(settings)
            send(replies, {"end": "error", "text": fault} if fault else {"end": "ready"})
            server = Server(settings, requests, replies)
            try:
                server.serve()
            finally:
                server.close()
        finally:
            os.chdir("/")
            shutil.rmtree(scratch, ignore_errors=True)


def prepare(settings: dict[str, Any]) -> str:
    """Import what every session needs. Returns what is missing, or nothing."""
    library, directory = settings["library"], settings["directory"]
    sys.argv = ["pytest"]
    sys.path[:1] = [directory]  # as `python -m pytest` has it; before, it was kerai's directory
    sys.path.append(library)  # for an interpreter without pytest or coverage: ours
    for name in [name for name in sys.modules if name.partition(".")[0] == "kerai_client"]:
        del sys.modules[name]  # the project under repair may be kerai
    try:
        import coverage  # noqa: F401, PLC0415
        import pytest  # noqa: PLC0415
        from _pytest.config import default_plugins  # noqa: PLC0415
    except ImportError as error:
        return f"{sys.executable}: {error}"
    sys.path.remove(library)
    settings["options"] += without_helpers()
    pytest.hookimpl(tryfirst=True)(Session.pytest_runtestloop)
    preload([f"_pytest.{name}" for name in default_plugins], directory)
    os.chdir(directory)
    return ""

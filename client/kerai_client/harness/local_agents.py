"""Agents that this machine runs: processes of `kerai agent work`.

They end with the process that has started them, whatever ends it: it stops them in order when it is
interrupted, and they look whether it is still there.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

from kerai_client.harness.workspace import Workspace

STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
LOG_BYTES = 2_000


class Terminated(SystemExit):
    """A signal ends this process; what it has begun is ended first."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class LocalAgents:
    """Some agents at work for one swarm; they are stopped when the ``with`` block ends.

    SIGTERM and SIGHUP end the block with :class:`Terminated`, SIGINT with KeyboardInterrupt. One more of
    them, while the agents end, kills them. The database is named in the environment, not in the arguments,
    which other users can read.

    :param names: the agents' names, or how many are to be named after ``prefix``: PREFIX-1, PREFIX-2, …
        without those that other processes of this user work as.
    """

    def __init__(
        self,
        dsn: str,
        swarm: UUID,
        names: Sequence[str] | int,
        *,
        prefix: str = "solver",
        solver: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._command = [
            *(sys.executable, "-m", "kerai_client", "agent", "work"),
            *("--swarm", str(swarm), "--solver", solver, "--launched-by", str(os.getpid()), *options),
        ]
        self._environment = {**environment, "KERAI_DSN": dsn}
        self._names = names
        self._prefix = prefix
        self._ending = False
        self._patience = STOP_SECONDS
        self._handlers: dict[int, Any] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalAgents:
        self._workspace = Workspace("launch")
        try:
            self._listen()
            for name in self._free_names() if isinstance(self._names, int) else self._names:
                self.start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _free_names(self) -> Iterator[str]:
        assert isinstance(self._names, int)
        names = (f"{self._prefix}-{number}" for number in itertools.count(1))
        free = (name for name in names if self._workspace.reserve(name))
        return itertools.islice(free, self._names)

    def _listen(self) -> None:
        """Take the signals that end a process, but for those that were ignored when it started (`nohup`)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._ending:
            self._patience = 0.0
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Terminated(number)

    def start(self, name: str) -> None:
        """Start an agent, or start it again."""
        with self._log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self._command, "--agent", name],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the one who started them: they are stopped in order.
                start_new_session=True,
            )

    def __exit__(self, *_: object) -> None:
        self._ending = True
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        for process in self.processes.values():
            while process.poll() is None and time.monotonic() < began + self._patience:
                time.sleep(POLL_SECONDS)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._workspace.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def running(self) -> int:
        """Return how many of them run."""
        return sum(process.poll() is None for process in self.processes.values())

    def failures(self) -> Iterator[tuple[str, int, str]]:
        """Yield the name, the exit code and the last words of each that ended with an error."""
        for name, process in self.processes.items():
            code = process.poll()
            if code:
                yield name, code, self.log(name)[-LOG_BYTES:].strip()

    def log(self, name: str) -> str:
        """Return what an agent has printed."""
        return self._log(name).read_text("utf-8", errors="replace")

    def _log(self, name: str) -> Path:
        return self._workspace.path / f"{name}.log"

"""Agents that this machine runs: processes of `kerai agent work`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from kerai_client.harness.workspace import Workspace

STOP_SECONDS = 10.0
LOG_BYTES = 2_000


class Crew:
    """Some agents at work for one swarm; they are stopped when the ``with`` block ends.

    The database is named in the environment, not in the arguments, which other users can read.
    """

    def __init__(
        self,
        dsn: str,
        swarm: UUID,
        names: Sequence[str],
        *,
        solver: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._command = [
            *(sys.executable, "-m", "kerai_client", "agent", "work"),
            *("--swarm", str(swarm), "--solver", solver, *options),
        ]
        self._environment = {**environment, "KERAI_DSN": dsn}
        self._names = list(names)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Crew:
        self._workspace = Workspace("crew")
        try:
            for name in self._names:
                self.start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

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
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(until - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._workspace.close()

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

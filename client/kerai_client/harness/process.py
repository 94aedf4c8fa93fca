"""Run a command with a time limit and bounded output, see :mod:`kerai_client.harness.supervise`."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervise.py")
GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
POLL_SECONDS = 0.2
HEAD_BYTES = 64 * 1024
TAIL_BYTES = 1024 * 1024

# What libpq connects by. Tests that need a database of their own set these in the success command.
LIBPQ = frozenset(
    {
        *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE"),
        *("PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGOPTIONS", "PGSSLCERT", "PGSSLKEY"),
    }
)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended.

    ``output`` is what it printed, standard output and error as one; of very much output the beginning
    and the end. ``stopped`` says why it was ended before it was done, None when it ended by itself.
    """

    exit_code: int
    output: str
    seconds: float
    timed_out: bool
    stopped: str | None

    @property
    def milliseconds(self) -> int:
        """How long it ran."""
        return round(self.seconds * 1000)


class BoundedOutput:
    """The first and the last bytes of a stream, whatever its length."""

    def __init__(self, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        self._head_limit, self._tail_limit = head, tail
        self._head, self._tail = bytearray(), bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        # Twice the limit before a cut, so that the copying is linear in what comes.
        if len(self._tail) > 2 * self._tail_limit:
            self._cut()

    def _cut(self) -> None:
        excess = len(self._tail) - self._tail_limit
        if excess > 0:
            del self._tail[:excess]
            self._dropped += excess

    def text(self) -> str:
        """Return it as text; bytes that are not UTF-8, and NUL, come as U+FFFD."""
        self._cut()
        gap = f"\n[… {self._dropped} bytes left out …]\n".encode() if self._dropped else b""
        return bytes(self._head + gap + self._tail).decode(errors="replace").replace("\0", "\ufffd")


def run(
    command: str | Sequence[str],
    directory: Path,
    *,
    environment: Mapping[str, str],
    seconds: float,
    watch: Callable[[], str | None] | None = None,
    watch_seconds: float = POLL_SECONDS,
) -> Finished:
    """Run a command to its end; afterwards no process of it is left.

    :param command: a line for ``/bin/sh``, or a program with its arguments.
    :param directory: where it runs.
    :param environment: all of its environment.
    :param seconds: it is ended after this long.
    :param watch: asked every ``watch_seconds``; a text that it returns ends the command and becomes
        ``Finished.stopped``. An exception of it ends the command too, and is raised again.
    """
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    started = time.monotonic()
    supervisor = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), str(GRACE_SECONDS), *words],
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert supervisor.stdin is not None and supervisor.stdout is not None
    output = BoundedOutput()
    timed_out, stopped = False, None
    try:
        next_watch = started + watch_seconds
        for now in _read(supervisor.stdout.fileno(), output):
            if now - started > seconds:
                timed_out = True
                break
            if watch is not None and now >= next_watch:
                stopped = watch()
                if stopped is not None:
                    break
                next_watch = time.monotonic() + watch_seconds
    finally:
        supervisor.stdin.close()  # lets go of the leash
        for _ in _read(supervisor.stdout.fileno(), output):
            if supervisor.poll() is not None:
                break
        supervisor.wait()
        supervisor.stdout.close()
    return Finished(supervisor.returncode, output.text(), time.monotonic() - started, timed_out, stopped)


def _read(descriptor: int, output: BoundedOutput) -> Iterator[float]:
    """Move what arrives into ``output``; yield the time after each read or quiet moment, until the end."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if selector.select(POLL_SECONDS):
                data = os.read(descriptor, 65536)
                if not data:
                    return
                output.add(data)
            yield time.monotonic()


def clean_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of solvers and tests: this one without the ways to the database and the keys.

    Python must not cache bytecode: of two versions of a file that have the same size and are written
    within one second, it would run the older one. The folder of this client is the last on the path,
    so that `kerai solve` is found.
    """
    kept = {
        name: value for name, value in environ.items() if not name.startswith("KERAI_") and name not in LIBPQ
    }
    here = str(Path(sys.executable).parent)
    path = kept.get("PATH", os.defpath)
    if here not in path.split(os.pathsep):
        path = f"{path}{os.pathsep}{here}"
    return kept | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}

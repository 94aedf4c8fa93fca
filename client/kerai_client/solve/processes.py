"""Forked processes that lead their own group and talk in lines of JSON (standard library only)."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

READ_SIZE = 1 << 16
FREE_ADDRESSES = 1 << 36  # bytes, where the present size cannot be had
LARGEST_FILE = 1 << 28  # bytes that a test may write into one file


class Lines:
    """JSON objects from a pipe, one a line."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = b""

    def take(self) -> Iterator[dict[str, Any]]:
        """Objects that are complete after one read. Raises EOFError when the writer is gone."""
        data = os.read(self.descriptor, READ_SIZE)
        if not data:
            raise EOFError
        *whole, self.buffer = (self.buffer + data).split(b"\n")
        for line in whole:
            yield json.loads(line)

    def wait(self) -> dict[str, Any]:
        """The next object, however long it takes."""
        while True:
            for message in self.take():
                return message


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Write one JSON object as a line."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


class Child:
    """A forked process that leads its own group and talks through two pipes."""

    def __init__(self, body: Callable[[int, int], None], grace: float = 2.0) -> None:
        self.grace = grace  # seconds that it gets to end by itself
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                os.close(down_write)
                os.close(up_read)
                body(down_read, up_write)
                status = 0
            finally:
                os._exit(status)
        os.close(down_read)
        os.close(up_write)
        self.down = down_write
        self.lines = Lines(up_read)

    def listen(self, upstream: int, seconds: float) -> Iterator[dict[str, Any]]:
        """Messages up to one with the key 'end'; made up when the child ends or `seconds` are over."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.lines.descriptor, upstream], [], [], left)
            if upstream in ready:
                # the one above writes nothing while we work for it: it is gone
                self.close()
                raise EOFError
            if ready:
                try:
                    for message in self.lines.take():
                        yield message
                        if "end" in message:
                            return
                except EOFError:
                    yield {"end": "crash"}
                    return
        yield {"end": "timeout"}

    def close(self) -> None:
        """Hang up, give the child a while to end, then kill its process group."""
        self.hang_up()
        deadline = time.monotonic() + self.grace
        while (
            time.monotonic() < deadline
            and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.002)
        self.kill()

    def hang_up(self) -> None:
        """Close the pipe to the child: an idle one ends by itself then."""
        if self.down >= 0:
            os.close(self.down)
        self.down = -1

    def kill(self) -> None:
        """Kill the process group and collect the child."""
        self.hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # first, for it may not lead its group yet
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.lines.descriptor)


def limit_resources(memory: int) -> None:
    """Bound what a run may take: bytes of address space beyond the present, size of a file, no core dumps."""
    present = FREE_ADDRESSES
    with contextlib.suppress(OSError), Path("/proc/self/statm").open() as statm:  # Linux only
        present = int(statm.read().split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_AS, present + memory),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))


def silence() -> None:
    """Send what the tests print to nowhere, and give them nothing to read."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)

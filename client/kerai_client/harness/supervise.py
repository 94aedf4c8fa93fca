"""Run one command so that nothing of it survives: neither its end, nor a stop, nor the agent's death.

    python -I -S supervise.py GRACE COMMAND [ARGUMENT…]

It is a process of its own since an agent that is killed with -9 cannot clean up. Standard input is
the leash: a pipe whose other end the agent holds. When that end closes, for whatever reason, every
process that the command has started gets SIGTERM, and GRACE seconds later SIGKILL. The command leads
its own session; those of its descendants that left the session as well are found because this
process is their reaper (Linux, prctl(2)). Elsewhere only the process group is ended.

The exit code is the command's, 128 + signal when a signal ended it, 127 when it could not start.
Only the standard library, and little of it: this starts before every run of a solver or a test.
"""

import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LEFTOVER_GRACE = 0.5  # what a finished command has left running gets this long
KILL_PATIENCE = 10.0


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process; a system without prctl goes without."""
    try:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        return


def children(pid: int) -> list[int]:
    """Return the process ids of the children of a process."""
    found: list[int] = []
    try:
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in file.read_text().split()]
    except OSError:
        return found
    return found


def descendants() -> list[int]:
    """Return the process ids of everything below this process."""
    found: list[int] = []
    ahead = children(os.getpid())
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children(pid)
    return found


class ProcessTree:
    """The command and what it has started."""

    def __init__(self, command: list[str]) -> None:
        self.status: int | None = None
        self.leader = os.fork()
        if self.leader == 0:
            self._become(command)

    @staticmethod
    def _become(command: list[str]) -> None:
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def reap(self) -> bool:
        """Collect those that have ended; say whether any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.leader:
                self.status = os.waitstatus_to_exitcode(status)

    def signal(self, number: int) -> None:
        """Send a signal to all of them."""
        for pid in descendants():
            try:
                os.kill(pid, number)
            except OSError:
                continue
        if self.status is None:
            try:
                os.killpg(self.leader, number)
            except OSError:
                return

    def end(self, grace: float) -> None:
        """End all of them: SIGTERM, ``grace`` seconds, SIGKILL."""
        self.signal(signal.SIGTERM)
        until = time.monotonic() + grace
        while self.reap():
            if time.monotonic() > until + KILL_PATIENCE:
                return
            if time.monotonic() > until:
                self.signal(signal.SIGKILL)
            time.sleep(0.01)


def main() -> int:
    """Run the command line; return the exit code."""
    grace = float(sys.argv[1])
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    bell, ringer = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(ringer, False)
    signal.set_wakeup_fd(ringer)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.append(1))
    signal.signal(signal.SIGCHLD, lambda *_: None)

    tree = ProcessTree(sys.argv[2:])
    while tree.status is None and not stop:
        ready, _, _ = select.select([0, bell], [], [], 1.0)
        if bell in ready:
            os.read(bell, 4096)
        if 0 in ready and not os.read(0, 1):
            stop.append(1)
        tree.reap()
    tree.end(grace if stop else LEFTOVER_GRACE)
    status = 128 + signal.SIGKILL if tree.status is None else tree.status
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    # The interpreter's own shutdown would cost another few milliseconds.
    os._exit(main())

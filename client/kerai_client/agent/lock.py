"""A lock and a note keep an agent's history in one line. The lock keeps a second process from signing for it.
The note says where the history ended, against a database that does not know all of it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from kerai_client.agent import keys
from kerai_client.errors import KeraiError

POLL_SECONDS = 0.1


@contextmanager
def agent_lock(
    name: str, instance: str, *, patience: float = 0.0, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold an agent's lock at one database: two processes that sign at a time would fork its history.

    :param patience: for so many seconds another process is waited for.
    :param waiting: told once which process is waited for.
    :raises KeraiError: when another process of this user works as this agent, and is not done in that time.
    """
    file = keys.key_file(name, instance).with_suffix(".lock")
    keys.make_folder(file.parent)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + patience
        told = waiting is None
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 100, 0).decode("ascii", "replace").strip()
                who = f"process {holder}" if holder else "another process"
                if time.monotonic() >= deadline:
                    raise KeraiError(
                        f"another process works as agent {name!r} at this database",
                        detail=f"{who} holds {file}",
                        hint="try again when it has ended, or sign as another agent: --agent NAME",
                    ) from None
                if not told and waiting is not None:
                    waiting(f"waiting for {who}, which works as agent {name!r}")
                    told = True
                time.sleep(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class LastPush:
    """The last changeset that an author has pushed from here: its last operation's number, and its id."""

    author: str
    seq: int
    changeset: str


def note_last_push(name: str, instance: str, end: LastPush) -> None:
    """Keep where an agent's history ends. A note that is lost or torn costs the check, nothing else."""
    file = keys.key_file(name, instance).with_suffix(".pushed")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        text = json.dumps(asdict(end)).encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
    finally:
        os.close(descriptor)


def require_last_push(name: str, instance: str, author: str, seq: int, prev: str | None) -> None:
    """Check that a database knows all that an agent has pushed from here, before the agent signs more.

    A copy of a database, or an older state of it, has the same instance key. A changeset for a place in the
    sequence that is taken elsewhere would be a fork.

    :param seq: the number that the database gives to the author's next operation.
    :param prev: the id of the author's last changeset there.
    :raises KeraiError: when the database lacks the author's last push.
    """
    file = keys.key_file(name, instance).with_suffix(".pushed")
    try:
        end = LastPush(**json.loads(file.read_text("utf-8")))
        known = end.author != author or seq > end.seq + 1 or (seq == end.seq + 1 and prev == end.changeset)
    except (FileNotFoundError, ValueError, TypeError):
        return
    if not known:
        raise KeraiError(
            f"this database does not have all that agent {name!r} has pushed",
            detail=f"pushed from here: {author} up to {end.seq} (changeset {end.changeset}); "
            f"in this database: up to {seq - 1}" + (f" (changeset {prev})" if prev else ""),
            hint="it is a copy or an older state: `kerai sync` it with the one that has it, or sign as "
            f"another agent (--agent NAME). When no database has it any more, remove {file}",
        )

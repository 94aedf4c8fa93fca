"""One run: a server of its own, and the merges of a repository, one after another or several at once."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import Queue
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import psycopg
from tests.replay.instance import Clock, Instance, Outcome
from tests.replay.judge import Verdict, judge
from tests.replay.repository import Case, Found, Merge, Repository, Unreadable

from kerai_client.db.connection import connect
from kerai_client.errors import KeraiError
from kerai_client.server.private import PrivateServer


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one merge.

    ``refused``: why the client or the instance did not take it. ``unreadable``: why git could not give it.
    ``orders_differ``: the result depends on the order of the authors; ``contested``: and may do so.
    """

    commit: str
    clean: bool = True
    verdicts: tuple[Verdict, ...] = ()
    git_is_human: bool = False
    orders_differ: bool = False
    contested: bool = False
    operations: int = 0
    changed_lines: int = 0
    left_out: int = 0
    refused: str | None = None
    unreadable: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it for a report."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"verdicts": [verdict.as_json() for verdict in self.verdicts]}


@dataclass(slots=True)
class Run:
    """What came of all of them. ``seconds``: on the clock, without the server's start."""

    repository: str
    found: Found = field(default_factory=Found)
    merges: list[Replayed] = field(default_factory=list)
    seconds: float = 0.0


class Worker:
    """Replays merges of one repository in one database."""

    def __init__(self, repository: Path, server: PrivateServer, number: int = 0) -> None:
        self.repository = Repository(repository)
        self.instance = Instance(server, number)

    def close(self) -> None:
        """End git's process and the connection."""
        self.repository.__exit__()
        self.instance.close()

    def read(self, merge: Merge, clock: Clock, *, whole: bool = False) -> tuple[Case, list[Outcome]]:
        """Return a merge and what kerai makes of it.

        :raises Unreadable: when git cannot give it.
        :raises KeraiError, psycopg.Error: when kerai does not take it.
        """
        case = self.repository.case(merge, whole=whole)
        clock.to("git")
        return case, self.instance.merge(case.base, case.ours, case.theirs, clock)

    def replay(self, merge: Merge, *, whole: bool = False) -> Replayed:
        """Replay one merge."""
        clock = Clock()
        try:
            case, outcomes = self.read(merge, clock, whole=whole)
        except Unreadable as problem:
            return Replayed(merge.commit, unreadable=str(problem))
        except (KeraiError, psycopg.Error) as problem:
            return Replayed(merge.commit, refused=f"{type(problem).__name__}: {problem}", seconds=clock.spent)
        verdicts = tuple(judge(case, outcomes))
        clock.to("client")
        differ = any(outcome.files != outcomes[0].files for outcome in outcomes)
        return Replayed(
            merge.commit,
            case.clean,
            verdicts,
            case.git == case.human,
            differ,
            any(outcome.contested for outcome in outcomes),
            max(outcome.operations for outcome in outcomes),
            case.changed_lines,
            case.left_out,
            seconds=clock.spent,
        )


@contextmanager
def own_server() -> Iterator[PrivateServer]:
    """Start a throwaway server; stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="kerai-replay-"))
    folder.chmod(0o755)
    server = PrivateServer(folder / "server", fsync=False)
    try:
        server.up()
        with connect(server.dsn_of("postgres")) as connection:
            connection.execute("alter system set autovacuum = off")
            connection.execute("select pg_reload_conf()")
        yield server
    finally:
        server.destroy()
        shutil.rmtree(folder)


def run(
    repository: Path,
    server: PrivateServer,
    *,
    jobs: int = 1,
    whole: bool = False,
    limit: int | None = None,
    seconds: float | None = None,
    tell: Callable[[Replayed], None] = lambda merge: None,
) -> Run:
    """Replay the newest merges of a repository.

    :param jobs: how many processes, each with a database of its own.
    :param whole: also the files that one side alone has changed.
    :param limit: at most so many merges; None: all.
    :param seconds: begin no merge after so many seconds.
    :param tell: told what came of each.
    """
    done = Run(str(repository))
    begin = time.monotonic()
    with Repository(repository) as git:
        wanted = islice(git.merges(done.found), limit)
        timely = _until(None if seconds is None else begin + seconds, wanted)
        for merge in _replay_all(repository, server, jobs, timely, whole):
            if merge.unreadable is not None:
                done.found.unreadable[merge.commit] = merge.unreadable
                continue
            done.merges.append(merge)
            tell(merge)
    done.seconds = time.monotonic() - begin
    return done


def _until(end: float | None, merges: Iterable[Merge]) -> Iterator[Merge]:
    for merge in merges:
        if end is not None and time.monotonic() > end:
            return
        yield merge


def _replay_all(
    repository: Path, server: PrivateServer, jobs: int, merges: Iterator[Merge], whole: bool
) -> Iterator[Replayed]:
    if jobs == 1:
        worker = Worker(repository, server)
        try:
            yield from map(partial(worker.replay, whole=whole), merges)
        finally:
            worker.close()
        return
    numbers: Queue[int] = Queue()
    for number in range(jobs):
        numbers.put(number)
    with ProcessPoolExecutor(jobs, initializer=_begin, initargs=(repository, server, numbers)) as pool:
        # A few ahead of the processes, not all: `seconds` counts when a merge is handed out.
        while batch := list(islice(merges, 8 * jobs)):
            yield from pool.map(partial(_replay, whole=whole), batch)


class _Process:
    worker: Worker


def _begin(repository: Path, server: PrivateServer, numbers: Queue[int]) -> None:
    _Process.worker = Worker(repository, server, numbers.get())
    Finalize(None, _Process.worker.close, exitpriority=1)  # a process of a pool ends without atexit


def _replay(merge: Merge, *, whole: bool) -> Replayed:
    return _Process.worker.replay(merge, whole=whole)

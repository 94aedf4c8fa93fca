"""A swarm on one package with many bugs: all repaired, nothing lost, whatever dies meanwhile.

``make test`` takes four agents and five bugs, ``make test-long`` eight agents and twelve bugs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.support.laws import LONG

from kerai_client.agent.session import Session
from kerai_client.agent.state import read_state
from kerai_client.db.connection import Connection, Database
from kerai_client.errors import KeraiError
from kerai_client.harness.local_agents import LocalAgents
from kerai_client.harness.process import clean_environment, run
from kerai_client.harness.results import Outcome, judge
from kerai_client.harness.workspace import Workspace
from kerai_client.repo.checkout import write_checkout
from kerai_client.repo.importing import import_directory
from kerai_client.server.private import PrivateServer

BUGS = Path(__file__).parents[1] / "data" / "twelve_bugs"
TESTS = f"{shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider"
SOLVER = f"{shlex.quote(sys.executable)} -P -m kerai_client solve mutate"
MODULES = ("demand", "labels", "places", "prices", "stock") if LONG else ("labels", "stock")
LEAST_FAILING = 12 if LONG else 5
AGENTS = [f"solver-{number}" for number in range(1, (8 if LONG else 4) + 1)]
LIMIT_SECONDS = 240.0
STEP = re.compile(r"(\d+) failing -> (\d+) failing")


pytestmark = pytest.mark.long


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """A server that a test may kill, as durable as a real one: the shared one may lose commits then."""
    folder = Path(tempfile.mkdtemp(prefix="kerai-swarm-test-"))
    folder.chmod(0o755)
    private = PrivateServer(folder / "server")
    try:
        private.up()
        yield private
    finally:
        private.destroy()
        shutil.rmtree(folder)


@pytest.fixture
def dsn(own_server: PrivateServer) -> str:
    """The way to it."""
    return own_server.dsn


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the agents make their temporary folders."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def package(place: Path) -> Path:
    """The package with the bugs, or a part of it that has a few of them."""
    folder = place / "package"
    for name in ("pyproject.toml", "stockroom/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(BUGS / name, folder / name)
    (folder / "tests").mkdir()
    for module in MODULES:
        for name in (f"stockroom/{module}.py", f"tests/test_{module}.py"):
            shutil.copy(BUGS / name, folder / name)
    return folder


def run_tests(database: Database, folder: Path) -> Outcome:
    """Check the state out and run its tests there."""
    write_checkout(database, read_state(database), folder)
    return judge(run(TESTS, folder, environment=clean_environment(), seconds=120))


def launch(database: Database, package: Path) -> tuple[UUID, UUID]:
    """Import the package and launch a swarm against it; return the ids of swarm and task."""
    with Session(database, "importer", "human") as session:
        import_directory(session, package)

    def make(connection: Connection) -> tuple[UUID, UUID]:
        task = connection.execute(
            "select id from kerai.create_task(%s, %s)", ["all tests pass", TESTS]
        ).fetchone()
        assert task is not None
        swarm = connection.execute(
            "select id from kerai.launch_swarm(%s, 'agents', 8)", [task["id"]]
        ).fetchone()
        assert swarm is not None
        return swarm["id"], task["id"]

    return database.run(make)


def one(database: Database, query: str, *parameters: object) -> Any:
    """Return the one value of a query."""

    def ask(connection: Connection) -> Any:
        row = connection.execute(query, parameters).fetchone()  # type: ignore[call-overload]
        assert row is not None
        return next(iter(row.values()))

    return database.run(ask)


def wait(local_agents: LocalAgents, condition: Callable[[], bool]) -> None:
    """Wait for a condition; an agent that has failed ends the test with its last words."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        for name, code, words in local_agents.failures():
            pytest.fail(f"{name} ended with exit code {code}: {words}")
        if time.monotonic() > deadline:
            pytest.fail(
                "\n".join(f"{name}: {local_agents.log(name)[-1000:]}" for name in local_agents.processes)
            )
        time.sleep(0.1)


def converged(database: Database, swarm: UUID) -> bool:
    """Say whether a swarm has reached its goal."""
    return bool(one(database, "select status = 'converged' from kerai.swarms where id = %s", swarm))


def merged(database: Database, task: UUID) -> int:
    """Return how many changesets of the task are merged."""
    return int(one(database, "select count(*) from kerai.changesets where task_id = %s", task))


def check_the_end(database: Database, task: UUID, failing: int, folder: Path) -> None:
    """Everything is repaired, step by step, and paid exactly once."""
    after = run_tests(database, folder)
    assert after.passed and after.failed == 0, after.summary

    # Each repair was tested on top of all those before it, and none was undone by a later one.
    def read(connection: Connection) -> list[str]:
        rows = connection.execute(
            "select message from kerai.changesets where task_id = %s order by arrival", [task]
        ).fetchall()
        return [row["message"] for row in rows]

    left = failing
    for message in database.run(read):
        step = STEP.fullmatch(message)
        assert step is not None, message
        assert int(step[1]) == left and int(step[2]) < left, message
        left = int(step[2])
    assert left == 0

    supply = database.run(
        lambda connection: connection.execute("select circulating, balances from kerai.supply()").fetchone()
    )
    reward = one(database, "select reward from kerai.convergences where task_id = %s", task)
    assert supply == {"circulating": reward, "balances": reward}
    assert one(database, "select sum(amount)::bigint from kerai.ledger where kind = 'mint'") == reward
    assert one(database, "select count(*) from kerai.mints") == 1
    shares = one(database, "select shares from kerai.convergences")
    assert sum(share["nkoi"] for share in shares) == reward
    assert {share["name"] for share in shares} <= set(AGENTS)


def check_nothing_is_left(place: Path) -> None:
    """No working tree of an agent is left; those of killed ones go when the next agent starts."""
    with Workspace("next", place):
        pass
    (base,) = place.glob("kerai-agents-*")
    assert sorted(path.name for path in base.iterdir()) == ["lock", "turns"]


def test_agents_repair_every_bug(dsn: str, place: Path, package: Path) -> None:
    with Database(dsn) as database:
        swarm, task = launch(database, package)
        before = run_tests(database, place / "before")
        assert before.failed is not None and before.failed >= LEAST_FAILING
        with LocalAgents(dsn, swarm, AGENTS, solver=SOLVER) as local_agents:
            wait(local_agents, lambda: converged(database, swarm))
            wait(local_agents, lambda: local_agents.running() == 0)
            assert not list(local_agents.failures())
        check_the_end(database, task, before.failed, place / "after")
        agents = "select count(distinct agent_id) from kerai.test_results where task_id = %s"
        assert one(database, agents, task) > 1
        # A few bugs may all be one agent's.
        authors = "select count(distinct author) from kerai.changesets where task_id = %s"
        assert one(database, authors, task) > (1 if LONG else 0)
    check_nothing_is_left(place)


def test_it_survives_kill_9(dsn: str, place: Path, package: Path, own_server: PrivateServer) -> None:
    with Database(dsn) as database:
        swarm, task = launch(database, package)
        failing = run_tests(database, place / "before").failed
        assert failing is not None
        # Half of them in a swarm that groups its members.
        many = one(database, "select id from kerai.launch_swarm(%s, 'many', 8, true)", task)
        with (
            LocalAgents(dsn, swarm, AGENTS[::2], solver=SOLVER) as ungrouped,
            LocalAgents(dsn, many, AGENTS[1::2], solver=SOLVER) as grouped,
        ):
            wait(ungrouped, lambda: merged(database, task) >= 2)
            for local_agents, name in ((ungrouped, AGENTS[0]), (grouped, AGENTS[1])):
                local_agents.processes[name].send_signal(signal.SIGKILL)
                local_agents.processes[name].wait()
            postmaster = own_server.pid()
            assert postmaster is not None
            os.kill(postmaster, signal.SIGKILL)
            start_again(own_server)
            assert merged(database, task) >= 2
            for local_agents, name in ((ungrouped, AGENTS[0]), (grouped, AGENTS[1])):
                local_agents.start(name)
            for local_agents in (ungrouped, grouped):
                wait(local_agents, lambda: converged(database, swarm))
                wait(local_agents, lambda local_agents=local_agents: local_agents.running() == 0)  # type: ignore[misc]
                assert not list(local_agents.failures())
        assert one(database, "select count(*) from kerai.forks") == 0
        check_the_end(database, task, failing, place / "after")
    check_nothing_is_left(place)


def start_again(server: PrivateServer) -> None:
    """Start a server whose postmaster was killed, as soon as its last processes have noticed."""
    deadline = time.monotonic() + 30
    while True:
        try:
            server.up()
            return
        except (KeraiError, psycopg.OperationalError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)

"""``kerai demo``: the whole story on the example package, with a server of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from kerai_client.cli.main import Client
from kerai_client.cli.options import DURATION
from kerai_client.errors import KeraiError

if TYPE_CHECKING:
    from kerai_client.db.connection import Database
    from kerai_client.harness.results import Outcome
    from kerai_client.server.private import PrivateServer

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SOLVER = "kerai solve mutate"
SUCCESS_COMMAND = "python -m pytest -q"
TEST_SECONDS = 120.0


@click.command()
@click.option("--agents", type=click.IntRange(1), default=8, show_default=True, help="How many work on it.")
@click.option("--keep", is_flag=True, help="Leave the server running, to look around in it.")
@click.option("--timeout", type=DURATION, default="150s", show_default=True, help="Give up after this long.")
@click.option(
    "--source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another Python package with failing tests (default: the example).",
)
@click.pass_obj
def demo(client: Client, agents: int, keep: bool, timeout: float, source: Path | None) -> None:
    """See a swarm repair a package: a private server, an import, agents at work, a green checkout.

    Everything lies in DIR/demo and is made anew at each run; your own server is not touched.

    \b
    Example:
      kerai demo
      kerai demo --agents 4 --keep
    """
    from kerai_client.server.private import PrivateServer  # noqa: PLC0415 -- see kerai_client.cli.main

    source = source or _example()
    place = client.config.directory / "demo"
    with _demo_lock(place):
        # Keys of the demo's agents are its own, and its tests run with this client's Python.
        os.environ["KERAI_KEYS"] = str(place / "keys")
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        server = PrivateServer(place / "server")
        server.destroy()
        for folder in ("keys", "repaired"):
            shutil.rmtree(place / folder, ignore_errors=True)
        try:
            _Demo(server, place, source, agents, timeout).run()
        finally:
            if keep:
                click.echo(
                    f"\nThe server still runs: kerai sql --dir '{server.directory}' \"SELECT …\"\n"
                    f"Stop it: kerai down --dir '{server.directory}'"
                )
            else:
                server.down()


def _example() -> Path:
    found = sorted(folder for folder in EXAMPLES.glob("*") if folder.is_dir()) if EXAMPLES.is_dir() else []
    if not found:
        raise KeraiError(
            "the example package is not here",
            detail=str(EXAMPLES),
            hint="run it from a clone, or say --source DIR",
        )
    return found[0]


def _package_in(source: Path) -> str | None:
    """Return the folder that the agents may change: the code, so that nobody repairs a test instead."""
    for name in ("src", source.name, source.name.replace("-", "_")):
        if (source / name).is_dir():
            return name
    return None


@contextmanager
def _demo_lock(place: Path) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeraiError(
                "a demo runs here already", detail=str(place), hint="name another --dir"
            ) from None
        yield
    finally:
        os.close(descriptor)


class _Demo:
    """The demo from beginning to end; each step says what it does."""

    def __init__(self, server: PrivateServer, place: Path, source: Path, agents: int, timeout: float) -> None:
        self._server, self._place, self._source = server, place, source
        self._agents, self._timeout = agents, timeout
        self._began = time.monotonic()

    def run(self) -> None:
        from kerai_client.db.connection import Database  # noqa: PLC0415 -- as above

        self._print(f"a private server in {self._place / 'server'}")
        dsn = self._server.up()
        with Database(dsn) as database:
            self._import(database)
            before = self._test_as_imported(database)
            swarm, task = self._launch(database)
            self._work(database, dsn, swarm)
            repaired = self._place / "repaired"
            after = self._test_repaired(database, repaired)
            self._sum_up(database, task)
        took = f"{time.monotonic() - self._began:.0f} s"
        if not after.passed:
            raise KeraiError("the repaired package is not green", detail=after.summary)
        click.secho(
            f"\n{before.failed} tests failed, now all {after.succeeded} pass; {took}. See {repaired}",
            bold=True,
        )

    def _print(self, line: str) -> None:
        click.echo(f"[{time.monotonic() - self._began:5.1f} s] {line}")

    def _import(self, database: Database) -> None:
        from kerai_client.agent.session import Session  # noqa: PLC0415
        from kerai_client.repo.importing import import_directory  # noqa: PLC0415 -- as above

        with Session(database, "demo", "human") as session:
            report = import_directory(
                session, self._source, message=f"import {self._source.name}", remember=False
            )
        self._print(f"imported {self._source.name}: {report.files} files, {report.nodes} nodes")

    def _test_as_imported(self, database: Database) -> Outcome:
        from kerai_client.agent.state import read_state  # noqa: PLC0415
        from kerai_client.harness.workspace import Workspace  # noqa: PLC0415
        from kerai_client.repo.checkout import write_checkout  # noqa: PLC0415 -- as above

        with Workspace("demo") as workspace:
            write_checkout(database, read_state(database), workspace.tree)
            outcome = self._run_tests(workspace.tree)
        self._print(f"its tests: {outcome.summary}")
        for name in sorted(outcome.failing):
            click.echo(f"            {name}")
        return outcome

    def _launch(self, database: Database) -> tuple[UUID, UUID]:
        from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above
        from kerai_client.harness.tasks import create_task  # noqa: PLC0415

        connection = database.connection()
        task = create_task(
            connection,
            f"make all tests of {self._source.name} pass",
            success_command=SUCCESS_COMMAND,
            scope=_package_in(self._source),
            timeout=self._timeout,
        )
        swarm = connection.execute(
            queries()["launch_swarm"],
            {"task": task["id"], "name": "demo", "max_agents": self._agents, "grouped": False},
        ).fetchone()
        assert swarm is not None
        self._print(f"a swarm of {self._agents} agents, each running `{SOLVER}`")
        return swarm["id"], task["id"]

    def _work(self, database: Database, dsn: str, swarm: UUID) -> None:
        from kerai_client.cli.dashboard import follow  # noqa: PLC0415 -- as above
        from kerai_client.harness.local_agents import LocalAgents  # noqa: PLC0415

        names = [f"solver-{number + 1}" for number in range(self._agents)]
        deadline = self._began + self._timeout
        with LocalAgents(dsn, swarm, names, solver=SOLVER) as local_agents:
            status = follow(
                database, swarm, lambda: local_agents.running() > 0 and time.monotonic() < deadline
            )
            failures = list(local_agents.failures())
            if status["status"] != "converged":
                for name, code, words in failures:
                    click.echo(f"{name} ended with exit code {code}:\n{words}", err=True)
                raise KeraiError(
                    "the swarm has not turned the tests green in time",
                    detail=f"{status['failing_tests']} failing tests are left",
                    hint="give it longer with --timeout, or look at what it did with --keep",
                )
        self._print("converged")

    def _test_repaired(self, database: Database, repaired: Path) -> Outcome:
        from kerai_client.agent.state import read_state  # noqa: PLC0415
        from kerai_client.repo.checkout import write_checkout  # noqa: PLC0415 -- as above

        written = write_checkout(database, read_state(database), repaired)
        outcome = self._run_tests(repaired)
        self._print(f"the repaired package, {written.files} files in {repaired}: {outcome.summary}")
        return outcome

    def _run_tests(self, directory: Path) -> Outcome:
        from kerai_client.harness.process import clean_environment, run  # noqa: PLC0415 -- as above
        from kerai_client.harness.results import judge  # noqa: PLC0415

        command = f"{SUCCESS_COMMAND} -p no:cacheprovider"
        return judge(run(command, directory, environment=clean_environment(), seconds=TEST_SECONDS))

    def _sum_up(self, database: Database, task: UUID) -> None:
        from kerai_client.cli.dashboard import economics_lines, show_leaderboard  # noqa: PLC0415 -- as above
        from kerai_client.db.connection import queries  # noqa: PLC0415

        click.echo()
        show_leaderboard(database, task)
        connection = database.connection()
        row = connection.execute(queries()["swarm_economics"], {"task": task}).fetchone()
        supply: dict[str, Any] | None = connection.execute(queries()["supply"]).fetchone()
        assert row is not None and supply is not None
        click.echo("\n".join(economics_lines(row)))
        click.echo(
            f"Supply: {supply['circulating']:,} nKoi, all wallets together: {supply['balances']:,} nKoi"
        )
        if supply["circulating"] != supply["balances"]:
            raise KeraiError("the wallets do not add up to the supply", detail=str(supply))

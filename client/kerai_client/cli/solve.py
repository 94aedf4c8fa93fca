"""`kerai solve`: solvers that an agent can run in its working copy."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kerai_client.cli.output import to_json
from kerai_client.solve import mutate as engine
from kerai_client.solve.success import read_success_command

if TYPE_CHECKING:
    from kerai_client.cli.main import Client


@click.group()
def solve() -> None:
    """Solvers for `kerai agent work --solver`.

    \b
    Example:
      kerai agent work --swarm first --solver "kerai solve mutate"
    """


@solve.command()
@click.option("--seed", type=int, help="Decides where the search begins.  [default: from agent and attempt]")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after this time.",
)
@click.option(
    "--tests", multiple=True, metavar="PATH", help="Tests to mend.  [default: from the success command]"
)
@click.option("--source", multiple=True, metavar="PATH", help="Files that may change.  [default: the scope]")
@click.option(
    "--max-fixes", type=click.IntRange(min=1), default=1, show_default=True, help="Repairs to make."
)
@click.option("--agent", envvar="KERAI_AGENT", default="", hidden=True)
@click.option("--attempt", envvar="KERAI_ATTEMPT", type=int, default=1, hidden=True)
@click.option("--scope", envvar="KERAI_SCOPE", default="", hidden=True)
@click.option("--success-command", envvar="KERAI_SUCCESS_COMMAND", default="", hidden=True)
@click.pass_obj
def mutate(
    client: Client,
    *,
    seed: int | None,
    time_limit: float,
    tests: tuple[str, ...],
    source: tuple[str, ...],
    max_fixes: int,
    agent: str,
    attempt: int,
    scope: str,
    success_command: str,
) -> None:
    """Repair Python in the current directory by small edits, judged by its pytest suite.

    Keeps the first edit that makes fewer tests fail and breaks none that passed, and touches nothing
    else; the tests run in a copy of the directory. Needs no language model. One seed always gives one
    result, unless the time limit ends the search.

    Exit status: 0 when it has improved something, 1 when it has found nothing, 2 when it cannot work here.

    \b
    Example:
      kerai solve mutate --tests tests --source src --max-fixes 3
      kerai agent work --swarm fix-it --solver "kerai solve mutate"
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and leave nothing behind
    directory = Path.cwd()
    command = read_success_command(success_command, directory)
    command.tests = list(tests) or command.tests
    for test in command.tests:
        if not (directory / test.partition("::")[0]).exists():
            raise click.UsageError(f"--tests {test}: no such file or directory")
    if seed is None:
        seed = engine.seed_for(agent, attempt)
    try:
        chosen = list(source) or ([engine.nearest_existing(directory, scope)] if scope else [])
        result = engine.repair(
            directory,
            engine.find_sources(directory, chosen),
            command,
            seed=seed,
            time_limit=time_limit,
            max_fixes=max_fixes,
        )
    except engine.Misuse as error:
        raise click.UsageError(str(error)) from None
    if client.json:
        click.echo(to_json(engine.describe(result)))
    else:
        for fix in result.fixes:
            click.echo(engine.difference(fix), nl=False)
        click.echo(
            f"{result.failing_before} failing tests, {result.failing_after} left; "
            f"{result.candidates} candidates in {result.seconds:.1f} s",
            err=True,
        )
    sys.exit(0 if result.fixes else 1)

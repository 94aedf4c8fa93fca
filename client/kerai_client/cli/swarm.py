"""``kerai swarm``: launch swarms, and see what they do."""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from kerai_client.cli.main import INTERRUPTED, Client, Failure
from kerai_client.cli.options import AMOUNT, COUNT, DURATION
from kerai_client.cli.output import emit, emit_record, format_nkoi, write
from kerai_client.errors import KeraiError, printable

# What `kerai agent work` takes of a launch.
LIMITS = ("max_attempts", "attempt_timeout", "test_timeout", "cost_per_second")
NKOI = dict.fromkeys(("rewards_nkoi", "nkoi", "budget_nkoi", "spent_nkoi"), format_nkoi)


@click.group()
def swarm() -> None:
    """Launch swarms of agents, and see what they do.

    \b
    Example:
      kerai swarm launch --task "make all tests in pkg/auth pass" --agents 8 --solver "kerai solve mutate"
    """


@swarm.command()
@click.option(
    "--task", required=True, metavar="TASK", help="A task's id, or words: an open task's, or a new one's."
)
@click.option("--agents", type=COUNT, default=100, show_default=True, help="At most so many may join.")
@click.option("--model", help="The model of the agents; [solvers] in the config names its command.")
@click.option("--timeout", type=DURATION, help="For how long they may work, for example 1h.")
@click.option("--budget", type=AMOUNT, metavar="NKOI", help="What the attempts may cost in all, in nKoi.")
@click.option("--budget-ops", type=COUNT, metavar="N", help="How many operations an agent may push.")
@click.option(
    "--success-command", metavar="CMD", help="Done when it exits with 0 (default: detected from the tree)."
)
@click.option("--scope", metavar="PATH", help="The directory or file that agents may change (default: all).")
@click.option("--sponsor", metavar="AGENT", help="The agent whose wallet pays.")
@click.option("--name", help="The swarm's name (default: made from its id).")
@click.option(
    "--grouped", is_flag=True, help="Let the agents push in the swarm's name: for hundreds of them."
)
@click.option("--solver", metavar="CMD", help="What edits the working tree; agents with it are started here.")
@click.option(
    "--start", type=click.IntRange(0), metavar="N", help="How many to start here (default: one a core)."
)
@click.option(
    "--agent-prefix",
    default="solver",
    show_default=True,
    help="They are named PREFIX-1, PREFIX-2, … (free ones).",
)
@click.option("--max-attempts", type=COUNT, metavar="N", help="Each agent started here stops after so many.")
@click.option("--attempt-timeout", type=DURATION, help="For one run of the solver (default: 10m).")
@click.option("--test-timeout", type=DURATION, help="For one run of the tests (default: 10m).")
@click.option("--cost-per-second", type=COUNT, metavar="NKOI", help="What each agent started here costs.")
@click.pass_obj
def launch(
    client: Client,
    /,
    *,
    task: str,
    agents: int,
    model: str | None,
    name: str | None,
    grouped: bool,
    solver: str | None,
    start: int | None,
    agent_prefix: str,
    **options: Any,
) -> None:
    """Launch a swarm against a task, and with a solver, start agents on this machine.

    The words of an open task name that task, with the scope, command and budgets that it has; other words
    make a new one.

    Agents started here work in the foreground until the task has succeeded; Ctrl-C stops them, and
    the swarm stays open for others. Agents elsewhere join with `kerai agent work`.

    Each agent's changes make an entry in every version vector. In a --grouped swarm they enter under the
    swarm's own author id instead: one entry for all its agents. Each change still names its agent and
    carries that agent's signature. Rewards are the agent's.

    \b
    Example:
      kerai swarm launch --task "make all tests in pkg/auth pass" --agents 100 \\
          --model claude-opus-4-6 --timeout 1h --budget 500000
      kerai swarm launch --task 3f2a --solver "kerai solve mutate" --start 4
      kerai swarm launch --task 3f2a --agents 500 --grouped
    """
    from kerai_client.agent.keys import check_name  # noqa: PLC0415
    from kerai_client.db.connection import Connection, queries  # noqa: PLC0415 -- drivers are slow to import
    from kerai_client.harness.tasks import task_to_launch  # noqa: PLC0415

    limits = {name: options.pop(name) for name in LIMITS}
    config = client.config
    solver = solver or config.solvers.get(model or "")
    if start and solver is None:
        raise KeraiError(
            "there is no solver to start agents with",
            hint="say --solver CMD, or give the model a command in [solvers] of ~/.config/kerai/config.toml",
        )
    count = min(agents, os.cpu_count() or 1) if start is None else start
    if count > agents:
        raise KeraiError(f"the swarm takes {agents} agents", detail=f"--start {count}", hint="raise --agents")
    if solver is not None and count:
        check_name(f"{agent_prefix}-1")  # before a task and a swarm are made for a name that cannot be

    def begin(connection: Connection) -> tuple[dict[str, Any], str | None]:
        with connection.transaction():
            found, new = task_to_launch(connection, task, **options)
            row = connection.execute(
                queries()["launch_swarm"],
                {
                    "task": found,
                    "name": name,
                    "max_agents": agents,
                    "grouped": grouped,
                },
            ).fetchone()
        assert row is not None
        return row, new

    with client.database() as database:
        made, new = begin(database.connection())
        if new is not None and not client.json:
            told = f"made task {made['task_id']}, done when this exits with 0: {new}"
            click.echo(printable(told), err=True)
        if solver is None or not count:
            if client.json:
                emit_record(made, json=True)
            else:
                _explain_joining(made, solver, model)
            return
        words = [] if model is None else ["--kind", "llm", "--model", model]
        for option, value in limits.items():
            if value is not None:
                words += [f"--{option.replace('_', '-')}", str(value)]
        _run_local_agents(client, made, solver, count=count, prefix=agent_prefix, options=words)


def _explain_joining(made: dict[str, Any], solver: str | None, model: str | None) -> None:
    command = solver or "<command of your agent>"
    extra = f" --kind llm --model {shlex.quote(model)}" if model else ""
    click.echo(
        f"Swarm {made['name']} ({made['id']}) waits for agents. Start each like this, with a name of its\n"
        f"own, on any machine that reaches the database:\n\n"
        f"  kerai agent work --swarm {made['id']} --agent solver-1 --solver {shlex.quote(command)}{extra}\n\n"
        f"See what they do:  kerai swarm status --watch\n"
        f"Stop it:           kerai swarm stop {made['id']}"
    )


def _run_local_agents(
    client: Client, made: dict[str, Any], solver: str, *, count: int, prefix: str, options: list[str]
) -> None:
    from kerai_client.cli.dashboard import follow, swarm_rows  # noqa: PLC0415 -- as above
    from kerai_client.harness.local_agents import LocalAgents, Terminated  # noqa: PLC0415

    local_agents = LocalAgents(
        client.config.database(), made["id"], count, prefix=prefix, solver=solver, options=options
    )
    try:
        with client.database() as database, local_agents:
            if client.json:
                for process in local_agents.processes.values():
                    process.wait()
                status, _ = swarm_rows(database, made["id"])
                emit_record(status, json=True)
            else:
                status = follow(database, made["id"], lambda: local_agents.running() > 0)
            failures = list(local_agents.failures())
    except (KeyboardInterrupt, Terminated) as end:
        code = end.code if isinstance(end, Terminated) else INTERRUPTED
        agents = ", ".join(local_agents.processes) or "no agent"
        stopped = KeraiError(
            f"interrupted: {agents} ended, the swarm stays open",
            detail=f"swarm {made['name']} ({made['id']})",
            hint=f"stop it: kerai swarm stop {made['id']}",
        )
        Failure(stopped, as_json=client.json).show()
        raise click.exceptions.Exit(int(code or 0)) from None
    for name, code, words in failures:
        click.echo(printable(f"{name} ended with exit code {code}:\n{words}"), err=True)
    if status["status"] != "converged":
        raise KeraiError(
            f"the task has not succeeded: {status['task_status']}",
            detail=f"swarm {made['id']}, no agent runs here any more",
            hint=f"kerai swarm progress --task {made['task_id']}",
        )


@swarm.command()
@click.argument("swarm", metavar="[SWARM]", required=False)
@click.option("--watch", is_flag=True, help="Go on showing it until it ends.")
@click.pass_obj
def status(client: Client, swarm: str | None, watch: bool) -> None:
    """Show all swarms, or one with its agents.

    \b
    Example:
      kerai swarm status
      kerai swarm status 3f2a --watch
    """
    if watch and client.json:
        raise click.UsageError("--watch shows a table until the swarm ends; ask for --json again and again")
    from kerai_client.cli.dashboard import agents_table, follow, swarm_rows  # noqa: PLC0415 -- as above
    from kerai_client.db.connection import queries  # noqa: PLC0415
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    with client.database() as database:
        everything = database.run(
            lambda connection: connection.execute(queries()["swarm_status"], {"swarm": None}).fetchall()
        )
        if swarm is None and watch and everything:
            found: UUID = everything[0]["swarm_id"]
        elif swarm is None:
            columns = ["name", "status", "task", "agents", "active", "attempts", "passes", "failing_tests"]
            emit(everything, [*columns, "rewards_nkoi", "swarm_id"], "Swarms", client.json, NKOI)
            return
        else:
            found = database.run(lambda connection: find(connection, "swarm", swarm))
        if watch:
            follow(database, found, lambda: True)
            return
        row, members = swarm_rows(database, found)
    if client.json:
        emit_record({**row, "members": members}, json=True)
    else:
        write(agents_table(row, members))


@swarm.command()
@click.argument("swarm", metavar="SWARM")
@click.pass_obj
def stop(client: Client, swarm: str) -> None:
    """Stop a swarm: its agents end their work, its task can be launched again.

    \b
    Example:
      kerai swarm stop 3f2a
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    with client.connect() as connection:
        found = find(connection, "swarm", swarm)
        row = connection.execute(queries()["stop_swarm"], {"swarm": found}).fetchone()
    assert row is not None
    emit_record(row, json=client.json)


@swarm.command()
@click.option("--task", required=True, metavar="TASK", help="The task, by id or description.")
@click.pass_obj
def leaderboard(client: Client, task: str) -> None:
    """Show which agents make tests pass.

    \b
    Example:
      kerai swarm leaderboard --task 3f2a
    """
    from kerai_client.cli.dashboard import show_leaderboard  # noqa: PLC0415 -- as above
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    with client.database() as database:
        found = database.run(lambda connection: find(connection, "task", task))
        show_leaderboard(database, found, client.json)


@swarm.command()
@click.option("--since", type=DURATION, default="1h", show_default=True, help="How far to look back.")
@click.pass_obj
def hotspots(client: Client, since: float) -> None:
    """Show what is changed most.

    \b
    Example:
      kerai swarm hotspots --since 1h
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    with client.connect() as connection:
        rows = connection.execute(queries()["swarm_hotspots"], {"since": timedelta(seconds=since)}).fetchall()
    columns = ["path", "kind", "name", "operations", "authors", "last_changed_at"]
    emit(rows, columns, "Hotspots", client.json)


@swarm.command()
@click.option("--task", required=True, metavar="TASK", help="The task, by id or description.")
@click.pass_obj
def progress(client: Client, task: str) -> None:
    """Show how the tests turn green, minute by minute.

    \b
    Example:
      kerai swarm progress --task 3f2a
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    with client.connect() as connection:
        found = find(connection, "task", task)
        rows = connection.execute(queries()["swarm_progress"], {"task": found}).fetchall()
    emit(rows, ["minute", "attempts", "passes", "failures", "best_failing"], "Progress", client.json)


@swarm.command()
@click.option("--agent", required=True, metavar="NAME", help="The agent, by name or id.")
@click.pass_obj
def trace(client: Client, agent: str) -> None:
    """Show what an agent has done, the oldest first.

    \b
    Example:
      kerai swarm trace --agent solver-42
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    with client.connect() as connection:
        found = find(connection, "agent", agent)
        rows = connection.execute(queries()["agent_trace"], {"agent": found}).fetchall()
    columns = ["at", "event", "operations", "failing", "duration_ms", "nkoi", "message", "reference"]
    emit(rows, columns, "Trace", client.json, NKOI)


@swarm.command()
@click.option("--task", required=True, metavar="TASK", help="The task, by id or description.")
@click.pass_obj
def economics(client: Client, task: str) -> None:
    """Show what a task has cost and paid.

    \b
    Example:
      kerai swarm economics --task 3f2a
    """
    from kerai_client.cli.dashboard import economics_lines  # noqa: PLC0415 -- as above
    from kerai_client.db.connection import queries  # noqa: PLC0415
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    with client.connect() as connection:
        found = find(connection, "task", task)
        row = connection.execute(queries()["swarm_economics"], {"task": found}).fetchone()
    assert row is not None
    if client.json:
        emit_record(row, json=True)
    else:
        click.echo("\n".join(economics_lines(row)))

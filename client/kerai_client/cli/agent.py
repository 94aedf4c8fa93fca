"""``kerai agent``: register agents, list them, and let one work."""

from __future__ import annotations

import signal
import time
from typing import Any

import click

from kerai_client.cli.main import INTERRUPTED, Client
from kerai_client.cli.options import DURATION, LARGEST_COUNT
from kerai_client.cli.output import emit, emit_record, format_nkoi, to_json
from kerai_client.errors import KeraiError, printable

NO_SOLVER = "say --solver CMD, or give the model a command in [solvers] of ~/.config/kerai/config.toml"
KINDS = click.Choice(["human", "llm", "tool", "swarm"])


@click.group()
def agent() -> None:
    """Register agents, list them, and let them work.

    \b
    Example:
      kerai agent register --name solver-1 --kind llm --model claude-opus-4-6
    """


@agent.command()
@click.option("--name", required=True, help="Its name, unique in the database.")
@click.option("--kind", type=KINDS, required=True, help="What it is.")
@click.option("--model", help="The language model behind it.")
@click.option("--capability", "capabilities", multiple=True, help="What it can do; may be repeated.")
@click.option("--hosted", is_flag=True, help="The instance signs for it, when your database role pushes.")
@click.pass_obj
def register(
    client: Client, *, name: str, kind: str, model: str | None, capabilities: tuple[str, ...], hosted: bool
) -> None:
    """Register an agent: an identity that signs, with a wallet.

    Its Ed25519 key is made in ~/.config/kerai/keys, where each database has a folder, and stays there.
    Registering it again changes nothing.

    \b
    Example:
      kerai agent register --name solver-1 --kind llm --model claude-opus-4-6
      kerai agent register --name psql --kind human --hosted
    """
    from kerai_client.agent.keys import key_file  # noqa: PLC0415 -- drivers and keys are slow to import
    from kerai_client.agent.registration import instance_of  # noqa: PLC0415
    from kerai_client.agent.registration import register as register_agent  # noqa: PLC0415

    with client.database() as database:
        row = register_agent(database, name, kind, model=model, capabilities=capabilities, hosted=hosted)
        key = None if hosted else str(key_file(name, instance_of(database)))
    shown = ("id", "name", "author", "kind", "model", "capabilities", "wallet_id", "created_at")
    emit_record({**{column: row[column] for column in shown}, "key": key}, json=client.json)


@agent.command("list")
@click.pass_obj
def list_(client: Client) -> None:
    """List the agents and what they have earned.

    \b
    Example:
      kerai agent list
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    with client.connect() as connection:
        rows = connection.execute(queries()["agents"]).fetchall()
    columns = ["name", "kind", "model", "capabilities", "hosted", "balance", "author"]
    emit(rows, columns, "Agents", client.json, {"balance": format_nkoi})


@agent.command()
@click.option("--swarm", required=True, metavar="SWARM", help="The swarm to join, by id or name.")
@click.option(
    "--solver", metavar="CMD", help="The command that edits the working tree (default: the model's)."
)
@click.option("--agent", "name", metavar="NAME", help="Who works (default: your user name); made when new.")
@click.option("--kind", type=KINDS, default="tool", show_default=True, help="What a new agent is.")
@click.option(
    "--model", help="The model of a new agent; without --solver, [solvers] in the config names its command."
)
@click.option("--max-attempts", type=click.IntRange(1), help="Stop after so many.")
@click.option(
    "--attempt-timeout", type=DURATION, default="10m", show_default=True, help="For one run of the solver."
)
@click.option(
    "--test-timeout", type=DURATION, default="10m", show_default=True, help="For one run of the tests."
)
@click.option(
    "--cost-per-second",
    type=click.IntRange(0, LARGEST_COUNT),
    default=0,
    metavar="NKOI",
    help="What this agent costs.",
)
@click.option("--launched-by", type=int, hidden=True, help="The process that starts it, and ends with it.")
@click.pass_obj
def work(
    client: Client,
    *,
    swarm: str,
    solver: str | None,
    name: str | None,
    kind: str,
    model: str | None,
    max_attempts: int | None,
    attempt_timeout: float,
    test_timeout: float,
    cost_per_second: int,
    launched_by: int | None,
) -> None:
    """Work for a swarm until its task has succeeded.

    In each attempt the tree is written into a temporary directory, CMD runs there and may edit files, and the
    task's success command judges. An edit that makes more tests pass is signed and pushed. CMD finds in its
    environment KERAI_TASK, KERAI_SWARM, KERAI_AGENT, KERAI_ATTEMPT (a number), KERAI_SCOPE (a path),
    KERAI_SUCCESS_COMMAND, and the files KERAI_TASK_FILE and KERAI_TEST_OUTPUT.

    \b
    Example:
      kerai agent work --swarm nightly --solver "kerai solve mutate" --agent solver-1
      kerai agent work --swarm nightly --agent claude-1 \\
          --solver 'claude -p "$(cat "$KERAI_TASK_FILE")" --permission-mode acceptEdits'
    """
    from kerai_client.agent.session import Session  # noqa: PLC0415
    from kerai_client.cli.source import user_name  # noqa: PLC0415 -- as above
    from kerai_client.harness.bookkeeping import Limits, StopRequest  # noqa: PLC0415
    from kerai_client.harness.coordination import Membership, PatientDatabase  # noqa: PLC0415
    from kerai_client.harness.worker import Worker  # noqa: PLC0415
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    name = user_name() if name is None else name
    config = client.config
    stop = StopRequest(launched_by)

    def on_event(event: str, facts: dict[str, Any]) -> None:
        if client.json:
            click.echo(to_json({"agent": name, "event": event, **facts}, indent=None))
        else:
            click.echo(f"{time.strftime('%H:%M:%S')} {name}: {printable(sentence(event, facts))}")

    with stop.listening():
        database = PatientDatabase(
            config.database(),
            interrupted=stop.check,
            on_disconnect=lambda message: on_event("waiting", {"message": message}),
        )
        with database, Session(database, name, kind, model=model) as session:
            command = solver or config.solvers.get(session.agent["model"] or "")
            if command is None:
                raise KeraiError(
                    "there is no solver",
                    detail=f"agent: {name}, model: {session.agent['model'] or 'none'}",
                    hint=NO_SOLVER,
                )
            swarm_id = database.run(lambda connection: find(connection, "swarm", swarm))
            membership = Membership(database, swarm_id, session.agent_id)
            limits = Limits(max_attempts, attempt_timeout, test_timeout, cost_per_second)
            worker = Worker(session, membership, command, limits, stop, on_event)
            reason = worker.work()
            counters = worker.counters
            on_event("done", {"reason": reason, "attempts": counters.attempts, "merged": counters.merged})
    if stop.signal == signal.SIGINT:
        raise click.exceptions.Exit(INTERRUPTED)


SENTENCES = {
    "waiting": "{message}",
    "tested": "tested the state: {summary}",
    "idle": "attempt {attempt}: the solver changed nothing (exit code {solver_exit})",
    "rewound": "{message}: beginning again with the state that the server has",
    "problem": "attempt {attempt}: {message}",
    "outside": "attempt {attempt}: outside of the scope, left out: {paths}",
    "overtaken": "somebody else was faster with the same",
    "stale": "the state has changed meanwhile, again on the new one",
    "failed": "{reason}",
    "merged": "merged {operations} operations: {message}",
    "done": "{reason}; {attempts} attempts, {merged} merged",
}


def sentence(event: str, facts: dict[str, Any]) -> str:
    """Return an event of the worker in words."""
    shown = {key: ", ".join(value) if isinstance(value, list) else value for key, value in facts.items()}
    return SENTENCES[event].format(**shown)

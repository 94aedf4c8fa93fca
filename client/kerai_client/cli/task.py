"""``kerai task``: goals for swarms."""

from __future__ import annotations

from typing import Any

import click

from kerai_client.cli.main import Client
from kerai_client.cli.options import AMOUNT, COUNT, DURATION
from kerai_client.cli.output import emit, emit_record, format_nkoi

NKOI = {"budget_nkoi": format_nkoi, "spent_nkoi": format_nkoi, "reward": format_nkoi}


@click.group()
def task() -> None:
    """Create, list and show tasks: what swarms work on.

    \b
    Example:
      kerai task create "make all tests in pkg/auth pass" --scope pkg/auth
    """


@task.command()
@click.argument("description")
@click.option(
    "--success-command", metavar="CMD", help="Done when it exits with 0 (default: detected from the tree)."
)
@click.option("--scope", metavar="PATH", help="The directory or file that agents may change (default: all).")
@click.option("--timeout", type=DURATION, help="For how long agents may work on it.")
@click.option("--budget", type=AMOUNT, metavar="NKOI", help="How much the attempts may cost, in nKoi.")
@click.option("--budget-ops", type=COUNT, metavar="N", help="How many operations an agent may push.")
@click.option("--sponsor", metavar="AGENT", help="The agent whose wallet pays.")
@click.pass_obj
def create(client: Client, /, description: str, **options: Any) -> None:
    """Create a task.

    \b
    Example:
      kerai task create "make all tests in pkg/auth pass" --scope pkg/auth --timeout 1h
      kerai task create "no warnings" --success-command "cargo clippy -- -D warnings"
    """
    from kerai_client.harness.tasks import create_task  # noqa: PLC0415 -- drivers are slow to import

    with client.connect() as connection:
        row = create_task(connection, description, **options)
    emit_record(row, json=client.json, formats=NKOI)


@task.command("list")
@click.option(
    "--status", type=click.Choice(["pending", "running", "succeeded", "failed"]), help="Only these."
)
@click.pass_obj
def list_(client: Client, status: str | None) -> None:
    """List tasks, the latest first.

    \b
    Example:
      kerai task list --status running
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    with client.connect() as connection:
        rows = connection.execute(queries()["tasks"], {"status": status}).fetchall()
    columns = ["id", "status", "description", "success_command", "budget_nkoi", "spent_nkoi", "created_at"]
    emit(rows, columns, "Tasks", client.json, NKOI)


@task.command()
@click.argument("task", metavar="TASK")
@click.pass_obj
def show(client: Client, task: str) -> None:
    """Show a task, and how it converged. TASK is an id, the beginning of one, or the description.

    \b
    Example:
      kerai task show 3f2a
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above
    from kerai_client.repo.lookup import find  # noqa: PLC0415

    with client.connect() as connection:
        found = find(connection, "task", task)
        row = connection.execute(queries()["task"], {"id": found}).fetchone()
    assert row is not None
    emit_record(row, json=client.json, formats=NKOI)

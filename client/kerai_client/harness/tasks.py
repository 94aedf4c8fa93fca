"""Create tasks; find out how a tree's tests are run."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from uuid import UUID

from kerai_client.db.connection import Connection, queries
from kerai_client.errors import KeraiError
from kerai_client.repo.lookup import ID_PREFIX, find, node_at

# The first one that fits is taken: the file names (the last part of a path) tell, then the command.
RUNNERS = (
    (re.compile(r"pytest\.ini|conftest\.py|test_.*\.py|.*_test\.py"), "python -m pytest -q"),
    (re.compile(r"Cargo\.toml"), "cargo test"),
    (re.compile(r"go\.mod"), "go test ./..."),
    (re.compile(r"package\.json"), "npm test"),
    (re.compile(r"pyproject\.toml|setup\.py"), "python -m pytest -q"),
)


def detect_success_command(names: Collection[str]) -> str:
    """Return the command that runs the tests of a tree with these file names.

    :raises KeraiError: when no known runner fits.
    """
    for pattern, command in RUNNERS:
        if any(pattern.fullmatch(name) for name in names):
            return command
    raise KeraiError(
        "cannot tell how the tests are run" if names else "the tree is empty",
        hint="say --success-command CMD" if names else "`kerai import DIR` brings files in",
    )


def create_task(
    connection: Connection,
    description: str,
    *,
    success_command: str | None = None,
    scope: str | None = None,
    timeout: float | None = None,
    budget: int | None = None,
    budget_ops: int | None = None,
    sponsor: str | None = None,
) -> dict[str, Any]:
    """Create a task and return its row.

    :param success_command: detected from the tree when None.
    :param scope: the path of a directory or file, or a node's id.
    :param timeout: in seconds.
    :param budget: in nKoi.
    :param sponsor: the name of the agent whose wallet pays.
    """
    if success_command is None:
        names = connection.execute(queries()["file_names"]).fetchall()
        success_command = detect_success_command({row["name"] for row in names})
    row = connection.execute(
        queries()["create_task"],
        {
            "description": description,
            "success_command": success_command,
            "scope": None if scope is None else node_at(connection, scope),
            "budget_ops": budget_ops,
            "budget_seconds": None if timeout is None else _whole_seconds(timeout),
            "budget_nkoi": budget,
            "sponsor": None if sponsor is None else _wallet_of(connection, sponsor),
        },
    ).fetchone()
    assert row is not None
    return row


def task_to_launch(connection: Connection, text: str, **options: Any) -> tuple[UUID, str | None]:
    """Return the task that a swarm is to work on. That is the task with this id, or an open one with this
    description. Otherwise it is a new one, and then its success command is returned too.

    To be called in a transaction, in which the swarm is launched too.

    :param options: as for :func:`create_task`; of an existing task they must be as it has them.
    :raises KeraiError: when several open tasks have this description, or the task has other options.
    """
    named = ID_PREFIX.fullmatch(text.strip().lower()) is not None
    if not named:
        connection.execute(queries()["one_launch_at_a_time"], {"words": text})
    found = {"id": find(connection, "task", text) if named else None, "words": None if named else text}
    tasks = connection.execute(queries()["open_tasks"], found).fetchall()
    if not tasks:
        new = create_task(connection, text, **options)
        return new["id"], new["success_command"]
    if len(tasks) > 1:
        raise KeraiError(
            f"{len(tasks)} open tasks have this description",
            detail=", ".join(
                f"{task['id']} ({task['status']}, {task['created_at']:%Y-%m-%d %H:%M})" for task in tasks
            ),
            hint="name one by its id",
        )
    other = _other_options(connection, tasks[0], options)
    if other:
        raise KeraiError(
            "an existing task has its scope, command and budgets already",
            detail=f"task {tasks[0]['id']} has not: {' '.join(other)}",
            hint="leave these options out, or describe a new task in other words",
        )
    existing: UUID = tasks[0]["id"]
    return existing, None


def _other_options(connection: Connection, task: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Return the options that ask for something else than what a task has."""
    as_kept: dict[str, Callable[[Any], Any]] = {
        "scope": lambda scope: node_at(connection, scope),
        "timeout": _whole_seconds,
        "sponsor": lambda sponsor: _wallet_of(connection, sponsor),
    }
    return [
        f"--{name.replace('_', '-')} {value}"
        for name, value in options.items()
        if value is not None and as_kept.get(name, lambda same: same)(value) != task[name]
    ]


def _whole_seconds(timeout: float) -> int:
    return max(round(timeout), 1)


def _wallet_of(connection: Connection, agent: str) -> UUID:
    row = connection.execute(
        queries()["wallet_of_agent"], {"id": find(connection, "agent", agent)}
    ).fetchone()
    assert row is not None
    wallet: UUID = row["wallet_id"]
    return wallet

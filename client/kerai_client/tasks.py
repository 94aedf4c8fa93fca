"""Create tasks; find out how a tree's tests are run."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from uuid import UUID

from kerai_client.database import Connection, queries
from kerai_client.errors import KeraiError
from kerai_client.lookup import find, node_at

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
    wallet: UUID | None = None
    if sponsor is not None:
        agent = find(connection, "agent", sponsor)
        paying = connection.execute(queries()["wallet_of_agent"], {"id": agent}).fetchone()
        assert paying is not None
        wallet = paying["wallet_id"]
    row = connection.execute(
        queries()["create_task"],
        {
            "description": description,
            "success_command": success_command,
            "scope": None if scope is None else node_at(connection, scope),
            "budget_ops": budget_ops,
            "budget_seconds": None if timeout is None else max(round(timeout), 1),
            "budget_nkoi": budget,
            "sponsor": wallet,
        },
    ).fetchone()
    assert row is not None
    return row

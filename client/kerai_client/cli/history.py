"""``kerai log``, ``kerai diff`` and ``kerai revert``: what was changed, and how to undo it."""

from __future__ import annotations

import sys
from typing import Any, LiteralString

import click

from kerai_client.agent.pages import Operation
from kerai_client.agent.state import Vector
from kerai_client.cli.main import Client
from kerai_client.cli.options import AMOUNT
from kerai_client.cli.output import emit, emit_record
from kerai_client.cli.source import human_session, parse_vector
from kerai_client.db.connection import Connection, queries
from kerai_client.errors import KeraiError, printable
from kerai_client.repo.lookup import changeset_like, node_at
from kerai_client.repo.patch import Side, patch

USUAL_LOG = 30
MOST_LOG = 10_000  # what kerai.log() gives at once
NOW = "now"


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, MOST_LOG), default=USUAL_LOG, show_default=True, help="At most so many."
)
@click.option("--author", metavar="NAME", help="Only of this agent, by name or author id.")
@click.option(
    "--scope", "--path", "scope", metavar="PATH", help="Only what changed this file, directory or node."
)
@click.option("--before", type=AMOUNT, metavar="ARRIVAL", help="Go on after the changeset of this arrival.")
@click.pass_obj
def log(client: Client, limit: int, author: str | None, scope: str | None, before: int | None) -> None:
    """List changesets, the latest first.

    \b
    Example:
      kerai log --limit 5
      kerai log --author solver-1 --scope src/auth
    """
    with client.database() as database:

        def read(connection: Connection) -> list[dict[str, Any]]:
            node = None if scope is None else node_at(connection, scope)
            return connection.execute(
                queries()["log"], {"limit": limit, "author": author, "scope": node, "before": before}
            ).fetchall()

        rows = database.run(read)
    columns = ["arrival", "received", "author", "operations", "files", "message", "changeset"]
    emit(rows, columns, "Changesets", client.json)


@click.command()
@click.argument("old", metavar="[A", required=False)
@click.argument("new", metavar="[B]]", required=False, default=NOW)
@click.option("--scope", metavar="PATH", help="Only this file, or what lies below this directory or node.")
@click.option("--nodes", is_flag=True, help="The nodes that differ, not the text of files.")
@click.pass_obj
def diff(client: Client, *, old: str | None, new: str, scope: str | None, nodes: bool) -> None:
    """Show what differs between two states, as a patch that `git apply` takes.

    A and B are each a changeset, by the beginning of its id, a version vector as JSON, or `now`. As A a
    changeset stands for the state just before it, as B for the one just after it: what its author had
    seen, without and with it. So `kerai diff ID ID` is what one changeset did, and `kerai diff ID` all
    since. Without A it is the latest changeset.

    \b
    Example:
      kerai diff
      kerai diff 3f2a 3f2a --scope src/auth
      kerai diff '{"alice.0123456789abcdef": 120}' now --nodes
    """
    query: LiteralString = queries()["diff" if nodes else "diff_files"]

    def read(connection: Connection) -> list[dict[str, Any]]:
        with connection.transaction():
            connection.execute(queries()["begin_snapshot"])
            return connection.execute(
                query,
                {
                    "old": _vector_of(connection, _latest(connection) if old is None else old, "before"),
                    "new": _vector_of(connection, new, "after"),
                    "scope": None if scope is None else node_at(connection, scope),
                },
            ).fetchall()

    with client.database() as database:
        rows = database.run(read)
    if nodes:
        emit(rows, ["path", "kind", "changes", "before", "after", "node"], "Nodes", client.json)
        return
    patches = [{"path": row["new_path"] or row["old_path"], "patch": patch(*_sides(row))} for row in rows]
    patches = [each for each in patches if each["patch"]]
    if client.json:
        emit([{**each, "file": row["file"]} for each, row in zip(patches, rows, strict=False)], json=True)
        return
    for each in patches:
        # For a program it is what it is; on a terminal it could be anybody's escape sequences.
        click.echo(printable(each["patch"]) if sys.stdout.isatty() else each["patch"], nl=False)


def _sides(row: dict[str, Any]) -> tuple[Side | None, Side | None]:
    old, new = (
        None
        if row[f"{which}_path"] is None
        else Side(row[f"{which}_path"], row[f"{which}_source"], row[f"{which}_metadata"])
        for which in ("old", "new")
    )
    return old, new


def _latest(connection: Connection) -> str:
    row = connection.execute(queries()["latest_changeset"]).fetchone()
    if row is None:
        raise KeraiError("there are no changesets yet", hint="`kerai import DIR` makes the first")
    return str(row["changeset"])


def _vector_of(connection: Connection, text: str, side: str) -> str | None:
    """Return the vector that an argument stands for as JSON, None for now; ``side``: before or after."""
    from kerai_client.cli.output import to_json  # noqa: PLC0415

    if text.strip().lower() == NOW:
        return None
    if text.lstrip().startswith("{"):
        return to_json(parse_vector(text))
    row = connection.execute(
        queries()["changeset_vectors"], {"changeset": changeset_like(connection, text)}
    ).fetchone()
    assert row is not None
    return to_json(row[side])


@click.command()
@click.argument("changeset", metavar="CHANGESET")
@click.option("--agent", "name", metavar="NAME", help="The agent that signs (default: your user name).")
@click.option("--message", metavar="TEXT", help="Why, for the log (default: which one it undoes).")
@click.option("--dry-run", is_flag=True, help="Print the operations, push nothing.")
@click.pass_obj
def revert(client: Client, changeset: str, name: str | None, message: str | None, dry_run: bool) -> None:
    """Undo a changeset, by a new one.

    What nobody has written over since goes back to what it was: fields, places, deletions, relations.
    What the changeset inserted is deleted. What later changesets wrote stays. CHANGESET is the beginning
    of an id that `kerai log` shows.

    \b
    Example:
      kerai revert 3f2a
    """
    with client.database() as database:
        if dry_run:
            found, _, operations = database.run(lambda connection: _undo(connection, changeset, None))
            emit_record({"changeset": found, "operations": operations}, json=True)
            return
        with human_session(database, name) as session:
            found, vector, operations = database.run(
                lambda connection: _undo(connection, changeset, session.author)
            )
            session.push(
                operations,
                vector,
                message=f"revert {found.hex()[:12]}" if message is None else message,
                whole=True,
            )
    summary = {"changeset": found, "operations": len(operations)}
    if client.json:
        emit_record(summary, json=True)
    else:
        click.echo(f"{len(operations)} operations undo {found.hex()[:12]}")


def _undo(connection: Connection, text: str, author: str | None) -> tuple[bytes, Vector, list[Operation]]:
    """Return a changeset's id, and from one snapshot the vector and the operations that undo it."""
    with connection.transaction():
        connection.execute(queries()["begin_snapshot"])
        changeset = changeset_like(connection, text)
        row = connection.execute(
            queries()["revert_ops"], {"changeset": changeset, "author": author}
        ).fetchone()
    assert row is not None
    return changeset, row["vector"], row["ops"]

"""``kerai import`` and ``kerai checkout``: directories in and out."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path
from typing import Any

import click

from kerai_client.agent.session import Session
from kerai_client.agent.state import Vector, read_state
from kerai_client.cli.main import Client
from kerai_client.cli.output import console, emit_record
from kerai_client.db.connection import Database
from kerai_client.errors import KeraiError, printable
from kerai_client.repo.checkout import write_checkout
from kerai_client.repo.importing import import_directory

PATIENCE_SECONDS = 60.0  # as long as a connection is tried for


@click.command("import")
@click.argument("source", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--into", default="", metavar="PATH", help="Where in the tree DIR goes (default: the root).")
@click.option("--agent", "name", metavar="NAME", help="The agent that signs (default: your user name).")
@click.option("--message", default="", metavar="TEXT", help="Why, for the log.")
@click.option("--replace", is_flag=True, help="Also over the present state, and when most files go.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a file could not be read.")
@click.pass_obj
def import_(
    client: Client, *, source: Path, into: str, name: str | None, message: str, replace: bool, strict: bool
) -> None:
    """Bring a directory into the database, all of it or nothing.

    DIR is compared with the state that it was checked out or imported at. New files are added, changes
    become operations, and missing files are deleted. The work of others since then stays. What git would
    not add is left out. A second import of the same files does nothing.

    A DIR that is neither, where the tree has files already, is compared with the present state when
    --replace is given. Without, it is told what that would take back.

    \b
    Example:
      kerai import my-package
      kerai import vendor/library --into vendor/library --message "library 2.1"
    """
    began = time.monotonic()
    show = _Progress(enabled=not client.json)
    with show, client.database() as database, human_session(database, name) as session:
        report = import_directory(
            session,
            source,
            into=into,
            message=message or f"import {source.name}",
            replace=replace,
            server=client.config.directory,
            notice=lambda line: click.echo(printable(line), err=True),
            progress=show,
        )
    for problem in report.problems:
        click.echo(printable(f"{problem}"), err=True)
    for words, paths in report.conflicts.items():
        click.echo(printable(f"{words}: {', '.join(paths)}"), err=True)
    if report.not_remembered is not None:
        click.echo(f"warning: the next import will need --replace: {report.not_remembered}", err=True)
    seconds = max(time.monotonic() - began, 1e-6)
    summary: dict[str, Any] = {
        "files": report.files,
        "nodes": report.nodes,
        "operations": report.operations,
        "problems": len(report.problems),
        "conflicts": len({path for paths in report.conflicts.values() for path in paths}),
        "seconds": round(seconds, 2),
        "files_per_second": round(report.files / seconds),
        "nodes_per_second": round(report.nodes / seconds),
        "operations_per_second": round(report.operations / seconds),
    }
    emit_record(summary, json=client.json)
    if strict and report.problems:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("target", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--at", metavar="VECTOR", help="The state as of this version vector, a JSON object.")
@click.option("--scope", default="", metavar="PATH", help="Only this file or what lies below this directory.")
@click.option("--force", is_flag=True, help="Also over files that you have changed, or that are not kerai's.")
@click.pass_obj
def checkout(client: Client, target: Path, at: str | None, scope: str, force: bool) -> None:
    """Write the database's files into a directory: a complete working tree.

    DIR is made, or is empty, or an earlier checkout. In an earlier checkout, files that are gone from the
    tree are removed. Files that you have changed are not overwritten unless --force is given.

    \b
    Example:
      kerai checkout repaired
      kerai checkout before --at '{"alice.0123456789abcdef": 120}'
    """
    vector = None if at is None else parse_vector(at)
    with client.database() as database:
        state = read_state(database, vector)
        written = write_checkout(database, state, target, scope=scope.strip("/"), force=force)
    if written.not_remembered is not None:
        click.echo(f"warning: the next checkout will need --force: {written.not_remembered}", err=True)
    summary = {
        "directory": str(target),
        "files": written.files,
        "removed": written.removed,
        "vector": state.vector,
    }
    if client.json:
        emit_record(summary, json=True)
    else:
        console().print(f"{written.files} files in {target}", markup=False)


def human_session(database: Database, name: str | None) -> Session:
    """Return a session of the agent of this name, or of the user's, for a command that signs and ends.

    Another such command is waited for.
    """
    return Session(
        database,
        user_name() if name is None else name,
        "human",
        patience=PATIENCE_SECONDS,
        waiting=lambda line: click.echo(line, err=True),
    )


def user_name() -> str:
    """Return the name of the operating system's user, which signs when no agent is named."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise KeraiError("this user has no name", hint="name the agent that signs: --agent NAME") from None


def parse_vector(text: str) -> Vector:
    """Return the version vector that a JSON text holds.

    :raises KeraiError: when it is not one.
    """
    try:
        vector = json.loads(text)
    except json.JSONDecodeError:
        vector = None
    if not isinstance(vector, dict) or not all(
        isinstance(seq, int) and not isinstance(seq, bool) for seq in vector.values()
    ):
        raise KeraiError(
            f"{text!r} is not a version vector", hint='it looks like {"alice.0123456789abcdef": 120}'
        )
    return vector


class _Progress:
    """A line a stage of an import, on a terminal only."""

    def __init__(self, enabled: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 -- costly

        screen = console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=screen,
            disable=not enabled or not screen.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

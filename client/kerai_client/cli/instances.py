"""``kerai peer``, ``pull``, ``push``, ``sync`` and ``ops``: other instances."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import click

from kerai_client.cli.main import Client
from kerai_client.cli.output import emit, emit_record, format_bytes
from kerai_client.errors import KeraiError, path_in_errors

FORMATS = {"bytes": format_bytes}
COLUMNS = ["name", "scope", "last_contact", "last_problem", "schedule", "added_by"]
RESULT = [
    "peer",
    "pulled_operations",
    "pushed_operations",
    "bytes",
    "refused",
    "forks",
    "complete",
    "problem",
]


@click.group()
def peer() -> None:
    """Add, list and remove peers: the instances that this one syncs with.

    \b
    Example:
      kerai peer add berlin "host=db.example.org dbname=kerai user=sync password=…"
      kerai sync berlin
    """


@peer.command()
@click.argument("name")
@click.argument("connection")
@click.option("--scope", metavar="PATH-OR-ID", help="Hold only what lies below this node of the peer's tree.")
@click.pass_obj
def add(client: Client, name: str, connection: str, scope: str | None) -> None:
    """Add a peer. CONNECTION is a libpq connection string, or the name of a foreign server of dblink_fdw.

    With - for CONNECTION it is read from standard input, so that a password is in no shell's history.
    The database connects, not this command: the string must be right where the database runs. With --scope
    the database, which must be empty, becomes a partial instance; a path this command looks up at the peer.

    \b
    Example:
      kerai peer add berlin "host=db.example.org dbname=kerai user=sync password=…"
      kerai peer add berlin - < connection.txt
      kerai peer add big "host=big.example.org dbname=kerai user=sync password=…" --scope src/parser
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- drivers are slow to import

    if connection == "-":
        connection = sys.stdin.read().strip()
    given = {"name": name, "connection": connection, "scope": _scope(connection, scope)}
    with client.connect() as database:
        row = database.execute(queries()["add_peer"], given).fetchone()
    assert row is not None
    emit_record(row, json=client.json)


def _scope(connection: str, scope: str | None) -> UUID | None:
    """Return the id of a node of a peer's tree, by its id, or by its path, which the peer is asked for.

    :raises KeraiError: when the peer has no such path, or cannot be reached from here.
    """
    import psycopg  # noqa: PLC0415 -- as above

    from kerai_client.db.connection import connect  # noqa: PLC0415 -- as above
    from kerai_client.repo.lookup import node_at  # noqa: PLC0415 -- as above

    if scope is None:
        return None
    try:
        return UUID(scope)
    except ValueError:
        pass
    try:
        peer = connect(connection)
    except (psycopg.Error, KeraiError) as error:
        raise KeraiError(
            f"the path {scope!r} could not be looked up, since the peer is not reached from here",
            # An error about a connection string could quote it, the password in it too.
            detail=str(error).strip() if isinstance(error, psycopg.Error) else None,
            hint='give the id of the node: `kerai sql "SELECT id, path FROM kerai.nodes"` shows it there',
        ) from error
    with peer:
        return node_at(peer, scope)


@peer.command("list")
@click.pass_obj
def list_(client: Client) -> None:
    """List the peers, when they were last reached, and what was wrong.

    \b
    Example:
      kerai peer list
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    with client.connect() as database:
        rows = database.execute(queries()["peers"]).fetchall()
    emit(rows, COLUMNS, "Peers", client.json)


@peer.command()
@click.argument("name")
@click.pass_obj
def remove(client: Client, name: str) -> None:
    """Remove a peer. Its merged changesets stay.

    \b
    Example:
      kerai peer remove berlin
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    with client.connect() as database:
        database.execute(queries()["remove_peer"], {"name": name})
    emit_record({"removed": name}, json=client.json)


@click.command()
@click.argument("peer", required=False)
@click.pass_obj
def pull(client: Client, peer: str | None) -> None:
    """Bring over what a peer has and the database has not; without PEER, of all peers.

    \b
    Example:
      kerai pull berlin
    """
    _exchange(client, "pull", peer)


@click.command()
@click.argument("peer", required=False)
@click.pass_obj
def push(client: Client, peer: str | None) -> None:
    """Bring to a peer what the database has and the peer has not; without PEER, to all peers.

    \b
    Example:
      kerai push berlin
    """
    _exchange(client, "push", peer)


@click.command()
@click.argument("peer", required=False)
@click.pass_obj
def sync(client: Client, peer: str | None) -> None:
    """Push to a peer and pull from it; without PEER, with all peers.

    It goes by transactions of 100,000 operations. When it is cut off, run it again: it goes on from there.

    \b
    Example:
      kerai sync berlin
      kerai sync --json
    """
    _exchange(client, "sync", peer)


def _exchange(client: Client, direction: str, peer: str | None) -> None:
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above
    from kerai_client.repo.exchange import exchange  # noqa: PLC0415 -- as above

    with client.database() as database:
        names = [peer]
        if peer is None:
            names = [
                row["name"]
                for row in database.run(
                    lambda connection: connection.execute(queries()["peer_names"]).fetchall()
                )
            ]
            if not names:
                raise KeraiError("there are no peers", hint="kerai peer add NAME CONNECTION")
        rows = [exchange(database, direction, name) for name in names if name is not None]
    emit(rows, RESULT, json=client.json, formats=FORMATS)
    failed = [row for row in rows if not row["complete"]]
    if failed:
        raise KeraiError(
            f"the {direction} is not complete: {', '.join(row['peer'] for row in failed)}",
            detail=failed[0]["problem"] or "nothing more was moved, and not everything is there",
            hint="kerai.refusals lists what was refused; run it again, it goes on where it has ended",
        )


@click.group()
def ops() -> None:
    """The log as a file: one signed changeset a line.

    \b
    Example:
      kerai ops export log.jsonl
      kerai ops import log.jsonl
    """


@ops.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--since", metavar="VECTOR", help="Only what this version vector (JSON) has not seen.")
@click.pass_obj
def export(client: Client, file: Path | None, since: str | None) -> None:
    """Write changesets to FILE, or to standard output, each line one of them with its signature.

    They come in an order in which they can be imported. With FILE, what was written is told, and the
    version vector with which a later --since goes on.

    \b
    Example:
      kerai ops export log.jsonl
      kerai ops export --since '{"ann.0123456789abcdef": 20}' > new.jsonl
    """
    from kerai_client.repo.exchange import export as write  # noqa: PLC0415 -- as above

    vector = _vector(since)
    with client.database() as database, ExitStack() as stack:
        to_file = file is not None and str(file) != "-"
        if to_file and file is not None:
            stack.enter_context(path_in_errors(file))
            out: TextIO = stack.enter_context(file.open("w", encoding="utf-8"))
        else:
            out = sys.stdout
        done = write(database, vector, out)
    if to_file:
        emit_record(
            {
                "changesets": done.changesets,
                "operations": done.operations,
                "bytes": done.bytes,
                "vector": done.vector if client.json else json.dumps(done.vector, ensure_ascii=False),
            },
            json=client.json,
            formats=FORMATS,
        )


def _vector(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    try:
        vector = json.loads(text)
    except ValueError as error:
        raise KeraiError("the version vector is not JSON", detail=str(error), hint=_VECTOR_HINT) from error
    if not isinstance(vector, dict):
        raise KeraiError("the version vector is not an object", detail=text[:200], hint=_VECTOR_HINT)
    return vector


_VECTOR_HINT = (
    'for example {"ann.0123456789abcdef": 20}, as kerai sql "SELECT kerai.version_vector()" gives it'
)


@ops.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.pass_obj
def import_(client: Client, file: Path) -> None:
    """Let the database verify and merge the changesets of FILE (- for standard input).

    What is there already is no error, so an import that was cut off is just run again. It needs a member
    of kerai_peer, as a sync does: guards and budgets were judged where the changesets were pushed first.

    \b
    Example:
      kerai ops import log.jsonl
    """
    from kerai_client.repo.exchange import import_lines, read_lines  # noqa: PLC0415 -- as above

    with client.database() as database, ExitStack() as stack:
        dash = str(file) == "-"
        source: Any = sys.stdin if dash else stack.enter_context(file.open(encoding="utf-8"))
        done = import_lines(database, read_lines(source, "standard input" if dash else str(file)))
    emit_record(done.record(), json=client.json)
    if done.refusals:
        first = done.refusals[0]
        raise KeraiError(
            f"{done.refused} changesets were refused; the first, line {first['line']}: {first['message']}",
            code=first["code"],
            detail=first["detail"],
            hint=first["hint"],
        )

"""``kerai verify``, ``kerai rebuild``, ``kerai compact`` and ``kerai maintain``: a long life."""

from __future__ import annotations

from datetime import timedelta

import click

from kerai_client.cli.main import Client
from kerai_client.cli.options import DURATION
from kerai_client.cli.output import emit, emit_record, format_bytes
from kerai_client.errors import KeraiError


@click.command()
@click.option(
    "--shallow", is_flag=True, help="Changesets, chains and log only, not the registers of the tree."
)
@click.pass_obj
def verify(client: Client, shallow: bool) -> None:
    """Check every hash, signature, chain and register, and show what is wrong.

    Ends with 1 when something is.

    \b
    Example:
      kerai verify
      kerai verify --shallow --json
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- drivers are slow to import

    with client.connect() as connection:
        rows = connection.execute(queries()["verify"], {"deep": not shallow}).fetchall()
    if client.json or rows:
        emit(rows, json=client.json)
    else:
        click.echo("All is well.")
    if rows:
        raise KeraiError(
            f"{len(rows)} problems" if len(rows) > 1 else "one problem",
            hint="kerai rebuild makes log and tree anew; changesets have to come from a peer or a backup",
        )


@click.command()
@click.pass_obj
def rebuild(client: Client) -> None:
    """Make the log and the tree anew from the signed changesets. Pushes wait meanwhile; readers do not.

    \b
    Example:
      kerai rebuild
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    with client.connect() as connection:
        row = connection.execute(queries()["rebuild"]).fetchone()
    assert row is not None
    emit_record(row, json=client.json)


@click.command()
@click.option("--older-than", "age", type=DURATION, required=True, help="For example 90d or 12h.")
@click.option("--yes", is_flag=True, help="Do not ask before dropping history.")
@click.pass_obj
def compact(client: Client, age: float, yes: bool) -> None:
    """Drop the history that arrived so long ago and that every peer has. The state stays as it is.

    Older states can no longer be read, and no push may be based on them.

    \b
    Example:
      kerai compact --older-than 90d
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    if not yes:
        click.confirm(
            f"Drop the history older than {str(timedelta(seconds=age)).removesuffix(', 0:00:00')}, for good?",
            abort=True,
            err=True,
        )
    with client.connect() as connection:
        row = connection.execute(queries()["compact"], {"seconds": age}).fetchone()
    assert row is not None
    if client.json:
        emit_record(row, json=True)
    elif row["id"] is None:
        click.echo("Nothing is old enough yet.")
    else:
        shown = {name: value for name, value in row.items() if name != "horizon"}
        emit_record(shown, formats={"bytes_dropped": format_bytes})


@click.command()
@click.pass_obj
def maintain(client: Client) -> None:
    """Remove the reports and failed attempts that have expired.

    For a clock to call once a day.

    \b
    Example:
      kerai maintain
    """
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above

    with client.connect() as connection:
        rows = connection.execute(queries()["maintain"]).fetchall()
    emit(rows, title="Changes", json=client.json)

"""``kerai up``, ``kerai down`` and ``kerai status``: the private server."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from kerai_client.cli.main import Client
from kerai_client.cli.output import emit_record, format_bytes
from kerai_client.db.instance import database_status
from kerai_client.server.private import PrivateServer


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this TCP port of localhost too.")
@click.option("--user", help="When root runs it: the account that owns the server (default: postgres).")
@click.pass_obj
def up(client: Client, port: int | None, user: str | None) -> None:
    """Start the private server, made at the first time, with kerai in it.

    What runs already is left as it is, but for an update of kerai that `make install` has put there.

    \b
    Example:
      kerai up
      psql "$(kerai status --json | jq -r .dsn)"
    """
    _refuse_dsn(client)
    server = PrivateServer(client.config.directory, user=user)
    server.up(tcp_port=port)
    _show(server, client.json)


@click.command()
@click.option("--destroy", is_flag=True, help="Delete the data too, all of it, for good.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@click.pass_obj
def down(client: Client, destroy: bool, yes: bool) -> None:
    """Stop the private server. Its data stay, and `kerai up` goes on with them.

    \b
    Example:
      kerai down
      kerai down --destroy
    """
    _refuse_dsn(client)
    server = client.config.server
    if destroy:
        if server.exists() and not yes:
            click.confirm(f"Delete {server.data} with everything in it?", abort=True)
        server.destroy()
    else:
        server.down()
    _show(server, client.json)


@click.command()
@click.pass_obj
def status(client: Client) -> None:
    """Show the private server, or the database that --dsn names, and what is in it.

    \b
    Example:
      kerai status
      kerai status --json
    """
    config = client.config
    if config.dsn is None:
        _show(config.server, client.json)
    else:
        _print(asdict(database_status(config.dsn)), client.json)


def _refuse_dsn(client: Client) -> None:
    """Refuse to start, stop or delete the private server for a user who names another database.

    :raises click.UsageError: when ``--dsn`` is given. ``KERAI_DSN`` may stay set.
    """
    if client.dsn is not None:
        raise click.UsageError("this is about a private server, which --dsn does not name; --dir does")


def _show(server: PrivateServer, as_json: bool) -> None:
    record = asdict(server.status())
    if record["running"]:
        record |= asdict(database_status(server.dsn))
    _print(record, as_json)


def _print(record: dict[str, Any], as_json: bool) -> None:
    if not as_json:
        record = {name: value for name, value in record.items() if value is not None}
    emit_record(record, json=as_json, formats={"size": format_bytes})

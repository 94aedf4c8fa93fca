"""``kerai sql``: any SQL, its rows as a table or as JSON."""

from __future__ import annotations

import sys
from typing import LiteralString, cast

import click

from kerai_client.errors import KeraiError
from kerai_client.main import Client
from kerai_client.output import emit, emit_record


@click.command()
@click.argument("statement", required=False)
@click.pass_obj
def sql(client: Client, statement: str | None) -> None:
    """Run SQL and print its rows; without STATEMENT, or with -, what standard input says.

    Several statements are one transaction, and the rows of each are printed.

    \b
    Example:
      kerai sql "SELECT kerai.version_vector()"
      kerai sql --json "SELECT name, author FROM kerai.agents"
      kerai sql < report.sql
    """
    if statement is None or statement == "-":
        if sys.stdin.isatty():
            raise KeraiError("there is no SQL", hint='kerai sql "SELECT …", or kerai sql < FILE')
        statement = sys.stdin.read()
    if not statement.strip():
        raise KeraiError("there is no SQL", hint='kerai sql "SELECT …", or kerai sql < FILE')
    with client.connect() as connection, connection.cursor() as cursor:
        # The user's own text, run as the user: there is nothing to inject into.
        cursor.execute(cast("LiteralString", statement))
        while True:
            if cursor.description is not None:
                columns = [column.name for column in cursor.description]
                emit(cursor.fetchall(), columns, json=client.json)
            elif cursor.statusmessage:
                if client.json:
                    emit_record({"status": cursor.statusmessage}, json=True)
                else:
                    click.echo(cursor.statusmessage)
            if not cursor.nextset():
                break

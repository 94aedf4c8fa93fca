"""``kerai sql``: any SQL, its rows as a table or as JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import click

from kerai_client.cli.main import Client
from kerai_client.cli.output import emit, emit_record
from kerai_client.errors import KeraiError

if TYPE_CHECKING:
    from psycopg.abc import Loader

# PostgreSQL has values of these types that Python's do not: infinity, years before 1, 24:00, months.
WIDER = ("date", "timestamp", "timestamptz", "interval", "float4", "float8", "numeric")
# What psycopg makes of these cannot be written as JSON.
AS_TEXT = ("time", "timetz", "inet", "cidr", "record")


@click.command()
@click.argument("statement", required=False)
@click.pass_obj
def sql(client: Client, statement: str | None) -> None:
    """Run SQL and print its rows; without STATEMENT, or with -, what standard input says.

    Several statements are one transaction, and the rows of each are printed. Of columns of one name
    the second is called name_2, and so on.

    \b
    Example:
      kerai sql "SELECT kerai.version_vector()"
      kerai sql --json "SELECT name, author FROM kerai.agents"
      kerai sql < report.sql
    """
    from psycopg import ProgrammingError  # noqa: PLC0415 -- the driver is slow to import
    from psycopg.rows import tuple_row  # noqa: PLC0415

    text = _text_of(statement)
    with client.connect() as connection, connection.cursor(row_factory=tuple_row) as cursor:
        for name, loader in _loaders():
            cursor.adapters.register_loader(name, loader)
        try:
            # The user's own text, run as the user: there is nothing to inject into.
            cursor.execute(text)
        except ProgrammingError as error:
            if error.sqlstate is None and "COPY" in str(error):
                connection.close()  # it waits for data, and cannot be rolled back
                raise KeraiError(
                    "COPY from standard input or to standard output does not go through kerai sql",
                    hint="psql does that",
                ) from error
            raise
        while True:
            if cursor.description is not None:
                names = distinct([column.name for column in cursor.description])
                rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
                emit(rows, names, json=client.json)
            elif cursor.statusmessage:
                if client.json:
                    emit_record({"status": cursor.statusmessage}, json=True)
                else:
                    click.echo(cursor.statusmessage)
            if not cursor.nextset():
                break


def _text_of(statement: str | None) -> str:
    if statement is None or statement == "-":
        statement = "" if sys.stdin.isatty() else sys.stdin.read()
    if not statement.strip():
        raise KeraiError("there is no SQL", hint='kerai sql "SELECT …", or kerai sql < FILE')
    if "\0" in statement:
        # libpq takes a string that ends at the first one, and would run the half before it.
        place = statement.index("\0") + 1
        raise KeraiError("there is a NUL character in the SQL", detail=f"its character {place}")
    return statement


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names of columns with numbers after those that have come before: ``a, a_2``."""
    made: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in made or (candidate != name and candidate in names):
            candidate, number = f"{name}_{number}", number + 1
        made.append(candidate)
    return made


@cache
def _loaders() -> list[tuple[str | int, type[Loader]]]:
    """Return the types that are not read as psycopg reads them, and what reads them."""
    import psycopg  # noqa: PLC0415 -- as above
    from psycopg.types.multirange import MultirangeInfo  # noqa: PLC0415
    from psycopg.types.range import RangeInfo  # noqa: PLC0415
    from psycopg.types.string import TextLoader  # noqa: PLC0415

    types = psycopg.adapters.types
    plain = [info.oid for info in types if isinstance(info, RangeInfo | MultirangeInfo)]
    plain += [types[name].oid for name in AS_TEXT]
    wider = [(types[name].oid, _or_text(types[name].oid)) for name in WIDER]
    return [*((oid, TextLoader) for oid in plain), *wider]


def _or_text(oid: int) -> type[Loader]:
    """Return a loader that gives the text of a value when psycopg's own, or JSON, has no way to say it."""
    import psycopg  # noqa: PLC0415 -- as above
    from psycopg import adapt  # noqa: PLC0415
    from psycopg.pq import Format  # noqa: PLC0415

    usual = cast("type[Loader]", psycopg.adapters.get_loader(oid, Format.TEXT))

    class OrText(adapt.Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._usual = usual(oid, context)

        def load(self, data: Any) -> Any:
            try:
                value = self._usual.load(data)
            except (psycopg.DataError, ValueError, OverflowError, NotImplementedError):
                return bytes(data).decode()
            finite = math.isfinite(value) if isinstance(value, float | Decimal) else True
            return value if finite else bytes(data).decode()

    return OrText

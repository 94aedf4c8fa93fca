"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kerai_client.cli.tables import ASCII, HEAVY, table
from kerai_client.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

# Wider than any table: what goes into a file or a pipe is not cut to a width nobody has asked for.
UNLIMITED_WIDTH = 100_000

# What json.dumps leaves of the control characters, see errors.CONTROLS.
C1 = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}

Row = Mapping[str, Any]
Formatter = Callable[[Any], str]


def emit(
    rows: Sequence[Row],
    columns: Sequence[str] | None = None,
    title: str | None = None,
    json: bool = False,
    formats: Mapping[str, Formatter] | None = None,
) -> None:
    """Print rows, as a table or as a JSON array of objects.

    :param rows: mappings from column name to value.
    :param columns: which columns of the table, in which order; all of the first row when not given.
        JSON always has everything.
    :param title: printed above the table.
    :param json: True for JSON.
    :param formats: how to write a column's values in the table, for example
        ``{"balance": format_nkoi}``; None is left to :func:`text`.
    """
    if json:
        print(to_json([dict(row) for row in rows]))
        return
    names = list(columns if columns is not None else rows[0] if rows else [])
    if names:
        right = [n for n, name in enumerate(names) if rows and all(is_number(row.get(name)) for row in rows)]
        header = [_cell(name.replace("_", " "), None) for name in names]
        cells = [[_cell(row.get(name), (formats or {}).get(name)) for name in names] for row in rows]
        write([title] if title else [], table_lines(header, cells, right))
    if not rows:
        write([f"no {title.lower()}" if title and not names else "(none)"])


def emit_record(
    record: Row, title: str | None = None, json: bool = False, formats: Mapping[str, Formatter] | None = None
) -> None:
    """Print one record, as a table of two columns (name, value) or as a JSON object."""
    if json:
        print(to_json(dict(record)))
        return
    cells = [
        [_cell(name.replace("_", " "), None), _cell(value, (formats or {}).get(name))]
        for name, value in record.items()
    ]
    write([title] if title else [], table_lines(None, cells))


def table_lines(
    header: Sequence[str] | None, rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> Iterator[str]:
    """Yield the lines of a table for standard output; see :func:`kerai_client.cli.tables.table`."""
    frame = HEAVY if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" else ASCII
    return table(header, rows, width=width(), right=right, box=frame)


def write(*lines: Iterable[str]) -> None:
    """Print lines; what the encoding of standard output has not is written as an escape."""
    for some in lines:
        for line in some:
            print(_writable(line))


def _writable(shown: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def width() -> int | None:
    """Return the width to print at: the terminal's, and in a pipe or a file None, as wide as needed."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


def console(stderr: bool = False) -> Console:
    """Return the console to print on: as wide as the terminal, and in a pipe or a file as wide as needed."""
    from rich.console import Console  # noqa: PLC0415 -- as above

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else UNLIMITED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, emoji=False)


def is_number(value: object) -> bool:
    """Say whether a value is a number, or missing."""
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


def format_nkoi(amount: int | None) -> str:
    """Return an amount of nKoi with thousands separators: ``1,500,000,000``."""
    return "" if amount is None else f"{amount:,}"


def format_bytes(size: int | None) -> str:
    """Return a size in the unit in which it is easy to read: ``8.2 MiB``."""
    if size is None:
        return ""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def text(value: object) -> str:
    """Return a value as a table shows it."""
    match value:
        case None:
            shown = ""
        case bool():
            shown = "yes" if value else "no"
        case datetime():
            shown = value.isoformat(sep=" ", timespec="seconds")
        case timedelta():
            shown = str(timedelta(seconds=round(value.total_seconds())))
        case bytes() | memoryview():
            shown = bytes(value).hex()
        case dict() | list():
            shown = to_json(value, indent=None)
        case _:
            shown = str(value)
    return shown


def _cell(value: object, formatter: Formatter | None) -> str:
    shown = formatter(value) if formatter is not None and value is not None else text(value)
    return shown if shown.isascii() and shown.isprintable() else _writable(printable(shown))


def to_json(value: object, indent: int | None = 2) -> str:
    """Return a value as JSON. Decimals that are whole become integers, bytes become hex, times ISO 8601."""
    written = json.dumps(value, indent=indent, default=_json_value, ensure_ascii=False)
    return written.translate(C1)


def _json_value(value: object) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, UUID | os.PathLike):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")

"""The database itself: made with kerai in it, brought up to date, described."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from kerai_client.db.connection import Connection, connect, queries
from kerai_client.errors import KeraiError

# A status must not take long on a large database; after this the counts are left out.
COUNT_TIMEOUT = "set local statement_timeout = '5s'"


@dataclass(frozen=True)
class DatabaseStatus:
    """A database from inside. Without kerai in it, its version and counts are None.

    :param size: bytes on disk.
    """

    server_version: str
    extension_version: str | None
    started_at: datetime
    size: int
    changesets: int | None
    nodes: int | None


def ensure_database(admin_dsn: str, dsn: str, name: str) -> None:
    """Make a database with the extension, or bring the extension in it up to date.

    :param admin_dsn: a superuser's way to a database that is there already.
    :param dsn: a superuser's way to the database to make.
    :param name: its name.
    :raises KeraiError: when the extension is not installed on the server.
    """
    with connect(admin_dsn) as connection:
        if connection.execute(queries()["database_exists"], {"name": name}).fetchone() is None:
            # template0, because a template1 may hold whatever somebody has put there.
            command = "create database {} template template0 encoding 'UTF8'"
            connection.execute(sql.SQL(command).format(sql.Identifier(name)))
    with connect(dsn) as connection:
        ensure_extension(connection)


def ensure_extension(connection: Connection) -> None:
    """Create the extension, or update it when the server has a later version.

    :raises KeraiError: when it is not installed on the server.
    """
    row = connection.execute(queries()["extension_versions"]).fetchone()
    if row is None:
        raise KeraiError(
            "the kerai extension is not installed on this server", hint="make install (as root, or with sudo)"
        )
    if row["installed_version"] is None:
        connection.execute("create extension kerai cascade")
    elif _version(row["installed_version"]) < _version(row["default_version"]):
        connection.execute("alter extension kerai update")


def database_status(dsn: str) -> DatabaseStatus:
    """Return what there is in a database.

    :raises psycopg.Error: when there is no way to it.
    """
    with connect(dsn) as connection:
        row = connection.execute(queries()["database_status"]).fetchone()
        assert row is not None
        counts = None
        if row["extension_version"] is not None:
            unknown = (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege)
            with suppress(*unknown), connection.transaction():
                connection.execute(COUNT_TIMEOUT)
                counts = connection.execute(queries()["counts"]).fetchone()
    return DatabaseStatus(**row, **(counts or {"changesets": None, "nodes": None}))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))

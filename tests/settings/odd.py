"""A server with settings that nobody expects: what `make test-settings` runs the server tests on.

``KERAI_TEST_SETTINGS=odd`` makes the throwaway server one of these. The connections of the server tests then
pin nothing, so that what the server's functions do under such settings is what is tested.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from psycopg import adapt, adapters, sql
from psycopg.rows import dict_row

from kerai_client.db.connection import Connection
from kerai_client.db.connection import connect as pinned
from kerai_client.db.instance import ensure_extension
from kerai_client.server.private import DATABASE, PrivateServer

IS_ODD = os.environ.get("KERAI_TEST_SETTINGS") == "odd"
SETTINGS = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "datestyle": "German",
    "timezone": "Asia/Kolkata",
    "default_transaction_isolation": "serializable",
}
# Its ANALYZE, in any database, would now and then fail a serializable push with 40001: decisions/006.
SERVER_SETTINGS = {"autovacuum": "off"}
ICU_LOCALE = "tr-TR"
KOLKATA = timezone(timedelta(hours=5, minutes=30))


class TimeLoader(adapt.Loader):
    """Reads a time as psycopg does, and ``24.12.2025 18:00:00.5 IST``, which psycopg does not."""

    def load(self, data: Any) -> datetime:
        text = bytes(data).decode()
        found = re.fullmatch(r"(\d\d\.\d\d\.\d{4} \d\d:\d\d:\d\d)(\.\d+)? IST", text)
        if found is None:
            return datetime.fromisoformat(text)
        fraction = timedelta(seconds=float(found[2] or 0))
        return datetime.strptime(found[1], "%d.%m.%Y %H:%M:%S").replace(tzinfo=KOLKATA) + fraction


class BytesDumper(adapt.Dumper):
    """Writes bytes as \\x00ff. psycopg doubles the backslash where standard_conforming_strings is off."""

    oid = adapters.types["bytea"].oid

    def dump(self, obj: Any) -> bytes:
        return b"\\x" + bytes(obj).hex().encode()


def connect_raw(dsn: str) -> Connection:
    """Return a connection that pins nothing."""
    connection = psycopg.connect(
        dsn, autocommit=True, prepare_threshold=None, row_factory=dict_row, application_name="kerai"
    )
    connection.adapters.register_loader("timestamptz", TimeLoader)
    connection.adapters.register_dumper(bytes, BytesDumper)
    return connection


def connect(dsn: str) -> Connection:
    """Return a connection as the client makes it; on an odd server one that pins nothing."""
    return connect_raw(dsn) if IS_ODD else pinned(dsn)


def settings_of(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the settings of a test's databases: READ COMMITTED where it is marked, else the server's.

    ``@pytest.mark.read_committed`` is for tests of sessions that wait for each other. In SERIALIZABLE one
    of them fails with 40001, as it must, before it does what the test is about: ``test_isolation.py``.
    """
    marked = request.node.get_closest_marker("read_committed") is not None
    return {"default_transaction_isolation": "read committed"} if marked else {}


def make_odd(server: PrivateServer) -> None:
    """Give a server that is up the odd settings, and the database in it, made anew, an odd locale."""
    with pinned(server.dsn_of("postgres")) as connection:
        for name, value in (SETTINGS | SERVER_SETTINGS).items():
            connection.execute(
                sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
        connection.execute("select pg_reload_conf()")
        name = sql.Identifier(DATABASE)
        connection.execute(sql.SQL("drop database {} with (force)").format(name))
        command = "create database {} template template0 encoding 'UTF8' locale_provider icu icu_locale {}"
        connection.execute(sql.SQL(command).format(name, sql.Literal(ICU_LOCALE)))
    with connect(server.dsn) as connection:
        shown = connection.execute(
            "select name, setting from pg_settings where name = any(%s)", [[*SETTINGS]]
        )
        assert {row["name"].lower(): row["setting"] for row in shown}["standard_conforming_strings"] == "off"
        ensure_extension(connection)

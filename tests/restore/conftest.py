"""One instance in which something of everything has happened, and what restores its dumps."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection, sql
from tests.merge.live import LiveAuthor, insert, move, update
from tests.merge.observe import digest, scalar
from tests.settings.odd import connect as connect_to

from kerai_client.server.postgres import program

numbers = count(1)


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of PostgreSQL to its end; it may fail."""
    return subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False)


def ok(name: str, *arguments: str) -> str:
    """Run a program of PostgreSQL that must succeed, without a word; return what it prints."""
    done = run(name, *arguments)
    assert not done.stderr, done.stderr
    assert done.returncode == 0
    return done.stdout


def hosted_push(connection: Connection[Any]) -> None:
    """Push the psql way."""
    changes = json.dumps([insert(str(uuid4()))])
    assert scalar(connection, "select status from kerai.push_ops(%s::json)", [changes]) == "merged"


def populate(connection: Connection[Any]) -> None:
    """Let something of everything happen."""
    author, other = LiveAuthor(connection, "author-1"), LiveAuthor(connection, "autör 2")
    root, a, b, c = (str(uuid4()) for _ in range(4))
    author.push(
        insert(root, kind="directory"), *(insert(n, root, name="n", metadata={"k": 1}) for n in (a, b, c))
    )
    connection.execute("select kerai.compact(now())")
    other.push(
        update(a, content="x = 'é\\'\n\t\\.\n", name='"; --'),
        {"op": "node_update", "node": a, "metadata": {"k": None}},
    )
    other.push(
        {"op": "node_delete", "node": b}, {"op": "edge_insert", "source": a, "target": c, "relation": "r"}
    )
    author.push({"op": "perspective_set", "node": a, "weight": -0.1, "reasoning": "r"})
    author.push({"op": "association_set", "source": a, "target": b, "relation": "r", "weight": 1 / 3})
    seen = scalar(connection, "select kerai.version_vector()")
    author.push(move(a, c))
    assert other.push(move(c, a), seen=seen) == "merged"

    fork = author.write([update(a, content="1")])
    author.send(fork)
    with pytest.raises(psycopg.Error):
        author.send(fork + " ")

    connection.execute("select kerai.register_agent('shell', 'human', null, null, '{a,b}', '{\"k\": 1}')")
    hosted_push(connection)
    agent, wallet = scalar(connection, "select array[id, wallet_id] from kerai.agents where name = 'shell'")
    for number in range(20):
        connection.execute("select kerai.register_agent(%s, 'llm')", [f"solver-{number}"])
    # Work that is paid: many rows in the tables that name others, which a parallel restore takes first.
    for _ in range(20):
        paid = scalar(connection, "select id from kerai.create_task('d', 'true', null, 100, 100, 1000)")
        connection.execute(
            "select kerai.record_test_result(%s, %s, kerai.version_vector(), true, 'ok', 5, 10)",
            [paid, agent],
        )
    task = scalar(
        connection, "select id from kerai.create_task('d', 'true', %s, 100, 100, 1000, %s)", [root, wallet]
    )
    swarm = scalar(connection, "select id from kerai.launch_swarm(%s, grouped => true)", [task])
    connection.execute("select kerai.join_swarm(%s, a.id) from kerai.agents as a", [swarm])
    connection.execute("select kerai.record_test_result(%s, %s, '{}', false, 'no')", [task, agent])
    connection.execute("select kerai.add_peer('p', 'dbname=x')")
    refused = [{"direction": "pull", "changeset_id": "00", "code": "KR004"}]
    connection.execute(
        "select kerai_sync.end_contact('p', '{}', '{}', '{}', 'lost', %s)", [json.dumps(refused)]
    )
    connection.execute("insert into kerai_private.followed_branches values (%s, 1)", [author.author])
    connection.execute("select kerai.record_failed_attempt(%s, %s, '{}', '[]', 'r')", [task, agent])
    connection.execute("update kerai.settings set value = 123456 where name = 'max_changeset_ops'")
    connection.execute("update kerai.reward_schedule set reward = reward + 1")
    assert connection.execute("select * from kerai.verify()").fetchall() == []


@pytest.fixture(scope="package")
def full(make_database: Any) -> Iterator[Any]:
    """A database in which something of everything has happened; nobody changes it."""
    with make_database(template=None) as database:
        with connect_to(database.dsn) as connection:
            populate(connection)
            connection.execute('create role "keeper of hosts" login in role kerai_agent')
        with connect_to(database.dsn_as("keeper of hosts")) as connection:
            connection.execute("select kerai.register_agent('kept', 'tool')")
        yield database
        with connect_to(database.dsn) as connection:
            connection.execute('drop role "keeper of hosts"')


@pytest.fixture(scope="package")
def fresh(make_database: Any) -> Iterator[str]:
    """The name of a database with a fresh extension, for copies."""
    with make_database(template=None) as database:
        yield database.name


@dataclass(frozen=True)
class Way:
    """Options of pg_dump and of what restores; whether the target has a fresh extension already."""

    dump: str = ""
    restore: str = ""
    form: str = "custom"
    into_fresh: bool = False

    def __str__(self) -> str:
        into = "into-fresh" if self.into_fresh else ""
        return " ".join(part for part in (self.form, self.dump, "|", self.restore, into) if part)


class Restorer:
    """Makes dumps of a database and restores them into new ones, which it drops at the end."""

    def __init__(self, server: Any, fresh: str, folder: Path) -> None:
        self.server = server
        self.fresh = fresh
        self.folder = folder
        self.names: list[str] = []

    def database(self, template: str = "template0") -> str:
        """Make an empty database, or a copy of a template; return the way to it."""
        self.names.append(f"restored_{next(numbers)}")
        names = map(sql.Identifier, (self.names[-1], template))
        with connect_to(self.server.dsn_of("postgres")) as connection:
            connection.execute(sql.SQL("create database {} template {}").format(*names))
        return str(self.server.dsn_of(self.names[-1]))

    def options(self, text: str) -> list[str]:
        """Return the options of a way."""
        return text.replace("{user}", self.server.owner.name).split()

    def dump(self, dsn: str, way: Way) -> str:
        """Return the place of a dump."""
        file = str(self.folder / f"dump_{next(numbers)}")
        ok("pg_dump", f"--format={way.form}", f"--file={file}", *self.options(way.dump), dsn)
        return file

    def restore(self, dsn: str, way: Way) -> str:
        """Dump a database and restore it; return the way to the new one."""
        file = self.dump(dsn, way)
        target = self.database(self.fresh if way.into_fresh else "template0")
        if way.form == "plain":
            ok("psql", "-X", "-q", "-o", os.devnull, "-v", "ON_ERROR_STOP=1", "-f", file, "-d", target)
        else:
            ok("pg_restore", *self.options(way.restore), "--dbname", target, file)
        return target


@pytest.fixture
def restorer(server: Any, fresh: str, tmp_path: Path) -> Iterator[Restorer]:
    """What dumps and restores."""
    made = Restorer(server, fresh, tmp_path)
    yield made
    with connect_to(server.dsn_of("postgres")) as connection:
        for name in made.names:
            command = sql.SQL("drop database if exists {} with (force)")
            connection.execute(command.format(sql.Identifier(name)))


TABLES = """
select c.oid::regclass::text from pg_class as c
where c.relnamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace) and c.relkind in ('r', 'm')
order by 1"""


def everything(connection: Connection[Any]) -> dict[str, Any]:
    """Return all rows of all tables that are the same everywhere, and where all sequences stand."""
    found: dict[str, Any] = {}
    with connection.transaction():
        # Two servers write times in two ways.
        connection.execute("set local timezone = 'UTC'; set local datestyle = 'ISO'")
        for row in connection.execute(TABLES).fetchall():
            (table,) = row.values()
            if table == "kerai_private.owner_roles":
                continue  # Oids of a cluster.
            found[table] = sorted(
                str(row) for row in connection.execute(f"select t::text from {table} as t").fetchall()
            )
        found["sequences"] = connection.execute(
            "select sequencename, last_value from pg_sequences where schemaname ~ '^kerai' order by 1"
        ).fetchall()
    return found


def assert_same(first: str, second: str) -> None:
    """Assert that two databases hold the same rows, sequences and state, and that all is well with both."""
    with connect_to(first) as original, connect_to(second) as restored:
        assert everything(restored) == everything(original)
        assert digest(restored) == digest(original)
        assert restored.execute("select * from kerai.verify()").fetchall() == []

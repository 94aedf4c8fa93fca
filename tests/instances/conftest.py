"""What the tests of instances share: several of them, and a peer that says what a test wants it to say."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, sql
from tests.merge.observe import digest, scalar
from tests.settings.odd import connect as connect_to
from tests.settings.odd import settings_of

from kerai_client.server.private import PrivateServer

# An impostor: a schema of that name whose functions give what is in its tables. Reading a page counts, so
# that a test can say what becomes of which.
IMPOSTOR = """
create schema kerai;
create table kerai.said (vector text not null default '{}');
insert into kerai.said default values;
create table kerai.pages (page int, n int, changeset text, signature bytea, public_key bytea);
create table kerai.lies (page int, statement text);
create table kerai.silences (name text, seconds float);
create function kerai.be_silent(name text) returns void
language sql as 'select pg_sleep(s.seconds) from kerai.silences as s where s.name = $1';
create table kerai.forks (id int, author text, public_key bytea, first_changeset text, first_signature bytea,
    second_changeset text, second_signature bytea, merged_elsewhere boolean default true);
create table kerai.changesets (author text, first_seq bigint, last_seq bigint, id bytea, document text,
    signature bytea);
create sequence kerai.asked;
create function kerai.version_vector() returns text language sql as
$$ select kerai.be_silent('version_vector'); select vector from kerai.said $$;
create function kerai.heads(at jsonb) returns table (author text, seq bigint, changeset_id bytea)
language sql as 'select e.key, c.last_seq, c.id from jsonb_each_text(at) as e cross join lateral (
    select * from kerai.changesets as c where c.author = e.key and c.first_seq <= e.value::bigint
    order by c.first_seq desc limit 1) as c';
create function kerai.report_fork(bytea, json, bytea, json, bytea, bigint) returns boolean
language sql as 'select true';
create function kerai.accept(json[], bytea[], bytea[]) returns table (changeset_id bytea, status text,
    applied int, author text, last_seq bigint, code text, message text, detail text, hint text)
language sql as $$
    select kerai.be_silent('accept');
    select null::bytea, 'refused', -5, repeat('a', 9999), -1, 'XXXXXX', repeat('m', 99999), null, null
$$;
create function kerai.changesets_since(vector jsonb, max_ops int)
returns table (changeset text, signature bytea, public_key bytea) language plpgsql as $$
declare
    now_page int := nextval('kerai.asked');
    lie text;
begin
    perform kerai.be_silent('changesets_since');
    for lie in select l.statement from kerai.lies as l where l.page = now_page loop
        execute lie;
    end loop;
    return query select p.changeset, p.signature, p.public_key from kerai.pages as p
    where p.page = now_page or p.page is null order by p.n;
end
$$;
"""


@pytest.fixture
def instances(make_database: Any, request: pytest.FixtureRequest) -> Iterator[Callable[[int], list[Any]]]:
    """Return a function that makes so many instances; each knows all others as peers, by their names."""
    with ExitStack() as stack:

        def make(count: int) -> list[Any]:
            made = [stack.enter_context(make_database(settings=settings_of(request))) for _ in range(count)]
            for one in made:
                with connect_to(one.dsn) as connection:
                    for other in made:
                        if other is not one:
                            connection.execute("select kerai.add_peer(%s, %s)", [other.name, other.dsn])
            return made

        yield make


@pytest.fixture(scope="session")
def _false_database(make_database: Any) -> Iterator[Any]:
    with make_database(template="template0") as made:
        yield made


@pytest.fixture
def impostor(_false_database: Any, database: Any, connect: Any) -> Connection[Any]:
    """A session in a database that only looks like an instance: the peer ``liar`` of the test's database."""
    connect().execute("select kerai.add_peer('liar', %s)", [_false_database.dsn])
    return begin_anew(connect(_false_database.dsn))


def begin_anew(impostor: Connection[Any]) -> Connection[Any]:
    """Let the impostor forget what a test has told it."""
    impostor.execute("drop schema if exists kerai cascade")
    impostor.execute(IMPOSTOR)
    return impostor


@pytest.fixture(scope="session")
def _other_server() -> Iterator[tuple[PrivateServer, int]]:
    folder = Path(tempfile.mkdtemp(prefix=f"kerai-test-{os.getpid()}-"))
    folder.chmod(0o755)
    private = PrivateServer(folder / "server", fsync=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        private.up(tcp_port=port)
        with connect_to(private.dsn) as connection:
            # What is committed has to outlive the crash of a process, not that of the machine.
            connection.execute("alter system set synchronous_commit = on")
            connection.execute("select pg_reload_conf()")
        yield private, port
    finally:
        private.destroy()
        shutil.rmtree(folder)


@pytest.fixture
def other_server(_other_server: tuple[PrivateServer, int]) -> tuple[PrivateServer, int]:
    """Another server, with an empty instance, and the port where it lets roles in with a password."""
    with connect_to(_other_server[0].dsn) as connection:
        connection.execute("drop extension kerai; create extension kerai")
    return _other_server


@pytest.fixture
def pages(impostor: Connection[Any]) -> Callable[..., None]:
    """Return a function that lets the impostor give an instance's changesets, each a page of its own.

    Its vector is the instance's, so that it may be asked.
    """

    def tell(source: Connection[Any]) -> None:
        rows = source.execute(
            "select changeset::text, signature, public_key from kerai.changesets_since('{}')"
        ).fetchall()
        for number, row in enumerate(rows, 1):
            impostor.execute("insert into kerai.pages values (%s, 1, %s, %s, %s)", [number, *row.values()])
        for row in source.execute(
            "select author, first_seq, last_seq, id, document::text, signature from kerai.changesets"
        ).fetchall():
            impostor.execute(
                "insert into kerai.changesets values (%s, %s, %s, %s, %s, %s)", list(row.values())
            )
        vector = scalar(source, "select kerai.version_vector()::text")
        impostor.execute("update kerai.said set vector = %s", [vector])

    return tell


@pytest.fixture
def call() -> Callable[..., dict[str, Any]]:
    """Return ``call(connection, 'pull', peer)``, which gives the result as a dict."""

    def run(
        connection: Connection[Any], function: str, peer: str, max_ops: int | None = None
    ) -> dict[str, Any]:
        statement = sql.SQL("select * from kerai.{}(%s, %s)").format(sql.Identifier(function))
        found = connection.execute(statement, [peer, max_ops]).fetchone()
        assert found is not None
        return found

    return run


def assert_same(*connections: Connection[Any]) -> None:
    """Check that instances hold the same state, and the same changesets byte for byte."""
    first, *others = (
        (
            digest(each),
            scalar(each, "select kerai.version_vector()"),
            each.execute(
                "select id, document::text, signature, guard, task_id, prev from kerai.changesets order by id"
            ).fetchall(),
        )
        for each in connections
    )
    assert all(other == first for other in others)

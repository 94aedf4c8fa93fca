"""A dump that is restored is the same instance: state, log, money, limits, sequences, future."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection, sql
from tests.merge.live import LiveAuthor, insert, logged, move, update
from tests.merge.model import fold
from tests.merge.observe import assert_state, digest, scalar
from tests.settings.odd import connect as connect_to

Restore = Callable[[Any, str], Any]

TABLES = """
select c.oid::regclass::text from pg_class as c
where c.relnamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace) and c.relkind in ('r', 'm')
order by 1"""


@pytest.fixture
def full(database: Any, connect: Any) -> Any:
    """A database in which something of everything has happened."""
    connection = connect()
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
    task = scalar(connection, "select id from kerai.create_task('d', 'true', null, 100, 100, 1000)")
    swarm = scalar(connection, "select id from kerai.launch_swarm(%s, grouped => true)", [task])
    agent = scalar(connection, "select id from kerai.agents where name = 'shell'")
    connection.execute("select kerai.join_swarm(%s, %s)", [swarm, agent])
    connection.execute(
        "select kerai.record_test_result(%s, %s, kerai.version_vector(), true, 'ok', 5, 10)", [task, agent]
    )
    connection.execute("select kerai.add_peer('p', 'dbname=x')")
    refused = [{"direction": "pull", "changeset_id": "00", "code": "KR004"}]
    connection.execute("select kerai.end_contact('p', '{}', '{}', '{}', 'lost', %s)", [json.dumps(refused)])
    connection.execute("insert into kerai_private.followed_branches values ('a', 1)")
    connection.execute("select kerai.record_failed_attempt(%s, %s, '{}', '[]', 'r')", [task, agent])
    connection.execute("update kerai.settings set value = 123456 where name = 'max_changeset_ops'")
    connection.execute("update kerai.reward_schedule set reward = reward + 1")
    return database


def hosted_push(connection: Connection[Any]) -> None:
    """Push the psql way."""
    assert (
        scalar(
            connection, "select status from kerai.push_ops(%s::json)", [json.dumps([insert(str(uuid4()))])]
        )
        == "merged"
    )


@pytest.fixture
def restored(server: Any) -> Iterator[Restore]:
    """Return a function that dumps a database and gives the DSN of a new one that the dump went into."""
    admin = server.dsn_of("postgres")
    names: list[str] = []

    def restore(dsn: str, form: str) -> str:
        names.append(f"restored_{len(names)}")
        with connect_to(admin) as connection:
            connection.execute(
                sql.SQL("create database {} template template0").format(sql.Identifier(names[-1]))
            )
        target = str(server.dsn_of(names[-1]))
        dump = subprocess.run(["pg_dump", f"--format={form}", dsn], capture_output=True, check=True).stdout
        loader = {
            "plain": ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target],
            "custom": ["pg_restore", "--exit-on-error", "--dbname", target],
        }[form]
        subprocess.run(loader, input=dump, capture_output=True, check=True)
        return target

    yield restore
    with connect_to(admin) as connection:
        for name in names:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def everything(connection: Connection[Any]) -> dict[str, Any]:
    """Return all rows of all tables but one, and where all sequences stand."""
    found: dict[str, Any] = {}
    for row in connection.execute(TABLES).fetchall():
        (table,) = row.values()
        if table == "kerai_private.shapes":
            continue  # Names what only sessions that are open remember.
        found[table] = sorted(
            str(row) for row in connection.execute(f"select t::text from {table} as t").fetchall()
        )
    found["sequences"] = connection.execute(
        "select sequencename, last_value from pg_sequences where schemaname ~ '^kerai' order by 1"
    ).fetchall()
    return found


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_dump_restores_into_the_same_instance(
    full: Any, restored: Restore, connect: Any, form: str
) -> None:
    original = connect(full.dsn)
    before = everything(original)
    empty = {name for name, rows in before.items() if not rows}
    scratch = {
        "merge_gate",
        "submissions",
        "settled",
        "served_scopes",
        "served_nodes",
        "repeated_inserts",
        "repeats_noted",
    }
    # Full in a partial instance only: see tests/instances/test_scopes.py.
    scratch |= {"partial_scope", "scope_nodes", "late_changesets"}
    assert empty <= {f"kerai_private.{name}" for name in scratch} | {
        name for name in empty if re.match(r"kerai\.(operations_p|test_results_|failed_operations_)", name)
    }, "a table without rows shows nothing about dumps"
    assert any(re.match(r"kerai\.failed_operations_2", name) for name in before.keys() - empty)

    first = restored(full.dsn, form)
    second = restored(first, form)
    for dsn in (first, second):
        connection = connect(dsn)
        assert everything(connection) == before
        assert digest(connection) == digest(original)
        assert_state(connection, fold(logged(connection)))


def test_a_restored_instance_goes_on(full: Any, restored: Restore, connect: Any) -> None:
    connection = connect(restored(full.dsn, "plain"))
    arrival = scalar(connection, "select max(arrival) from kerai.changesets")
    hosted_push(connection)
    author = LiveAuthor(connection, "author-3")
    node = scalar(connection, "select id::text from kerai.nodes where metadata ? 'k' limit 1")
    assert author.push(update(node, content="after"), guard=node) == "merged"
    assert scalar(connection, "select max(arrival) from kerai.changesets") > arrival
    assert_state(connection, fold(logged(connection)))
    assert scalar(connection, "select (kerai.register_agent('shell', 'human')).name") == "shell"
    assert scalar(connection, "select kerai_private.setting('max_changeset_ops')") == 123456


def test_no_setting_is_lost_or_doubled(full: Any, restored: Restore, connect: Any) -> None:
    """A dumped default replaces the one that CREATE EXTENSION made, and none is lost."""
    connection = connect(restored(full.dsn, "plain"))
    names = "select name from kerai.settings order by name"
    assert connection.execute(names).fetchall() == connect(full.dsn).execute(names).fetchall()


def test_without_its_key_file_a_hosted_agent_is_told_so(
    full: Any, restored: Restore, connect: Any, server: Any
) -> None:
    connection = connect(restored(full.dsn, "plain"))
    before = digest(connection)
    connection.execute(
        "update kerai.agents set public_key = set_byte(public_key, 0, get_byte(public_key, 0) # 1)"
    )
    with pytest.raises(psycopg.Error) as refused:
        hosted_push(connection)
    assert refused.value.sqlstate == "KR011"
    assert "key of this instance is not on this server" in str(refused.value.diag.message_primary)
    assert "key file: kerai/" in str(refused.value.diag.message_detail)
    assert "copy the key file" in str(refused.value.diag.message_hint)
    assert digest(connection) == before

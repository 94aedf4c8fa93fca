"""What may take long ends soon after it is cancelled, wherever it is, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert, move, update
from tests.merge.observe import digest, scalar

from kerai_client.db.connection import connect as connect_to

DEEP, WIDE, MOVES = 12_000, 5_000, 5_000
AT = "(select jsonb_object_agg(key, value::bigint / 2) from jsonb_each_text(kerai.version_vector()))"
LONG = "(select jsonb_object_agg('x' || n, n + {}) from generate_series(1, 400000) as n)"
SQL = {
    "verify": "select * from kerai.verify()",
    "rebuild": "select * from kerai.rebuild()",
    "compact": "select * from kerai.compact(now())",
    "tree": "select * from kerai.tree()",
    "tree at a vector": f"select * from kerai.tree(null, {AT})",
    "checkout at a vector": f"select * from kerai.checkout(null, {AT})",
    "diff": f"select * from kerai.diff({AT})",
    "changesets_since": "select * from kerai.changesets_since('{}', 1000000)",
    "state_digest": "select kerai.state_digest()",
    "void_moves": "select * from kerai.void_moves(max_rows => 10000)",
    "vector_compare": f"select kerai.vector_compare({LONG.format(0)}, {LONG.format('n % 3')})",
    "vector_merge": f"select kerai.vector_merge({LONG.format(0)}, {LONG.format('n % 3 - 1')})",
    "vector_missing": f"select * from kerai.vector_missing({LONG.format(0)}, {LONG.format('n % 3')})",
}


WAITS = """
    select from pg_stat_activity
    where application_name = 'kerai' and wait_event_type = 'Lock' and datname = current_database()"""


def ids(chance: Random, count: int) -> list[str]:
    return [str(UUID(int=chance.getrandbits(128))) for _ in range(count)]


@pytest.fixture(scope="module")
def large(module_database: Any) -> Iterator[tuple[str, list[str]]]:
    """A database with a deep chain, many moves in it and below it, and many changesets; and the chain."""
    chance = Random(3)
    deep, wide = ids(chance, DEEP), ids(chance, WIDE)
    with connect_to(module_database.dsn) as connection:
        first, second = LiveAuthor(connection, "first"), LiveAuthor(connection, "second")
        first.push(*(insert(node, parent) for node, parent in zip(deep, [None, *deep[:-1]], strict=True)))
        second.push(*(insert(node, wide[n // 9] if n else None, name=f"n{n}") for n, node in enumerate(wide)))
        seen = scalar(connection, "select kerai.version_vector()")
        connection.execute("vacuum analyze")
        for author in (first, second):
            moves = [move(chance.choice(deep[:-1]), deep[-1]) for _ in range(MOVES)]
            moves += [move(node, wide[n // 7]) for n, node in enumerate(wide) if n]
            author.push(*moves, seen=seen)
        for n in range(100):
            second.push(*(update(chance.choice(wide), content=f"{n}") for _ in range(20)))
        connection.execute("vacuum analyze")
    yield module_database.dsn, deep


def cancelled(
    dsn: str, call: Callable[[Connection[Any]], object], after: float, once: str = "select"
) -> float | None:
    """Cancel a session's call after some seconds, once a query has a row.

    :returns: how long it went on; None if it was over by then.
    """
    with connect_to(dsn) as caller, connect_to(dsn) as observer, ThreadPoolExecutor(1) as pool:
        pid = caller.info.backend_pid
        running = pool.submit(call, caller)
        time.sleep(after)
        while not observer.execute(once).rowcount:
            time.sleep(0.01)
        if running.done():
            running.result()
            return None
        began = time.monotonic()
        observer.execute("select pg_cancel_backend(%s)", [pid])
        with suppress(psycopg.errors.QueryCanceled):
            running.result(timeout=60)
        return time.monotonic() - began


@pytest.mark.parametrize("name", SQL)
def test_a_call_ends_soon_after_it_is_cancelled(large: tuple[str, list[str]], name: str) -> None:
    dsn, _ = large

    def call(connection: Connection[Any]) -> None:
        with connection.transaction(force_rollback=True):
            connection.execute(SQL[name])

    with connect_to(dsn) as connection:
        before = digest(connection)
        for after in (0.05, 0.3, 0.8, 1.6):
            went_on = cancelled(dsn, call, after)
            if went_on is None:
                break
            assert went_on < 1, f"{name}, cancelled after {after} s"
        assert digest(connection) == before


def test_a_push_of_many_deep_moves_ends_soon_after_it_is_cancelled(large: tuple[str, list[str]]) -> None:
    """Below the deepest node, on a base of before others moved: so what these have moved is judged again."""
    dsn, deep = large
    chance = Random(4)
    with connect_to(dsn) as connection:
        author = LiveAuthor(connection, "third")
        seen = scalar(
            connection,
            "select jsonb_object_agg(author, least(last_seq, %s)) from kerai.changesets where first_seq = 1",
            [DEEP],
        )
        document = author.write([move(chance.choice(deep[:-1]), deep[-1]) for _ in range(9_000)], seen=seen)
        before = digest(connection), scalar(connection, "select kerai.version_vector()")

    def call(connection: Connection[Any]) -> None:
        author.connection = connection
        with connection.transaction(force_rollback=True):
            author.send(document)

    for after in (0.1, 0.5, 1, 1.5, 2, 2.5):
        went_on = cancelled(dsn, call, after)
        if went_on is None:
            break
        assert went_on < 1, after
    with connect_to(dsn) as connection:
        assert (digest(connection), scalar(connection, "select kerai.version_vector()")) == before
        connection.execute("set statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            call(connection)


def test_a_refused_fork_whose_evidence_waits_ends_when_it_is_cancelled(database: Any, connect: Any) -> None:
    """The evidence is kept by a session of its own, which waits for a lock here."""
    author, holder = LiveAuthor(connect(), "ann"), connect()
    node = ids(Random(6), 1)[0]
    author.push(insert(node))
    rival = author.write([update(node, content="rival")])
    author.push(update(node, content="first"))

    def call(connection: Connection[Any]) -> None:
        author.connection = connection
        author.send(rival)

    with holder.transaction(force_rollback=True):
        holder.execute("lock table kerai.forks in exclusive mode")
        went_on = cancelled(database.dsn, call, 0, WAITS)
    assert went_on is not None
    assert went_on < 1, "the lock is waited for for two seconds"
    with pytest.raises(psycopg.Error) as caught:
        call(connect())
    assert caught.value.sqlstate == "KR003"
    assert scalar(connect(), "select count(*) from kerai.forks") == 1


@pytest.mark.read_committed
def test_others_push_on_beside_what_is_hostile(connect: Any) -> None:
    """As many moves as are taken, in a deep tree, and as many keys: no longer than beside harmless moves."""
    chance = Random(5)
    deep, wide = ids(chance, 20_000), ids(chance, 10_000)
    bad, victim, node = LiveAuthor(connect(), "bad"), LiveAuthor(connect(), "victim"), ids(chance, 1)[0]
    bad.push(*(insert(each, parent) for each, parent in zip(deep, [None, *deep[:-1]], strict=True)))
    bad.push(*(insert(each, deep[0]) for each in wide))
    victim.push(insert(node))
    connect().execute("vacuum analyze")
    moves = {
        "harmless": [move(each, deep[0], "b") for each in wide],
        "deep": [move(chance.choice(deep[:-1]), deep[-1]) for _ in wide],
        "keys": [
            {"op": "node_update", "node": deep[0], "metadata": {f"k{n}": n for n in range(10_000)}},
            move(deep[0], None, "b"),
        ],
    }
    waited = {}
    for kind, operations in moves.items():
        document = bad.write(operations)
        with ThreadPoolExecutor(1) as pool:
            pushed = pool.submit(bad.send, document)
            longest = 0.0
            while not pushed.done():
                began = time.monotonic()
                victim.push(update(node, content=kind), move(node, None, "b"))
                longest = max(longest, time.monotonic() - began)
            assert pushed.result() == "merged"
        waited[kind] = longest
    assert max(waited.values()) < 2 + 3 * waited["harmless"], waited


def test_a_cancel_that_comes_into_python_is_no_error_of_what_python_does(connect: Any) -> None:
    """kerai.verify() reports such errors, and goes on."""
    connection = connect()
    connection.execute(
        """
        create function pg_temp.judge() returns text language plpgsql as $$
        declare
            nodes constant uuid[] := array(
                select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
                from generate_series(1, 20000) as n);
        begin
            perform kerai_private.void_moves(
                nodes, nodes[2:] || null::uuid, nodes[2:], array_fill(nodes[1], array[19999]));
            return 'judged';
        exception when external_routine_exception or plpgsql_error or internal_error then
            return sqlstate;
        end
        $$"""
    )
    assert scalar(connection, "select pg_temp.judge()") == "judged"
    connection.execute("set statement_timeout = '300ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        # Again and again, so that a fast machine is not ready before.
        connection.execute("select pg_temp.judge() from generate_series(1, 1000)")

"""Instances bring each other up to date: byte for byte, in pages, in any order, cut off and not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.instances.conftest import assert_same
from tests.merge.live import LiveAuthor, insert, logged, move, update
from tests.merge.model import fold
from tests.merge.observe import assert_state, scalar
from tests.settings.odd import connect as connect_to
from tests.support.locks import set_lock_wait

from kerai_client.db.connection import Database
from kerai_client.repo import exchange

Call = Callable[..., dict[str, Any]]


def fill(connection: Connection[Any], name: str, changesets: int = 5, root: str | None = None) -> LiveAuthor:
    """Let an author push some changesets of several operations."""
    author = LiveAuthor(connection, name)
    root = root or str(uuid4())
    author.push(insert(root, kind="directory"))
    for number in range(changesets - 1):
        node = str(uuid4())
        author.push(
            insert(node, root, name=f"n{number}", content="x = 'é\\\"'\n"),
            update(root, name=f"{name}{number}"),
        )
    return author


def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sync_makes_two_instances_equal(instances: Any, connect: Any, call: Call) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    fill(here, "ann", 5)
    fill(there, "bob", 3)
    result = call(here, "sync", b.name)
    assert result["complete"] and result["problem"] is None
    assert [result[name] for name in ("pulled_changesets", "pulled_operations")] == [3, 5]
    assert [result[name] for name in ("pushed_changesets", "pushed_operations")] == [5, 9]
    assert result["bytes"] == scalar(here, "select sum(octet_length(document::text)) from kerai.changesets")
    assert_same(here, there)
    assert_state(there, fold(logged(there)))

    again = call(here, "sync", b.name)
    assert again["complete"] and again["bytes"] == 0
    vector = scalar(here, "select kerai.version_vector()")
    peer = here.execute("select * from kerai.peers").fetchone()
    assert (
        peer["acknowledged"] == vector and peer["last_contact"] is not None and peer["last_problem"] is None
    )


def test_pull_and_push_go_one_way(instances: Any, connect: Any, call: Call) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    fill(here, "ann", 2)
    fill(there, "bob", 2)
    call(here, "pull", b.name)
    assert len(scalar(here, "select kerai.version_vector()")) == 2
    assert len(scalar(there, "select kerai.version_vector()")) == 1
    call(here, "push", b.name)
    assert_same(here, there)


def test_pages_end_at_operations_and_at_bytes(instances: Any, connect: Any, call: Call) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    fill(there, "bob", 6)
    results = [call(here, "pull", b.name, 2) for _ in range(6)]
    # The first changeset has one operation, and so two would be three; each page has one changeset then.
    assert [result["pulled_changesets"] for result in results] == [2, 1, 1, 1, 1, 0]
    assert [result["complete"] for result in results] == [False] * 5 + [True]

    size = "select name from kerai.settings where name = 'max_page_bytes'"
    assert scalar(there, size)
    there.execute("update kerai.settings set value = 1 where name = 'max_page_bytes'")
    assert there.execute("select from kerai.changesets_since('{}')").rowcount == 1
    here.execute("update kerai.settings set value = 3 where name = 'sync_page_ops'")
    fill(there, "cid", 4)
    assert call(here, "pull", b.name)["complete"]
    assert_same(here, there)


def test_guard_and_task_are_not_judged_again(instances: Any, connect: Any, call: Call) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    ann = fill(here, "ann", 2)
    call(here, "sync", b.name)
    root = scalar(here, "select id::text from kerai.nodes where parent_id is null")
    fill(there, "bob", 2).push(update(root, content="of bob"))
    # Here nobody has touched the guarded tree, there bob has.
    assert ann.push(update(root, name="of ann"), guard=root) == "merged"
    ann.push(update(root, language="x"), task=str(uuid4()))
    assert call(here, "sync", b.name)["complete"]
    assert_same(here, there)
    assert (
        scalar(there, "select count(*) from kerai.changesets where guard is not null or task_id is not null")
        == 2
    )


def test_a_page_is_taken_as_far_as_it_is_good(database: Any, connect: Any, role_connection: Any) -> None:
    here = connect()
    ann, bob = LiveAuthor(here, "ann"), LiveAuthor(here, "bob")
    good, bad = ann.write([insert(str(uuid4()))]), bob.write([insert(str(uuid4()))])
    rows = here.execute(
        "select * from kerai.accept(%s::text[]::json[], %s::bytea[], %s::bytea[])",
        [[bad, good], [bytes(64)] * 2, [bob.public_key, ann.public_key]],
    ).fetchall()
    assert [row["code"] for row in rows] == ["KR001", "KR001"]
    assert (rows[0]["author"], rows[0]["last_seq"]) == (bob.author, 1)
    assert scalar(here, "select kerai.version_vector()") == {}


def test_three_in_a_ring_converge(instances: Any, connect: Any, call: Call) -> None:
    made = instances(3)
    connections = [connect(one.dsn) for one in made]
    root = str(uuid4())
    for number, connection in enumerate(connections):
        fill(connection, f"author-{number}", 3)
    LiveAuthor(connections[0], "root").push(insert(root), insert(str(uuid4()), root))
    for _ in range(2):
        for number, connection in enumerate(connections):
            assert call(connection, "sync", made[(number + 1) % 3].name)["problem"] is None
    assert_same(*connections)
    # Moves that make a ring together, one on each.
    for number, connection in enumerate(connections):
        tops = connection.execute(
            "select id::text from kerai.nodes where parent_id is null order by id"
        ).fetchall()
        LiveAuthor(connection, f"mover-{number}").push(move(tops[number]["id"], tops[(number + 1) % 3]["id"]))
    for _ in range(2):
        for number, connection in enumerate(connections):
            assert call(connection, "sync", made[(number + 1) % 3].name)["complete"]
    assert_same(*connections)
    assert_state(connections[2], fold(logged(connections[2])))
    # Each has talked with one of its two peers only, so nothing is known to be everywhere.
    assert scalar(connections[2], "select kerai.stable_vector()") == {}
    everything = scalar(connections[0], "select kerai.version_vector()")
    for number, connection in enumerate(connections):
        for other in (1, 2):
            call(connection, "pull", made[(number + other) % 3].name)
        assert scalar(connection, "select kerai.stable_vector()") == everything


@pytest.mark.read_committed
def test_both_directions_at_once(instances: Any, connect: Any, call: Call) -> None:
    a, b = instances(2)
    for one, name in ((a, "ann"), (b, "bob")):
        fill(connect(one.dsn), name, 10)
        with connect_to(one.dsn) as connection:
            connection.execute("update kerai.settings set value = 5 where name = 'sync_page_ops'")
    barrier = threading.Barrier(4)

    def sync(one: Any, other: Any) -> list[Any]:
        with connect_to(one.dsn) as connection:
            barrier.wait(30)
            return [call(connection, "sync", other.name, 7)["problem"] for _ in range(8)]

    def write(one: Any, name: str) -> list[Any]:
        with connect_to(one.dsn) as connection:
            barrier.wait(30)
            fill(connection, name, 5)
            return []

    with ThreadPoolExecutor(4) as pool:
        futures = [
            pool.submit(sync, a, b),
            pool.submit(sync, b, a),
            pool.submit(write, a, "cid"),
            pool.submit(write, b, "dan"),
        ]
        problems = [problem for future in futures for problem in future.result(timeout=60)]
    assert set(problems) == {None}
    assert call(connect(a.dsn), "sync", b.name)["complete"]
    assert_same(connect(a.dsn), connect(b.dsn))


def test_one_session_at_a_time_talks_with_a_peer(instances: Any, connect: Any, call: Call) -> None:
    a, b = instances(2)
    first, second = connect(a.dsn), connect(a.dsn)
    with first.transaction():
        call(first, "pull", b.name)
        with pytest.raises(psycopg.Error) as refused:
            call(second, "pull", b.name)
    assert refused.value.sqlstate == "KR009"
    assert call(second, "pull", b.name)["complete"]


def test_a_break_loses_what_was_under_way_only(
    connect: Any, impostor: Any, pages: Callable[..., None], make_database: Any, call: Call
) -> None:
    """The peer's session is ended at its third page."""
    here = connect()
    with make_database() as source:
        there = connect(source.dsn)
        fill(there, "bob", 4)
        pages(there)
        impostor.execute("insert into kerai.lies values (3, 'select pg_terminate_backend(pg_backend_pid())')")
        result = call(here, "pull", "liar")
        assert (result["pulled_changesets"], result["complete"]) == (2, False)
        assert result["problem"] and scalar(here, "select count(*) from kerai.changesets") == 2
        assert scalar(here, "select last_problem from kerai.peers") == result["problem"]
        assert scalar(here, "select cardinality(dblink_get_connections())") is None
        impostor.execute("delete from kerai.lies")
        impostor.execute("alter sequence kerai.asked restart with 3")
        result = call(here, "pull", "liar")
        assert (result["pulled_changesets"], result["complete"], result["problem"]) == (2, True, None)
        assert_same(here, there)


def test_a_clone_survives_a_kill_9(
    other_server: Any, database: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that clones is crashed in the middle; the client goes on after its last transaction."""
    there = connect()
    fill(there, "ann", 30)
    second_server = other_server[0]
    with connect_to(second_server.dsn) as here:
        here.execute("select kerai.add_peer('source', %s)", [database.dsn])
    monkeypatch.setattr(exchange, "CALL_OPS", 3)

    def kill() -> bool:
        with connect_to(second_server.dsn) as watching:
            while True:
                found = watching.execute(
                    """select pid from pg_stat_activity where state = 'active' and query like '%kerai.pull(%'
                    and pid <> pg_backend_pid() and (select count(*) from kerai.changesets) > 4"""
                ).fetchone()
                if found:
                    os.kill(found["pid"], signal.SIGKILL)
                    return True

    with ThreadPoolExecutor(1) as pool, Database(second_server.dsn) as clone:
        killing = pool.submit(kill)
        total = exchange.exchange(clone, "pull", "source")
        assert killing.result(timeout=30)
        # The call that was cut off may have been committed, and nobody was told.
        assert total["complete"] and 27 <= total["pulled_changesets"] <= 30
        assert_same(there, clone.connection())


def test_a_sync_that_is_canceled_while_the_peer_refuses_closes_its_connection(
    instances: Any, connect: Any
) -> None:
    """The cancel is noticed only when the peer has answered, and then its error is raised first."""
    a, b = instances(2)
    here, there, holder = connect(a.dsn), connect(b.dsn), connect(b.dsn)
    fill(here, "ann")
    set_lock_wait(there, 1000)
    asked = "select pid from pg_stat_activity where datname = %s and pid <> all(%s) and wait_event_type = %s"
    own = [each.info.backend_pid for each in (there, holder)]
    with holder.transaction(), ThreadPoolExecutor(1) as pool:
        holder.execute("lock table kerai_private.authors in exclusive mode")
        answer = pool.submit(here.execute, "select * from kerai.sync(%s)", [b.name])
        until(lambda: there.execute(asked, [b.name, own, "Lock"]).fetchall())
        there.execute("select pg_cancel_backend(%s)", [here.info.backend_pid])
        with pytest.raises(psycopg.errors.QueryCanceled):
            answer.result(timeout=30)
    assert scalar(here, "select dblink_get_connections()") is None
    until(lambda: not there.execute(asked, [b.name, own, "Client"]).fetchall())

"""Pushing in REPEATABLE READ and SERIALIZABLE: right, or 40001 where somebody else has merged meanwhile."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.concurrency.test_push import assert_fold, at_once, scribble
from tests.merge.live import Body, LiveAuthor, insert, move, update
from tests.merge.members import Member, status
from tests.merge.observe import scalar

from kerai import changeset

LEVELS = ["repeatable read", "serializable"]
pytestmark = pytest.mark.read_committed  # those of its sessions that set no level
each_level = pytest.mark.parametrize("level", LEVELS)


@contextmanager
def transaction(connection: Connection[Any], level: str) -> Iterator[None]:
    """Begin a transaction that takes its snapshot now; roll it back when it fails."""
    connection.execute(f"begin isolation level {level}")
    connection.execute("select")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def assert_overtaken(error: psycopg.Error, level: str) -> None:
    """Check that an error says what has happened and what to set."""
    assert error.sqlstate == "40001"
    assert error.diag.message_detail == f"transaction isolation: {level}"
    hint = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED"
    assert hint in str(error.diag.message_hint)


def wait_until_blocked(observer: Connection[Any], connection: Connection[Any]) -> None:
    """Wait until a session waits for another's lock."""
    deadline = time.monotonic() + 30
    while not scalar(observer, "select pg_blocking_pids(%s) <> '{}'", [connection.info.backend_pid]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


Pair = tuple[LiveAuthor, LiveAuthor, list[str]]


def plant(author: LiveAuthor) -> list[str]:
    """Push three nodes: a root, and two below it."""
    root, one, two = (str(uuid4()) for _ in range(3))
    author.push(insert(root, name="r"), insert(one, root, name="one"), insert(two, root, name="two"))
    return [root, one, two]


@pytest.fixture
def pair(connect: Any) -> Pair:
    """Two authors who have both pushed, and three nodes that are there."""
    ann, bob = LiveAuthor(connect(), "ann"), LiveAuthor(connect(), "bob")
    nodes = plant(ann)
    bob.push(update(nodes[2], content="2"))
    return ann, bob, nodes


@each_level
def test_a_session_whose_default_it_is_pushes(connect: Any, level: str) -> None:
    """Changesets, guards, moves, hosted agents, batches, one by one and several in a transaction."""
    connection = connect()
    connection.execute(f"set default_transaction_isolation = '{level}'")
    ann = LiveAuthor(connection, "ann")
    root, one = str(uuid4()), str(uuid4())
    assert ann.push(insert(root, name="r"), insert(one, root)) == "merged"
    assert ann.push(update(one, content="x"), guard=root) == "merged"
    assert ann.push(move(one, None)) == "merged"
    connection.execute("select kerai.register_agent('gardener', 'human')")
    body = f'[{{"op": "node_update", "node": "{one}", "set": {{"name": "n"}}}}]'
    assert scalar(connection, "select (kerai.push_ops(%s)).status", [body]) == "merged"
    with transaction(connection, level):
        for name in "abc":
            assert ann.push(insert(str(uuid4()), root, name=name), move(one, root)) == "merged"
            assert ann.push(update(root, name=name), guard=root) == "merged"
    member = Member(connection, "member")
    ticket = member.submit(member.own(insert(str(uuid4()))))
    assert status(member.answer(ticket)) == "merged"
    assert status(member.answer(ticket)) == "merged"
    assert status(member.push_batched(member.own(update(one, content="y")))) == "merged"
    member.submit(member.own(update(one, content="z")))
    assert scalar(connection, "select kerai.withdraw(%s)", [member.id]) == 1
    assert scalar(connection, "select changed from kerai.rebuild()") is False
    assert scalar(connection, "select changesets from kerai.compact(now() - interval '1 day')") is None
    assert ann.push(update(one, content="last")) == "merged"
    assert connection.execute("select * from kerai.verify()").fetchall() == []
    assert_fold(connection)


def accept(author: LiveAuthor, operation: Body) -> None:
    """Merge a changeset as an instance takes it from a peer."""
    document = author.write([operation])
    page = [[document], [changeset.sign(document, author.key)], [author.public_key]]
    call = "select status from kerai.accept(%s::text[]::json[], %s, %s)"
    assert scalar(author.connection, call, page) == "merged"


Change = Callable[[LiveAuthor, list[str]], Any]
CHANGES: dict[str, Change] = {
    "insert": lambda author, nodes: author.push(insert(str(uuid4()), nodes[1], name="new")),
    "update": lambda author, nodes: author.push(update(nodes[2], content="other")),
    "move": lambda author, nodes: author.push(move(nodes[1], nodes[2])),
    "rename": lambda author, nodes: author.push(update(nodes[0], name="renamed")),
    "guarded": lambda author, nodes: author.push(update(nodes[1], content="other"), guard=nodes[1]),
    "page": lambda author, nodes: accept(author, update(nodes[0], name="from another instance")),
    "rebuild": lambda author, _: author.connection.execute("select kerai.rebuild()"),
    "compact": lambda author, _: author.connection.execute("select kerai.compact(clock_timestamp())"),
}


@pytest.mark.parametrize("ours", ["insert", "move", "rename", "guarded", "page", "rebuild", "compact"])
def test_what_is_merged_after_the_snapshot_is_never_overlooked(pair: Pair, ours: str) -> None:
    ann, bob, _ = pair
    for number, theirs in enumerate(CHANGES):
        nodes = plant(ann)
        before = scalar(ann.connection, "select count(*) from kerai.changesets")
        level = LEVELS[number % 2]
        with pytest.raises(psycopg.Error) as refused, transaction(ann.connection, level):
            CHANGES[theirs](bob, nodes)
            CHANGES[ours](ann, nodes)
        assert_overtaken(refused.value, level)
        merged = scalar(ann.connection, "select count(*) from kerai.changesets") - before
        assert merged == (theirs not in ("rebuild", "compact"))
        with transaction(ann.connection, level):
            CHANGES[ours](ann, nodes)
        if "compact" not in (ours, theirs):
            assert_fold(ann.connection)
    assert ann.connection.execute("select * from kerai.verify()").fetchall() == []


@each_level
def test_only_a_merge_is_in_the_way(pair: Pair, level: str) -> None:
    """Neither other transactions of the server nor a push that is rolled back."""
    ann, bob, nodes = pair
    bob.connection.execute("create table other (n int)")
    with transaction(ann.connection, level):
        bob.connection.execute("insert into other values (1)")
        bob.connection.execute("begin")
        assert bob.push(update(nodes[2], content="never")) == "merged"
        bob.connection.execute("rollback")
        bob.connection.execute("insert into other values (2)")
        assert ann.push(move(nodes[1], nodes[2]), guard=nodes[0]) == "merged"
        # Nobody else merges before the commit.
        bob.connection.execute("insert into other values (3)")
        assert ann.push(update(nodes[1], content="x"), guard=nodes[0]) == "merged"
    assert_fold(ann.connection)


@each_level
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_who_waits_goes_on_when_the_other_has_not_merged(
    pair: Pair, connect: Any, level: str, end: str
) -> None:
    ann, bob, nodes = pair
    document = ann.write([move(nodes[1], nodes[2])])
    bob.connection.execute("begin")
    bob.push(update(nodes[2], content="open"))
    with ThreadPoolExecutor(1) as pool:

        def push() -> str:
            with transaction(ann.connection, level):
                return ann.send(document)

        waiting = pool.submit(push)
        wait_until_blocked(connect(), ann.connection)
        bob.connection.execute(end)
        if end == "rollback":
            assert waiting.result(timeout=30) == "merged"
        else:
            with pytest.raises(psycopg.Error) as refused:
                waiting.result(timeout=30)
            assert_overtaken(refused.value, level)
    assert_fold(ann.connection)


@each_level
def test_a_push_that_was_open_when_the_snapshot_was_taken_is_not_overlooked(
    pair: Pair, connect: Any, level: str
) -> None:
    """Though a later one, with a higher number, is seen."""
    ann, bob, nodes = pair
    cleo = LiveAuthor(connect(), "cleo")
    bob.connection.execute("begin")
    assert bob.push(insert(str(uuid4()), nodes[1])) == "merged"
    assert cleo.push(insert(str(uuid4()), nodes[2])) == "merged"
    with pytest.raises(psycopg.Error) as refused, transaction(ann.connection, level):
        bob.connection.execute("commit")
        ann.push(update(nodes[0], name="renamed"))
    assert_overtaken(refused.value, level)
    assert ann.push(update(nodes[0], name="renamed")) == "merged"
    assert_fold(ann.connection)


@each_level
def test_settling_after_somebody_else_has(members: Any, level: str) -> None:
    ann, bob = members(2)
    ticket = ann.submit(ann.own(insert(str(uuid4()))))
    with pytest.raises(psycopg.Error) as refused, transaction(ann.connection, level):
        assert status(bob.answer(bob.submit(bob.own(insert(str(uuid4())))))) == "merged"
        ann.connection.execute("select kerai.await_push(%s)", [ticket])
    assert refused.value.sqlstate == "40001"
    with transaction(ann.connection, level):
        assert status(ann.answer(ticket)) == "merged"
    assert_fold(ann.connection)


def test_a_mix_of_levels_gives_the_fold(connect: Any) -> None:
    writers = [LiveAuthor(connect(), f"author-{n}") for n in range(6)]
    nodes, shared = [str(uuid4()) for _ in range(8)], [str(uuid4()) for _ in range(12)]
    writers[0].push(*(insert(node, nodes[n // 2] if n else None) for n, node in enumerate(nodes)))

    def write(author: LiveAuthor, number: int) -> Counter[str]:
        level = ["read committed", *LEVELS][number % 3]
        author.connection.execute(f"set default_transaction_isolation = '{level}'")
        statuses: Counter[str] = Counter()
        chance = random.Random(number)
        while sum(statuses.values()) < 8:
            try:
                with author.connection.transaction():
                    pushed = scribble(author, nodes, shared, chance.randrange(10**6), chance.randint(1, 2))
                statuses += pushed
            except psycopg.errors.SerializationFailure:
                time.sleep(chance.random() / 20)
        return statuses

    statuses = sum(at_once([partial(write, each, n) for n, each in enumerate(writers)]), Counter())
    assert set(statuses) <= {"merged", "stale"}
    connection = connect()
    assert_fold(connection)
    assert connection.execute("select * from kerai.verify()").fetchall() == []


@each_level
def test_a_swarm_takes_no_more_than_its_members(connect: Any, members: Any, level: str) -> None:
    """What counts what others have inserted, under a lock that they have had too."""
    setup = connect()
    task = scalar(setup, "select (kerai.create_task('d', 'true')).id")
    first, second = (
        scalar(setup, "select (kerai.launch_swarm(%s, max_agents => 1)).id", [task]) for _ in range(2)
    )
    ann, bob = members(2)
    with pytest.raises(psycopg.errors.SerializationFailure), transaction(ann.connection, level):
        bob.join(first)
        ann.join(first)
    with pytest.raises(psycopg.errors.SerializationFailure), transaction(ann.connection, level):
        setup.execute("select kerai.stop_swarm(%s)", [first])
        ann.connection.execute("select kerai.stop_swarm(%s)", [second])
    ann.connection.execute("select kerai.stop_swarm(%s)", [second])
    assert scalar(setup, "select status from kerai.tasks") == "pending"


@each_level
def test_a_result_on_an_old_state_pays_nothing(pair: Pair, members: Any, connect: Any, level: str) -> None:
    _, bob, nodes = pair
    (member,) = members(1)
    setup = connect()
    task = scalar(setup, "select (kerai.create_task('d', 'true')).id")
    vector = scalar(setup, "select kerai.version_vector()::text")
    report = "select kerai.record_test_result(%s, %s, %s, true)"
    with pytest.raises(psycopg.Error) as refused, transaction(member.connection, level):
        bob.push(update(nodes[2], content="new"))
        member.connection.execute(report, [task, member.id, vector])
    assert_overtaken(refused.value, level)
    assert scalar(setup, "select status from kerai.tasks") == "pending"

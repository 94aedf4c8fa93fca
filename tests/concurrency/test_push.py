"""Many sessions push at once: nothing is lost, nobody waits for ever, readers see whole changesets."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.merge.live import Body, LiveAuthor, insert, logged, move, update
from tests.merge.model import fold
from tests.merge.observe import assert_state, scalar
from tests.settings.odd import connect as connect_to
from tests.support.locks import set_lock_wait

from kerai import changeset

NAMES = ("a", "b", "src", None)


def at_once(tasks: Sequence[partial[Any]]) -> list[Any]:
    """Run tasks in threads that start together; return their results, or raise what one raised."""
    barrier = threading.Barrier(len(tasks))

    def run(task: partial[Any]) -> Any:
        barrier.wait(timeout=30)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(run, task) for task in tasks]]


def outcome(author: LiveAuthor, document: str) -> str:
    """Push; return the status, or the SQLSTATE of the refusal."""
    try:
        return author.send(document)
    except psycopg.Error as error:
        return str(error.sqlstate)


def assert_fold(connection: Connection[Any]) -> None:
    """Check that the stored state is the fold of the log, and that the vector names exactly the log."""
    log = logged(connection)
    assert_state(connection, fold(log))
    assert scalar(connection, "select kerai.version_vector()") == dict(Counter(each.author for each in log))


@pytest.fixture
def authors(connect: Any) -> Callable[[int], list[LiveAuthor]]:
    """Return a function that gives so many authors, each with a session."""

    def make(count: int) -> list[LiveAuthor]:
        return [LiveAuthor(connect(), f"author-{n}") for n in range(count)]

    return make


def scribble(author: LiveAuthor, nodes: list[str], shared: list[str], seed: int, pushes: int) -> Counter[str]:
    """Push random operations on what everybody else is changing too; return how often which status came."""
    chance = random.Random(seed)
    statuses: Counter[str] = Counter()
    for _ in range(pushes):
        known = [
            row["id"] for row in author.connection.execute("select id::text from kerai.nodes").fetchall()
        ]
        operations: list[Body] = []
        for _ in range(chance.randint(1, 6)):
            node, other = chance.choice(known), chance.choice(known)
            name = chance.choice(NAMES)
            operations.append(
                chance.choice(
                    [
                        insert(str(uuid4()), node, name=name),
                        insert(chance.choice(shared), node, name=name),
                        move(node, other, chance.choice("abc")),
                        update(node, content=f"{seed}"),
                        update(node, name=name),
                        {"op": chance.choice(["node_delete", "node_restore"]), "node": node},
                        {"op": "edge_insert", "source": node, "target": other, "relation": "calls"},
                        {"op": "perspective_set", "node": node, "weight": 0.5},
                    ]
                )
            )
        guard = chance.choice([None, None, None, *nodes[:2]])
        statuses[author.push(*operations, guard=guard)] += 1
    return statuses


@pytest.mark.read_committed
def test_many_authors_push_into_one_tree_while_others_read(authors: Any, connect: Any) -> None:
    writers = authors(6)
    nodes, shared = [str(uuid4()) for _ in range(8)], [str(uuid4()) for _ in range(12)]
    assert (
        writers[0].push(*(insert(node, nodes[n // 2] if n else None) for n, node in enumerate(nodes)))
        == "merged"
    )
    done = threading.Event()

    def read() -> int:
        looks = 0
        connection = connect()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        while not done.is_set():
            with connection.transaction():
                assert_fold(connection)
                vector = scalar(connection, "select kerai.version_vector()")
                differing = connection.execute(
                    """
                    select id, parent_id, position, kind, name, content, deleted from kerai.nodes
                    except all
                    select id, parent_id, position, kind, name, content, deleted
                    from kerai_private.replay_nodes(%s)""",
                    [json.dumps(vector)],
                ).fetchall()
                assert differing == []
            looks += 1
        return looks

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            jobs = [partial(scribble, writer, nodes, shared, n, 12) for n, writer in enumerate(writers)]
            statuses: Counter[str] = sum(at_once(jobs), Counter())
        finally:
            done.set()
        assert reader.result(timeout=60) > 0
    assert sum(statuses.values()) == 72
    assert set(statuses) <= {"merged", "stale"}
    assert statuses["merged"] > 36

    connection = connect()
    assert_fold(connection)


@pytest.mark.read_committed
def test_moves_that_would_make_a_cycle_together(authors: Any) -> None:
    one, two, three = authors(3)
    for _ in range(8):
        x, y, z = (str(uuid4()) for _ in range(3))
        one.push(insert(x), insert(y), insert(z))
        pushes = (one, move(x, y)), (two, move(y, z)), (three, move(z, x))
        results = at_once([partial(author.push, each) for author, each in pushes])
        assert results == ["merged"] * 3
    assert_fold(one.connection)


@pytest.mark.read_committed
def test_one_of_two_guarded_pushes_wins(authors: Any) -> None:
    one, two = authors(2)
    root, leaf = str(uuid4()), str(uuid4())
    one.push(insert(root), insert(leaf, root))
    for turn in range(8):
        seen = scalar(one.connection, "select kerai.version_vector()")
        documents = [
            (author, author.write([update(leaf, content=f"{turn} {author.author}")], seen=seen, guard=root))
            for author in (one, two)
        ]
        results = at_once([partial(author.send, document) for author, document in documents])
        assert sorted(results) == ["merged", "stale"]
        winner = documents[results.index("merged")][0]
        content = scalar(one.connection, "select content from kerai.nodes where id = %s", [leaf])
        assert content == f"{turn} {winner.author}"
    assert_fold(one.connection)


@pytest.mark.read_committed
def test_a_guarded_push_against_unguarded_ones(authors: Any) -> None:
    """Either the guarded push came first, or it is stale; an unguarded one is merged in any case."""
    one, two, three = authors(3)
    root, leaf = str(uuid4()), str(uuid4())
    one.push(insert(root), insert(leaf, root))
    for turn in range(8):
        seen = scalar(one.connection, "select kerai.version_vector()")
        guarded = one.write([update(leaf, content=f"{turn}")], seen=seen, guard=root)
        results = at_once(
            [
                partial(one.send, guarded),
                partial(two.push, update(leaf, content="two")),
                partial(three.push, insert(str(uuid4()), leaf)),
            ]
        )
        assert results[1:] == ["merged", "merged"]
        behind = one.connection.execute(
            """
            select from kerai.changesets as g inner join kerai.changesets as o
                on o.arrival < g.arrival and o.author <> g.author
            where g.id = %s and o.last_seq > coalesce((g.base ->> o.author)::bigint, 0)""",
            [bytes.fromhex(changeset.changeset_id(guarded))],
        ).fetchall()
        assert behind == []
    assert_fold(one.connection)


@pytest.mark.read_committed
def test_the_same_nodes_inserted_by_several_authors_at_once(authors: Any) -> None:
    writers = authors(4)
    for turn in range(8):
        nodes = [str(uuid4()) for _ in range(6)]
        writers[0].push(*(insert(node) for node in nodes[:2]))

        def race(writer: LiveAuthor, n: int, nodes: list[str] = nodes, turn: int = turn) -> str:
            chance = random.Random(turn * 10 + n)
            order = chance.sample(nodes, len(nodes))
            seen: dict[str, int] = {}
            own = scalar(writer.connection, "select kerai.version_vector()").get(writer.author, 0)
            if own:
                seen[writer.author] = own
            return writer.push(
                *(insert(node, order[i - 1] if i else None, name=f"{n}") for i, node in enumerate(order)),
                seen=seen,
            )

        assert at_once([partial(race, writer, n) for n, writer in enumerate(writers)]) == ["merged"] * 4
    assert_fold(writers[0].connection)


@pytest.mark.read_committed
def test_one_author_in_two_sessions_with_the_same_changeset(authors: Any, connect: Any) -> None:
    (author,) = authors(1)
    twin = LiveAuthor(connect(), "author-0", author.key)
    for _ in range(8):
        document = author.write([insert(str(uuid4()))])
        results = at_once([partial(each.send, document) for each in (author, twin)])
        assert sorted(results) == ["duplicate", "merged"]
    assert_fold(author.connection)


@pytest.mark.read_committed
def test_one_author_in_two_sessions_with_two_changesets(authors: Any, connect: Any) -> None:
    (author,) = authors(1)
    twin = LiveAuthor(connect(), "author-0", author.key)
    for turn in range(4):
        documents = [author.write([insert(str(uuid4()))], message=str(n)) for n in range(2)]
        results = at_once([partial(outcome, author, documents[0]), partial(outcome, twin, documents[1])])
        assert sorted(results) == ["KR003", "merged"]
        assert scalar(author.connection, "select count(*) from kerai.forks") == turn + 1
    assert_fold(author.connection)


def test_the_evidence_of_a_fork_outlives_the_refusal(authors: Any, connect: Any) -> None:
    (author,) = authors(1)
    node = str(uuid4())
    author.push(insert(node))
    first, second = (author.write([update(node, content=text)]) for text in "12")
    assert author.send(first) == "merged"
    for _ in range(2):
        assert outcome(author, second) == "KR003"
    rows = connect().execute(
        """
        select author, seq, public_key, first_id, first_changeset::text as first, first_signature,
            second_id, second_changeset::text as second, second_signature from kerai.forks"""
    )
    assert rows.fetchall() == [
        {
            "author": author.author,
            "seq": 2,
            "public_key": author.public_key,
            "first_id": bytes.fromhex(changeset.changeset_id(first)),
            "first": first,
            "first_signature": changeset.sign(first, author.key),
            "second_id": bytes.fromhex(changeset.changeset_id(second)),
            "second": second,
            "second_signature": changeset.sign(second, author.key),
        }
    ]
    assert author.push(update(node, content="3")) == "merged"
    assert_fold(author.connection)


def test_evidence_goes_where_it_belongs_whatever_connections_the_session_has(
    authors: Any, connect: Any, database: Any
) -> None:
    (author,) = authors(1)
    node = str(uuid4())
    author.push(insert(node))
    first, second = (author.write([update(node, content=text)]) for text in "12")
    author.send(first)
    # dblink_exec takes a connection's name before it takes a connection string: nobody can guess ours.
    elsewhere = f"host={database.server.socket_directory} dbname=postgres user={database.server.owner.name}"
    author.connection.execute("select dblink_connect('kerai', %s)", [elsewhere])
    assert outcome(author, second) == "KR003"
    assert scalar(connect(), "select count(*) from kerai.forks") == 1
    assert scalar(author.connection, "select dblink_get_connections()") == ["kerai"]


def test_a_push_that_is_canceled_while_it_keeps_evidence_closes_its_connection(
    authors: Any, connect: Any
) -> None:
    (author,) = authors(1)
    observer, holder = connect(), connect()
    documents = [author.write([insert(str(uuid4()))], message=text) for text in "12"]
    assert author.send(documents[0]) == "merged"
    apart = "select pid from pg_stat_activity where application_name = 'kerai' and wait_event_type = 'Lock'"
    with holder.transaction(), ThreadPoolExecutor(1) as pool:
        holder.execute("lock table kerai.forks")
        answer = pool.submit(outcome, author, documents[1])
        while not observer.execute(apart).fetchall():
            assert not answer.done()
            observer.execute("select pg_sleep(0.01)")
        observer.execute("select pg_cancel_backend(%s)", [author.connection.info.backend_pid])
        assert answer.result(timeout=30) == "57014"
    assert scalar(author.connection, "select dblink_get_connections()") is None


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.read_committed
def test_an_author_who_is_introduced_while_a_batch_waits_does_not_wait_for_it_in_a_circle(
    authors: Any, connect: Any, moves: bool
) -> None:
    """The batch has no lock of his row, and he has one when he waits for the batch."""
    ann, bob, batch, gate = authors(4)
    observer = connect()
    node = str(uuid4())
    documents = [ann.write([insert(node), *([move(node, None, "b")] if moves else [])], seen={})]
    documents.append(bob.write([insert(str(uuid4()))], seen={}))
    signed = list(zip(documents, (ann, bob), strict=True))
    page = [
        [document for document, _ in signed],
        [changeset.sign(document, author.key) for document, author in signed],
        [author.public_key for _, author in signed],
    ]
    with ThreadPoolExecutor(2) as pool:
        with gate.connection.transaction():
            gate.connection.execute("lock table kerai_private.tree_lock in exclusive mode")
            accept = "select status from kerai.accept(%s::text[]::json[], %s, %s)"
            answer = pool.submit(batch.connection.execute, accept, page)
            until_blocked(observer, batch, gate)
            register = "select kerai.register_agent('author-0', 'tool', %s)"
            observer.execute(register, [ann.public_key])
            pushed = pool.submit(outcome, ann, documents[0])
            until_blocked(observer, ann, gate)
        statuses = [row["status"] for row in answer.result(timeout=30)]
        assert statuses[1] == "merged"
        assert sorted([statuses[0], pushed.result(timeout=30)]) == ["duplicate", "merged"]
    for each in (ann, bob, batch, gate):
        each.connection.close()
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert scalar(observer, deadlocks) == 0
    assert_fold(observer)


def until_blocked(observer: Connection[Any], waiting: Any, holder: Any) -> None:
    """Wait until one session waits for another's lock."""
    pids = [each.connection.info.backend_pid for each in (waiting, holder)]
    for _ in range(2000):
        if scalar(observer, "select array[%s::int] && pg_blocking_pids(%s)", pids[::-1]):
            return
        observer.execute("select pg_sleep(0.01)")
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("low", ["content", "metadata", "deletion"])
@pytest.mark.read_committed
def test_what_is_written_is_locked_in_one_order(authors: Any, connect: Any, low: str) -> None:
    """By id, whatever is written and in which order: so two pushes never wait for each other for ever."""
    first, second = authors(2)
    observer = connect()
    nodes = sorted(str(uuid4()) for _ in range(40))
    first.push(*(insert(node) for node in nodes))
    kinds: dict[str, Callable[[str], Body]] = {
        "content": lambda node: update(node, content="1"),
        "metadata": lambda node: {"op": "node_update", "node": node, "metadata": {"a": 1}},
        "deletion": lambda node: {"op": "node_delete", "node": node},
    }
    writes = [update(node, content="1") for node in reversed(nodes[20:])]
    writes += [kinds[low](node) for node in reversed(nodes[:20])]
    document = second.write(writes)
    first.connection.execute("begin")
    with ThreadPoolExecutor(1) as pool:
        first.connection.execute("select from kerai.nodes where id = %s for update", [nodes[19]])
        pushed = pool.submit(second.send, document)
        until_blocked(observer, second, first)
        free = observer.execute(
            "select id::text from kerai.nodes order by id for update skip locked"
        ).fetchall()
        assert [each["id"] for each in free] == nodes[20:]
        first.connection.execute("commit")
        assert pushed.result(timeout=30) == "merged"
    assert_fold(observer)


@pytest.mark.parametrize("holds", ["a move", "its own row"])
def test_nobody_waits_for_ever(authors: Any, connect: Any, holds: str) -> None:
    first, second = authors(2)
    node = str(uuid4())
    first.push(insert(node, name="x"))
    # Thirty seconds are for users; the test need not wait for them.
    set_lock_wait(connect(), 100)
    waiting = second if holds == "a move" else LiveAuthor(connect(), "author-0", first.key)
    document = waiting.write([update(node, content="1")])
    first.connection.execute("begin")
    first.push(update(node, name="y"))
    with pytest.raises(psycopg.Error) as refused:
        waiting.send(document)
    assert refused.value.sqlstate == "KR009"
    assert "lock timeout" in str(refused.value.diag.message_detail)
    assert "again" in str(refused.value.diag.message_hint)
    first.connection.execute("rollback")
    assert waiting.send(document) == "merged"
    assert_fold(connect())


def hosted_pushes(connection: Connection[Any], pushes: int) -> list[str]:
    """Push as the caller's hosted agent, the psql way."""
    operations = [json.dumps([insert(str(uuid4()))]) for _ in range(pushes)]
    return [scalar(connection, "select status from kerai.push_ops(%s::json)", [each]) for each in operations]


@pytest.mark.read_committed
def test_one_hosted_agent_in_many_sessions(role_connection: Any, connect: Any) -> None:
    sessions = [role_connection("kerai_agent") for _ in range(5)]
    author = scalar(sessions[0], "select author from kerai.register_agent('shell', 'human')")
    results = at_once([partial(hosted_pushes, each, 6) for each in sessions])
    assert results == [["merged"] * 6] * 5
    connection = connect()
    assert scalar(connection, "select kerai.version_vector()") == {author: 30}
    assert_fold(connection)


@pytest.mark.read_committed
def test_several_hosted_agents_at_once_through_a_transaction_pool(pgbouncer: str, database: Any) -> None:
    """More clients than server sessions, signed authors among them, and no session state to lose."""
    with connect_to(database.dsn) as connection:
        connection.execute("select kerai.register_agent('shell', 'human')")
    connections = [connect_to(pgbouncer) for _ in range(8)]
    try:
        signed = [LiveAuthor(each, f"author-{n}") for n, each in enumerate(connections[:4])]

        def push(author: LiveAuthor) -> list[str]:
            return [author.push(insert(str(uuid4()))) for _ in range(5)]

        results = at_once(
            [
                *[partial(push, each) for each in signed],
                *[partial(hosted_pushes, each, 5) for each in connections[4:]],
            ]
        )
        assert results == [["merged"] * 5] * 8
        assert_fold(connections[0])
    finally:
        for each in connections:
            each.close()

"""kerai.compact() drops history and nothing else: the state stays, and all that is above the horizon."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert, logged, move, update
from tests.merge.model import fold
from tests.merge.observe import assert_reads, assert_state, digest, scalar
from tests.merge.test_convergence import deliver
from tests.merge.worlds import KEYS, SEEDS, Instance, World, worlds
from tests.support.laws import many

# Within one transaction all times are the same.
SPREAD = """
update kerai.changesets as c set received_at = '2026-01-01'::timestamptz + x.n * interval '1 hour'
from (select id, row_number() over (order by arrival) as n from kerai.changesets) as x where x.id = c.id"""
COMPACT = "select * from kerai.compact('2026-01-01 00:30'::timestamptz + %s * interval '1 hour')"


def compact(connection: Connection[Any], arrivals: int) -> dict[str, Any]:
    """Compact so many of the changesets that arrived first."""
    connection.execute(SPREAD)
    found = connection.execute(COMPACT, [arrivals]).fetchone()
    assert found is not None
    return found


def refusal(connection: Connection[Any], query: str, parameters: list[Any] | None = None) -> Any:
    """Return the error that a query is refused with."""
    with pytest.raises(psycopg.Error) as refused, connection.transaction():
        connection.execute(query, parameters)
    assert refused.value.sqlstate == "KR011"
    assert str(refused.value.diag.message_primary) == "the history up to there has been compacted"
    return refused.value.diag


def assert_sound(connection: Connection[Any], before: str) -> None:
    """Check the digest, verify, rebuild, and both again."""
    assert digest(connection) == before
    assert connection.execute("select * from kerai.verify()").fetchall() == []
    assert scalar(connection, "select changed from kerai.rebuild()") is False
    assert connection.execute("select * from kerai.verify()").fetchall() == []


@many(0.1)
@given(world=worlds(), seed=SEEDS, share=SEEDS, past=SEEDS)
def test_compaction_keeps_the_state_and_all_that_is_above_the_horizon(
    instance: Instance, world: World, seed: int, share: int, past: int
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        before = digest(connection)
        total = len(world.changesets)
        horizon: dict[str, int] = {}
        for arrivals in sorted({share % (total + 1), (share // 7) % (total + 1)}):
            done = compact(connection, arrivals)
            horizon = done["horizon"] or {}
            stubs = scalar(connection, "select count(*) from kerai.changesets where document is null")
            assert stubs == arrivals
            assert_sound(connection, before)
        assert_state(connection, world.state())
        assert_reads(connection, world.state(horizon), horizon)
        at = world.vector(past)
        if any(at.get(author, 0) < seq for author, seq in horizon.items()):
            refusal(connection, "select * from kerai.tree(null, %s)", [json.dumps(at)])
            refusal(connection, "select * from kerai.changesets_since(%s)", [json.dumps(at)])
        at = {name: max(at.get(name, 0), horizon.get(name, 0)) for name in at.keys() | horizon.keys()}
        assert_reads(connection, world.state(at), at)

        if not world.changesets:
            return
        # Life goes on.
        nodes = [str(row["id"]) for row in connection.execute("select id from kerai.nodes order by id")]
        authors = [LiveAuthor(connection, each.name, KEYS[each.name]) for each in world.authors]
        seen = scalar(connection, "select kerai.version_vector()")
        for n, author in enumerate(authors):
            first, second = nodes[(seed + n) % len(nodes)], nodes[(past + n) % len(nodes)]
            assert author.push(move(first, second), update(second, name=f"n{n}"), seen=seen) == "merged"
        at = scalar(connection, "select kerai.version_vector()")
        after = fold(
            [*world.operations, *(o for o in logged(connection) if o.lamport > 0 and fresh(o, seen))]
        )
        assert_state(connection, after)
        assert_sound(connection, digest(connection))
        compact(connection, total + len(authors) - 1)
        assert_sound(connection, digest(connection))
        assert_reads(connection, after, at)


def test_which_moves_count_below_the_horizon_is_not_judged_again(connect: Any) -> None:
    """With the first move gone, the second would look as if it put a node below itself."""
    connection = connect()
    author = LiveAuthor(connection, "author")
    a, b, c = (str(UUID(int=n)) for n in range(1, 4))
    author.push(insert(a), insert(b, a), insert(c))
    author.push(move(b, None))
    author.push(move(a, b))
    author.push(move(b, c))
    author.push(*(update(a, content=str(n)) for n in range(20)))
    operations = logged(connection)
    before, then = digest(connection), scalar(connection, "select kerai.version_vector()")
    documents = "select sum(octet_length(document::text)) from kerai.changesets"
    size = scalar(connection, documents)

    (row,) = connection.execute("select * from kerai.compact(now())").fetchall()
    assert (row["changesets"], row["operations_dropped"], row["operations_kept"]) == (5, 20, 6)
    assert row["bytes_dropped"] > size / 2
    assert row["horizon"] == then
    assert scalar(connection, documents) is None
    assert_sound(connection, before)
    assert connection.execute("select * from kerai.compact(now())").fetchone() == row
    assert scalar(connection, "select count(*) from kerai.compactions") == 1

    author.push(update(a, content="after"))
    assert_reads(connection, fold(operations), then)
    assert_state(connection, fold([*operations, logged(connection)[-1]]))


def test_what_is_based_below_the_horizon_is_refused(connect: Any) -> None:
    connection = connect()
    author, other, newcomer = (LiveAuthor(connection, name) for name in ("author", "other", "newcomer"))
    a, b = str(UUID(int=1)), str(UUID(int=2))
    author.push(insert(a))
    old = scalar(connection, "select kerai.version_vector()")
    sent = author.write([insert(b, a)])
    author.send(sent)
    connection.execute("select kerai.compact(now())")

    late = other.write([update(a, content="late")], seen=old)
    before = digest(connection)
    for push in (
        lambda: other.send(late),
        lambda: newcomer.push(insert(str(UUID(int=3))), seen={}),
    ):
        with pytest.raises(psycopg.Error) as refused:
            push()
        assert refused.value.sqlstate == "KR011"
        assert "below its horizon the vector lacks: author." in str(refused.value.diag.message_detail)
        assert "new checkout" in str(refused.value.diag.message_hint)
    diag = refusal(connection, "select * from kerai.tree(null, %s)", [json.dumps(old)])
    assert "kerai.compactions" in str(diag.message_hint)
    diag = refusal(connection, "select * from kerai.changesets_since('{}')")
    assert "pg_dump" in str(diag.message_hint)
    assert digest(connection) == before
    assert author.send(sent) == "duplicate"
    assert other.push(update(a, content="on time")) == "merged"
    now = scalar(connection, "select kerai.version_vector()")
    assert (
        len(connection.execute("select * from kerai.changesets_since(%s)", [json.dumps(now)]).fetchall()) == 0
    )
    horizon = scalar(connection, "select horizon from kerai.compactions")
    rows = connection.execute("select * from kerai.changesets_since(%s)", [json.dumps(horizon)]).fetchall()
    assert len(rows) == 1


def test_what_was_kept_cannot_be_changed_unseen(connect: Any) -> None:
    connection = connect()
    author = LiveAuthor(connection, "author")
    node = str(UUID(int=1))
    author.push(insert(node), update(node, content="x"))
    connection.execute("select kerai.compact(now())")
    connection.execute(
        'update kerai.operations set payload = payload || \'{"kind": "z"}\' where author_seq = 1'
    )
    found = connection.execute("select what, problem from kerai.verify()").fetchall()
    assert {row["what"] for row in found} == {"compaction", "node"}
    for call in ("select kerai.rebuild()", "select kerai.compact(now())"):
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(call)
        assert refused.value.sqlstate == "KR011"


def test_peers_who_lag_and_times_hold_compaction_back(connect: Any) -> None:
    connection = connect()
    author, other = LiveAuthor(connection, "author"), LiveAuthor(connection, "other")
    author.push(insert(str(UUID(int=1))))
    other.push(insert(str(UUID(int=2))))
    assert scalar(connection, "select kerai.compact(now() - interval '1 hour') is null") is True
    connection.execute("select kerai.add_peer('behind', 'dbname=behind')")
    connection.execute(
        "update kerai.peer_connections set acknowledged = jsonb_build_object(%s::text, 1)", [author.author]
    )
    connection.execute("select kerai.compact(now())")
    assert scalar(connection, "select horizon from kerai.compactions") == {author.author: 1}
    assert scalar(connection, "select count(*) from kerai.changesets where document is null") == 1


def fresh(operation: Any, seen: dict[str, int]) -> bool:
    """Say whether an operation is one that a vector does not name."""
    return bool(operation.seq > seen.get(operation.author, 0))

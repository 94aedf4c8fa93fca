"""What a peer sends and this instance refuses is counted past, and not in the way of what comes later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection
from tests.instances.conftest import assert_same
from tests.instances.test_fork_proofs import Signer
from tests.merge.live import LiveAuthor, insert
from tests.merge.members import Member, launch
from tests.merge.observe import scalar
from tests.support.hostile import MOST_SECONDS, calls

from kerai import changeset

Call = Callable[..., dict[str, Any]]


def limit(connection: Connection[Any], name: str, value: int) -> None:
    connection.execute("update kerai.settings set value = %s where name = %s", [value, name])


def refusals(connection: Connection[Any]) -> list[tuple[Any, ...]]:
    rows = connection.execute("select author, last_seq, code from kerai.refusals order by author, last_seq")
    return [tuple(row.values()) for row in rows]


def write_envelopes(connection: Connection[Any], count: int) -> str:
    """Let a member of a grouped swarm write changesets of two operations; return the author id."""
    _, swarm = launch(connection)
    member = Member(connection, "member")
    member.join(swarm)
    for _ in range(count):
        member.send(member.draft(swarm, insert(str(uuid4())), insert(str(uuid4()))))
    return str(scalar(connection, "select author from kerai_private.writers"))


@pytest.mark.parametrize("direction", ["pull", "push"])
@pytest.mark.parametrize("page", [1, 4, 20000])
def test_refused_envelopes_do_not_keep_back_what_comes_later(
    instances: Any, connect: Any, call: Call, direction: str, page: int
) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    for each in (here, there):
        limit(each, "sync_page_ops", page)
    limit(here, "max_changeset_ops", 1)
    writer = write_envelopes(there, 5)
    LiveAuthor(there, "bob").push(insert(str(uuid4())), seen={})
    one, other = (here, b.name) if direction == "pull" else (there, a.name)
    for _ in range(2):
        result = call(one, direction, other)
        assert not result["complete"] and result["refused"] >= 1, result
        assert scalar(here, "select count(*) from kerai.changesets") == 1
        assert {row[0] for row in refusals(one)} == {writer}
    limit(here, "max_changeset_ops", 2)
    assert call(one, direction, other)["complete"] and not refusals(one)
    assert_same(here, there)


def test_after_the_first_refusal_an_author_is_not_asked_for_again(
    instances: Any, connect: Any, call: Call
) -> None:
    """Whatever follows a refused changeset is a gap: a flood of it costs no more than its first page."""
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    limit(here, "sync_page_ops", 4)
    limit(here, "max_changeset_ops", 1)
    eve = LiveAuthor(there, "eve")
    for _ in range(12):
        eve.push(insert(str(uuid4())), insert(str(uuid4())), seen={})
    LiveAuthor(there, "bob").push(insert(str(uuid4())), seen={})
    result = call(here, "pull", b.name)
    assert (result["refused"], result["pulled_changesets"]) == (2, 1)
    assert refusals(here) == [(eve.author, 2, "KR005"), (eve.author, 4, "KR005")]


@pytest.mark.parametrize("direction", ["pull", "push"])
def test_sides_with_other_page_sizes_sync(instances: Any, connect: Any, call: Call, direction: str) -> None:
    """One side's pages are larger than the other side takes at once: they are sent in smaller ones."""
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    limit(here, "max_page_bytes", 1000)
    author = LiveAuthor(there, "bob")
    for _ in range(40):
        author.push(insert(str(uuid4()), content="x" * 500), seen={})
    one, other = (here, b.name) if direction == "pull" else (there, a.name)
    result = call(one, direction, other)
    assert result["complete"], result["problem"]
    assert_same(here, there)


def test_the_command_goes_on_after_a_call_full_of_refusals(instances: Any, connect: Any, kerai: Any) -> None:
    """A call ends after so many refusals; what comes later comes with the next one."""
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    limit(here, "sync_page_ops", 600)
    limit(here, "max_changeset_bytes", 400)
    flood = []
    for number in range(1250):
        eve = LiveAuthor(there, f"eve-{number:04}")
        document = changeset.build(eve.author, 1, 1, [insert(str(uuid4()), content="x" * 300)])
        flood.append((document, changeset.sign(document, eve.key), eve.public_key))
    there.execute(
        "select from kerai.accept(%s::json[], %s, %s)", [list(each) for each in zip(*flood, strict=True)]
    )
    LiveAuthor(there, "bob").push(insert(str(uuid4())), seen={})
    printed = kerai("pull", b.name, "--dsn", a.dsn, "--json")
    (row,) = json.loads(printed.stdout)
    assert (row["pulled_changesets"], row["complete"], printed.returncode) == (1, False, 1), row


@pytest.mark.parametrize("page", [1, 20000])
def test_a_partial_instance_counts_past_what_it_refuses(
    make_database: Any, connect: Any, call: Call, page: int
) -> None:
    with make_database() as small, make_database() as big:
        here, there = connect(small.dsn), connect(big.dsn)
        scope = str(uuid4())
        ann = LiveAuthor(there, "ann")
        ann.push(insert(scope))
        here.execute("select kerai.add_peer('big', %s, %s)", [big.dsn, scope])
        limit(here, "sync_page_ops", page)
        limit(here, "max_changeset_ops", 1)
        bob = LiveAuthor(there, "bob")
        bob.push(insert(str(uuid4()), scope), insert(str(uuid4()), scope))
        bob.push(insert(str(uuid4()), scope))
        # Has not seen what is refused, so that it comes all the same.
        LiveAuthor(there, "cid").push(insert(later := str(uuid4()), scope), seen={ann.author: 1})
        for _ in range(2):
            result = call(here, "pull", "big")
            assert not result["complete"] and "KR005" in result["problem"], result
            assert {row[0] for row in refusals(here)} == {bob.author}
            assert scalar(here, "select count(*) from kerai.nodes where id = %s", [later]) == 1
            assert here.execute("select * from kerai.verify()").fetchall() == []
        limit(here, "max_changeset_ops", 2)
        assert call(here, "pull", "big")["complete"] and not refusals(here)
        assert scalar(here, "select count(*) from kerai.nodes") == 5


@pytest.mark.read_committed
def test_a_page_of_refused_envelopes_keeps_nobody_waiting(connect: Any) -> None:
    """All of them are gaps, which one look finds: another author pushes beside the page."""
    here, observer = connect(), connect()
    signer = Signer()
    page = signer.chain([("envelope", 1)] * 1001)[1:]
    victim = LiveAuthor(connect(), "victim")
    victim.push(insert(str(uuid4())))
    slowest = 0.0
    with ThreadPoolExecutor(1) as pool, calls(here) as counted:
        answer = pool.submit(
            lambda: here.execute(
                "select status, code, count(*) from kerai.accept(%s::json[], %s, %s) group by status, code",
                [
                    [each.document for each in page],
                    [each.signature for each in page],
                    [signer.public_key] * len(page),
                ],
            ).fetchall()
        )
        while not answer.done():
            started = time.monotonic()
            assert victim.push(insert(str(uuid4()))) == "merged"
            slowest = max(slowest, time.monotonic() - started)
        assert [tuple(row.values()) for row in answer.result()] == [("refused", "KR004", 1000)]
    assert counted["receive_each"] <= 2
    assert slowest < MOST_SECONDS
    assert scalar(observer, "select count(*) from kerai.changesets where author <> %s", [victim.author]) == 0

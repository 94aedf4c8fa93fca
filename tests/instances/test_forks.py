"""An author who signs two histories on two instances: found by a sync, proved, frozen, and nobody else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.instances.conftest import assert_same
from tests.merge.live import LiveAuthor, insert, update
from tests.merge.members import AWAIT_PUSH, PUSH, SUBMIT, called
from tests.merge.observe import scalar

from kerai import changeset

Call = Callable[..., dict[str, Any]]


class World:
    """Two instances on which ann has forked, after a beginning that both have.

    :param shared: ann's changesets before the fork.
    :param apart: how many operations each of her changesets has after it, here and there.
    """

    def __init__(
        self,
        instances: Any,
        connect: Any,
        call: Call,
        shared: int = 1,
        apart: tuple[list[int], list[int]] = ([1], [1]),
    ) -> None:
        made = instances(2)
        self.there_name = made[1].name
        self.here, self.there = (connect(one.dsn) for one in made)
        self.call = call
        self.root = str(uuid4())
        self.ann = LiveAuthor(self.here, "ann")
        self.ann.push(insert(self.root))
        for number in range(shared - 1):
            self.ann.push(update(self.root, content=f"{number}"), update(self.root, name=f"{number}"))
        call(self.here, "sync", self.there_name)
        self.twin = LiveAuthor(self.there, "ann", self.ann.key)
        self.place = scalar(self.here, "select sum(seq)::int from kerai.heads()") + 1
        self.nodes: list[str] = []
        for author, sizes in ((self.ann, apart[0]), (self.twin, apart[1])):
            for size in sizes:
                self.nodes.append(str(uuid4()))
                author.push(
                    insert(self.nodes[-1], self.root),
                    *(update(self.root, content=self.nodes[-1]) for _ in range(size - 1)),
                )

    def sync(self) -> dict[str, Any]:
        return self.call(self.here, "sync", self.there_name)


def frozen(connection: Connection[Any]) -> list[tuple[Any, ...]]:
    """Return the authors and places of the forks that an instance knows."""
    return [
        tuple(row.values()) for row in connection.execute("select author, seq from kerai.forks").fetchall()
    ]


def is_refused(author: LiveAuthor, *operations: Any, **keys: Any) -> str | None:
    """Return the SQLSTATE with which a push is refused."""
    with pytest.raises(psycopg.Error) as refused:
        author.push(*operations, **keys)
    return refused.value.sqlstate


APART = [([1], [1]), ([3], [1, 1, 1]), ([1, 1], [1, 1, 1, 1]), ([4, 2], [2])]


def test_forks_are_found_and_proved_on_both_sides(instances: Any, connect: Any, call: Call) -> None:
    """Authors who part after 0, 1 and 6 changesets, with changesets of many sizes after that."""
    made = instances(2)
    here, there = (connect(one.dsn) for one in made)
    forked: list[tuple[LiveAuthor, LiveAuthor, int]] = []
    for shared in (0, 1, 6):
        for number, _ in enumerate(APART):
            author = LiveAuthor(here, f"ann-{shared}-{number}")
            for size in range(shared):
                author.push(*(insert(str(uuid4())) for _ in range(1 + size % 2)), seen={})
            place = (shared * 3) // 2 + 1
            forked.append((author, LiveAuthor(there, f"ann-{shared}-{number}", author.key), place))
    assert call(here, "sync", made[1].name)["complete"]
    for number, (author, twin, _) in enumerate(forked):
        for each, sizes in zip((author, twin), APART[number % len(APART)], strict=True):
            for size in sizes:
                each.push(*(insert(str(uuid4())) for _ in range(size)), seen={})

    result = call(here, "sync", made[1].name)
    assert result["forks"] == len(forked) and result["complete"], result
    for connection in (here, there):
        assert set(frozen(connection)) == {(author.author, place) for author, _, place in forked}
        for proof in connection.execute(
            """select first_changeset::text, first_signature, second_changeset::text, second_signature,
            public_key, seq from kerai.forks"""
        ).fetchall():
            assert proof["first_changeset"] != proof["second_changeset"]
            for name in ("first", "second"):
                document = proof[f"{name}_changeset"]
                assert changeset.verify(document, proof[f"{name}_signature"], proof["public_key"])
                assert json.loads(document)["seq"] == proof["seq"]
    for author, twin, _ in forked:
        assert is_refused(author, insert(str(uuid4()))) == "KR003"
        assert is_refused(twin, insert(str(uuid4()))) == "KR003"
    again = call(here, "sync", made[1].name)
    assert again["forks"] == 0 and again["complete"] and again["bytes"] == 0


def test_everybody_else_goes_on(instances: Any, connect: Any, call: Call) -> None:
    world = World(instances, connect, call, 2, ([1], [1, 1, 1]))
    bob, cid = LiveAuthor(world.there, "bob"), LiveAuthor(world.here, "cid")
    # Bob has seen more of ann than is here, and other things; he says so in his base.
    bob.push(update(world.root, name="bob"))
    assert world.sync()["complete"]
    cid.push(update(world.root, language="cid"), insert(str(uuid4()), world.root))
    bob.push(update(world.root, language="bob"))
    result = world.sync()
    assert result["complete"], result
    for connection in (world.here, world.there):
        assert {bob.author, cid.author} < set(scalar(connection, "select kerai.version_vector()"))
        assert (
            scalar(connection, "select count(*) from kerai.changesets where author <> %s", [world.ann.author])
            == 3
        )
    # What only ann's branches have is not the same, and the digest says so.
    assert scalar(world.here, "select kerai.state_digest()") != scalar(
        world.there, "select kerai.state_digest()"
    )


def test_what_builds_on_the_other_branch_waits(instances: Any, connect: Any, call: Call) -> None:
    world = World(instances, connect, call)
    bob, cid = LiveAuthor(world.there, "bob"), LiveAuthor(world.there, "cid")
    bob.push(insert(str(uuid4()), world.nodes[1]))
    bob.push(insert(str(uuid4())))
    cid.push(insert(str(uuid4())), seen={})
    for times in (1, 2):
        result = world.sync()
        assert not result["complete"] and result["refused"] == 2 and "KR006" in result["problem"]
        rows = world.here.execute(
            "select direction, author, last_seq, code, times from kerai.refusals order by last_seq"
        ).fetchall()
        assert [tuple(row.values()) for row in rows] == [
            ("pull", bob.author, 1, "KR006", times),
            ("pull", bob.author, 2, "KR004", times),
        ]
    assert cid.author in scalar(world.here, "select kerai.version_vector()")


def test_a_refusal_is_forgotten_when_it_is_merged(instances: Any, connect: Any, call: Call) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    here.execute("update kerai.settings set value = 1 where name = 'max_changeset_ops'")
    bob = LiveAuthor(there, "bob")
    bob.push(insert(str(uuid4())), insert(str(uuid4())))
    bob.push(insert(str(uuid4())))
    # Page by page: what was refused does not stand in the way of what comes after it.
    LiveAuthor(there, "cid").push(insert(str(uuid4())), seen={})
    LiveAuthor(there, "dan").push(insert(str(uuid4())), seen={})
    results = [call(here, "pull", b.name, 1) for _ in range(4)]
    # Bob's second one, which would be a gap, is not asked for.
    assert [result["refused"] for result in results] == [1, 0, 0, 1]
    assert [result["pulled_changesets"] for result in results] == [1, 1, 0, 0]
    assert not any(result["complete"] for result in results)
    assert all("kerai.refusals" in result["problem"] for result in results)
    assert scalar(here, "select count(*) from kerai.refusals") == 1
    here.execute("update kerai.settings set value = 9 where name = 'max_changeset_ops'")
    assert call(here, "pull", b.name)["complete"]
    assert scalar(here, "select count(*) from kerai.refusals") == 0
    assert_same(here, there)


def test_a_clock_cannot_be_poisoned_by_way_of_a_frozen_author(
    instances: Any, connect: Any, call: Call
) -> None:
    world = World(instances, connect, call)
    world.sync()
    bob = LiveAuthor(world.here, "bob")
    base = {world.ann.author: 100}
    operation = update(world.root, content="late")
    highest = scalar(world.here, "select max(lamport) from kerai_private.authors")
    assert is_refused(bob, operation, base=base, lamport=highest + 102) == "KR005"
    assert is_refused(bob, operation, base={world.ann.author: 1_000_003}, lamport=1) == "KR004"
    assert is_refused(bob, operation, base=base, lamport=0) == "KR005"
    assert bob.push(operation, base=base, lamport=highest + 101) == "merged"
    # Without a frozen author in base it is exact, as ever.
    cid = LiveAuthor(world.here, "cid")
    assert is_refused(cid, insert(str(uuid4())), base={}, lamport=2) == "KR005"
    assert is_refused(cid, insert(str(uuid4())), base={bob.author: 2}, lamport=highest + 102) == "KR004"


def test_an_instance_with_a_fork_can_be_cloned(instances: Any, connect: Any, call: Call) -> None:
    """The clone takes the branch that the peer has, as far as that has it, and what was built on it."""
    here_db, there_db, clone_db = instances(3)
    here, there, clone = (connect(one.dsn) for one in (here_db, there_db, clone_db))
    root = str(uuid4())
    ann = LiveAuthor(here, "ann")
    ann.push(insert(root))
    call(here, "sync", there_db.name)
    # The clone has a beginning of it, from before the fork.
    assert call(clone, "pull", here_db.name)["complete"]
    ann.push(child := insert(str(uuid4()), root))
    LiveAuthor(there, "ann", ann.key).push(
        update(root, name="x"), update(root, name="y"), update(root, name="z")
    )
    LiveAuthor(there, "bob").push(update(root, content="bob"))
    LiveAuthor(here, "cid").push(update(child["node"], content="cid"))
    call(here, "sync", there_db.name)
    assert call(clone, "pull", here_db.name)["complete"]
    assert_same(here, clone)
    assert frozen(clone) == frozen(here)
    # And it is frozen there for ann, who would go on.
    assert is_refused(LiveAuthor(clone, "ann", ann.key), insert(str(uuid4()))) == "KR003"
    # What cid has built on one branch cannot go where the other one is.
    assert call(clone, "sync", there_db.name)["refused"] == 1
    assert scalar(clone, "select code from kerai.refusals where direction = 'push'") == "KR006"
    assert_same(here, clone)


def test_a_push_tells_the_peer_of_a_fork_first(instances: Any, connect: Any, call: Call) -> None:
    here_db, there_db, clone_db = instances(3)
    here, there, clone = (connect(one.dsn) for one in (here_db, there_db, clone_db))
    ann = LiveAuthor(here, "ann")
    ann.push(insert(root := str(uuid4())))
    LiveAuthor(there, "ann", ann.key).push(insert(str(uuid4())), insert(str(uuid4())))
    LiveAuthor(there, "bob").push(insert(str(uuid4())))
    assert call(here, "sync", there_db.name)["forks"] == 1
    LiveAuthor(here, "cid").push(update(root, name="cid"))
    assert call(here, "push", clone_db.name)["complete"]
    assert_same(here, clone)
    assert frozen(clone) == frozen(here)


def test_a_report_needs_both_signatures(instances: Any, connect: Any, call: Call) -> None:
    world = World(instances, connect, call)
    ann = world.ann
    first, second = (
        scalar(
            each,
            "select document::text from kerai.changesets where author = %s and first_seq = 2",
            [ann.author],
        )
        for each in (world.here, world.there)
    )
    whole = first.replace('"message":""', '"message":"1"')
    apart = changeset.build(ann.author, 9, 9, [insert(str(uuid4()))], prev="0" * 64)
    other = LiveAuthor(world.here, "other")
    foreign = other.write([insert(str(uuid4()))])

    def report(
        *documents: str, key: bytes | None = ann.public_key, signatures: list[bytes] | None = None
    ) -> Any:
        signed = signatures or [changeset.sign(document, ann.key) for document in documents]
        with pytest.raises(psycopg.Error) as refused:
            world.here.execute(
                "select kerai.report_fork(%s, %s, %s, %s, %s)",
                [key, documents[0], signed[0], documents[1], signed[1]],
            )
        return refused.value.sqlstate

    assert report(first, first) == "KR005"
    assert report(first, apart) == "KR005"
    assert report(first, foreign) == "KR005"
    assert report(first, "{}") == "KR005"
    assert report(first, second, key=other.public_key) == "KR002"
    assert (
        report(first, whole, signatures=[changeset.sign(first, ann.key), changeset.sign(first, ann.key)])
        == "KR001"
    )
    assert report(first, second, signatures=[b"", b""]) == "KR001"
    assert scalar(world.here, "select count(*) from kerai.forks") == 0
    parameters = [first, changeset.sign(first, ann.key), second, changeset.sign(second, ann.key)]
    statement = "select kerai.report_fork(null, %s, %s, %s, %s)"
    assert scalar(world.here, statement, parameters) is True
    assert scalar(world.here, statement, parameters[2:] + parameters[:2]) is False
    assert is_refused(ann, insert(str(uuid4()))) == "KR003"


def test_a_fork_that_arrives_in_a_page_is_kept(database: Any, connect: Any) -> None:
    here = connect()
    ann = LiveAuthor(here, "ann")
    document = ann.write([insert(str(uuid4()))])
    twin = ann.write([insert(str(uuid4()))])
    ann.send(document)
    row = here.execute(
        "select * from kerai.accept(array[%s]::json[], array[%s]::bytea[], array[%s]::bytea[])",
        [twin, changeset.sign(twin, ann.key), ann.public_key],
    ).fetchone()
    assert row["code"] == "KR003"
    assert frozen(here) == [(ann.author, 1)]


@pytest.mark.parametrize("followed", [2, 2**63 - 1])
def test_a_frozen_author_pushes_nothing_more_whatever_a_peer_reports(
    instances: Any, connect: Any, call: Call, followed: int
) -> None:
    """A peer may bring what is of the branch that it follows; it cannot thaw the author."""
    world = World(instances, connect, call)
    ann, here = world.ann, world.here
    at_two = "select document::text from kerai.changesets where author = %s and first_seq = 2"
    forked = [scalar(each, at_two, [ann.author]) for each in (here, world.there)]
    proof = [value for document in forked for value in (document, changeset.sign(document, ann.key))]
    report = "select kerai.report_fork(null, %s, %s, %s, %s, %s)"
    assert called(here, report, [*proof, -1])["code"] == "KR005"
    assert frozen(here) == []
    assert scalar(here, report, [*proof, followed]) is True
    document = ann.write([insert(str(uuid4()))])
    given = [document, changeset.sign(document, ann.key), ann.public_key]
    assert called(here, PUSH, given)["code"] == "KR003"
    assert called(here, AWAIT_PUSH, [scalar(here, SUBMIT, given)])["code"] == "KR003"
    accept = (
        "select status, code from kerai.accept(array[%s]::json[], array[%s]::bytea[], array[%s]::bytea[])"
    )
    expected = ("merged", None) if followed > 2 else ("refused", "KR003")
    assert tuple(called(here, accept, given).values()) == expected

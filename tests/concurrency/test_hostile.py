"""One author's hostile submissions are his own trouble: others push on, and an operator can remove them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.concurrency.test_push import assert_fold, until_blocked
from tests.merge.live import insert, update
from tests.merge.members import AWAIT_PUSH, SUBMIT, Member, called, launch, status
from tests.merge.observe import scalar
from tests.support.hostile import calls, poison, push_in_time, tries

from kerai import changeset

REPORT = "select kerai.report_fork(%s, %s, %s, %s, %s)"
WAITING = "select code, message, detail, author from kerai.waiting_pushes() order by ticket"


@pytest.mark.parametrize("code", ["XX000", "54000", "38000", "23505", "P0001"])
def test_an_error_is_its_own_authors(members: Any, role_connection: Any, code: str) -> None:
    mallory, ann, bob, cleo = members(4)
    poison(ann.connection, code)
    bad = mallory.submit(mallory.own(insert(str(uuid4())), message=code))
    good = [each.submit(each.own(insert(str(uuid4())))) for each in (ann, bob)]
    push_in_time(cleo)
    assert [status(ann.answer(ticket)) for ticket in good] == ["merged"] * 2
    assert_fold(ann.connection)

    tried = tries(ann.connection)
    for each in (ann, bob, cleo):
        push_in_time(each)
    assert tries(ann.connection) == tried, "nobody else tries it again"
    failure = {"code": code, "message": "poison", "detail": "of one changeset"}
    assert mallory.answer(bad) == failure
    operator = role_connection("kerai_operator")
    assert operator.execute(WAITING).fetchall() == [failure | {"author": mallory.author}]
    assert scalar(operator, "select kerai.withdraw(ticket => %s)", [bad]) == 1
    assert operator.execute(WAITING).fetchall() == []
    push_in_time(mallory)
    assert_fold(ann.connection)


@pytest.mark.parametrize("code", ["53100", "53200", "57P03"])
def test_an_error_that_may_be_gone_the_next_time_condemns_nobody(members: Any, code: str) -> None:
    ann, bob = members(2)
    poison(ann.connection, code)
    first = bob.submit(bob.own(insert(str(uuid4())), message=code))
    push_in_time(ann)
    tried = tries(ann.connection)
    push_in_time(ann)
    assert tries(ann.connection) == tried, "nobody else tries it again"
    assert ann.connection.execute(WAITING).fetchone() == {
        "code": code,
        "message": "poison",
        "detail": "of one changeset",
        "author": bob.author,
    }
    assert status(bob.answer(first)) == code
    ann.connection.execute("drop trigger {} on kerai.changesets".format(f"fail_{code}").encode())
    push_in_time(ann)
    assert status(bob.answer(first)) == "merged"
    assert ann.connection.execute(WAITING).fetchall() == []
    assert_fold(ann.connection)


def test_what_follows_on_an_error_of_the_moment_waits_for_it(members: Any) -> None:
    ann, bob = members(2)
    poison(ann.connection, "53100")
    documents = []
    with bob.connection.transaction(force_rollback=True):
        for message in ("53100", "later"):
            documents.append(bob.own(insert(str(uuid4())), message=message))
            bob.connection.execute("set local session_replication_role = replica")
            assert status(bob.send(documents[-1])) == "merged"
    tickets = [bob.submit(document) for document in documents]
    push_in_time(ann)
    push_in_time(ann)
    assert scalar(ann.connection, "select count(*) from kerai.waiting_pushes()") == 2
    ann.connection.execute("drop trigger fail_53100 on kerai.changesets")
    assert [status(bob.answer(ticket)) for ticket in reversed(tickets)] == ["merged"] * 2
    assert_fold(ann.connection)


def test_a_poisoned_one_among_many_takes_nobody_with_it(members: Any) -> None:
    """Also those that follow on it, or on each other, get what they would get alone."""
    ann, mallory, *crew = members(8)
    bob = Member(mallory.connection, "bob")
    poison(ann.connection, "XX000")
    node = str(uuid4())
    with mallory.connection.transaction(force_rollback=True):
        mallory.connection.execute("set local session_replication_role = replica")
        first = mallory.own(insert(node), message="XX000")
        assert status(mallory.send(first)) == "merged"
        second = mallory.own(insert(str(uuid4()), node))
        leaning = bob.own(insert(str(uuid4()), node))
    tickets = [each.submit(each.own(insert(str(uuid4())))) for each in crew[:3]]
    bad = [mallory.submit(first), mallory.submit(second), bob.submit(leaning)]
    tickets += [each.submit(each.own(insert(str(uuid4())))) for each in crew[3:]]
    push_in_time(ann)
    assert [status(each.answer(ticket)) for each, ticket in zip(crew, tickets, strict=True)] == ["merged"] * 6
    assert [status(mallory.answer(ticket)) for ticket in bad] == ["XX000", "KR004", "KR004"]
    assert_fold(ann.connection)


def gap(member: Member) -> str:
    """What comes before its author's first."""
    return member.own(insert(str(uuid4())), seq=5)


def nowhere(member: Member) -> str:
    """A write to a node that is not there."""
    return member.own(update(str(uuid4()), content="x"))


def malformed(member: Member) -> str:
    """An operation that there is none of."""
    return member.own({"op": "x"})


def guarded(member: Member) -> str:
    """A guard on a node that is not there."""
    return member.own(insert(str(uuid4())), guard=str(uuid4()))


@pytest.mark.parametrize("write", [gap, nowhere, malformed, guarded])
def test_many_refused_ones_cost_one_look(members: Any, write: Callable[[Member], str]) -> None:
    ann, bob = members(2)
    hostile = [Member(ann.connection, f"hostile-{n}") for n in range(120)]
    tickets = [(each, each.submit(write(each))) for each in hostile]
    with calls(bob.connection) as counted:
        push_in_time(bob)
    looks = [counted.get(name, 0) for name in ("find_unsure", "seal", "run_ends", "execute_autonomously")]
    # A busy machine may need some batches.
    assert max(looks) <= 5 * counted["lead_batch"] <= 30, counted
    assert counted.get("receive_one", 0) + counted.get("verify_changesets", 0) <= 2 * len(hostile), counted
    push_in_time(ann)
    while scalar(ann.connection, "select count(*) from kerai.waiting_pushes()"):
        push_in_time(ann)
    assert {each.answer(ticket)["code"][:3] for each, ticket in tickets} == {"KR0"}
    assert_fold(ann.connection)


def test_many_refused_drafts_cost_one_look(members: Any) -> None:
    ann = members(1)[0]
    _, swarm = launch(ann.connection)
    crew = members(12, swarm)
    for each in crew:
        for n in range(8):
            body = insert(str(uuid4())) if n % 2 else update(str(uuid4()), content="x")
            each.submit(each.draft(swarm, body))
    with calls(ann.connection) as counted:
        push_in_time(ann)
    assert counted["find_unsure"] <= 2 * counted["lead_batch"] <= 12, counted
    while scalar(ann.connection, "select count(*) from kerai.waiting_pushes()"):
        push_in_time(ann)
    assert scalar(ann.connection, "select count(*) from kerai.changesets where draft_id is not null") == 48
    assert_fold(ann.connection)


def test_many_forks_are_kept_by_one_session(members: Any) -> None:
    ann, mallory = members(2)
    documents = [mallory.own(insert(str(uuid4())), message=str(n)) for n in range(60)]
    assert status(mallory.send(documents[0])) == "merged"
    tickets = [mallory.submit(document) for document in documents[1:]]
    with calls(ann.connection) as counted:
        push_in_time(ann)
    assert counted.get("execute_autonomously", 0) == 0
    rows = ann.connection.execute(
        "select first_changeset::text as kept, second_changeset::text as refused, second_signature "
        "from kerai.forks"
    ).fetchall()
    assert len(rows) == 16
    for row in rows:
        assert row["kept"] == documents[0]
        assert row["refused"] in documents[1:]
        assert row["second_signature"] == changeset.sign(row["refused"], mallory.key)
    assert {mallory.answer(ticket)["code"] for ticket in tickets} == {"KR003"}
    assert_fold(ann.connection)


def test_nobody_submits_in_another_authors_name(members: Any) -> None:
    ann, mallory = members(2)
    document = ann.own(insert(str(uuid4())))
    for signature, key in (
        (changeset.sign(document, mallory.key), ann.public_key),
        (changeset.sign(document, mallory.key), mallory.public_key),
        (changeset.sign(document, mallory.key), None),
        (None, None),
    ):
        refusal = called(mallory.connection, SUBMIT, [document, signature, key])
        assert refusal["code"] in ("KR001", "KR002")
    assert scalar(ann.connection, "select count(*) from kerai_private.submissions") == 0
    push_in_time(ann)


@pytest.mark.parametrize("bound", ["max_{}_submissions", "max_{}_submission_bytes"])
@pytest.mark.parametrize("kind", ["author", "role"])
def test_so_much_waits_at_most(members: Any, role_connection: Any, kind: str, bound: str) -> None:
    (ann,) = members(1)
    hostile = role_connection("kerai_agent")
    mallory = Member(hostile, "mallory")
    setting = bound.format(kind)
    most = 3 if setting.endswith("submissions") else 90_000
    ann.connection.execute("update kerai.settings set value = %s where name = %s", [most, setting])
    content = "x" * 25_000
    crew = [mallory] * 8 if kind == "author" else [Member(hostile, f"mallory-{n}") for n in range(8)]
    answers = []
    for each in crew:
        document = each.own(insert(str(uuid4()), content=content))
        answers.append(
            called(hostile, SUBMIT, [document, changeset.sign(document, each.key), each.public_key])
        )
    assert [each.get("code") for each in answers] == [None] * 3 + ["KR009"] * 5
    assert f"too much of this {kind}" in answers[-1]["message"]
    push_in_time(ann)
    assert called(hostile, SUBMIT, [document, changeset.sign(document, crew[-1].key), crew[-1].public_key])


def test_who_may_withdraw_what(members: Any, role_connection: Any) -> None:
    (ann,) = members(1)
    mallory, bob = (Member(role_connection("kerai_agent", name), name) for name in ("test_m", "test_b"))
    operator = role_connection("kerai_operator")
    document = mallory.own(insert(str(uuid4())))
    ticket = mallory.submit(document)
    own = "select count(*) from kerai.waiting_pushes()"
    assert [scalar(each, own) for each in (mallory.connection, bob.connection, operator)] == [1, 0, 1]
    for given in ("%(agent)s", "author => %(author)s", "ticket => %(ticket)s"):
        call = f"kerai.withdraw({given})"
        for allowed in (mallory.connection, operator):
            about = {"agent": mallory.id, "author": mallory.author, "ticket": ticket}
            with pytest.raises(psycopg.Error) as refusal:
                bob.connection.execute(f"select {call}".encode(), about)
            assert refusal.value.sqlstate == "KR013"
            found = allowed.execute(f"select {call} as withdrawn".encode(), about).fetchone()
            assert found == {"withdrawn": 1}
            ticket = mallory.submit(document)
    assert status(mallory.answer(ticket)) == "merged"
    assert scalar(operator, "select kerai.withdraw(author => 'nobody.0000000000000000')") == 0
    for wrong in ("", "author => 'x', ticket => gen_random_uuid()"):
        with pytest.raises(psycopg.Error) as refusal:
            operator.execute(f"select kerai.withdraw({wrong})".encode())
        assert refusal.value.sqlstate in ("KR005", "KR006")
    # An author who is no agent of this instance is an operator's to remove, and his who has submitted for it.
    stray = Member(bob.connection, "stray")
    ann.connection.execute("delete from kerai.agents where name = 'stray'")
    stray.submit(stray.own(insert(str(uuid4()))))
    assert scalar(mallory.connection, own) == 0
    assert scalar(bob.connection, "select kerai.withdraw(author => %s)", [stray.author]) == 1


def test_a_turn_takes_no_more_of_others_than_it_can_bear(members: Any) -> None:
    """And one's own first, however much others have submitted before."""
    ann, bob = members(2)
    crew = [Member(bob.connection, f"crew-{n}") for n in range(24)]
    for each in crew:
        each.submit(each.own(insert(str(uuid4()), content="x" * 200_000)))
    with calls(ann.connection) as counted:
        ticket = ann.submit(ann.own(insert(str(uuid4()))))
        assert status(ann.answer(ticket)) == "merged"
    assert counted["take_waiting"] == 1
    assert 1 < scalar(ann.connection, "select count(*) from kerai.changesets") <= 6


def test_a_large_one_is_merged_by_its_own_session(members: Any) -> None:
    """With what its author has submitted after it; nobody else waits for it."""
    ann, bob = members(2)
    content = "x" * 300_000
    documents = []
    with bob.connection.transaction(force_rollback=True):
        for body in (insert(str(uuid4()), content=content), insert(str(uuid4()))):
            documents.append(bob.own(body))
            assert status(bob.send(documents[-1])) == "merged"
    tickets = [bob.submit(document) for document in documents]
    push_in_time(ann)
    assert scalar(ann.connection, "select count(*) from kerai.waiting_pushes() where code is null") == 2
    assert [status(bob.answer(ticket)) for ticket in reversed(tickets)] == ["merged"] * 2
    assert_fold(ann.connection)


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
def test_an_error_of_locks_is_the_leaders_to_try_again(members: Any, code: str) -> None:
    ann, bob = members(2)
    poison(ann.connection, code)
    first = bob.submit(bob.own(insert(str(uuid4())), message=code))
    second = ann.submit(ann.own(insert(str(uuid4()))))
    assert status(ann.answer(second)) == ("40001" if code == "40001" else "KR009")
    assert [row["code"] for row in ann.connection.execute(WAITING)] == [None, None]
    ann.connection.execute(f"drop trigger fail_{code.lower()} on kerai.changesets".encode())
    assert [status(ann.answer(second)), status(bob.answer(first))] == ["merged"] * 2
    assert_fold(ann.connection)


@pytest.mark.parametrize("content", ["small", "x" * 300000])
def test_what_is_merged_takes_no_room_when_others_submit_it_again(
    members: Any, role_connection: Any, content: str
) -> None:
    (ann,) = members(1)
    hostile = role_connection("kerai_agent")
    document = ann.own(insert(str(uuid4()), content=content))
    assert status(ann.push_batched(document)) == "merged"
    ann.connection.execute("update kerai.settings set value = 3 where name = 'max_author_submissions'")
    replay = [document, changeset.sign(document, ann.key), ann.public_key]
    tickets = [scalar(hostile, SUBMIT, replay) for _ in range(4)]
    assert scalar(ann.connection, "select count(*) from kerai.waiting_pushes()") == 0
    push_in_time(ann)
    assert [status(called(hostile, AWAIT_PUSH, [ticket])) for ticket in tickets] == ["duplicate"] * 4


def test_evidence_of_a_fork_takes_no_room_when_others_submit_it(members: Any, role_connection: Any) -> None:
    (ann,) = members(1)
    hostile = role_connection("kerai_agent")
    kept, twin = (ann.own(insert(str(uuid4()))) for _ in range(2))
    assert status(ann.send(kept)) == "merged"
    assert status(ann.send(twin)) == "KR003"
    assert scalar(hostile, "select second_changeset::text from kerai.forks") == twin
    ann.connection.execute("update kerai.settings set value = 3 where name = 'max_author_submissions'")
    replay = [twin, changeset.sign(twin, ann.key), ann.public_key]
    assert [called(hostile, SUBMIT, replay)["code"] for _ in range(4)] == ["KR003"] * 4
    assert scalar(ann.connection, "select count(*) from kerai.waiting_pushes()") == 0
    push_in_time(ann)


def test_reports_of_forks_keep_nobody_waiting(members: Any, connect: Any) -> None:
    """Neither true ones nor false ones, however long it takes to verify them."""
    ann, mallory = members(2)
    nodes = [insert(str(uuid4()), content="x" * 700) for _ in range(4500)]
    first, second = (mallory.own(*nodes, message=message) for message in "12")
    assert len(first) > 3_500_000
    signed = [value for each in (first, second) for value in (each, changeset.sign(each, mallory.key))]
    other = ann.own(insert(str(uuid4())))
    false = [*signed[:2], other, changeset.sign(other, ann.key)]
    answers: list[Any] = []
    started, done = threading.Event(), threading.Event()

    def report() -> None:
        with connect() as hostile:
            while not done.is_set():
                for pair in (false, signed):
                    answers.append(called(hostile, REPORT, [mallory.public_key, *pair]))
                    started.set()

    thread = threading.Thread(target=report)
    thread.start()
    started.wait(60)
    for _ in range(10):
        push_in_time(ann)
    done.set()
    thread.join(60)
    assert answers[0]["code"] == "KR005"
    assert answers[1]["report_fork"] is True


def test_a_merged_draft_takes_no_room_when_it_is_submitted_again(members: Any) -> None:
    (ann,) = members(1)
    _, swarm = launch(ann.connection)
    ann.join(swarm)
    draft = ann.draft(swarm, insert(str(uuid4())))
    merged = ann.push_batched(draft)
    again = ann.answer(ann.submit(draft))
    assert scalar(ann.connection, "select count(*) from kerai_private.submissions") == 0
    assert again == {**merged, "status": "duplicate", "applied": 0}


@pytest.mark.read_committed
def test_a_withdrawal_leaves_what_another_submits_meanwhile(
    members: Any, connect: Any, role_connection: Any
) -> None:
    (ann,) = members(1)
    hostile = role_connection("kerai_agent")
    document = ann.own(insert(str(uuid4())))
    withdrawn: list[int] = []
    with ann.connection.transaction():
        # Looking at what waits is free, removing it is not.
        ann.connection.execute("lock table kerai_private.submissions in share mode")
        thread = threading.Thread(
            target=lambda: withdrawn.append(
                scalar(hostile, "select kerai.withdraw(author => %s)", [ann.author])
            )
        )
        thread.start()
        until_blocked(connect(), hostile, ann.connection)
        ticket = ann.submit(document)
    thread.join(30)
    assert withdrawn == [0]
    assert status(ann.answer(ticket)) == "merged"

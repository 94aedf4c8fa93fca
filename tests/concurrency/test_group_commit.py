"""Many sessions submit and settle: whoever is first merges for all, and nobody's work or answer is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.concurrency.test_push import NAMES, assert_fold, at_once, until_blocked
from tests.merge.batches import Parcel, push_each, receive_all
from tests.merge.live import Body, insert, move, update
from tests.merge.members import Member, launch, status
from tests.merge.model import Operation, fold
from tests.merge.observe import assert_state, scalar
from tests.settings.odd import connect as connect_to
from tests.support.locks import set_lock_wait
from tests.swarm.test_swarm import start_again

from kerai import changeset
from kerai_client.server.private import PrivateServer

WRITERS = """
select o.author, o.author_seq, o.lamport_ts, o.payload, coalesce(c.member, c.author) as writer
from kerai.operations as o inner join kerai.changesets as c on c.id = o.changeset_id"""


def operations(connection: Connection[Any], chance: random.Random, shared: list[str]) -> list[Body]:
    """Return some random operations on what everybody else is changing too."""
    known = [row["id"] for row in connection.execute("select id::text from kerai.nodes").fetchall()]
    written: list[Body] = []
    for _ in range(chance.randint(1, 5)):
        node, other, name = chance.choice(known), chance.choice(known), chance.choice(NAMES)
        written.append(
            chance.choice(
                [
                    insert(str(uuid4()), node, name=name),
                    insert(chance.choice(shared), node, name=name),
                    move(node, other, chance.choice("abc")),
                    *[update(chance.choice(known[:8]), content=f"{n}") for n in range(3)],
                    update(node, name=name),
                    {"op": chance.choice(["node_delete", "node_restore"]), "node": node},
                    {"op": "edge_insert", "source": node, "target": other, "relation": "calls"},
                    {"op": "perspective_set", "node": node, "weight": 0.5},
                ]
            )
        )
    return written


def work(member: Member, swarm: str | None, nodes: list[str], shared: list[str], seed: int) -> Counter[str]:
    """Push and submit, good ones and wrong ones; return how often which answer came."""
    chance = random.Random(seed)
    answers: Counter[str] = Counter()
    for _ in range(6):
        body = operations(member.connection, chance, shared)
        wrong = chance.random() < 0.2
        if wrong:
            body = [*body, update(str(uuid4()), content="of a node that is not there")]
        guard = chance.choice(nodes) if chance.random() < 0.1 else None
        document = (
            member.draft(swarm, *body, guard=guard)
            if swarm and chance.random() < 0.8
            else member.own(*body, guard=guard)
        )
        how = chance.choice(
            [member.send, lambda text: member.answer(member.submit(text)), member.push_batched]
        )
        answer = how(document)
        # What names a node that is not there is refused, and nothing else is.
        if answer.get("code") == "KR006" and wrong:
            answers["wrong"] += 1
            # What still waits would be a fork once the next one is merged.
            member.connection.execute("select kerai.withdraw(%s)", [member.id])
        else:
            assert not wrong or status(answer) == "stale", answer
            answers[status(answer)] += 1
    return answers


def assert_written(connection: Connection[Any]) -> None:
    """Check that the state is the fold, where views are those of the members that wrote them."""
    rows = connection.execute(WRITERS).fetchall()
    log = [Operation(row["author"], row["author_seq"], row["lamport_ts"], row["payload"]) for row in rows]
    state = fold(log)
    by_place = {(row["author"], row["author_seq"]): row["writer"] for row in rows}
    views = {}
    for operation in sorted(log, key=lambda each: each.stamp):
        if operation.body["op"] == "perspective_set":
            key = by_place[operation.author, operation.seq], operation.body["node"], None
            views[key] = (float(operation.body["weight"]), None)
    state.perspectives = dict(views)
    assert_state(connection, state)
    assert scalar(connection, "select kerai.version_vector()") == dict(Counter(each.author for each in log))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.read_committed
def test_many_sessions_settle_push_and_read(connect: Any, members: Any, grouped: bool) -> None:
    setup = connect()
    swarm = launch(setup)[1] if grouped else None
    crew = members(16, swarm)
    nodes, shared = [str(uuid4()) for _ in range(10)], [str(uuid4()) for _ in range(8)]
    crew[0].send(crew[0].own(*(insert(node, nodes[n // 2] if n else None) for n, node in enumerate(nodes))))
    done = threading.Event()

    def read() -> int:
        looks = 0
        connection = connect()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        while not done.is_set():
            with connection.transaction():
                assert_written(connection)
            looks += 1
        return looks

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            jobs = [partial(work, each, swarm, nodes, shared, n) for n, each in enumerate(crew)]
            answers: Counter[str] = sum(at_once(jobs), Counter())
        finally:
            done.set()
        assert reader.result(timeout=60) > 0
    assert sum(answers.values()) == 16 * 6
    assert set(answers) <= {"merged", "stale", "wrong"}, answers
    assert answers["merged"] > 40
    assert answers["wrong"] > 5
    assert_written(setup)
    assert scalar(setup, "select count(*) from kerai.changesets") == answers["merged"] + 1
    assert scalar(setup, "select count(*) from kerai_private.submissions") <= answers["wrong"]
    for each in crew:
        each.connection.close()
    # Told when a session ends, and not merely survived: nobody ever waited in a circle.
    assert scalar(setup, "select deadlocks from pg_stat_database where datname = current_database()") == 0


def test_whoever_settles_first_merges_what_waits(members: Any) -> None:
    crew = members(4)
    tickets = [each.submit(each.own(insert(str(uuid4())))) for each in crew]
    assert status(crew[3].answer(tickets[3])) == "merged"
    assert scalar(crew[0].connection, "select count(*) from kerai.changesets") == 4
    results = [each.answer(ticket) for each, ticket in zip(crew[:3], tickets[:3], strict=True)]
    assert [(each["status"], each["applied"], each["first_seq"]) for each in results] == [
        ("merged", 1, 1)
    ] * 3
    assert_fold(crew[0].connection)


def test_a_refused_leader_loses_nobodys_work_and_keeps_its_refusal(members: Any) -> None:
    ann, bob, cleo = members(3)
    good = ann.submit(ann.own(insert(str(uuid4()))))
    bad = bob.submit(bob.own(update(str(uuid4()), content="x")))
    other = cleo.submit(cleo.own(insert(str(uuid4()))))
    first = bob.answer(bad)
    assert first["code"] == "KR006"
    assert status(cleo.answer(other)) == "merged"
    assert [status(ann.answer(good)), bob.answer(bad), bob.answer(bad)] == [
        "merged",
        first,
        first,
    ]
    assert_fold(ann.connection)


def test_one_author_submits_several_and_settles_the_last_first(members: Any, monkeypatch: Any) -> None:
    (ann,) = members(1)
    root = str(uuid4())
    ann.send(ann.own(insert(root)))
    with ann.connection.transaction(force_rollback=True):
        documents = []
        for _ in range(4):
            documents.append(ann.own(insert(str(uuid4()), root)))
            ann.send(documents[-1])
    # However few are merged at once.
    ann.connection.execute("update kerai.settings set value = 2 where name = 'max_batch_submissions'")
    tickets = [ann.submit(each) for each in documents]
    results = [ann.answer(ticket) for ticket in reversed(tickets)]
    assert [(each.get("status"), each.get("first_seq")) for each in results] == [
        ("merged", n) for n in (5, 4, 3, 2)
    ]


@pytest.mark.read_committed
def test_a_result_is_given_as_often_as_it_is_asked_for(members: Any) -> None:
    ann, bob, *others = members(6)
    ticket = ann.submit(ann.own(insert(str(uuid4()))))
    assert [status(each.answer(ticket)) for each in (bob, ann, ann)] == ["merged"] * 3
    for _ in range(6):
        ticket = ann.submit(document := ann.own(insert(str(uuid4()))))
        # Before and after somebody else has merged it.
        if random.Random(ticket).random() < 0.5:
            bob.answer(bob.submit(bob.own(insert(str(uuid4())))))
        results = at_once([partial(each.answer, ticket) for each in others])
        assert {status(each) for each in results} == {"merged"}
        assert len({each["first_seq"] for each in results}) == 1
        assert status(ann.answer(again := ann.submit(document))) == "duplicate"
        assert status(bob.answer(again)) == "duplicate"
    assert scalar(ann.connection, "select count(*) from kerai_private.submissions") == 0
    assert_fold(ann.connection)


def test_a_fork_among_what_waits_is_kept_as_evidence(members: Any) -> None:
    """Though the other half of it is not committed yet."""
    ann, bob = members(2)
    documents = [ann.own(insert(str(uuid4())), message=text) for text in ("one", "two")]
    first, second = (ann.submit(each) for each in documents)
    assert status(bob.answer(bob.submit(bob.own(insert(str(uuid4())))))) == "merged"
    assert status(ann.answer(first)) == "merged"
    assert ann.answer(second)["code"] == "KR003"
    rows = ann.connection.execute(
        """
        select author, seq, first_changeset::text as first, second_changeset::text as second,
            first_signature, second_signature
        from kerai.forks"""
    ).fetchall()
    assert rows == [
        {
            "author": ann.author,
            "seq": 1,
            "first": documents[0],
            "second": documents[1],
            "first_signature": changeset.sign(documents[0], ann.key),
            "second_signature": changeset.sign(documents[1], ann.key),
        }
    ]


def test_results_that_nobody_came_for_are_removed(members: Any) -> None:
    ann, bob = members(2)
    ticket, bad = (
        ann.submit(ann.own(insert(str(uuid4())))),
        ann.submit(ann.own(update(str(uuid4()), content=""))),
    )
    bob.answer(bob.submit(bob.own(insert(str(uuid4())))))
    ann.connection.execute("update kerai_private.push_outcomes set decided_at = now() - interval '1 hour'")
    waiting = ann.submit(ann.own(insert(str(uuid4()))))
    bob.answer(bob.submit(bob.own(insert(str(uuid4())))))
    assert [ann.answer(each)["code"] for each in (ticket, bad)] == ["KR006"] * 2
    assert status(ann.answer(waiting)) == "merged"


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.read_committed
def test_an_open_settlement_holds_others_up_and_loses_nothing(members: Any, connect: Any, end: str) -> None:
    ann, bob, cleo = members(3)
    set_lock_wait(connect(), 100)
    ticket = ann.submit(ann.own(insert(str(uuid4()))))
    waiting = bob.submit(bob.own(insert(str(uuid4()))))
    ann.connection.execute("begin")
    assert status(ann.answer(ticket)) == "merged"
    late = cleo.submit(cleo.own(insert(str(uuid4()))))
    for each, its in ((bob, waiting), (cleo, late)):
        refusal = each.answer(its)
        assert refusal["code"] == "KR009"
        assert "lock timeout" in refusal["detail"]
    assert scalar(connect(), "select count(*) from kerai.changesets") == 0
    ann.connection.execute(end)
    assert status(bob.answer(waiting)) == "merged"
    assert status(cleo.answer(late)) == "merged"
    assert status(ann.answer(ticket)) == "merged"
    assert_fold(ann.connection)
    assert scalar(connect(), "select count(*) from kerai.changesets") == 3


@pytest.mark.read_committed
def test_a_batch_that_is_not_all_good_is_merged_alone(members: Any) -> None:
    """While another is being merged."""
    ann, bob, cleo, dora = members(4)
    first = ann.submit(ann.own(insert(str(uuid4()))))
    ann.connection.execute("begin")
    assert status(ann.answer(first)) == "merged"
    crew = [bob, cleo, dora]
    documents = [each.own(insert(str(uuid4()))) for each in crew]
    documents[1] = cleo.own(update(str(uuid4()), content="of a node that is not there"))
    tickets = [each.submit(document) for each, document in zip(crew, documents, strict=True)]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(bob.answer, tickets[0])
        until_blocked(cleo.connection, bob, ann)
        ann.connection.execute("commit")
        assert status(answer.result(timeout=30)) == "merged"
    assert [status(each.answer(ticket)) for each, ticket in zip(crew, tickets, strict=True)] == [
        "merged",
        "KR006",
        "merged",
    ]
    assert_fold(ann.connection)


@pytest.mark.parametrize("canceled", [False, True])
@pytest.mark.read_committed
def test_all_wait_for_the_next_one_and_none_is_left_when_he_fails(
    members: Any, connect: Any, canceled: bool
) -> None:
    crew = members(4)
    ann, bob, cleo, _ = crew
    observer = connect()
    for each in crew:
        each.connection.execute("select set_config('kerai.is_warm', 'yes', false)")
    tickets = [each.submit(each.own(insert(str(uuid4())))) for each in crew[:1]]
    ann.connection.execute("begin")
    assert status(ann.answer(tickets[0])) == "merged"
    with ThreadPoolExecutor(3) as pool:
        answers = []
        for each, holder in zip(crew[1:], (ann, bob, bob), strict=True):
            ticket = each.submit(each.own(insert(str(uuid4()))))
            tickets.append(ticket)
            answers.append(pool.submit(each.answer, ticket))
            until_blocked(observer, each, holder)
        if canceled:
            observer.execute("select pg_cancel_backend(%s)", [bob.connection.info.backend_pid])
            assert status(answers[0].result(timeout=30)) == "57014"
        ann.connection.execute("commit")
        assert [status(each.result(timeout=30)) for each in answers[canceled:]] == ["merged"] * (3 - canceled)
    assert [status(each.answer(ticket)) for each, ticket in zip(crew, tickets, strict=True)] == ["merged"] * 4
    # One batch was Ann's, the other Bob's or that of whoever came after him.
    assert scalar(observer, "select count(distinct received_at) from kerai.changesets") == 2
    assert_fold(cleo.connection)


@pytest.mark.parametrize("mode", ["_shared", ""])
@pytest.mark.read_committed
def test_a_stranger_who_locks_turns_keeps_nobody_from_settling(members: Any, connect: Any, mode: str) -> None:
    """Anyone can take an advisory lock."""
    stranger = connect()
    stranger.execute("set role pg_read_all_settings")
    taken = scalar(
        stranger,
        f"""select count(pg_advisory_lock{mode}(c.oid::int, n) is null)
        from pg_class as c cross join generate_series(1, 300) as n
        where c.relname = 'batches'""",
    )
    assert taken == 300

    def push(member: Member) -> list[Any]:
        answers = []
        for _ in range(3):
            ticket = member.submit(member.own(insert(str(uuid4()))))
            tries = (member.answer(ticket) for _ in range(100))
            answers.append(status(next(each for each in tries if each.get("code") != "KR009")))
        return answers

    crew = members(6)
    assert at_once([partial(push, each) for each in crew]) == [["merged"] * 3] * 6
    assert_fold(connect())


@pytest.mark.read_committed
def test_nobody_waits_for_ever_for_a_turn_that_is_taken(members: Any, connect: Any) -> None:
    (ann,) = members(1)
    holder = connect()
    # Thirty seconds are for users; the test need not wait for them.
    set_lock_wait(holder, 300)
    ticket = ann.submit(ann.own(insert(str(uuid4()))))
    ann.connection.execute("set statement_timeout = '20s'")
    holder.execute("begin")
    holder.execute("select from kerai_private.batch_locks for update")
    refusal = ann.answer(ticket)
    assert (refusal["code"], refusal["detail"]) == ("KR009", "the batches are taken")
    holder.execute("rollback")
    assert status(ann.answer(ticket)) == "merged"


def test_agents_may_submit_and_settle_and_readers_may_not(role_connection: Any) -> None:
    ann, reader = Member(role_connection("kerai_agent"), "ann"), role_connection("kerai_reader")
    document = ann.own(insert(str(uuid4())))
    assert status(ann.answer(ann.submit(document))) == "merged"
    for call in (
        "kerai.submit_push('{}', '')",
        "kerai.await_push(gen_random_uuid())",
        "kerai_private.submissions",
    ):
        for connection in (reader, ann.connection)[: 1 if call.startswith("kerai.") else 2]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select * from {call}")


def test_a_scope_holds_in_a_batch(connect: Any) -> None:
    """What an earlier changeset of the batch brings or moves is in no tree yet when the batch is judged."""
    connection = connect()
    ann, bob, cleo = (Member(connection, name) for name in ("ann", "bob", "cleo"))
    root, inside, outside, child = (str(uuid4()) for _ in range(4))
    ann.send(ann.own(insert(root), insert(inside, root), insert(outside, root), insert(child, inside)))
    task, swarm = launch(connection, grouped=False, scope=inside)
    for each in (bob, cleo):
        each.join(swarm)
    new = str(uuid4())
    stories = (
        ("what was brought", insert(new, outside), update(new, content="x")),
        ("what was moved", move(child, outside), update(child, content="x")),
    )
    seen = scalar(connection, "select kerai.version_vector()")
    lamport = 1 + scalar(connection, "select max(last_lamport) from kerai.changesets")
    for about, first, second in stories:
        one = changeset.build(bob.author, 1, lamport, [first], base=seen)
        both = seen | {bob.author: 1}
        two = changeset.build(cleo.author, 1, lamport + 1, [second], base=both, task=task)
        page = [
            Parcel(text, changeset.sign(text, each.key), each.public_key)
            for each, text in ((bob, one), (cleo, two))
        ]
        for take in (push_each, partial(receive_all, judge=True)):
            with connection.transaction(force_rollback=True):
                assert [status(each) for each in take(connection, page)] == ["merged", "KR007"], about


@pytest.fixture
def own_server() -> Iterator[PrivateServer]:
    """A server that a test may kill, as durable as a real one."""
    folder = Path(tempfile.mkdtemp(prefix="kerai-settle-"))
    folder.chmod(0o755)
    private = PrivateServer(folder / "server")
    try:
        private.up()
        yield private
    finally:
        private.destroy()
        shutil.rmtree(folder)


def kill(server: PrivateServer) -> None:
    """End the server at once, and start it again."""
    postmaster = server.pid()
    assert postmaster is not None
    os.kill(postmaster, signal.SIGKILL)
    start_again(server)


def test_kill_9_between_submit_and_settle(own_server: PrivateServer) -> None:
    with connect_to(own_server.dsn) as connection:
        ann, bob = (Member(connection, name) for name in ("ann", "bob"))
        done = ann.own(insert(str(uuid4())))
        assert status(ann.answer(ann.submit(done))) == "merged"
        waiting = bob.own(insert(str(uuid4())))
        ticket = bob.submit(waiting)
        kill(own_server)
    with connect_to(own_server.dsn) as connection:
        ann.connection = bob.connection = connection
        assert bob.answer(ticket)["code"] == "KR006"
        assert status(ann.answer(ann.submit(done))) == "duplicate"
        assert status(bob.answer(bob.submit(waiting))) == "merged"
        assert_fold(connection)


def test_kill_9_while_many_settle(own_server: PrivateServer) -> None:
    """Every answered changeset is there; every other one is merged once, whether it was merged before or
    not."""
    with connect_to(own_server.dsn) as setup:
        _, swarm = launch(setup)
        crew = [Member(connect_to(own_server.dsn), f"member-{n}") for n in range(6)]
        for each in crew:
            each.join(swarm)
    begun = threading.Semaphore(0)

    def write(member: Member, *body: Body) -> str:
        return member.draft(swarm, *body) if member in crew[:4] else member.own(*body)

    def toil(member: Member) -> tuple[list[str], str]:
        answered: list[str] = []
        document = write(member, insert(str(uuid4())))
        while True:
            try:
                result = member.answer(member.submit(document))
            except psycopg.Error:
                return answered, document
            if "status" not in result:
                assert member.connection.broken, result
                return answered, document
            assert result["status"] == "merged"
            answered.append(document)
            begun.release()
            try:
                document = write(member, insert(node := str(uuid4())), move(node, None, "b"))
            except psycopg.Error:
                return answered[:-1], document

    with ThreadPoolExecutor(len(crew)) as pool:
        futures = [pool.submit(toil, each) for each in crew]
        for _ in range(20):
            assert begun.acquire(timeout=60)
        kill(own_server)
        results = [future.result(timeout=60) for future in futures]
    answers: Counter[str] = Counter()
    with connect_to(own_server.dsn) as connection:
        for each, (answered, unknown) in zip(crew, results, strict=True):
            each.connection.close()
            each.connection = connection
            assert [status(each.send(document)) for document in answered] == ["duplicate"] * len(answered)
            answers[status(each.answer(each.submit(unknown)))] += 1
            assert status(each.send(write(each, insert(str(uuid4()))))) == "merged"
        assert set(answers) <= {"merged", "duplicate"}
        answered_count = sum(len(answered) for answered, _ in results)
        # Each may have been killed after an answer: that one is tried again.
        assert answered_count >= 20 - len(crew)
        assert scalar(connection, "select count(*) from kerai.changesets") == answered_count + 2 * len(crew)
        assert_written(connection)


@pytest.mark.parametrize("how", ["send", "push_batched"])
@pytest.mark.read_committed
def test_a_budget_holds_for_an_agents_own_changesets_and_its_drafts_together(
    members: Any, connect: Any, how: str
) -> None:
    """They have different authors, so the authors' locks do not keep them apart."""
    observer = connect()
    task, swarm = launch(observer, budget_ops=3)
    (ann,) = members(1, swarm)
    twin = Member(connect(), "member-0")
    own = ann.own(*(insert(str(uuid4())) for _ in range(2)), task=task)
    draft = twin.draft(swarm, *(insert(str(uuid4())) for _ in range(2)), task=task)
    with ThreadPoolExecutor(1) as pool:
        with ann.connection.transaction():
            assert status(ann.send(own)) == "merged"
            answer = pool.submit(getattr(twin, how), draft)
            until_blocked(observer, twin, ann)
        assert status(answer.result(timeout=30)) == "KR008"
    assert scalar(observer, "select count(*) from kerai.operations") == 2

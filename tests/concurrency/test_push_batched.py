"""One call pushes together with others; who merges for them goes on, and nobody waits for nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.concurrency.test_push import assert_fold, at_once, until_blocked
from tests.merge.live import insert, update
from tests.merge.members import Member, status
from tests.merge.observe import scalar
from tests.support.locks import blocked_first

from kerai import changeset


def advisory_locks(connection: Connection[Any]) -> int:
    held = scalar(
        connection,
        """
        select count(*) from pg_locks
        where locktype = 'advisory'
            and database = (select oid from pg_database where datname = current_database())""",
    )
    assert isinstance(held, int)
    return held


@pytest.mark.parametrize("level", ["read committed", "serializable"])
def test_one_call_submits_and_settles(members: Any, level: str) -> None:
    """At whatever level the session begins its transactions."""
    (ann,) = members(1)
    ann.connection.execute(f"set default_transaction_isolation = '{level}'")
    document = ann.own(insert(str(uuid4())))
    answer = ann.push_batched(document)
    assert answer == {
        "changeset_id": bytes.fromhex(changeset.changeset_id(document)),
        "status": "merged",
        "applied": 1,
        "first_seq": 1,
        "last_seq": 1,
    }
    assert status(ann.push_batched(document)) == "duplicate"
    assert status(ann.push_batched(ann.own(update(str(uuid4()), content="x")))) == "KR006"
    ann.connection.execute("reset default_transaction_isolation")
    assert scalar(ann.connection, "select kerai.withdraw(%s)", [ann.id]) == 1
    ann.connection.execute("begin")
    assert status(ann.push_batched(ann.own(insert(str(uuid4()))))) == "2D000"
    ann.connection.execute("rollback")
    assert scalar(ann.connection, "select count(*) from kerai_private.submissions") == 0
    assert status(ann.push_batched(ann.own(insert(str(uuid4()))))) == "merged"
    assert advisory_locks(ann.connection) == 0
    assert_fold(ann.connection)


@pytest.mark.parametrize("level", ["read committed", "serializable"])
def test_a_call_submits_while_others_submit_and_read(members: Any, connect: Any, level: str) -> None:
    """It is no conflict of SERIALIZABLE transactions."""
    ann, bob = members(2)
    observer, gate, reader = connect(), connect(), connect()
    observer.execute(
        """
        create function public.wait() returns trigger language plpgsql as
            $$ begin lock table public.gate in share mode; return new; end $$;
        create table public.gate (n int);
        create trigger wait before insert on kerai_private.submissions
            for each row when (new.author ^@ 'author-0') execute function public.wait();"""
    )
    for each in (ann.connection, bob.connection, reader):
        each.execute(f"set default_transaction_isolation = '{level}'")
    document = ann.own(insert(str(uuid4())))
    with reader.transaction(), ThreadPoolExecutor(1) as pool:
        reader.execute("select from kerai_private.submissions")
        with gate.transaction():
            gate.execute("lock table public.gate")
            answer = pool.submit(ann.push_batched, document)
            until_blocked(observer, ann, gate)
            bob.submit(bob.own(insert(str(uuid4()))))
        assert status(answer.result(timeout=30)) == "merged"
    assert_fold(observer)


def test_one_call_looks_nothing_up_in_the_path_of_its_caller(members: Any, connect: Any) -> None:
    (ann,) = members(1)
    connect().execute(
        """
        create schema trap;
        create function trap.spring() returns text language plpgsql as $$ begin raise 'a trap'; end $$;
        create function trap.set_config(text, text, boolean) returns text return trap.spring();
        create function trap.current_setting(text, boolean) returns text return trap.spring();
        create function trap.clock_timestamp() returns timestamptz return trap.spring()::timestamptz;
        create function trap.later(timestamptz, interval) returns timestamptz
            return trap.spring()::timestamptz;
        create function trap.differ(text, text) returns boolean return trap.spring()::boolean;
        create operator trap.+ (leftarg = timestamptz, rightarg = interval, function = trap.later);
        create operator trap.<> (leftarg = text, rightarg = text, function = trap.differ);
        create domain trap.uuid as text;
        create domain trap.timestamptz as text;"""
    )
    document = ann.own(insert(str(uuid4())))
    ann.connection.execute("set search_path = trap, pg_catalog")
    with pytest.raises(psycopg.errors.RaiseException, match="a trap"):
        ann.connection.execute("select 'a'::text <> 'b'::text")
    assert status(ann.push_batched(document, application_name="ann")) == "merged"


def until_waiting(observer: Connection[Any], count: int) -> None:
    """Return when so many submissions wait."""
    deadline = time.monotonic() + 30
    while scalar(observer, "select count(*) from kerai.waiting_pushes()") < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def held_up(connection: Connection[Any]) -> Iterator[None]:
    """Keep the tree lock."""
    with connection.transaction():
        connection.execute("lock table kerai_private.tree_lock in exclusive mode")
        yield


def test_the_next_leader_merges_what_came_meanwhile(members: Any, connect: Any) -> None:
    ann, *others = members(5)
    observer, gate = connect(), connect()
    # With her plans made she is not slow to begin.
    assert status(ann.push_batched(ann.own(insert(str(uuid4()))))) == "merged"
    documents = [each.own(insert(str(uuid4()))) for each in (ann, *others)]
    with ThreadPoolExecutor(5) as pool:
        with held_up(gate):
            answers = [pool.submit(ann.push_batched, documents[0], application_name="ann's")]
            until_blocked(observer, ann, gate)
            named = "select application_name from pg_stat_activity where pid = %s"
            assert scalar(observer, named, [ann.connection.info.backend_pid]) == "ann's"
            for each, document in zip(others, documents[1:], strict=True):
                answers.append(pool.submit(each.push_batched, document))
            until_waiting(observer, len(documents))
        assert [status(each.result(timeout=30)) for each in answers] == ["merged"] * 5
    assert scalar(observer, "select count(distinct received_at) from kerai.changesets") == 3
    assert advisory_locks(observer) == 0
    assert_fold(observer)


@pytest.fixture
def lock_batch(connect: Any) -> Any:
    """Take, for the session, the lock of the batch that ran last, or of a later one."""

    def lock(later: int) -> Connection[Any]:
        taken: Connection[Any] = connect()
        taken.execute(
            "select pg_advisory_lock('kerai_private.batches'::regclass::int, n - 1 + %s) "
            "from kerai_private.next_batch() as n",
            [later],
        )
        return taken

    return lock


@pytest.mark.read_committed
def test_a_leader_that_comes_too_late_gives_its_right_back(members: Any, connect: Any) -> None:
    """Two batches come and go between the moment when the session learns the number and its lock."""
    (ann,) = members(1)
    gate, observer = connect(), connect()
    ann.connection.execute("select set_config('kerai.is_warm', 'yes', false)")
    ticket = ann.submit(ann.own(insert(str(uuid4()))))
    ann.connection.execute("begin")
    ann.connection.execute("savepoint asked")
    answer: dict[str, Any] = {"code": "KR009"}
    while status(answer) == "KR009":  # 200 ms were over before the lock came
        ann.connection.execute("rollback to asked")
        with ThreadPoolExecutor(1) as pool:
            with gate.transaction():
                gate.execute("lock table kerai_private.batch_locks in exclusive mode")
                batch = scalar(gate, "select kerai_private.next_batch()")
                answered = pool.submit(ann.answer, ticket)
                if blocked_first(observer, answered, ann.connection, gate):
                    gate.execute("select nextval('kerai_private.batches') from generate_series(1, 2)")
            answer = answered.result(timeout=30)
    assert status(answer) == "merged"
    # The right to the batch that was over is free. Her own and the one before are locked.
    free = "select place from kerai_private.batch_locks for update skip locked"
    assert observer.execute(free).fetchall() == [{"place": batch % 3}]
    ann.connection.execute("rollback")


@pytest.mark.read_committed
def test_an_unknown_ticket_is_refused_while_others_settle(members: Any, connect: Any) -> None:
    ann, bob = members(2)
    observer, gate = connect(), connect()
    bob.connection.execute("set statement_timeout = '10s'")
    unknown = f"{uuid4()}"[:-1] + "0"
    assert status(bob.answer(unknown)) == "KR006"
    assert status(ann.push_batched(ann.own(insert(str(uuid4()))))) == "merged"
    with ThreadPoolExecutor(1) as pool:
        with held_up(gate):
            first = pool.submit(ann.push_batched, ann.own(insert(str(uuid4()))))
            until_blocked(observer, ann, gate)
            # This batch is running.
            assert status(bob.answer(unknown)) == "KR006"
        assert status(first.result(timeout=30)) == "merged"


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.read_committed
def test_whoever_is_canceled_while_waiting_leaves_nothing_locked(
    members: Any, connect: Any, lock_batch: Any, warm: bool
) -> None:
    """Also when the lock comes in the moment of the cancel: the session goes on, and so would its locks."""
    (ann,) = members(1)
    observer = connect()
    ann.connection.execute("select set_config('kerai.is_warm', %s, false)", ["yes" if warm else ""])
    pid = ann.connection.info.backend_pid
    document = ann.own(insert(str(uuid4())))
    cancels = 0
    while cancels < 5:
        ticket = ann.submit(document)
        running = lock_batch(1 if warm else 0)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ann.answer, ticket)
            # A session waits for 200 ms at most, then it leads without the lock.
            if blocked_first(observer, answer, ann.connection, running):
                running.execute("select pg_advisory_unlock_all(), pg_cancel_backend(%s)", [pid])
                cancels += 1
            running.execute("select pg_advisory_unlock_all()")
            assert status(answer.result(timeout=30)) in {"57014", "merged", "duplicate"}
        assert advisory_locks(observer) == 0


def test_strangers_locks_stop_nobody(members: Any, connect: Any) -> None:
    crew = members(6)
    stranger = connect()
    stranger.execute(
        """
        select pg_advisory_lock(c.oid::int, n)
        from pg_class as c cross join generate_series(1, 300) as n
        where c.relname = 'batches'"""
    )

    def push(member: Member) -> list[str]:
        return [status(member.push_batched(member.own(insert(str(uuid4()))))) for _ in range(3)]

    assert at_once([partial(push, each) for each in crew]) == [["merged"] * 3] * 6
    assert_fold(stranger)


def test_agents_may_push_together_and_readers_may_not(role_connection: Any) -> None:
    ann, reader = Member(role_connection("kerai_agent"), "ann"), role_connection("kerai_reader")
    assert status(ann.push_batched(ann.own(insert(str(uuid4()))))) == "merged"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("call kerai.push_batched('{}', '')")

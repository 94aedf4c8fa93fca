"""The stored state is the fold of all operations: whatever the order of arrival and the size of the batches.

One database for all worlds: each is pushed in a transaction that is rolled back.
``make test-long`` looks at more worlds than the few that every run can afford.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from tests.merge.model import restrict
from tests.merge.observe import assert_reads, assert_state, digest, push, scalar
from tests.merge.worlds import SEEDS, Instance, World, worlds
from tests.support.laws import many


def deliver(connection: Connection[Any], world: World, seed: int) -> None:
    """Push a world's changesets in the causal order that a seed names."""
    for signed in world.shuffled(seed):
        assert push(connection, signed) == "merged"


@many()
@given(world=worlds(), seed=SEEDS)
def test_the_state_is_the_fold_after_every_push(instance: Instance, world: World, seed: int) -> None:
    with instance() as connection:
        vector: dict[str, int] = {}
        for signed in world.shuffled(seed):
            assert push(connection, signed) == "merged"
            vector[signed.author] = signed.last_seq
            assert_state(connection, world.state(vector))
            assert scalar(connection, "select kerai.version_vector()") == vector
        assert_reads(connection, world.state())


@many()
@given(world=worlds(), first=SEEDS, second=SEEDS)
def test_the_digest_does_not_depend_on_the_order(
    instance: Instance, world: World, first: int, second: int
) -> None:
    digests = []
    for seed in (first, second):
        with instance() as connection:
            deliver(connection, world, seed)
            assert_state(connection, world.state())
            digests.append(digest(connection))
    assert digests[0] == digests[1]


@many(0.5)
@given(world=worlds(), seed=SEEDS, past=SEEDS)
def test_the_tree_as_of_a_vector_is_the_fold_of_what_it_names(
    instance: Instance, world: World, seed: int, past: int
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        at = world.vector(past)
        assert_reads(connection, world.state(at), at)


@many(0.5)
@given(world=worlds(), seed=SEEDS, stop=SEEDS)
def test_the_tree_as_of_a_vector_is_what_the_instance_then_had(
    instance: Instance, world: World, seed: int, stop: int
) -> None:
    with instance() as connection:
        order = world.shuffled(seed)
        for signed in order[: stop % (len(order) + 1)]:
            push(connection, signed)
        at = scalar(connection, "select kerai.version_vector()")
        then = connection.execute("select * from kerai.tree()").fetchall()
        files = connection.execute("select * from kerai.checkout()").fetchall()
        for signed in order[stop % (len(order) + 1) :]:
            push(connection, signed)
        assert connection.execute("select * from kerai.tree(null, %s)", [json.dumps(at)]).fetchall() == then
        assert (
            connection.execute("select * from kerai.checkout(null, %s)", [json.dumps(at)]).fetchall() == files
        )


@many(0.5)
@given(world=worlds(), seed=SEEDS, page=st.integers(1, 12))
def test_pages_replayed_byte_for_byte_make_the_same_state(
    instance: Instance, world: World, seed: int, page: int
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        wanted = digest(connection)
        vector: dict[str, int] = {}
        taken: list[tuple[str, bytes, bytes]] = []
        while True:
            rows = connection.execute(
                """select changeset::text, signature, public_key, changeset -> 'ops' as ops,
                    changeset ->> 'author' as author, (changeset ->> 'seq')::int as seq
                from kerai.changesets_since(%s, %s)""",
                [json.dumps(vector), page],
            ).fetchall()
            if not rows:
                break
            assert len(rows) == 1 or sum(len(row["ops"]) for row in rows) <= page
            for row in rows:
                assert vector.get(row["author"], 0) == row["seq"] - 1
                vector[row["author"]] = row["seq"] + len(row["ops"]) - 1
                taken.append((row["changeset"], row["signature"], row["public_key"]))
    assert sorted(text for text, *_ in taken) == sorted(signed.document for signed in world.changesets)
    with instance() as connection:
        for text, signature, key in taken:
            status = scalar(
                connection, "select status from kerai.push_ops(%s::json, %s, %s)", [text, signature, key]
            )
            assert status == "merged"
        assert digest(connection) == wanted


@many(0.3)
@given(world=worlds(), seed=SEEDS)
def test_a_second_push_changes_nothing(instance: Instance, world: World, seed: int) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        before = digest(connection), scalar(connection, "select kerai.version_vector()")
        for signed in world.shuffled(seed + 1):
            assert push(connection, signed) == "duplicate"
        assert (digest(connection), scalar(connection, "select kerai.version_vector()")) == before
        assert_state(connection, world.state())


@many(0.5)
@given(world=worlds(), seed=SEEDS)
def test_digests_differ_when_states_do(instance: Instance, world: World, seed: int) -> None:
    with instance() as connection:
        before, vector = world.state({}), dict[str, int]()
        digests = {digest(connection)}
        for n, signed in enumerate(world.shuffled(seed), start=1):
            push(connection, signed)
            vector[signed.author] = signed.last_seq
            after = world.state(vector)
            digests.add(digest(connection))
            if after == before:
                break
            assert len(digests) == n + 1
            before = after


@many(0.5)
@given(world=worlds(), seed=SEEDS, lag=SEEDS)
def test_what_lacks_its_past_is_refused_and_leaves_no_trace(
    instance: Instance, world: World, seed: int, lag: int
) -> None:
    """Deliver in any order, causal or not: what comes too early is refused, and taken when its turn comes."""
    order = world.shuffled(seed)
    late = order.pop(lag % len(order)) if order else None
    with instance() as connection:
        refused = []
        for signed in order:
            before = digest(connection)
            try:
                with connection.transaction():
                    push(connection, signed)
            except psycopg.errors.DatabaseError as error:
                assert error.sqlstate == "KR004", error
                assert error.diag.message_detail
                assert digest(connection) == before
                refused.append(signed)
        have = scalar(connection, "select kerai.version_vector()")
        assert_state(connection, world.state(have))
        assert len(restrict(world.operations, have)) == sum(
            len(signed.operations) for signed in order if signed not in refused
        )
        for signed in [late, *refused] if late else []:
            assert push(connection, signed) == "merged"
        assert_state(connection, world.state())

"""The law of partial instances: whatever happens on both sides, they hold the same of the scope."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from psycopg import Connection
from tests.instances.test_scopes import CRASH, Call, assert_exact
from tests.merge.live import Body, LiveAuthor, insert, move, update
from tests.merge.observe import push, scalar
from tests.merge.worlds import CONTENDED, SEEDS, World, worlds
from tests.settings.odd import connect as connect_to
from tests.support.laws import many

# In an order in which they can be emptied.
TABLES = (
    "kerai.refusals",
    "kerai.peer_connections",
    "kerai.agents",
    "kerai.changesets",
    "kerai.operations",
    "kerai.nodes",
    "kerai.edges",
    "kerai.perspectives",
    "kerai.associations",
    "kerai.forks",
    "kerai_private.moves",
    "kerai_private.authors",
    "kerai_private.partial_scope",
    "kerai_private.scope_nodes",
    "kerai_private.backfilled_changesets",
    "kerai_private.served_scopes",
    "kerai_private.served_nodes",
    "kerai_private.repeated_inserts",
    "kerai_private.repeats_noted",
)
MEMBERS = """
select n.id, s.inside from kerai_private.scope_nodes as s
inner join kerai.nodes as n on n.id = s.node_id order by n.id"""


@pytest.fixture(scope="module")
def emptied(make_database: Any) -> Iterator[Callable[[], Any]]:
    """Return a context manager: two instances that are empty again, and the way to the second."""
    with (
        make_database() as small,
        make_database() as big,
        connect_to(small.dsn) as here,
        connect_to(big.dsn) as there,
    ):
        for connection in (here, there):
            connection.execute("set synchronous_commit = off")
        empty = "; ".join(f"delete from {table}" for table in TABLES)

        @contextmanager
        def begin() -> Iterator[tuple[Connection[Any], Connection[Any], str]]:
            for connection in (here, there):
                connection.execute(empty)
            yield here, there, big.dsn

        yield begin


def some_operation(chance: random.Random, known: list[str], inside: list[str]) -> Body:
    """Return something that an agent in the partial instance may do."""
    one, other, below = chance.choice(known), chance.choice(known), chance.choice(inside)
    return chance.choice(
        [
            insert(str(UUID(int=chance.getrandbits(100))), below, name="new"),
            insert(chance.choice(CONTENDED), below, name="again"),
            move(one, other),
            move(below, other),
            move(other, below),
            update(one, content=f"{chance.random()}"),
            {"op": "node_delete", "node": below},
            {"op": "edge_insert", "source": one, "target": other, "relation": "calls"},
            {"op": "perspective_set", "node": below, "weight": 0.5},
        ]
    )


@many(0.25)
@given(world=worlds(), seed=SEEDS)
def test_a_scope_is_the_same_on_both_sides(
    emptied: Callable[[], Any], call: Call, world: World, seed: int
) -> None:
    chance = random.Random(seed)
    order = world.shuffled(seed)
    beginning = chance.randrange(len(order) + 1)
    nodes = [
        o.body["node"] for each in order[:beginning] for o in each.operations if o.body["op"] == "node_insert"
    ]
    if not nodes:
        return
    scope = chance.choice(nodes)
    with emptied() as (here, there, dsn):
        for signed in order[:beginning]:
            push(there, signed)
        here.execute("select kerai.add_peer('big', %s, %s)", [dsn, scope])
        moments: list[dict[str, int]] = []
        agent, native = LiveAuthor(here, "agent"), LiveAuthor(there, "native")

        def meet() -> None:
            if scalar(here, "select exists(select from kerai.nodes)"):
                found = here.execute(MEMBERS).fetchall()
                known = [str(row["id"]) for row in found]
                inside = [str(row["id"]) for row in found if row["inside"]]
                for _ in range(chance.randrange(3)):
                    try:
                        agent.push(
                            *(some_operation(chance, known, inside) for _ in range(chance.randint(1, 4)))
                        )
                    except psycopg.Error as error:
                        assert error.sqlstate in {"KR007", "KR004"}, error
                assert here.execute("select * from kerai.verify()").fetchall() == []
            elsewhere = [str(row["id"]) for row in there.execute("select id from kerai.nodes order by id")]
            for _ in range(chance.randrange(2)):
                native.push(
                    *(some_operation(chance, elsewhere, elsewhere) for _ in range(chance.randint(1, 4)))
                )
            if chance.random() < 0.1:
                there.execute(CRASH)
            for _ in range(chance.randrange(3)):
                result = call(here, chance.choice(["pull", "sync"]), "big", chance.randint(1, 20))
                assert result["problem"] is None
            result = call(here, "sync", "big")
            assert result["complete"], result["problem"]
            now = scalar(there, "select kerai.version_vector()")
            assert now == scalar(here, "select kerai.version_vector()")
            moments.append(now)
            closed = {**world.vector(chance.getrandbits(32))}
            for author, seq in chance.choice([{}, *moments]).items():
                closed[author] = max(seq, closed.get(author, 0))
            # Of what agents have pushed here and there it names a part, without what that rests on.
            gaping = world.gaping_vector(chance.getrandbits(32))
            for author in (agent.author, native.author):
                gaping[author] = chance.choice([0, chance.randint(0, now.get(author, 0)), now.get(author, 0)])
            vectors = [closed, gaping]
            assert_exact(
                here, there, scope, *({n: min(s, now.get(n, 0)) for n, s in at.items()} for at in vectors)
            )

        for signed in order[beginning:]:
            push(there, signed)
            if chance.random() < 0.2:
                meet()
        meet()
        assert scalar(here, "select changed from kerai.rebuild()") is False
        assert_exact(here, there, scope)

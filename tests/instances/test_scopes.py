"""A partial instance holds one subtree of a peer's tree, exactly, whatever is moved into it and out of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from psycopg import Connection
from tests.merge.live import Body, LiveAuthor, insert, move, update
from tests.merge.observe import checkout, push, scalar, tree
from tests.merge.worlds import CONTENDED, SEEDS, World, many, worlds

from kerai_client.database import connect as connect_to

Call = Callable[..., dict[str, Any]]
Pair = tuple[Connection[Any], Connection[Any]]

INSIDE = """
with recursive inside (id) as (
    select %s::uuid union select n.id from inside as i inner join kerai.nodes as n on n.parent_id = i.id
)
"""
# What is stored of the nodes below a scope, tombstones and stamps included. Paths too: the nodes above are here.
STATES = (
    INSIDE + "select to_jsonb(n) as row from kerai.nodes as n where n.id in (select id from inside) order by n.id",
    INSIDE
    + """select to_jsonb(e) as row from kerai.edges as e where e.source in (select id from inside)
    order by e.source, e.target, e.relation""",
    INSIDE
    + """select to_jsonb(p) as row from kerai.perspectives as p where p.node_id in (select id from inside)
    order by p.node_id, p.author, p.context_id""",
    INSIDE
    + """select to_jsonb(a) as row from kerai.associations as a where a.source in (select id from inside)
    order by a.source, a.target, a.relation, a.author""",
)
# Nobody looks at where a node was created while it still stands there.
UNREAD = {"created_parent_id", "created_position"}


def of_scope(connection: Connection[Any], scope: str) -> list[Any]:
    """Return everything that is stored of a scope."""
    return [
        [
            {key: value for key, value in row["row"].items() if key not in UNREAD}
            for row in connection.execute(query, [scope])
        ]
        for query in STATES
    ]


def assert_exact(here: Connection[Any], there: Connection[Any], scope: str, *vectors: dict[str, int]) -> None:
    """Check that both sides hold the same of a scope, now and as of vectors, and that the partial one is sound."""
    assert of_scope(here, scope) == of_scope(there, scope)
    assert tree(here, scope) == tree(there, scope)
    for at in vectors:
        assert tree(here, scope, at) == tree(there, scope, at), at
    assert here.execute("select * from kerai.verify()").fetchall() == []


def members(connection: Connection[Any]) -> set[str]:
    """Return the nodes that are here."""
    return {str(row["id"]) for row in connection.execute("select id from kerai.nodes")}


def stubs(connection: Connection[Any]) -> int:
    """Return how many changesets are here without their document."""
    return int(scalar(connection, "select count(*) from kerai.changesets where document is null"))


def node(n: int) -> str:
    """Return an id."""
    return str(UUID(int=n))


def refused(connection: Connection[Any], query: str, parameters: list[Any] | None = None) -> str:
    """Return the SQLSTATE that a query is refused with."""
    with pytest.raises(psycopg.Error) as error:
        connection.execute(query, parameters)
    return str(error.value.sqlstate)


SCOPE, ROOT, OTHER = node(1), node(2), node(3)


@pytest.fixture
def pair(make_database: Any) -> Iterator[tuple[Connection[Any], Connection[Any], Any]]:
    """A partial instance that is still empty, its peer ``big``, and that peer's database."""
    with (
        make_database() as small,
        make_database() as big,
        connect_to(small.dsn) as here,
        connect_to(big.dsn) as there,
    ):
        LiveAuthor(there, "ann").push(
            insert(ROOT, kind="directory", name="root"),
            insert(SCOPE, ROOT, kind="directory", name="scope"),
            insert(node(10), SCOPE, name="a", content="a\n"),
        )
        LiveAuthor(there, "bob").push(
            insert(OTHER, ROOT, kind="directory", name="other"), insert(node(20), OTHER, name="x", content="x\n")
        )
        here.execute("select kerai.add_peer('big', %s, %s)", [big.dsn, SCOPE])
        yield here, there, big


def test_a_pull_brings_the_scope_and_nothing_else(pair: Any, call: Call) -> None:
    here, there, _ = pair
    result = call(here, "pull", "big")
    assert result["complete"] and result["problem"] is None
    assert (result["pulled_changesets"], result["pulled_operations"]) == (2, 3)
    assert members(here) == {ROOT, SCOPE, node(10)}
    assert stubs(here) == 1
    assert scalar(here, "select kerai.version_vector()") == scalar(there, "select kerai.version_vector()")
    assert_exact(here, there, SCOPE)
    assert checkout(here, SCOPE) == checkout(there, SCOPE)
    again = call(here, "sync", "big")
    assert again["complete"] and again["pulled_changesets"] == 0


TABLES = """
select string_agg(format('delete from %s', c.oid::regclass), '; ' order by c.relname <> 'refusals', c.relname <> 'agents')
from pg_class as c
where c.relkind = 'r' and c.oid::regclass::text in (
    'kerai.refusals', 'kerai.agents', 'kerai.peer_connections', 'kerai.changesets', 'kerai.nodes', 'kerai.edges',
    'kerai.perspectives', 'kerai.associations', 'kerai.forks', 'kerai_private.moves', 'kerai_private.authors',
    'kerai_private.partial_scope', 'kerai_private.scope_nodes', 'kerai_private.late_changesets',
    'kerai_private.served_scopes', 'kerai_private.served_nodes', 'kerai_private.repeated_inserts',
    'kerai_private.repeats_noted')"""


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
        empty = f"{scalar(here, TABLES)}; delete from kerai.operations"

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


@many(0.5)
@given(world=worlds(), seed=SEEDS)
def test_a_scope_is_the_same_on_both_sides(
    emptied: Callable[[], Any], call: Call, world: World, seed: int
) -> None:
    chance = random.Random(seed)
    order = world.shuffled(seed)
    beginning = chance.randrange(len(order) + 1)
    nodes = [o.body["node"] for each in order[:beginning] for o in each.operations if o.body["op"] == "node_insert"]
    if not nodes:
        return
    scope = chance.choice(nodes)
    with emptied() as (here, there, dsn):
        for signed in order[:beginning]:
            push(there, signed)
        here.execute("select kerai.add_peer('big', %s, %s)", [dsn, scope])
        agent, native = LiveAuthor(here, "agent"), LiveAuthor(there, "native")

        def meet() -> None:
            if scalar(here, "select exists(select from kerai.nodes)"):
                known, inside = (
                    [str(row["node_id"]) for row in here.execute(query)]
                    for query in (
                        "select node_id from kerai_private.scope_nodes inner join kerai.nodes on id = node_id order by 1",
                        "select node_id from kerai_private.scope_nodes inner join kerai.nodes on id = node_id "
                        "where inside order by 1",
                    )
                )
                for _ in range(chance.randrange(3)):
                    try:
                        agent.push(*(some_operation(chance, known, inside) for _ in range(chance.randint(1, 4))))
                    except psycopg.Error as error:
                        assert error.sqlstate in {"KR007", "KR004"}, error
                assert here.execute("select * from kerai.verify()").fetchall() == []
            elsewhere = [str(row["id"]) for row in there.execute("select id from kerai.nodes order by id")]
            for _ in range(chance.randrange(2)):
                native.push(*(some_operation(chance, elsewhere, elsewhere) for _ in range(chance.randint(1, 4))))
            for _ in range(chance.randrange(3)):
                result = call(here, chance.choice(["pull", "sync"]), "big", chance.randint(1, 20))
                assert result["problem"] is None
            result = call(here, "sync", "big")
            assert result["complete"], result
            now = scalar(there, "select kerai.version_vector()")
            assert now == scalar(here, "select kerai.version_vector()")
            vectors = [world.vector(chance.getrandbits(32)), world.any_vector(chance.getrandbits(32))]
            for at in vectors:
                at |= {name: now[name] for name in (agent.author, native.author) if name in now and chance.random() < 0.5}
            assert_exact(here, there, scope, *({n: min(s, now.get(n, 0)) for n, s in at.items()} for at in vectors))

        for signed in order[beginning:]:
            push(there, signed)
            if chance.random() < 0.2:
                meet()
        meet()
        assert scalar(here, "select changed from kerai.rebuild()") is False
        assert_exact(here, there, scope)

"""A partial instance holds one subtree of a peer's tree, exactly, whatever is moved into it and out of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import psycopg
import pytest
from nacl.signing import SigningKey
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert, move, update
from tests.merge.members import Member, launch, status
from tests.merge.observe import checkout, scalar, tree
from tests.settings.odd import connect as connect_to

Call = Callable[..., dict[str, Any]]
Pair = tuple[Connection[Any], Connection[Any]]

INSIDE = """
with recursive inside (id) as (
    select %s::uuid union select n.id from inside as i inner join kerai.nodes as n on n.parent_id = i.id
)
"""
# What is stored of the nodes below a scope, with tombstones, stamps and paths: the nodes above are here too.
STATES = (
    INSIDE
    + "select to_jsonb(n) as row from kerai.nodes as n where n.id in (select id from inside) order by n.id",
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
    """Check that both sides hold the same of a scope, now and as of vectors, and that it is sound."""
    assert of_scope(here, scope) == of_scope(there, scope)
    assert tree(here, scope) == tree(there, scope)
    for at in vectors:
        assert tree(there, scope, at) == tree(here, scope, at), at
    assert there.execute("select * from kerai.verify()").fetchall() == []
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


# What a crash does to unlogged tables.
CRASH = """
truncate kerai_private.served_scopes, kerai_private.served_nodes, kerai_private.repeated_inserts,
    kerai_private.repeats_noted"""

SCOPE, ROOT, OTHER = node(1), node(2), node(3)


@pytest.fixture
def pair(make_database: Any) -> Iterator[tuple[Connection[Any], Connection[Any], tuple[str, str]]]:
    """A partial instance that is still empty, its peer ``big``, and the ways to both."""
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
            insert(OTHER, ROOT, kind="directory", name="other"),
            insert(node(20), OTHER, name="x", content="x\n"),
        )
        here.execute("select kerai.add_peer('big', %s, %s)", [big.dsn, SCOPE])
        yield here, there, (small.dsn, big.dsn)


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


def test_a_node_that_is_moved_into_the_scope_later(pair: Any, call: Call) -> None:
    here, there, _ = pair
    call(here, "pull", "big")
    mover = LiveAuthor(there, "mover")
    mover.push(update(node(20), content="changed\n"), update(OTHER, name="renamed"))
    call(here, "pull", "big")
    assert stubs(here) == 2 and node(20) not in members(here)
    before = scalar(here, "select kerai.version_vector()")
    mover.push(move(OTHER, SCOPE))
    result = call(here, "pull", "big")
    assert result["complete"]
    # Two that were stubs, and the new one.
    assert (stubs(here), result["pulled_changesets"]) == (0, 3)
    assert members(here) == {ROOT, SCOPE, OTHER, node(10), node(20)}
    assert_exact(here, there, SCOPE, before, {})
    documents = "select id, document::text, signature, message, base from kerai.changesets order by id"
    assert here.execute(documents).fetchall() == there.execute(documents).fetchall()
    assert scalar(here, "select kerai.state_digest()") == scalar(there, "select kerai.state_digest()")
    assert scalar(here, "select changed from kerai.rebuild()") is False


def test_a_node_that_goes_out_is_changed_there_and_comes_back(pair: Any, call: Call) -> None:
    here, there, _ = pair
    call(here, "pull", "big")
    mover = LiveAuthor(there, "mover")
    vectors = []
    for operation in (
        move(node(10), OTHER),
        update(node(10), content="out there\n"),
        insert(node(11), node(10), name="below"),
        move(node(20), node(10)),
        move(node(10), SCOPE),
        move(node(11), OTHER),
    ):
        mover.push(operation)
        assert call(here, "sync", "big")["complete"]
        vectors.append(scalar(here, "select kerai.version_vector()"))
        assert_exact(here, there, SCOPE, *vectors)
    assert {OTHER, node(10), node(11), node(20)} <= members(here)


def test_a_cycle_of_three_through_nodes_outside(pair: Any, call: Call) -> None:
    """Whether the move of a node of the scope counts hangs on moves of nodes that were never in it."""
    here, there, _ = pair
    tops = [node(n) for n in (31, 32, 33)]
    LiveAuthor(there, "cid").push(*(insert(top, name="top") for top in tops), move(SCOPE, tops[0]))
    call(here, "pull", "big")
    assert not {tops[1], tops[2]} & members(here)
    seen = scalar(there, "select kerai.version_vector()")
    movers = [LiveAuthor(there, f"mover-{n}") for n in range(4)]
    # Together they would be a ring: the scope below the third, that below the second, that below the first.
    for mover, (moved, parent) in zip(
        movers,
        [(tops[0], node(10)), (SCOPE, tops[2]), (tops[2], tops[1]), (tops[1], tops[0])],
        strict=True,
    ):
        mover.push(move(moved, parent), seen=seen)
        assert call(here, "pull", "big")["complete"]
        assert_exact(here, there, SCOPE, seen)
    assert set(tops) <= members(here)
    void = "select node_id, parent_id, author, lost_to_node from kerai.void_moves() order by 1, 2"
    assert here.execute(void).fetchall() == there.execute(void).fetchall() != []


def test_a_cut_leaves_a_vector_of_what_is_here(pair: Any, call: Call) -> None:
    here, there, _ = pair
    bob = LiveAuthor(there, "late")
    for n in range(40, 50):
        bob.push(insert(node(n), OTHER if n % 2 else SCOPE, name=f"n{n}"), update(node(n), content=f"{n}\n"))

    def pull_in_steps() -> int:
        calls = 0
        while not (result := call(here, "pull", "big", 1))["complete"]:
            calls += 1
            assert result["problem"] is None and calls < 100
            assert result["pulled_changesets"] == 1
            assert here.execute("select * from kerai.verify()").fetchall() == []
            vector = scalar(here, "select kerai.version_vector()")
            assert sum(vector.values()) == scalar(
                here, "select sum(last_seq - first_seq + 1) from kerai.changesets"
            )
            assert tree(here, at=vector) == tree(here)
        return calls

    assert pull_in_steps() == 12
    assert_exact(here, there, SCOPE)
    # What is late comes in steps as well. Meanwhile agents go on, and nothing is rebuilt.
    LiveAuthor(there, "mover").push(move(OTHER, SCOPE))
    assert call(here, "pull", "big", 1)["pulled_changesets"] == 1
    assert OTHER not in members(here)
    assert refused(here, "select kerai.rebuild()") == "KR011"
    LiveAuthor(here, "agent").push(insert(node(60), SCOPE), update(node(10), content="meanwhile\n"))
    assert pull_in_steps() > 5
    assert call(here, "sync", "big")["complete"]
    assert node(60) in members(there)
    assert_exact(here, there, SCOPE)


def test_the_scope_grows_during_a_backfill(pair: Any, call: Call) -> None:
    here, there, _ = pair
    for n in (30, 31, 32):
        LiveAuthor(there, f"author-{n}").push(
            insert(node(n), None if n == 30 else node(31) if n == 32 else OTHER)
        )
    call(here, "pull", "big")
    LiveAuthor(there, "mover").push(move(node(31), SCOPE))
    while not scalar(here, "select backfilled_to from kerai_private.partial_scope"):
        assert not call(here, "pull", "big", 1)["complete"]
    assert not call(here, "pull", "big", 1)["complete"]
    # Its insert came to the peer before what has come here already.
    LiveAuthor(there, "mover-2").push(move(node(30), SCOPE))
    assert call(here, "pull", "big")["complete"]
    assert {node(30), node(31), node(32)} <= members(here)
    assert_exact(here, there, SCOPE)


def test_what_is_made_here_goes_to_the_peer(pair: Any, call: Call) -> None:
    here, there, (dsn, _) = pair
    call(here, "pull", "big")
    agent = LiveAuthor(here, "agent")
    agent.push(
        insert(node(50), node(10), name="new"),
        insert(node(51), node(50)),
        update(node(10), content="b\n"),
        move(SCOPE, None),
        {"op": "perspective_set", "node": node(50), "weight": 1},
    )
    result = call(here, "push", "big")
    assert result["complete"] and result["pushed_changesets"] == 1
    assert_exact(here, there, SCOPE)
    LiveAuthor(there, "eve").push(update(node(51), content="c\n"), move(node(20), node(51)))
    assert call(here, "sync", "big")["complete"]
    assert_exact(here, there, SCOPE)
    assert {row["state"] for row in here.execute("select distinct state from kerai_private.scope_nodes")} == {
        "complete"
    }
    # The peer can bring it itself.
    agent.push(update(node(51), content="d\n"))
    there.execute("select kerai.add_peer('small', %s)", [dsn])
    result = call(there, "pull", "small")
    assert result["pulled_changesets"] == 1 and result["complete"], result["problem"]
    assert_exact(here, there, SCOPE)


def test_a_node_that_exists_outside_too(pair: Any, call: Call) -> None:
    """Two insert one node, one of them below the scope: then all that was said of it concerns the scope."""
    here, there, _ = pair
    call(here, "pull", "big")
    LiveAuthor(here, "agent").push(insert(node(20), SCOPE, name="mine"), insert(node(21), node(20)))
    LiveAuthor(there, "eve").push(update(node(20), content="eve\n"))
    assert call(here, "sync", "big")["complete"]
    assert_exact(here, there, SCOPE)
    assert OTHER in members(here)


def test_a_node_that_only_an_older_vector_shows_in_the_scope(pair: Any, call: Call) -> None:
    """Two have inserted it, and of them the one counts who put it elsewhere."""
    here, there, _ = pair
    seen = scalar(there, "select kerai.version_vector()")
    late, early = LiveAuthor(there, "late"), LiveAuthor(there, "early")
    late.push(
        update(node(10), content="b"), insert(node(15), node(10), name="late"), insert(node(16), node(15))
    )
    vector = scalar(there, "select kerai.version_vector()")
    early.push(insert(node(15), OTHER, name="early"), seen=seen)
    assert call(here, "pull", "big")["complete"]
    assert node(16) not in {row.id for row in tree(here, SCOPE)}
    assert node(16) in {row.id for row in tree(here, SCOPE, vector)}
    assert_exact(here, there, SCOPE, vector)


def test_a_node_that_only_an_older_vector_shows_elsewhere(pair: Any, call: Call) -> None:
    """Two have inserted it, and of them the one counts who put it into the scope."""
    here, there, _ = pair
    seen = scalar(there, "select kerai.version_vector()")
    late, early = LiveAuthor(there, "late"), LiveAuthor(there, "early")
    late.push(update(OTHER, name="elsewhere"), insert(node(15), OTHER, name="late"))
    vector = scalar(there, "select kerai.version_vector()")
    early.push(insert(node(15), SCOPE, name="early"), seen=seen)
    assert call(here, "pull", "big")["complete"]
    assert [row.path for row in tree(there, node(15), vector)] == ["root.elsewhere.late"]
    for at in (vector, None):
        assert tree(here, node(15), at) == tree(there, node(15), at)
    assert_exact(here, there, SCOPE, vector)


def test_an_older_vector_that_names_a_later_insert_alone(pair: Any, call: Call) -> None:
    """It lies below what was inserted below it: what hangs from these two is nowhere, on either side."""
    here, there, _ = pair
    early, between, late = (LiveAuthor(there, name) for name in ("early", "between", "late"))
    early.push(insert(node(15), SCOPE, name="early"))
    between.push(insert(node(16), node(15)))
    late.push(insert(node(15), node(16), name="late"), move(node(10), node(15)), move(node(16), node(10)))
    late.push(move(node(16), ROOT))
    assert call(here, "pull", "big")["complete"]
    ring = {**scalar(here, "select kerai.version_vector()"), early.author: 0, late.author: 3}
    opened = {**ring, late.author: 4}
    assert_exact(here, there, SCOPE, ring, opened)
    for at, found in (ring, set()), (opened, {node(15), node(10)}):
        assert {row.id for row in tree(here, node(15), at)} == found
        assert checkout(here, node(15), at) == checkout(there, node(15), at)


def test_what_a_partial_instance_refuses(pair: Any, call: Call) -> None:
    here, there, (dsn, _) = pair
    # Before the first pull there is nothing to work on.
    agent = LiveAuthor(here, "agent")
    with pytest.raises(psycopg.Error) as error:
        agent.push(insert(node(70)))
    assert error.value.sqlstate == "KR007"
    call(here, "pull", "big")
    for code, operation in (
        ("KR006", update(node(20), content="y")),
        ("KR006", move(node(10), OTHER)),
        ("KR007", insert(node(70))),
        ("KR007", insert(node(70), ROOT)),
    ):
        with pytest.raises(psycopg.Error) as error:
            agent.push(operation)
        assert error.value.sqlstate == code, operation
    assert not members(here) & {node(70)}

    agent.push(update(node(10), content="b"))
    eve = LiveAuthor(there, "eve")
    eve.push(update(node(10), content="c"), update(node(20), content="c"))
    call(here, "pull", "big")
    part = scalar(here, "select id from kerai.changesets where author = %s", [eve.author])
    for query, parameters in (
        ("select kerai.add_peer('other', 'dbname=x')", []),
        ("select kerai.add_peer('other', 'dbname=x', %s)", [OTHER]),
        ("select kerai.add_peer('other', 'dbname=x', %s)", [SCOPE]),
        ("select kerai.compact(now())", []),
        ("select * from kerai.changesets_since('{}')", []),
        ("select * from kerai.accept('{}', '{}', '{}')", []),
        ("select kerai.revert_ops(%s)", [part]),
        ("select kerai_sync.serve_scope(%s)", [SCOPE]),
    ):
        assert refused(here, query, parameters) == "KR011", query
    # Everything but what was made here is known.
    known = scalar(there, "select kerai.version_vector()")
    assert here.execute("select from kerai.changesets_since(%s)", [json.dumps(known)]).rowcount == 1
    assert refused(there, "select kerai_sync.serve_scope(%s)", [node(99)]) == "KR006"
    assert refused(there, "select kerai.add_peer('small', 'dbname=x', %s)", [SCOPE]) == "KR011"

    there.execute("select kerai.add_peer('small', %s)", [dsn])
    eve.push(update(node(10), content="d"))
    assert "KR011" in call(there, "push", "small")["problem"]


def test_a_peer_that_is_added_again(pair: Any, call: Call) -> None:
    here, there, (_, big) = pair
    here.execute("select kerai.remove_peer('big')")
    here.execute("select kerai.add_peer('other', 'dbname=x'), kerai.remove_peer('other')")
    here.execute("select kerai.add_peer('big', %s, %s)", [big, SCOPE])
    call(here, "pull", "big")
    here.execute("select kerai.remove_peer('big')")
    assert refused(here, "select kerai.add_peer('big', %s)", [big]) == "KR011"
    assert refused(here, "select kerai.add_peer('big', %s, %s)", [big, OTHER]) == "KR011"
    row = here.execute("select * from kerai.add_peer('big', %s, %s)", [big, SCOPE]).fetchone()
    assert str(row["scope"]) == SCOPE
    # A peer that has crashed, or comes from a dump, tells its list anew.
    there.execute(CRASH)
    LiveAuthor(there, "mover").push(move(OTHER, SCOPE))
    assert call(here, "pull", "big")["complete"]
    assert_exact(here, there, SCOPE)


def test_a_peer_remembers_so_many_scopes_and_no_more(pair: Any, call: Call) -> None:
    here, there, _ = pair
    call(here, "pull", "big")
    there.execute("update kerai.settings set value = 1 where name = 'max_served_scopes'")
    there.execute("select kerai_sync.serve_scope(%s)", [OTHER])
    scopes = "select distinct scope::text from kerai_private.{}"
    for table in ("served_scopes", "served_nodes"):
        assert [row["scope"] for row in there.execute(scopes.format(table))] == [OTHER]
    LiveAuthor(there, "mover").push(insert(node(17), SCOPE), move(node(20), SCOPE))
    assert call(here, "pull", "big")["complete"]
    assert_exact(here, there, SCOPE)
    # A list that is gone is not an empty one.
    gone = scalar(here, "select served::text from kerai_private.partial_scope")
    assert scalar(there, "select count(*) from kerai_sync.scope_members(%s, 0, 10)", [gone]) > 0
    there.execute("select kerai_sync.serve_scope(%s)", [OTHER])
    for query in (
        "select * from kerai_sync.scope_members(%s, 0, 10)",
        "select * from kerai_sync.scope_backfill(%s, '{}', 0, 0, 10)",
        "select * from kerai_sync.scope_page(%s, '{}', '{}', 10)",
    ):
        assert refused(there, query, [gone]) == "KR011"


def test_a_pull_that_breaks_off_goes_on_from_there(pair: Any, call: Call) -> None:
    here, there, _ = pair
    there.execute("update kerai.settings set value = 1 where name = 'max_page_bytes'")
    here.execute("update kerai.settings set value = 1 where name = 'sync_page_ops'")
    for name in ("cid", "dan", "eve"):
        LiveAuthor(there, name).push(insert(str(uuid5(NAMESPACE_OID, name)), SCOPE))
    damage = "update kerai.changesets set signature = {} where author like 'dan.%'"
    signature = scalar(there, "select signature from kerai.changesets where author like 'dan.%'")
    there.execute(damage.format("decode(repeat('00', 64), 'hex')"))
    result = call(here, "pull", "big")
    assert "KR001" in result["problem"] and result["pulled_changesets"] == 3
    assert {name.split(".")[0] for name in scalar(here, "select kerai.version_vector()")} == {
        "ann",
        "bob",
        "cid",
    }
    assert here.execute("select * from kerai.verify()").fetchall() == []
    there.execute(damage.format("%s").replace("'dan.%'", "'dan.%%'"), [signature])
    result = call(here, "pull", "big")
    assert result["complete"] and result["pulled_changesets"] == 2
    assert_exact(here, there, SCOPE)


def test_grouped_members_keep_their_views(pair: Any, call: Call) -> None:
    """What a member of a swarm sees is his own, also when the document comes late."""
    here, there, _ = pair
    _, swarm = launch(there)
    member = Member(there, "member")
    member.join(swarm)
    view = {"op": "perspective_set", "node": node(20), "weight": 0.5, "reasoning": "r"}
    assert status(member.send(member.draft(swarm, view, update(node(20), content="m")))) == "merged"
    assert call(here, "pull", "big")["complete"]
    LiveAuthor(there, "mover").push(move(node(20), SCOPE))
    assert call(here, "pull", "big")["complete"]
    assert scalar(here, "select author from kerai.perspectives") == member.author
    assert_exact(here, there, SCOPE)


def test_history_is_read_as_far_as_it_concerns_the_scope(pair: Any, call: Call) -> None:
    here, there, _ = pair
    past = scalar(there, "select kerai.version_vector()")
    eve = LiveAuthor(there, "eve")
    eve.push(update(node(10), content="c\n"))
    eve.push(update(node(20), content="c\n"))
    eve.push(update(node(10), name="d"), update(node(20), name="d"))
    call(here, "pull", "big")
    assert_exact(here, there, SCOPE, past, {})
    diff = "select * from kerai.diff(%s, null, %s)"
    assert (
        here.execute(diff, [json.dumps(past), SCOPE]).fetchall()
        == there.execute(diff, [json.dumps(past), SCOPE]).fetchall()
        != []
    )
    log = "select changeset_id, author_id from kerai.log(%s)"
    assert here.execute(log, [SCOPE]).fetchall() == there.execute(log, [SCOPE]).fetchall()
    lone = scalar(here, "select id from kerai.changesets where author = %s and first_seq = 1", [eve.author])
    revert = "select kerai.revert_ops(%s)::text"
    assert scalar(here, revert, [lone]) == scalar(there, revert, [lone]) != "[]"


def test_what_a_peer_leaves_out_is_noticed(pair: Any, call: Call) -> None:
    here, there, _ = pair
    call(here, "pull", "big")
    LiveAuthor(there, "eve").push(insert(node(71), SCOPE), insert(node(72), node(71)))
    there.execute("select kerai_sync.serve_scope(%s)", [SCOPE])
    there.execute(
        "update kerai_private.served_nodes set node_id = %s where node_id = %s", [node(99), node(71)]
    )
    problem = call(here, "pull", "big")["problem"]
    assert "KR006" in problem and node(71) in problem
    there.execute(
        "update kerai_private.served_nodes set node_id = %s where node_id = %s", [node(71), node(99)]
    )
    here.execute("delete from kerai_private.scope_nodes where node_id = %s", [node(99)])
    here.execute("update kerai_private.partial_scope set served = null")
    assert call(here, "pull", "big")["complete"]
    assert_exact(here, there, SCOPE)

    # A stub is believed, until its document comes.
    here.execute("update kerai.changesets set base = '{\"x\": 1}' where document is null")
    LiveAuthor(there, "mover").push(move(OTHER, SCOPE))
    assert "said otherwise" in call(here, "pull", "big")["problem"]


def test_a_partial_instance_that_is_dumped_and_restored(pair: Any, call: Call, make_database: Any) -> None:
    here, there, (dsn, _) = pair
    call(here, "pull", "big")
    LiveAuthor(there, "cid").push(update(node(20), content="y"))
    LiveAuthor(there, "mover").push(move(OTHER, SCOPE))
    call(here, "pull", "big")
    # In the middle of bringing what is late.
    LiveAuthor(there, "cid-2").push(insert(node(22)), insert(node(23), node(22)))
    LiveAuthor(there, "cid-3").push(update(node(22), name="later"))
    call(here, "pull", "big")
    LiveAuthor(there, "mover-2").push(move(node(22), SCOPE))
    assert not call(here, "pull", "big", 1)["complete"]
    rows = [
        f"select t::text as row from kerai_private.{table} as t order by 1"
        for table in ("partial_scope", "scope_nodes", "backfilled_changesets")
    ]
    before = [here.execute(query).fetchall() for query in rows]
    assert all(before)
    dump = subprocess.run(["pg_dump", dsn], capture_output=True, check=True).stdout
    with make_database(template="template0") as target:
        loader = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target.dsn]
        subprocess.run(loader, input=dump, capture_output=True, check=True)
        with connect_to(target.dsn) as restored:
            assert [restored.execute(query).fetchall() for query in rows] == before
            assert refused(restored, "select kerai.add_peer('x', 'dbname=x')") == "KR011"
            LiveAuthor(restored, "agent").push(insert(node(80), SCOPE))
            assert call(restored, "sync", "big")["complete"]
            assert node(23) in members(restored) and node(80) in members(there)
            assert_exact(restored, there, SCOPE)


def test_a_fork_between_a_partial_instance_and_its_peer(pair: Any, call: Call) -> None:
    here, there, _ = pair
    call(here, "pull", "big")
    key = SigningKey.generate()
    one, other = LiveAuthor(here, "two-faced", key), LiveAuthor(there, "two-faced", key)
    one.push(update(node(10), content="here"))
    other.push(update(node(10), content="there"))
    LiveAuthor(there, "eve").push(update(SCOPE, name="of eve"), move(node(20), SCOPE))
    result = call(here, "sync", "big")
    assert result["forks"] == 1
    for connection in (here, there):
        assert scalar(connection, "select count(*) from kerai.forks where merged_elsewhere") == 1
    assert call(here, "sync", "big")["problem"] is None
    # Nobody else is affected.
    name = "select name from kerai.nodes where id = %s"
    assert scalar(here, name, [SCOPE]) == "of eve"
    assert node(20) in members(here) and OTHER in members(here)
    LiveAuthor(there, "eve-2").push(update(node(10), content="agreed"))
    LiveAuthor(here, "agent").push(update(SCOPE, name="of agent"))
    assert call(here, "sync", "big")["problem"] is None
    assert scalar(there, name, [SCOPE]) == "of agent"
    assert tree(here, SCOPE) == tree(there, SCOPE)
    assert here.execute("select * from kerai.verify()").fetchall() == []


def test_the_command_adds_a_scope_by_its_path(
    make_database: Any, kerai: Any, rows: Any, connect: Any
) -> None:
    with make_database() as small, make_database() as big:
        LiveAuthor(connect(big.dsn), "ann").push(
            insert(ROOT, kind="directory"),
            insert(SCOPE, ROOT, kind="directory", name="parser"),
            insert(OTHER, ROOT, kind="directory", name="other"),
        )
        missing = kerai("peer", "add", "big", big.dsn, "--scope", "lexer", "--dsn", small.dsn)
        assert missing.returncode == 1 and "lexer" in missing.stderr
        unreached = kerai("peer", "add", "big", "no_such_server", "--scope", "parser", "--dsn", small.dsn)
        assert unreached.returncode == 1 and "give the id" in unreached.stderr
        added = rows("peer", "add", "big", big.dsn, "--scope", "parser", "--dsn", small.dsn)
        assert added["scope"] == SCOPE
        (result,) = rows("pull", "big", "--dsn", small.dsn)
        assert result["complete"] and result["pulled_operations"] == 2
        (listed,) = rows("peer", "list", "--dsn", small.dsn)
        assert listed["scope"] == SCOPE
        assert members(connect(small.dsn)) == {ROOT, SCOPE}


def test_a_node_that_is_made_on_both_sides_waits_for_the_peer_to_count_it_in(pair: Any, call: Call) -> None:
    """The peer has put it below what is not here, and says so in a changeset that concerns the scope too."""
    here, there, _ = pair
    assert call(here, "pull", "big")["complete"]
    cleo = LiveAuthor(there, "cleo")
    cleo.push(insert(node(30), OTHER), insert(node(31), OTHER))
    cleo.push(move(node(30), node(31)), update(SCOPE, content="said with it"))
    LiveAuthor(here, "agent").push(insert(node(30), SCOPE, name="mine"))
    assert call(here, "pull", "big")["problem"] is None
    assert call(here, "sync", "big")["complete"]
    assert_exact(here, there, SCOPE)

"""kerai.verify() finds what is wrong and nothing else; kerai.rebuild() makes all but the changesets anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert, move, update
from tests.merge.observe import assert_state, digest, scalar
from tests.merge.test_convergence import deliver
from tests.merge.worlds import KEYS, SEEDS, Instance, World, worlds
from tests.settings.odd import connect
from tests.support.laws import many

from kerai import changeset


def problems(connection: Connection[Any], deep: bool = True) -> list[tuple[str, ...]]:
    """Return what kerai.verify() finds."""
    return [tuple(row.values()) for row in connection.execute("select * from kerai.verify(%s)", [deep])]


@many(0.2)
@given(world=worlds(), seed=SEEDS)
def test_a_sound_instance_is_sound_and_rebuilding_it_changes_nothing(
    instance: Instance, world: World, seed: int
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        assert problems(connection) == []
        before = digest(connection), scalar(connection, "select kerai.version_vector()")
        assert scalar(connection, "select changed from kerai.rebuild()") is False
        assert (digest(connection), scalar(connection, "select kerai.version_vector()")) == before
        assert_state(connection, world.state())
        assert problems(connection) == []


ROOT, A, B, C, D = (str(UUID(int=n)) for n in range(1, 6))


@pytest.fixture(scope="module")
def small(module_database: Any) -> Iterator[Any]:
    """Return a context manager: a small instance with something of everything, as it was at each entry."""
    with connect(module_database.dsn) as connection:
        # Keys that follow from the names, so that authors have the ids that the expectations below name.
        ann, bob = (LiveAuthor(connection, name, KEYS[name]) for name in ("Ann", "bob"))

        @contextmanager
        def fresh() -> Iterator[Connection[Any]]:
            with connection.transaction(force_rollback=True):
                yield connection

        with connection.transaction(force_rollback=True):
            ann.push(
                insert(ROOT, kind="directory"), *(insert(n, ROOT, name=f"n{n[-1]}") for n in (A, B, C, D))
            )
            bob.push(
                update(A, content="x = 1", name="a", kind="k", language="l"),
                {"op": "node_update", "node": A, "metadata": {"k": 1}},
                {"op": "node_delete", "node": D},
                {"op": "edge_insert", "source": A, "target": C, "relation": "r", "metadata": {"m": None}},
            )
            ann.push({"op": "perspective_set", "node": A, "weight": -0.1, "reasoning": "why"})
            ann.push({"op": "association_set", "source": A, "target": B, "relation": "r", "weight": 1})
            seen = scalar(connection, "select kerai.version_vector()")
            ann.push(move(A, C))
            bob.push(move(C, A), seen=seen)
            ann.push(move(B, C, "m"), update(B, content="y" * 200))
            assert problems(connection) == []
            yield fresh


STAMP = "repeat('0', 15) || '1:nobody'"
NODE_DAMAGES = {
    "parent_id": f"'{ROOT}'",
    "position": "'other'",
    "kind": "'other'",
    "name": "'other'",
    "language": "null",
    "content": "'x = 2'",
    "metadata": "'{\"k\": 2}'",
    "deleted": "true",
    "created_stamp": STAMP,
    "created_seq": "7",
    "placed_stamp": "null",
    "kind_stamp": STAMP,
    "name_stamp": STAMP,
    "language_stamp": STAMP,
    "content_stamp": STAMP,
    "metadata_stamps": "'{}'",
    "deleted_stamp": STAMP,
    "path": "'other'",
}


@pytest.mark.parametrize("register", NODE_DAMAGES)
def test_each_register_of_a_node_is_judged_and_restored(small: Any, register: str) -> None:
    with small() as connection:
        before = digest(connection)
        connection.execute(f"update kerai.nodes set {register} = {NODE_DAMAGES[register]} where id = '{A}'")
        found = problems(connection)
        assert {(what, subject) for what, subject, _ in found} == {("node", A)}
        named = {problem.partition(" is ")[0] for _, _, problem in found}
        # A node's path follows from its name and its parent's path.
        assert named - {"path"} == {register} - {"path"}
        assert ("path" in named) == (register in ("path", "name", "parent_id"))
        assert problems(connection, deep=False) == []
        assert scalar(connection, "select changed from kerai.rebuild()") is (register != "path")
        assert problems(connection) == []
        assert digest(connection) == before


ANN, BOB = r"Ann\.[0-9a-f]{16}", r"bob\.[0-9a-f]{16}"
HASH = "[0-9a-f]{64}"
LATEST = "(select max(m.stamp) from kerai_private.moves as m)"
VOID = "(select m.stamp from kerai_private.moves as m where m.void)"
FIRST_OF_BOB = "id = (select c.id from kerai.changesets as c where c.author ~ '^bob' and c.first_seq = 1)"

# What is done to the tables, and all that verify() then says. `*`: it takes a backup to rebuild anything.
DAMAGES = {
    "a node is lost": (f"delete from kerai.nodes where id = '{D}'", [("node", D, "is not in the tree")]),
    "a node comes from nowhere": (
        "insert into kerai.nodes select (jsonb_populate_record("
        'n, \'{"id": "00000000-0000-0000-0000-0000000000ff"}\')).* '
        f"from kerai.nodes as n where n.id = '{D}'",
        [("node", "0000ff$", "is in no operation")],
    ),
    "an operation is lost": (
        "delete from kerai.operations where author ~ '^bob' and author_seq = 1",
        [("operation", f"{BOB} 1$", "is not in the log$")],
    ),
    "all of a changeset's operations are lost": (
        "delete from kerai.operations where author ~ '^bob' and author_seq <= 4",
        [("operation", f"{BOB} 1$", "is not in the log; so 3 more of this changeset")],
    ),
    "an operation is another": (
        'update kerai.operations set payload = payload || \'{"kind": "z"}\' '
        "where author ~ '^Ann' and author_seq = 3",
        [("operation", f"{ANN} 3$", r"payload is '.*\"z\".*should be")],
    ),
    "an operation has another time": (
        "update kerai.operations set lamport_ts = 99 where author ~ '^Ann' and author_seq = 3",
        [("operation", f"{ANN} 3$", "lamport_ts is '99', should be '3'")],
    ),
    "an operation has another type": (
        "update kerai.operations set op_type = 'node_move' where author ~ '^bob' and author_seq = 1",
        [("operation", f"{BOB} 1$", "op_type is 'node_move', should be 'node_update'")],
    ),
    "an operation is of another node": (
        f"update kerai.operations set node_id = '{D}' where author ~ '^bob' and author_seq = 1",
        [("operation", f"{BOB} 1$", "node_id is .*5', should be .*2'")],
    ),
    "an operation has another changeset": (
        "update kerai.operations set changeset_id = sha256('x') where author ~ '^Ann' and author_seq = 3",
        [("operation", f"{ANN} 3$", "changeset_id is .*, should be")],
    ),
    "operations come from nowhere": (
        "insert into kerai.operations select o.author, o.author_seq + 100, o.lamport_ts + 100, o.op_type, "
        "o.node_id, o.payload, o.changeset_id from kerai.operations as o "
        "where o.author ~ '^Ann' and o.author_seq < 4",
        [("operation", f"{ANN} 101.103", f"no changeset says so .changeset_id {HASH}")],
    ),
    "a move is lost": (
        f"delete from kerai_private.moves where stamp = {LATEST}",
        [("move", ":Ann", "is not kept"), ("node", B, "parent_id is")],
    ),
    "a move goes elsewhere": (
        f"update kerai_private.moves set position = 'q' where stamp = {LATEST}",
        [("move", ":Ann", "position is 'q', should be 'm'"), ("node", B, "position is 'm', should be 'q'")],
    ),
    "a move comes from nowhere": (
        f"insert into kerai_private.moves values (repeat('0', 15) || '2:nobody', '{D}', '{B}', 'a')",
        [("move", ":nobody", "is in no operation"), ("node", D, "parent_id is")],
    ),
    "a void move counts": (
        f"update kerai_private.moves set void = false where stamp = {VOID}",
        [("move", ":bob", "void is 'false', should be 'true'"), ("node", C, "parent_id is")],
    ),
    "a move that counts is void": (
        f"update kerai_private.moves set void = true where stamp = {LATEST}",
        [("move", ":Ann", "void is 'true', should be 'false'"), ("node", B, "parent_id is")],
    ),
    "an edge is another": (
        "update kerai.edges set metadata = '{}'",
        [("edge", f"^{A} r {C}$", r"is '\(\{\},.*should be '.*m.*null")],
    ),
    "an edge is lost": ("delete from kerai.edges", [("edge", f"^{A} r {C}$", "is not here")]),
    "an edge comes from nowhere": (
        f"insert into kerai.edges values ('{A}', '{C}', 'q', '{{}}', false, 'x')",
        [("edge", f"^{A} q {C}$", "is in no operation")],
    ),
    "a perspective is another": (
        "update kerai.perspectives set weight = 0.5",
        [("perspective", f"^{ANN} {A}$", "0.5.*should be.*-0.1")],
    ),
    "a perspective is deleted": (
        "update kerai.perspectives set deleted = true",
        [("perspective", f"^{ANN} {A}$", ",t,.*should be.*,f,")],
    ),
    "an association is another": (
        "update kerai.associations set reasoning = 'why not'",
        [("association", f"^{ANN} {A} r {B}$", "why not")],
    ),
    "the vector goes too far": (
        "update kerai_private.authors set seq = 9 where author ~ '^bob'",
        [("author", BOB, "^seq is '9', should be '5'$")],
    ),
    "a clock is wrong": (
        "update kerai_private.authors set lamport = 1, changeset_id = null where author ~ '^bob'",
        [("author", BOB, "^lamport is '1', should be '[0-9]+'; changeset_id is null, should be")],
    ),
    "a key is another *": (
        "update kerai_private.authors set public_key = set_byte(public_key, 0, get_byte(public_key, 0) # 1) "
        "where author ~ '^bob'",
        [("author", BOB, "the key does not belong to this author id")],
    ),
    "a document is another *": (
        "update kerai.changesets set document = replace(document::text, 'x = 1', 'x = 2')::json "
        f"where {FIRST_OF_BOB}",
        [("changeset", HASH, "is not the one that was signed")],
    ),
    "a signature is another *": (
        "update kerai.changesets set signature = set_byte(signature, 9, get_byte(signature, 9) # 1) "
        f"where {FIRST_OF_BOB}",
        [("changeset", HASH, "the signature does not verify")],
    ),
    "a changeset is lost *": (
        f"delete from kerai.changesets where {FIRST_OF_BOB}",
        [
            ("changeset", HASH, "its base names bob.* 4, which is not here; so with 3 more"),
            ("changeset", HASH, "has a gap or an overlap: operation 5 follows on 0"),
            ("operation", f"{BOB} 1.4", "no changeset says so"),
            # What nobody has signed is not taken for granted in the tree either.
            ("node", A, "content is 'x = 1', should be null"),
            ("node", D, "deleted is 'true', should be 'false'"),
            ("edge", A, "is in no operation"),
        ],
    ),
    "the order of arrival is another *": (
        "alter table kerai.changesets alter arrival set generated by default; "
        f"update kerai.changesets set arrival = arrival + 1000 where {FIRST_OF_BOB}",
        [
            (
                "sequence",
                "kerai.changesets_arrival_seq",
                "stands at [0-9]+, and a row of kerai.changesets has [0-9]+",
            ),
            ("changeset", HASH, "it arrived before what it follows on: bob.* 4; so with 3 more"),
        ],
    ),
} | {
    f"a changeset's {column} is another": (
        f"update kerai.changesets set {column} = {value} where {FIRST_OF_BOB}",
        [("changeset", HASH, f"the row says otherwise than the document: {column} is .*, should be")],
    )
    for column, value in {
        "author": "'Z.0000000000000000'",
        "first_seq": "3",
        "last_seq": "3",
        "first_lamport": "2",
        "last_lamport": "2",
        "prev": "sha256('x')",
        "base": "'{}'",
        "guard": f"'{A}'",
        "task_id": f"'{A}'",
        "message": "'x'",
    }.items()
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_what_can_be_is_healed(small: Any, name: str) -> None:
    statement, expected = DAMAGES[name]
    with small() as connection:
        before = digest(connection)
        connection.execute(statement)
        found = problems(connection)
        assert len(found) == len(expected), "\n".join(map(str, found))
        for wanted in expected:
            assert any(all(map(re.search, wanted, problem)) for problem in found), (wanted, found)
        if name.endswith("*"):
            assert set(problems(connection, deep=False)) <= set(found)
            with pytest.raises(psycopg.Error) as refused, connection.transaction():
                connection.execute("select * from kerai.rebuild()")
            assert refused.value.sqlstate == "KR011"
            assert str(refused.value.diag.message_primary) == "the changesets themselves are damaged"
            assert "peer or a backup" in str(refused.value.diag.message_hint)
        else:
            connection.execute("select * from kerai.rebuild()")
            assert problems(connection) == []
            assert digest(connection) == before


def test_what_members_of_a_grouped_swarm_have_signed_is_judged_too(connect: Any) -> None:
    connection = connect()
    key = KEYS["Ann"]
    public_key = bytes(key.verify_key)
    agent = connection.execute("select * from kerai.register_agent('m', 'llm', %s)", [public_key]).fetchone()
    task = scalar(connection, "select id from kerai.create_task('d', 'true')")
    swarm = scalar(connection, "select id from kerai.launch_swarm(%s, grouped => true)", [task])
    connection.execute("select kerai.join_swarm(%s, %s)", [swarm, agent["id"]])
    for ops in (
        [insert(A), insert(B)],
        [update(A, content="x"), {"op": "perspective_set", "node": A, "weight": 0.5}],
        [{"op": "association_set", "source": A, "target": B, "relation": "r", "weight": 1}, move(A, B)],
    ):
        seen = scalar(connection, "select kerai.version_vector()")
        draft = changeset.draft(agent["author"], str(swarm), ops, base=seen, task=str(task), message="m")
        connection.execute(
            "select kerai.push_ops(%s::json, %s, %s)", [draft, changeset.sign(draft, key), public_key]
        )
    assert problems(connection) == []
    assert scalar(connection, "select changed from kerai.rebuild()") is False

    connection.execute(
        "update kerai.changesets set member = 'x', member_signature = '', draft_id = null where first_seq = 3"
    )
    ((what, _, problem),) = problems(connection)
    assert what == "changeset"
    assert re.search("member is 'x'.*; member_signature is ''.*; draft_id is null", problem)
    assert scalar(connection, "select changed from kerai.rebuild()") is False
    assert problems(connection) == []
    connection.execute("select kerai.compact(now())")
    assert problems(connection) == []
    assert scalar(connection, "select changed from kerai.rebuild()") is False

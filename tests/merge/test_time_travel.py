"""States as of vectors, what differs between two of them, and undoing: laws over random worlds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from tests.merge.live import insert, move
from tests.merge.model import Row, State, Vector, fold_any, restrict
from tests.merge.observe import assert_reads, checkout, push, scalar, tree
from tests.merge.stories import Story
from tests.merge.test_convergence import deliver
from tests.merge.worlds import REPEATS, SEEDS, Instance, World, worlds
from tests.support.laws import many

STATE = """
select s.id, s.parent_id, s.position, s.kind, s.name, s.language, s.content, s.metadata, s.place
from kerai_private.state(%s, %s, null) as s order by s.id"""
STORED = """
select n.id, n.parent_id, n.position, n.kind, n.name, n.language, n.content, n.metadata, n.deleted,
    n.created_stamp, n.created_seq, n.placed_stamp, n.kind_stamp, n.name_stamp, n.language_stamp,
    n.content_stamp, n.metadata_stamps, n.deleted_stamp
from {} as n order by n.id"""
FIELDS = ("parent", "position", "kind", "name", "language", "content", "metadata")
Choose = Callable[[World, int], dict[str, int]]
VECTORS = st.sampled_from([World.vector, World.any_vector])
TOP, X, Y, Z, BELOW = (str(UUID(int=n)) for n in range(1, 6))


@many(0.4)
@given(world=worlds(), seed=SEEDS, past=SEEDS)
def test_any_vector_names_a_state(instance: Instance, world: World, seed: int, past: int) -> None:
    """Also a vector that names operations without what they rest on, and whichever way it is computed."""
    with instance() as connection:
        deliver(connection, world, seed)
        at = world.any_vector(past)
        expected = fold_any(restrict(world.operations, at))
        vector = json.dumps(at)
        assert tree(connection, at=at) == expected.tree()
        assert checkout(connection, at=at) == expected.checkout()
        for node in some(expected.nodes, past):
            assert tree(connection, node, at) == expected.tree(node)
            assert checkout(connection, node, at) == expected.checkout(node)
            source = scalar(connection, "select kerai.source(%s, %s)", [node, vector])
            assert source == expected.source(node)
        back, forward = (connection.execute(STATE, [vector, folded]).fetchall() for folded in (False, True))
        assert back == forward
        standing = {i for i, node in expected.nodes.items() if not node.deleted}
        assert {str(row["id"]) for row in back} == standing


@many(0.2)
@given(world=worlds(verbs=REPEATS), seed=SEEDS, past=SEEDS)
def test_a_vector_may_name_a_later_insert_alone(
    instance: Instance, world: World, seed: int, past: int
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        connection.execute("set local statement_timeout = '20s'")
        vectors = [world.gaping_vector(past + n) for n in range(30)]
        states = [fold_any(restrict(world.operations, at)) for at in vectors]
        # Those with a ring first: from it the way up does not end at the top, nor at what is not there.
        rings = [any(state.way_up(node)[1] in state.nodes for node in state.nodes) for state in states]
        for n in sorted(range(30), key=lambda n: not rings[n])[:2]:
            assert_reads(connection, states[n], vectors[n])


def test_inserts_that_make_a_ring_hang_nowhere_until_a_move_opens_it(instance: Instance) -> None:
    """Of X the vectors name the insert by which it lies below Z; Y lies below X, and Z below Y."""
    story = Story(4)
    ann, bob, cid, eve = range(4)
    story.do(ann, insert(X, kind="directory"))
    story.do(
        bob,
        insert(TOP, kind="directory", name="top"),
        insert(Y, X, kind="directory"),
        insert(Z, Y),
        seeing=[ann],
    )
    story.do(cid, insert(X, Z, kind="directory"), insert(BELOW, Z), seeing=[bob])
    moves = (
        # Into the ring and along it; what is in it would come to lie below itself.
        [(BELOW, X), (Y, BELOW), (X, Y), (TOP, Z), (TOP, None), (Y, TOP)],
        # Y has left it: Z, X and what is below it hang from the top.
        [(BELOW, Y), (X, BELOW), (BELOW, Z), (Z, X), (Y, X)],
    )
    for part in moves:
        story.do(eve, *(move(*each) for each in part), seeing=[cid])
    names = [author.author for author in story.authors]
    with instance() as connection:
        connection.execute("set local statement_timeout = '20s'")
        for signed in story.changesets:
            push(connection, signed)
        now = {author.author: author.seq for author in story.authors}
        for last in range(sum(map(len, moves)) + 1):
            at = {names[bob]: 3, names[cid]: 2, names[eve]: last}
            assert_reads(connection, fold_any(restrict(story.operations, at)), at)
            assert diff(connection, at, now).keys() >= ({X} if last < 6 else set())
        ring = {names[bob]: 3, names[cid]: 2, names[eve]: 2}
        assert {row.id for row in tree(connection, at=ring)} == {TOP}
        assert tree(connection, X, ring) == [] == checkout(connection, X, ring)
        opened = {**ring, names[eve]: 6}
        assert [row.id for row in tree(connection, at=opened)] == [TOP, Y, Z, X, BELOW]
        files = "select new_path from kerai.diff_files(%s, %s)"
        found = connection.execute(files, [json.dumps(ring), json.dumps(opened)]).fetchall()
        assert [row["new_path"] for row in found] == [f"top/unnamed-{Z}"]


def test_a_directory_that_becomes_a_part_of_a_file_takes_its_files_along(instance: Instance) -> None:
    story = Story(2)
    story.do(
        0,
        insert(X, kind="directory", name="x"),
        insert(Y, X, kind="directory", name="y"),
        insert(Z, Y, name="z", content="z\n"),
        insert(TOP, name="top"),
    )
    file = {"op": "node_update", "node": X, "set": {"kind": "file"}}
    directory = {"op": "node_update", "node": X, "set": {"kind": "directory"}}
    story.do(0, file, directory, move(Y, TOP))
    author = story.authors[0].author
    expected = {
        (4, 5): {("x/y/z", None), (None, "x")},
        (5, 6): {("x", None), (None, "x/y/z")},
        (6, 7): {("x/y/z", None), ("top", "top")},
    }
    with instance() as connection:
        for signed in story.changesets:
            push(connection, signed)
        for (a, b), paths in expected.items():
            rows = connection.execute(
                "select old_path, new_path from kerai.diff_files(%s, %s)",
                [json.dumps({author: a}), json.dumps({author: b})],
            )
            assert {(row["old_path"], row["new_path"]) for row in rows} == paths


def some(nodes: Collection[str], seed: int) -> list[str]:
    """Return a few of the nodes."""
    return random.Random(seed).sample(sorted(nodes), min(3, len(nodes)))


@many(0.3)
@given(world=worlds(), seed=SEEDS)
def test_the_fold_of_all_is_what_is_stored_stamps_included(
    instance: Instance, world: World, seed: int
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        vector = scalar(connection, "select kerai.version_vector()")
        stored = connection.execute(STORED.format("kerai.nodes")).fetchall()
        folded = connection.execute(STORED.format("kerai_private.replay_nodes(%s)"), [json.dumps(vector)])
        assert folded.fetchall() == stored


def visible(state: State) -> dict[str, dict[str, Any]]:
    """Return the fields of the visible nodes."""
    return {
        i: {field: getattr(node, field) for field in FIELDS}
        for i, node in state.nodes.items()
        if state.is_visible(i)
    }


def difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], Any, Any]:
    """Return what kerai.diff must say of a node that is in both states."""
    fields = [field for field in FIELDS if old[field] != new[field]]
    names = {"moved" if field in ("parent", "position") else field for field in fields}
    return sorted(names), {f: old[f] for f in fields}, {f: new[f] for f in fields}


@many(0.3)
@given(world=worlds(), seed=SEEDS, points=st.tuples(SEEDS, SEEDS), choose=VECTORS, now=st.booleans())
def test_a_diff_is_what_differs(
    instance: Instance, *, world: World, seed: int, points: tuple[int, int], choose: Choose, now: bool
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        a, b = choose(world, points[0]), None if now else choose(world, points[1])
        before, after = (
            world.state() if at is None else fold_any(restrict(world.operations, at)) for at in (a, b)
        )
        old, new = visible(before), visible(after)
        expected = {i: (["added"], None, new[i]) for i in new.keys() - old.keys()}
        expected |= {i: (["removed"], old[i], None) for i in old.keys() - new.keys()}
        expected |= {i: difference(old[i], new[i]) for i in old.keys() & new.keys() if old[i] != new[i]}
        assert diff(connection, a, b) == expected
        for scope in some(before.nodes.keys() | after.nodes.keys(), seed)[:1]:
            assert diff(connection, a, b, scope) == {
                i: told
                for i, told in expected.items()
                if (i in old and before.is_below(i, scope)) or (i in new and after.is_below(i, scope))
            }


@many(0.3)
@given(world=worlds(), seed=SEEDS, points=st.tuples(SEEDS, SEEDS), choose=VECTORS)
def test_files_that_a_diff_does_not_name_are_the_same(
    instance: Instance, world: World, seed: int, points: tuple[int, int], choose: Choose
) -> None:
    with instance() as connection:
        deliver(connection, world, seed)
        a, b = (choose(world, point) for point in points)
        files = connection.execute(
            "select old_path, new_path, old_source, new_source from kerai.diff_files(%s, %s)",
            [json.dumps(a), json.dumps(b)],
        ).fetchall()
        old, new = (dict(fold_any(restrict(world.operations, at)).checkout()) for at in (a, b))
        gone = {row["old_path"]: row["old_source"] for row in files if row["old_path"] is not None}
        come = {row["new_path"]: row["new_source"] for row in files if row["new_path"] is not None}
        assert gone.items() <= old.items() and come.items() <= new.items()
        if not any("~" in path for path in old.keys() | new.keys()):
            # Of files with one name, a change of one may give another one another number.
            assert {path: old[path] for path in old.keys() - gone} == {
                path: new[path] for path in new.keys() - come
            }


def diff(
    connection: Connection[Any], a: Vector, b: Vector | None, scope: str | None = None
) -> dict[str, tuple[list[str], Any, Any]]:
    """Return kerai.diff(a, b, scope) by node."""
    rows = connection.execute(
        "select node_id::text as id, changes, before, after from kerai.diff(%s, %s, %s)",
        [json.dumps(a), None if b is None else json.dumps(b), scope],
    ).fetchall()
    found = {row["id"]: (row["changes"], row["before"], row["after"]) for row in rows}
    assert len(found) == len(rows)
    return found


def registers(connection: Connection[Any]) -> dict[str, dict[str, tuple[Any, str]]]:
    """Return each node's registers, each with the stamp of who wrote it."""
    found: dict[str, dict[str, tuple[Any, str]]] = {}
    for row in connection.execute(STORED.format("kerai.nodes")):
        created = row["created_stamp"]
        stamps = row["metadata_stamps"] or {}
        fields = {
            field: (row[field], row[f"{field}_stamp"] or created)
            for field in ("kind", "name", "language", "content", "deleted")
        }
        fields["place"] = (row["parent_id"], row["position"]), row["placed_stamp"] or created
        keys = row["metadata"].keys() | stamps.keys()
        fields |= {f"metadata {key}": (row["metadata"].get(key), stamps.get(key, created)) for key in keys}
        found[str(row["id"])] = fields
    return found


def revert(connection: Connection[Any], changeset: bytes) -> bool:
    """Undo a changeset; say whether there was anything to undo."""
    try:
        with connection.transaction():
            status = scalar(
                connection, "select status from kerai.push_ops(kerai.revert_ops(%s))", [changeset]
            )
    except psycopg.errors.DatabaseError as error:
        assert error.sqlstate == "KR011" and error.diag.message_hint, error
        return False
    assert status == "merged"
    return True


@many(0.4)
@given(world=worlds(), seed=SEEDS, which=SEEDS)
def test_a_revert_undoes_what_still_holds_and_nothing_else(
    instance: Instance, world: World, seed: int, which: int
) -> None:
    with instance() as connection:
        connection.execute("select kerai.register_agent('undoer', 'human')")
        deliver(connection, world, seed)
        if not world.changesets:
            return
        chosen = world.changesets[which % len(world.changesets)]
        mine = {f"{o.lamport:016x}:{o.author}" for o in chosen.operations}
        rest = [o for o in world.operations if o not in chosen.operations]
        without = fold_any(rest)
        before = registers(connection)
        identity = scalar(
            connection,
            "select id from kerai.changesets where author = %s and first_seq = %s",
            [chosen.author, chosen.seq],
        )
        changed = revert(connection, identity)
        after = registers(connection)
        assert changed or after == before
        for node, fields in before.items():
            for field, (value, stamp) in fields.items():
                now, written = after[node].get(field, (None, ""))
                if stamp not in mine:
                    assert now == value and written == stamp, (node, field)
                elif node not in without.nodes:
                    assert now == (True if field == "deleted" else value), (node, field)
                elif field.startswith("metadata "):
                    assert now == without.nodes[node].metadata.get(field.removeprefix("metadata "))
                elif field != "place":
                    assert now == getattr(without.nodes[node], field), (node, field)
        # Done once, it is done.
        assert not revert(connection, identity) or changed


@many(0.3)
@given(world=worlds(), seed=SEEDS)
def test_undoing_the_latest_changeset_brings_back_the_tree(
    instance: Instance, world: World, seed: int
) -> None:
    """The latest in the order of the fold, so that nobody has written over it."""
    with instance() as connection:
        connection.execute("select kerai.register_agent('undoer', 'human')")
        order = world.shuffled(seed)
        if not order:
            return
        last = max(order, key=lambda signed: signed.operations[-1].stamp)
        if any(o.stamp > last.operations[0].stamp for s in order if s is not last for o in s.operations):
            return
        deliver(connection, world, seed)
        rest = [o for o in world.operations if o not in last.operations]
        identity = scalar(
            connection,
            "select id from kerai.changesets where author = %s and first_seq = %s",
            [last.author, last.seq],
        )
        revert(connection, identity)
        expected = fold_any(rest)
        assert content(tree(connection)) == content(expected.tree())
        edges = {
            (row["source"], row["target"], row["relation"]): row["metadata"]
            for row in connection.execute(
                """select source::text, target::text, relation, metadata from kerai.edges where not deleted"""
            )
        }
        assert edges == {key: value for key, value in expected.edges.items() if value is not None}


def content(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Return the rows without their order among siblings of one position: a move back is a later move."""
    return sorted(
        (
            row.id,
            row.parent_id or "",
            row.position,
            row.depth,
            row.kind,
            row.path,
            json.dumps(row.metadata, sort_keys=True),
        )
        for row in rows
    )

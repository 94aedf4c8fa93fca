"""Moves that meet: each story in every causal order and in pages of every size, with the tree at its end."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import Connection
from tests.merge.batches import everything, in_pages, parcel, push_each
from tests.merge.live import Body, insert, move
from tests.merge.model import fold
from tests.merge.observe import assert_state, scalar, tree
from tests.merge.stories import Story
from tests.merge.worlds import Instance, Signed
from tests.settings.odd import connect

ROOT, A, B, C, D, E = (str(UUID(int=n)) for n in range(1, 7))


def void(connection: Connection[Any]) -> int:
    """Count the moves that do not count."""
    return int(scalar(connection, "select count(*) from kerai_private.moves where void"))


def paths(connection: Connection[Any]) -> dict[str, str]:
    """Return the path of each node."""
    rows = connection.execute("select id::text, path::text from kerai.nodes").fetchall()
    return {row["id"]: row["path"] for row in rows}


def assert_ends(instance: Instance, story: Story, parents: dict[str, str | None], voids: int) -> None:
    """Check that every order and page size ends with these parents and so many void moves."""
    final = fold(story.operations)
    assert {node: final.nodes[node].parent for node in parents} == parents
    states = []
    orders = list(story.orders())
    assert len(orders) > 1
    for order in orders:
        for size in (1, 2, 10_000):
            with instance() as connection:
                outcomes = in_pages(connection, [parcel(each) for each in order], size)
                assert [each["status"] for each in outcomes] == ["merged"] * len(order)
                assert_state(connection, final)
                assert void(connection) == voids
                states.append(everything(connection) | {"arrivals": None})
    assert all(state == states[0] for state in states)


def start(authors: int, *operations: Body) -> Story:
    """Begin with a tree that all authors know."""
    story = Story(authors)
    story.do(0, *operations)
    return story


def test_three_moves_that_make_a_cycle_together(instance: Instance) -> None:
    story = start(4, insert(A), insert(B), insert(C))
    for who, (node, parent) in enumerate([(A, B), (B, C), (C, A)], start=1):
        story.do(who, move(node, parent), seeing=[0])
    # Equal clocks: the order is that of the authors' ids, Ann before ann-2 before éva.
    assert [each.author[:3] for each in story.authors] == ["bob", "Ann", "éva", "ann"]
    assert_ends(instance, story, {A: B, B: None, C: A}, voids=1)


def test_a_void_move_is_freed_by_a_late_one_and_makes_another_void(instance: Instance) -> None:
    """A below B is void while B is below A; a late move of B frees it, and then B below A again is void."""
    story = start(4, insert(A), insert(B, A), insert(C))
    # Moves that do nothing but let the clock go on.
    story.do(1, *[move(C, C)] * 2, move(A, B), seeing=[0])
    story.do(2, *[move(C, C)] * 3, move(B, A, "z"), seeing=[0])
    story.do(3, move(B, None), seeing=[0])
    assert_ends(instance, story, {A: B, B: None}, voids=6)


def test_a_late_move_frees_one_that_was_void(instance: Instance) -> None:
    story = start(3, insert(A), insert(B, A), insert(C))
    # Its clock is later, so that what is pushed last here comes before it in the fold.
    story.do(1, move(C, C), move(C, C), move(A, B), seeing=[0])
    story.do(2, move(B, None), seeing=[0])
    assert_ends(instance, story, {A: B, B: None}, voids=2)


def test_a_late_move_closes_a_cycle_before_a_long_tail_elsewhere(instance: Instance) -> None:
    leaves = [str(UUID(int=n)) for n in range(100, 140)]
    story = start(3, insert(A), insert(B), insert(C), *(insert(leaf, C) for leaf in leaves))
    story.do(1, move(A, B), seeing=[0])
    story.do(2, *(move(leaf, None) for leaf in leaves), move(B, A), seeing=[0])
    assert_ends(instance, story, {A: B, B: None, leaves[0]: None}, voids=1)


def test_a_move_to_itself_and_below_itself(instance: Instance) -> None:
    story = start(2, insert(A), insert(B, A))
    story.do(1, move(A, A), move(A, B), move(B, B), seeing=[0])
    story.do(0, move(B, A, "z"))
    assert_ends(instance, story, {A: None, B: A}, voids=3)


def test_a_late_insert_of_a_sibling(instance: Instance) -> None:
    """Siblings with one position order by the stamp of what placed them, whenever that came."""
    story = start(3, insert(ROOT), insert(A, ROOT))
    story.do(1, insert(B, ROOT), seeing=[0])
    story.do(2, insert(C, ROOT), move(A, ROOT), seeing=[0])
    assert_ends(instance, story, {A: ROOT, B: ROOT, C: ROOT}, voids=0)
    with instance() as connection:
        in_pages(connection, [parcel(each) for each in story.changesets], 10)
        # Ann's and éva's inserts have one clock; A's was placed after both.
        assert [row.id for row in tree(connection, ROOT)] == [ROOT, B, C, A]


def test_a_parent_is_deleted_while_its_child_moves_out(instance: Instance) -> None:
    story = start(3, insert(ROOT), insert(A, ROOT), insert(B, A), insert(C, A))
    story.do(1, {"op": "node_delete", "node": A}, seeing=[0])
    story.do(2, move(B, ROOT), seeing=[0])
    assert_ends(instance, story, {A: ROOT, B: ROOT, C: A}, voids=0)
    with instance() as connection:
        in_pages(connection, [parcel(each) for each in story.changesets], 10)
        assert [row.id for row in tree(connection)] == [ROOT, B]


def test_two_insert_one_node_and_move_it(instance: Instance) -> None:
    """The earlier insert counts, also when it comes last: moves have then started from elsewhere."""
    story = start(3, insert(A), insert(B), insert(C))
    story.do(1, insert(D, A), insert(E, D), move(D, B), seeing=[0])
    # Later clocks for the same node, and moves that are void only from one of the two places.
    story.do(2, move(C, None, "c"), insert(D, C), move(C, D), move(A, D), seeing=[0])
    story.do(1, move(B, E))
    assert_ends(instance, story, {D: B, A: D, B: None, C: D, E: D}, voids=1)


def test_an_earlier_insert_makes_a_void_move_count(instance: Instance) -> None:
    story = start(3, insert(A), insert(B))
    story.do(2, move(B, None, "q"), insert(C, A), move(A, C), seeing=[0])
    story.do(1, insert(C, B), seeing=[0])
    # With éva's own insert A would go below its own child; Ann's, which is earlier, has put C below B.
    assert_ends(instance, story, {C: B, A: C, B: None}, voids=0)


def test_paths_where_some_nodes_have_no_name(instance: Instance) -> None:
    """D moves from one named node into another, C stays within its own; E and A have one name."""
    story = start(
        3, insert(A, name="a"), insert(B, name="b"), insert(C, A), insert(D, A), insert(E, name="a")
    )
    story.do(2, move(E, A), seeing=[0])
    story.do(1, move(D, C), move(C, D), move(C, A, "z"), seeing=[0])
    story.do(1, move(D, B))
    story.do(1, move(B, E))
    assert_ends(instance, story, {A: None, B: E, C: A, D: B, E: A}, voids=1)
    with instance() as connection:
        push_each(connection, story.changesets)
        assert paths(connection) == {A: "a", B: "a.a.b", C: "a", D: "a.a.b", E: "a.a"}


def test_the_path_of_what_has_no_name_and_becomes_a_root(instance: Instance) -> None:
    story = start(3, insert(A, name="a"), insert(B, A), insert(C, A), insert(D, C, name="d"))
    story.do(1, move(C, None), move(B, C), seeing=[0])
    story.do(2, move(B, A, "z"), seeing=[0])
    assert_ends(instance, story, {A: None, B: C, C: None, D: C}, voids=0)
    with instance() as connection:
        push_each(connection, story.changesets)
        assert paths(connection) == {A: "a", B: "", C: "", D: "d"}


def test_a_late_move_of_what_has_no_name_gives_another_node_its_path(instance: Instance) -> None:
    """A below C is void, as C is below B and B below A, until B turns out to have been moved away before."""
    story = start(3, insert(A), insert(B, A), insert(C, B, name="c"), insert(D))
    story.do(1, move(D, D), move(D, D), move(A, C), seeing=[0])
    story.do(2, move(B, D), seeing=[0])
    assert_ends(instance, story, {A: C, B: D, C: B}, voids=2)
    with instance() as connection:
        push_each(connection, story.changesets)
        assert paths(connection) == {A: "c", B: "", C: "c", D: ""}


# What a session has looked up of where nodes stand it does not look up again, as long as that holds. Here it
# does not: C is below B, and B elsewhere than before.


def test_a_late_move_finds_what_was_moved_after_it(instance: Instance) -> None:
    story = start(4, insert(A), insert(B), insert(C, B), insert(D))
    story.do(1, move(A, C), seeing=[0])
    story.do(2, move(D, D), move(D, D), move(B, A), seeing=[0])
    story.do(3, move(D, C), seeing=[0, 2])
    assert_ends(instance, story, {A: C, B: None, C: B, D: C}, voids=3)


def test_an_earlier_insert_moves_what_stands_below_it(instance: Instance) -> None:
    story = start(4, insert(A), insert(B))
    story.do(1, insert(C, B), seeing=[0])
    story.do(2, insert(E), insert(C, A), insert(D, C), seeing=[0])
    story.do(3, move(B, D), seeing=[0, 2])
    assert_ends(instance, story, {B: None, C: B, D: C}, voids=1)


def push_one(connection: Connection[Any], signed: Signed) -> None:
    """Push a changeset, which is merged."""
    (outcome,) = push_each(connection, [parcel(signed)])
    assert outcome["status"] == "merged"


def beginning() -> Story:
    """Tell of a move of D, which looks up that C stands below B."""
    story = start(4, insert(A), insert(B), insert(C, B), insert(D))
    story.do(1, move(D, C), seeing=[0])
    return story


def test_a_move_finds_what_another_session_has_moved(database: Any) -> None:
    story = beginning()
    story.do(2, move(B, A), seeing=[0])
    story.do(3, move(A, C), seeing=[1, 2])
    with connect(database.dsn) as first, connect(database.dsn) as second:
        for session, signed in zip((first, first, second, first), story.changesets, strict=True):
            push_one(session, signed)
        assert_state(first, fold(story.operations))
        assert void(first) == 1


def test_a_move_does_not_find_what_was_rolled_back(database: Any) -> None:
    story, undone = beginning(), beginning()
    undone.do(3, move(B, A), seeing=[0])
    undone.do(3, move(D, C), seeing=[1])
    with connect(database.dsn) as connection:
        for signed in story.changesets:
            push_one(connection, signed)
        story.do(2, move(A, C), seeing=[1])
        with connection.transaction():
            with connection.transaction(force_rollback=True):
                for signed in undone.changesets[-2:]:
                    push_one(connection, signed)
            push_one(connection, story.changesets[-1])
        assert_state(connection, fold(story.operations))
        assert void(connection) == 0


def test_rebuilding_finds_nothing_of_what_was_wrong_before(database: Any) -> None:
    story = start(2, insert(A), insert(B), insert(C, B), insert(D))
    with connect(database.dsn) as connection:
        push_one(connection, story.changesets[0])
        connection.execute("update kerai.nodes set parent_id = %s where id = %s", [A, B])
        story.do(1, move(D, C), move(A, C), seeing=[0])
        push_one(connection, story.changesets[1])
        assert void(connection) == 1
        assert scalar(connection, "select changed from kerai.rebuild()") is True
        assert_state(connection, fold(story.operations))
        assert void(connection) == 0

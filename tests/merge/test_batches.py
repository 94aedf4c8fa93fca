"""A batch of many authors' changesets gives what pushing them one by one gives, wrong ones included."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from tests.merge.batches import everything, in_pages, parcel, push_each, receive_all, with_wrong_ones
from tests.merge.live import insert, update
from tests.merge.observe import assert_state, digest
from tests.merge.stories import Story
from tests.merge.worlds import MOVES, SEEDS, Instance, World, worlds
from tests.support.laws import many

A, B = (str(UUID(int=n)) for n in (1, 2))
PAGES = st.sampled_from([1, 2, 3, 5, 10, 100, 10_000])


@many(0.5)
@given(world=worlds(), seed=SEEDS, page=PAGES)
def test_pages_of_any_size_make_the_fold(instance: Instance, world: World, seed: int, page: int) -> None:
    parcels = [parcel(signed) for signed in world.shuffled(seed)]
    with instance() as connection:
        one_by_one = push_each(connection, parcels)
        wanted = everything(connection)
    with instance() as connection:
        assert in_pages(connection, parcels, page) == one_by_one
        assert_state(connection, world.state())
        found = everything(connection)
        assert found == wanted


@many(0.5)
@given(world=worlds(steps=60, verbs=MOVES, nodes=6), seed=SEEDS, page=PAGES)
def test_moves_in_pages_make_the_fold(instance: Instance, world: World, seed: int, page: int) -> None:
    """After every page: a late one frees moves that were void, and the freed ones make others void."""
    order = world.shuffled(seed)
    vector: dict[str, int] = {}
    with instance() as connection:
        for start in range(0, len(order), page):
            signed = order[start : start + page]
            outcomes = receive_all(connection, [parcel(each) for each in signed])
            assert [outcome["status"] for outcome in outcomes] == ["merged"] * len(signed)
            vector |= {each.author: each.last_seq for each in signed}
            assert_state(connection, world.state(vector))
        found = everything(connection)
    with instance() as connection:
        receive_all(connection, [parcel(signed) for signed in world.changesets])
        wanted = everything(connection)
    assert found | {"arrivals": None} == wanted | {"arrivals": None}


@many(0.5)
@given(world=worlds(steps=60), seed=SEEDS, page=PAGES)
def test_each_gets_what_it_would_get_alone(instance: Instance, world: World, seed: int, page: int) -> None:
    parcels = with_wrong_ones(world, seed)
    with instance() as connection:
        one_by_one = push_each(connection, parcels)
        wanted = everything(connection)
    with instance() as connection:
        found = in_pages(connection, parcels, page, judge=True)
        for each, got, expected in zip(parcels, found, one_by_one, strict=True):
            assert got == expected, each
        assert everything(connection) == wanted


@many(0.2)
@given(world=worlds(), seed=SEEDS)
def test_a_page_again_changes_nothing(instance: Instance, world: World, seed: int) -> None:
    parcels = [parcel(signed) for signed in world.shuffled(seed)]
    with instance() as connection:
        receive_all(connection, parcels)
        before = everything(connection)
        again = receive_all(connection, parcels[::-1] + parcels)
        assert {outcome["status"] for outcome in again} <= {"duplicate"}
        assert everything(connection) == before


def test_an_empty_page(instance: Instance) -> None:
    with instance() as connection:
        before = digest(connection)
        assert receive_all(connection, []) == []
        assert digest(connection) == before


def test_what_comes_before_its_past_is_refused_in_a_batch_too(instance: Instance) -> None:
    story = Story(2)
    story.do(0, insert(A))
    story.do(1, insert(B), seeing=[0])
    first, second = (parcel(each) for each in story.changesets)
    with instance() as connection:
        outcomes = receive_all(connection, [second, first, second])
        assert [each["status"] or each["code"] for each in outcomes] == ["KR004", "merged", "merged"]


def test_a_node_of_the_batch_that_its_author_had_not_seen(instance: Instance) -> None:
    story = Story(3)
    story.do(0, insert(A))
    story.do(1, update(A, content="unseen"))
    story.do(2, update(A, content="seen"), seeing=[0])
    story.do(2, update(B, content="later"))
    story.do(0, insert(B))
    with instance() as connection:
        outcomes = receive_all(connection, [parcel(each) for each in story.changesets])
        codes = [each["status"] or each["code"] for each in outcomes]
        assert codes == ["merged", "KR004", "merged", "KR006", "merged"]
        author = story.authors[0].author
        assert outcomes[1]["detail"] == f"operation 0 names node {A}; missing in base: {author} 1"

"""The laws of position keys: order, room, no interleaving, bounded growth."""

from __future__ import annotations

from bisect import insort
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support.laws import many

from kerai_client.source.tree.positions import integer, keys, room, tag

# Positions that a foreign client might write: any text without NUL, which PostgreSQL refuses.
foreign = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
near = st.text("0a!-bZA\x01", max_size=6)
places = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 5)), min_size=1, max_size=60)


def ordered(texts: list[str]) -> bool:
    return all(a.encode() < b.encode() for a, b in pairwise(texts))


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_order_as_text(a: int, b: int) -> None:
    assert (integer(a) < integer(b)) == (a < b)
    assert a == b or not integer(b).startswith(integer(a))


def test_integers_around_every_change_of_length() -> None:
    edges = [sum(62**k for k in range(1, n)) for n in range(1, 6)]
    values = sorted({sign * edge + step for edge in edges for step in (-2, -1, 0, 1) for sign in (-1, 1)})
    assert ordered([integer(value) for value in values])


@given(foreign | near, foreign | near, st.integers(1, 200), st.booleans())
def test_keys_fall_between_any_two_neighbours(a: str, b: str, count: int, open_ended: bool) -> None:
    left, right = min(a, b), max(a, b)
    assume(open_ended or room(left, right))
    block = keys(left, None if open_ended else right, count, tag("ann", "1"))
    assert ordered([left, *block, *([] if open_ended else [right])])


@given(near | foreign)
def test_there_is_room_before_and_after_all_but_control_characters(key: str) -> None:
    assert room(key, None)
    assert room(None, key) == any(character > "!" for character in key)


@given(foreign)
def test_no_room_between_equals_and_then_the_keys_come_after(key: str) -> None:
    assert not room(key, key)
    assert all(key < new for new in keys(key, key, 3, tag("ann", "1")))


@given(places)
def test_any_sequence_of_insertions_keeps_order_and_room(where: list[tuple[int, int]]) -> None:
    siblings = keys(None, None, 3, None)
    for run, (place, count) in enumerate(where):
        at = place % (len(siblings) + 1)
        left = siblings[at - 1] if at else None
        right = siblings[at] if at < len(siblings) else None
        assert room(left, right)
        siblings[at:at] = keys(left, right, count, tag("ann", str(run)))
        assert ordered(siblings)


@many()
@given(places, st.integers(0, 10**6), st.lists(st.integers(1, 80), min_size=2, max_size=4))
def test_blocks_inserted_at_one_place_at_once_do_not_interleave(
    where: list[tuple[int, int]], place: int, counts: list[int]
) -> None:
    siblings = keys(None, None, 2, tag("root", "0"))
    for run, (spot, count) in enumerate(where):
        at = spot % (len(siblings) + 1)
        bounds = [None, *siblings, None]
        siblings[at:at] = keys(bounds[at], bounds[at + 1], count, tag("ann", str(run)))
    at = place % (len(siblings) + 1)
    bounds = [None, *siblings, None]
    merged: list[str] = []
    blocks = {}
    for author, count in enumerate(counts):
        for key in keys(bounds[at], bounds[at + 1], count, tag(f"author {author}", "same run")):
            blocks[key] = author
            insort(merged, key)
    seen = [blocks[key] for key in merged]
    assert len(seen) == sum(counts)
    assert sum(a != b for a, b in pairwise(seen)) == len(counts) - 1


def test_growth_stays_logarithmic_at_the_end_at_the_beginning_and_before_a_fixed_sibling() -> None:
    first, last = keys(None, None, 2, None)
    appended = prepended = before_last = after_first = None
    for run in range(4000):
        block = tag("ann", str(run))
        appended = keys(appended or last, None, 1, block)[0]
        prepended = keys(None, prepended or first, 1, block)[0]
        before_last = keys(before_last or first, last, 1, block)[0]
        after_first = keys(first, after_first or last, 1, block)[0]
    assert len(appended) <= 16
    assert len(prepended) <= 16
    assert len(before_last) <= 18
    assert len(after_first) <= 18


def test_growth_after_a_foreign_key_is_bounded_too() -> None:
    key = "zzz! foreign"
    for run in range(2000):
        key = keys(key, "zzzz", 1, tag("ann", str(run)))[0]
    assert len(key) <= len("zzz! foreign") + 18


def test_a_new_parent_gets_short_keys() -> None:
    assert keys(None, None, 3, None) == ["a0", "a1", "a2"]
    assert max(map(len, keys(None, None, 3900, None))) == 3


def test_tags_tell_authors_and_runs_apart() -> None:
    assert tag("ann", "1") != tag("bob", "1")
    assert tag("ann", "1") != tag("ann", "2")
    assert tag("ann", "1") == tag("ann", "1")
    assert tag("ann") != tag("ann")

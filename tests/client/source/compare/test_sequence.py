"""Common and increasing subsequences, and the likeness of lists."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from kerai_client.source.compare.part import Part
from kerai_client.source.compare.sequence import common, increasing
from kerai_client.source.compare.similar import pair_up

items = st.lists(st.integers(0, 5), max_size=12)


@given(items, items)
def test_common_pairs_are_equal_and_ascend_and_none_is_left_out_in_plain_cases(
    old: list[int], new: list[int]
) -> None:
    pairs = common(old, new)
    assert all(old[a] == new[b] for a, b in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
    assert len(pairs) >= (len(old) if old == new else bool(set(old) & set(new)))


def test_long_lists_of_few_values_take_the_greedy_way() -> None:
    old, new = [1, 2] * 4000, [2, 1, 3] * 4000
    pairs = common(old, new)
    assert all(old[a] == new[b] for a, b in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
    assert len(pairs) > 2000


@given(st.lists(st.integers(0, 20), max_size=9))
def test_increasing_is_a_longest_one(values: list[int]) -> None:
    found = increasing(values)
    assert all(a < b and values[a] < values[b] for a, b in pairwise(found))
    longest = max(
        size
        for size in range(len(values) + 1)
        if size == 0 or any(all(a < b for a, b in pairwise(some)) for some in combinations(values, size))
    )
    assert len(found) == longest


def test_long_runs_are_paired_in_order() -> None:
    def leaves(count: int) -> list[Part]:
        return [Part("line", text := f"{n}\n", 0, len(text), content=text) for n in range(count)]

    assert len(pair_up(leaves(80), leaves(60))) == 60

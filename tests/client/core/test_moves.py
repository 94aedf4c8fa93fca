"""The replay of moves, as PL/Python calls it, without a server."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerai import moves as judging
from kerai.pace import PACE

GRAPHS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25)


@given(GRAPHS)
def test_the_nodes_on_cycles_are_those_that_reach_themselves(edges: list[tuple[int, int]]) -> None:
    reached = set(edges)
    for middle in range(10):
        reached |= {(a, d) for a, b in reached if b == middle for c, d in reached if c == middle}
    graph: dict[str, list[str]] = {}
    for a, b in edges:
        graph.setdefault(str(a), []).append(str(b))
    found = judging.cyclic_nodes(graph, graph)
    assert sorted(found) == sorted(str(node) for node in range(10) if (node, node) in reached)


def test_a_cycle_longer_than_any_stack() -> None:
    ring = [str(n) for n in range(50_000)]
    graph = {node: [after] for node, after in zip([*ring, "x"], [*ring[1:], ring[0], "0"], strict=True)}
    assert sorted(judging.cyclic_nodes(graph, ["x"])) == sorted(ring)
    assert judging.cyclic_nodes({**graph, ring[-1]: []}, ring) == []


def test_a_move_onto_itself_or_below_itself_is_void() -> None:
    tree = ["a", "b", "c"], [None, "a", "b"]
    assert judging.void_moves(*tree, ["a", "a", "a", "c"], ["a", "b", "c", None]) == [True, True, True, False]


def test_three_moves_in_a_ring_leave_the_last_void() -> None:
    nodes = ["a", "b", "c"]
    assert judging.void_moves(nodes, [None] * 3, nodes, ["b", "c", "a"]) == [False, False, True]


def test_a_void_move_is_as_if_it_had_not_been() -> None:
    moves = [("a", "b"), ("b", None), ("a", "b"), ("b", "a")]
    nodes, parents = [node for node, _ in moves], [parent for _, parent in moves]
    assert judging.void_moves(["a", "b"], [None, "a"], nodes, parents) == [True, False, False, True]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 6)), max_size=30))
def test_no_sequence_of_moves_makes_a_cycle(moves: list[tuple[int, int]]) -> None:
    nodes = [str(node) for node, _ in moves]
    parents = [None if parent < 0 else str(parent) for _, parent in moves]
    parent_of: dict[str, str | None] = {str(n): str(n - 1) if n else None for n in range(7)}
    voids = judging.void_moves(list(parent_of), list(parent_of.values()), nodes, parents)
    for node, parent, void in zip(nodes, parents, voids, strict=True):
        below, steps = parent, 0
        while below not in (None, node):
            below, steps = parent_of[below], steps + 1
            assert steps < 8
        assert void == (below is not None)
        if not void:
            parent_of[node] = parent


def test_a_tree_that_is_none_ends_in_an_error() -> None:
    with pytest.raises(ValueError, match="cycle"):
        judging.void_moves(["a", "b", "c"], ["b", "a", None], ["c"], ["a"])


@given(
    st.lists(st.integers(0, 7), min_size=7, max_size=7),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20),
)
def test_a_move_is_void_in_a_ring_too_when_it_would_put_a_node_below_itself(
    tree: list[int], moves: list[tuple[int, int]]
) -> None:
    """0 is the top. The others may lie below each other in any way."""
    parent_of = dict(enumerate(tree, start=1))
    moves = [(node, parent) for node, parent in moves if node]
    voids = judging.void_moves(
        list(parent_of),
        [parent or None for parent in tree],
        [node for node, _ in moves],
        [parent or None for _, parent in moves],
        rings=True,
    )
    for (node, parent), void in zip(moves, voids, strict=True):
        above = {parent}
        for _ in tree:
            above |= {parent_of[each] for each in above if each}
        assert void == (node in above)
        if not void:
            parent_of[node] = parent


@pytest.mark.parametrize("rings", [False, True])
def test_moves_are_judged_alike_in_one_block_and_in_many(rings: bool) -> None:
    """Against the way up, walked for each move."""
    chance = Random(f"{rings}")
    for _ in range(5):
        nodes = list(range(300))
        above: dict[int, int | None] = {
            node: chance.choice([node - 1, node // 2]) if node else None for node in nodes
        }
        if rings:
            above |= {node: chance.choice(nodes) for node in chance.sample(nodes, 6)}
        moves = [(chance.choice(nodes), chance.choice([*nodes, None])) for _ in range(1500)]
        given_moves = [node for node, _ in moves], [parent for _, parent in moves]
        voids = judging.void_moves(nodes, list(above.values()), *given_moves, rings=rings)
        for (node, parent), void in zip(moves, voids, strict=True):
            passed: set[int] = set()
            end = parent
            while end is not None and end != node and end not in passed:
                passed.add(end)
                end = above[end]
            assert void == (end == node)
            if not void:
                above[node] = parent


class Stopwatch:
    """A pause that notes how much processor time went by since the one before."""

    def __init__(self) -> None:
        self.last = time.process_time()
        self.longest = 0.0

    def __call__(self) -> None:
        now = time.process_time()
        self.longest = max(self.longest, now - self.last)
        self.last = now


def test_moves_in_a_deep_tree_are_many_short_steps() -> None:
    """50,000 moves to below the deepest of 50,000 nodes took 51 seconds, and nothing could end them."""
    count, chance, watch = 50_000, Random(1), Stopwatch()
    nodes = list(range(count))
    moved = [chance.randrange(count - 1) for _ in nodes]
    began = time.process_time()
    voids = judging.void_moves(nodes, [None, *nodes[:-1]], moved, [count - 1] * count, pause=watch)
    watch()
    assert all(voids)
    assert watch.longest < 0.5
    assert time.process_time() - began < 10


def test_what_a_pause_raises_ends_the_work() -> None:
    def cancel() -> None:
        raise InterruptedError

    nodes = list(range(PACE * 2))
    with pytest.raises(InterruptedError):
        judging.void_moves(nodes, [None] * len(nodes), nodes, [None] * len(nodes), pause=cancel)
    with pytest.raises(InterruptedError):
        judging.cyclic_nodes({node: [node - 1] for node in nodes}, nodes[-1:], cancel)
    with pytest.raises(InterruptedError):
        judging.NumberedNodes(cancel).numbers(bytes(16 * len(nodes)))

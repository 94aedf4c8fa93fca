"""What PL/Python calls, without a server: the instance's key, the sealing of drafts, the replay of moves."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kerai import changeset, server


def test_an_instance_key_is_a_private_file(tmp_path: Path) -> None:
    public_key = server.create_instance_key(str(tmp_path), "1")
    (file,) = (tmp_path / "kerai").iterdir()
    assert file.name == changeset.author_id("", public_key).removeprefix(".") + ".key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert public_key not in file.read_bytes()


def test_two_databases_of_a_server_have_two_keys(tmp_path: Path) -> None:
    keys = {server.create_instance_key(str(tmp_path), str(n)) for n in range(3)}
    assert len(keys) == len(list((tmp_path / "kerai").iterdir())) == 3


def test_a_key_that_was_made_in_vain_is_found_again(tmp_path: Path) -> None:
    other = server.create_instance_key(str(tmp_path), "1")
    made = server.create_instance_key(str(tmp_path), "11")
    # What a crash has left, and files of others.
    (tmp_path / "kerai" / "half.key").write_text("ab")
    (tmp_path / "kerai" / "copy.key").write_text("00" * 32 + "\n11\n")
    (tmp_path / "kerai" / "bytes.key").write_bytes(bytes(range(256)))
    assert server.create_instance_key(str(tmp_path), "11") == made != other
    assert server.create_instance_key(str(tmp_path), "1") == other
    signature = server.sign_as_instance("text", str(tmp_path), made)
    assert changeset.verify("text", signature, made)


def test_an_instance_signs_what_it_verifies(tmp_path: Path) -> None:
    public_key = server.create_instance_key(str(tmp_path), "1")
    signature = server.sign_as_instance("é", str(tmp_path), public_key)
    assert signature is not None
    assert changeset.verify("é", signature, public_key)


def test_without_the_file_there_is_no_signature(tmp_path: Path) -> None:
    assert server.sign_as_instance("text", str(tmp_path), bytes(32)) is None


def test_a_file_with_another_key_is_not_used(tmp_path: Path) -> None:
    first, second = (server.create_instance_key(str(tmp_path), str(n)) for n in range(2))
    names = [changeset.author_id("", key).removeprefix(".") + ".key" for key in (first, second)]
    (tmp_path / "kerai" / names[0]).rename(tmp_path / "kerai" / names[1])
    with pytest.raises(ValueError, match=r"does not hold the key that it is named after"):
        server.sign_as_instance("text", str(tmp_path), second)


def drafts(*texts: tuple[str, int, int]) -> list[tuple[int, str, int, int, str, bytes, bytes]]:
    """Return drafts of (lane, highest clock seen, operations), as the server hands them over."""
    member = SigningKey(bytes(32))
    made = []
    for place, (lane, seen, count) in enumerate(texts, start=7):
        text = changeset.draft("ann.0", "s", [{"op": str(n)} for n in range(count)], message=f"{place}")
        made.append((place, lane, seen, count, text, bytes(member.verify_key), changeset.sign(text, member)))
    return made


def test_sealed_drafts_follow_on_each_other_lane_by_lane(tmp_path: Path) -> None:
    key = server.create_instance_key(str(tmp_path), "1")
    heads = {"a": (4, 9, b"\1" * 32), "b": (0, 0, None)}
    given_drafts = drafts(("a", 0, 2), ("b", 3, 1), ("a", 20, 3), ("a", 7, 1), ("b", 0, 1))
    sealed = server.seal_drafts(heads, key, str(tmp_path), given_drafts)
    assert [(place, seq, lamport) for place, _, _, seq, lamport, _, _ in sealed] == [
        (7, 5, 10),
        (8, 1, 4),
        (9, 7, 21),
        (10, 10, 24),
        (11, 2, 5),
    ]
    ids = [name for _, _, name, *_ in sealed]
    assert [prev for *_, prev, _ in sealed] == [b"\1" * 32, None, ids[0], ids[2], ids[1]]
    for (_, lane, _, _, text, member_key, _), envelope in zip(given_drafts, sealed, strict=True):
        _, document, name, seq, lamport, prev, signature = envelope
        assert name.hex() == changeset.changeset_id(document)
        assert changeset.verify(document, signature, key)
        whole = json.loads(document)
        assert whole["draft"] == json.loads(text)
        assert text in document
        assert changeset.verify(text, bytes.fromhex(whole["member_signature"]), member_key)
        assert (whole["author"], whole["seq"], whole["lamport"]) == (lane, seq, lamport)
        assert whole["prev"] == (prev.hex() if prev else None)
    assert heads == {"a": (4, 9, b"\1" * 32), "b": (0, 0, None)}


def test_without_the_file_no_draft_is_sealed(tmp_path: Path) -> None:
    assert server.seal_drafts({"a": (0, 0, None)}, bytes(32), str(tmp_path), drafts(("a", 0, 1))) == []


GRAPHS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25)


@given(GRAPHS)
def test_the_nodes_on_cycles_are_those_that_reach_themselves(edges: list[tuple[int, int]]) -> None:
    reached = set(edges)
    for middle in range(10):
        reached |= {(a, d) for a, b in reached if b == middle for c, d in reached if c == middle}
    graph: dict[str, list[str]] = {}
    for a, b in edges:
        graph.setdefault(str(a), []).append(str(b))
    found = server.cyclic_nodes(graph, graph)
    assert sorted(found) == sorted(str(node) for node in range(10) if (node, node) in reached)


def test_a_cycle_longer_than_any_stack() -> None:
    ring = [str(n) for n in range(50_000)]
    graph = {node: [after] for node, after in zip([*ring, "x"], [*ring[1:], ring[0], "0"], strict=True)}
    assert sorted(server.cyclic_nodes(graph, ["x"])) == sorted(ring)
    assert server.cyclic_nodes({**graph, ring[-1]: []}, ring) == []


def test_a_move_onto_itself_or_below_itself_is_void() -> None:
    tree = ["a", "b", "c"], [None, "a", "b"]
    assert server.void_moves(*tree, ["a", "a", "a", "c"], ["a", "b", "c", None]) == [True, True, True, False]


def test_three_moves_in_a_ring_leave_the_last_void() -> None:
    nodes = ["a", "b", "c"]
    assert server.void_moves(nodes, [None] * 3, nodes, ["b", "c", "a"]) == [False, False, True]


def test_a_void_move_is_as_if_it_had_not_been() -> None:
    moves = [("a", "b"), ("b", None), ("a", "b"), ("b", "a")]
    nodes, parents = [node for node, _ in moves], [parent for _, parent in moves]
    assert server.void_moves(["a", "b"], [None, "a"], nodes, parents) == [True, False, False, True]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 6)), max_size=30))
def test_no_sequence_of_moves_makes_a_cycle(moves: list[tuple[int, int]]) -> None:
    nodes = [str(node) for node, _ in moves]
    parents = [None if parent < 0 else str(parent) for _, parent in moves]
    parent_of: dict[str, str | None] = {str(n): str(n - 1) if n else None for n in range(7)}
    voids = server.void_moves(list(parent_of), list(parent_of.values()), nodes, parents)
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
        server.void_moves(["a", "b", "c"], ["b", "a", None], ["c"], ["a"])


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
    voids = server.void_moves(
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
        voids = server.void_moves(nodes, list(above.values()), *given_moves, rings=rings)
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
    voids = server.void_moves(nodes, [None, *nodes[:-1]], moved, [count - 1] * count, pause=watch)
    watch()
    assert all(voids)
    assert watch.longest < 0.5
    assert time.process_time() - began < 10


def test_what_a_pause_raises_ends_the_work() -> None:
    def cancel() -> None:
        raise InterruptedError

    nodes = list(range(server.PACE * 2))
    with pytest.raises(InterruptedError):
        server.void_moves(nodes, [None] * len(nodes), nodes, [None] * len(nodes), pause=cancel)
    with pytest.raises(InterruptedError):
        server.cyclic_nodes({node: [node - 1] for node in nodes}, nodes[-1:], cancel)
    with pytest.raises(InterruptedError):
        server.Standing(cancel).numbers(bytes(16 * len(nodes)))
    with pytest.raises(InterruptedError):
        server.verify_all(["x" * server.PACE_BYTES] * 3, [None] * 3, [None] * 3, cancel)


def test_signatures_are_verified_one_by_one() -> None:
    key = SigningKey(bytes(32))
    signature, public_key = changeset.sign("text", key), bytes(key.verify_key)
    given_texts = ["text", "other", None, "text"]
    given_signatures = [signature, signature, signature, None]
    assert server.verify_all(given_texts, given_signatures, [public_key] * 4) == [True, False, False, False]

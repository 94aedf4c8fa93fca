"""Which moves are void, because they would make a cycle: what PL/Python calls, without ``plpy``.

For ``pause`` see :mod:`kerai.pace`.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from kerai.pace import PACE, Pause, in_parts, no_pause

NOWHERE = -1  # what is above a root
HERE = -2
UNKNOWN = -3  # which moved node is above

Node = TypeVar("Node", bound=Hashable)

Moves = tuple[str, bytes, bytes, str]

MOST_UNPACKED = 1_000  # ids at once: their memory is used again


class NumberedNodes:
    """Nodes with small numbers, since a list is faster than a dictionary of ids, and what is above each."""

    def __init__(self, pause: Pause = no_pause) -> None:
        """Begin with nothing."""
        self.pause = pause
        self.number: defaultdict[bytes, int] = defaultdict(itertools.count().__next__)
        self.ids: list[bytes] = []
        self.parents: list[int] = []  # of roots their own number; NOWHERE until it is looked up

    def numbers(self, ids: bytes) -> list[int]:
        """Return the numbers of nodes, new ones of those that have none.

        :param ids: 16 bytes each, one after the other.
        """
        found: list[int] = []
        for start in range(0, len(ids), 16 * MOST_UNPACKED):
            if start % (16 * PACE) == 16 * (PACE - MOST_UNPACKED):
                self.pause()
            part = ids[start : start + 16 * MOST_UNPACKED]
            found += map(self.number.__getitem__, struct.unpack("16s" * (len(part) // 16), part))
        if more := len(self.number) - len(self.ids):
            self.ids += reversed(list(itertools.islice(reversed(self.number), more)))
            self.parents += itertools.repeat(NOWHERE, more)
        return found

    def numbered(self, moves: Moves) -> tuple[str, list[int], list[int], str]:
        """Return moves with numbers in place of ids."""
        stamps, nodes, parents, flags = moves
        return stamps, self.numbers(nodes), self.numbers(parents), flags

    def name(self, nodes: Iterable[int]) -> str:
        """Return the ids of nodes in hex, with commas between them."""
        return b"".join(map(self.ids.__getitem__, nodes)).hex(",", 16)


def decide_moves(
    nodes: bytes,
    parents: bytes,
    flags: str,
    *,
    look_up: Callable[[str, bool], tuple[bytes, bytes, bytes, bytes, bytes, bytes, str]],
    moves_of: Callable[[str], Moves],
    tail: Callable[[int], Moves | None],
    pause: Pause = no_pause,
) -> list[str]:
    """Say which moves of the tail become void, or are void no longer, now that some of them are new.

    The tail is all moves from the earliest new one on. Take the graph of the edges before the tail and of all
    its moves: a move can be void only when it lies on a cycle there. So only strongly connected components
    are replayed, in order. Earlier decisions stay, except in components that a new edge makes, and in those
    with a void move that lose a node's edge to a new one. So the search goes upwards from the new moves and
    from the void ones, and of the rest of the tail it looks at no more than it meets.

    Nodes come as the 16 bytes of each one's id, one after the other, and are asked for in hex, with commas
    between them. Moves come as nodes, the parents that they ask for, and a flag each. The flag is ``r`` when
    the move makes a root, whose parent is then its own id, and ``v`` when it was judged to be void before.

    :param nodes: of the new moves, and of the tail's void ones, each with its parent and flag.
    :param look_up: gives the existing ones of these nodes, perhaps some above them, and the parent of each.
        Then those that stand where the tail has put them, and the parent of each before the tail. When asked
        for, it gives all moves of the tail of these too.
    :param moves_of: gives the tail's moves of these nodes in the order of their stamps: the stamps, one a
        line, and the moves.
    :param tail: gives all moves of the tail like that, or None when they are more than this.
    :param pause: see :mod:`kerai.pace`.
    :returns: the stamps of the moves that are judged otherwise.
    """
    known = NumberedNodes(pause)
    stamps, moved, targets, kinds = known.numbered(("", nodes, parents, flags))
    fresh = [node for node, kind in zip(moved, kinds, strict=True) if kind != "v"]

    # Where nodes are moved again and again the tail is read as it lies, unless it is long.
    whole = tail(16 * len(moved)) if 4 * len(set(moved)) < 3 * len(moved) else None
    if whole is not None:
        stamps, moved, targets, kinds = known.numbered(whole)
    base, met = known.parents, bytearray()
    frontier = [target for target, kind in zip(targets, kinds, strict=True) if kind != "r"]
    while unknown := _climb(frontier, base, met, pause):
        rows = look_up(known.name(unknown), whole is None)
        found, ends, displaced, origins, others, aims = map(known.numbers, rows[:6])
        for node in unknown:
            base[node] = node  # what is not here has nothing above it
        for nodes_now, parents_now in ((found, ends), (displaced, origins)):
            for node, parent in zip(nodes_now, parents_now, strict=True):
                base[node] = parent
        frontier = [base[node] for node in unknown] + aims
        moved += others
        targets += aims
        kinds += rows[6]

    # A node that the tail leaves alone has one edge, to its parent. It is only a part of the way to the next
    # node that is moved, which stands for it. A node that nothing leads to is on no cycle.
    on_way = list(map(met.__getitem__, moved))
    if "r" in kinds:
        on_way = [flag and kind != "r" for flag, kind in zip(on_way, kinds, strict=True)]
    starts, ends = list(itertools.compress(moved, on_way)), list(itertools.compress(targets, on_way))
    moving = {node for node in moved if met[node]}
    upper = _stand_ins(moving, [*ends, *map(base.__getitem__, moving)], base, pause)
    parent_of = {node: NOWHERE if base[node] == node else upper[base[node]] for node in moving}
    graph = {node: [] if parent == NOWHERE else [parent] for node, parent in parent_of.items()}
    _add_edges(graph, starts, map(upper.__getitem__, ends), pause)

    reached = set(itertools.chain.from_iterable(graph.values()))
    cyclic = set(cyclic_nodes(graph, [node for node in fresh if node in reached], pause))
    if not cyclic:
        return []
    if whole is None:
        # And where most of what moved lies on cycles.
        most = tail(2 * len(moved)) if 2 * len(cyclic) > len(set(moved)) else None
        stamps, moved, targets, kinds = known.numbered(most or moves_of(known.name(cyclic)))
    above = [NOWHERE] * len(base)
    for node in cyclic:
        above[node] = parent_of[node]
    if _in_ring(above, cyclic, pause) != NOWHERE:
        raise ValueError("the tree has a cycle above the moved nodes")

    chosen = [node in cyclic for node in moved]
    before = list(itertools.compress(kinds, chosen))
    aims = [
        NOWHERE if kind == "r" else upper[target]
        for target, kind in zip(itertools.compress(targets, chosen), before, strict=True)
    ]
    voids = _replay(above, list(itertools.compress(moved, chosen)), aims, rings=False, pause=pause)
    turned = [void != (kind == "v") for void, kind in zip(voids, before, strict=True)]
    return list(itertools.compress(itertools.compress(stamps.split("\n"), chosen), turned))


def _climb(starts: Iterable[int], base: Sequence[int], met: bytearray, pause: Pause) -> list[int]:
    """Mark some nodes, and those above them as far as these are known, as met; return those that are not."""
    met += bytes(len(base) - len(met))
    unknown = []
    for part in in_parts(starts, pause):
        for start in part:
            node = start
            while not met[node]:
                met[node] = True
                if (above := base[node]) == NOWHERE:
                    unknown.append(node)
                    break
                node = above
    return unknown


def _stand_ins(
    moving: Iterable[int], starts: Iterable[int], base: Sequence[int], pause: Pause = no_pause
) -> list[int]:
    """Say of nodes, and of those above them, which moved one is the next upwards, itself or above it.

    What is above a root is the root itself, or nowhere. In a ring without a moved node there is none.
    """
    upper = [UNKNOWN] * len(base)
    for node in moving:
        upper[node] = node
    for part in in_parts(starts, pause):
        for start in part:
            node, passed = start, []
            while node != NOWHERE and upper[node] == UNKNOWN:
                upper[node] = NOWHERE  # until it is known: a way that comes back here leads nowhere
                passed.append(node)
                node = base[node]
            if node != NOWHERE and (found := upper[node]) != NOWHERE:
                for each in passed:
                    upper[each] = found
    return upper


def _add_edges(
    graph: Mapping[int, list[int]], starts: Iterable[int], ends: Iterable[int], pause: Pause
) -> None:
    for part in in_parts(zip(starts, ends, strict=True), pause):
        for start, end in part:
            if end != NOWHERE:
                graph[start].append(end)


def cyclic_nodes(
    graph: Mapping[Node, Sequence[Node]], starts: Iterable[Node], pause: Pause = no_pause
) -> list[Node]:
    """Say which of the nodes that can be reached from some lie on a cycle of a directed graph.

    Tarjan, "Depth-first search and linear graph algorithms" (SIAM J. Comput. 1972), without recursion: the
    members of strongly connected components of more than one node, and the nodes with an edge to themselves.

    :param graph: of each node, where its edges end; one that only ends edges need not be in it.
    :param starts: where to start.
    :param pause: see :mod:`kerai.pace`.
    """
    order: dict[Node, int] = {}  # of what is in a component already: later than all others
    low: dict[Node, int] = {}
    open_nodes: list[Node] = []
    cyclic: list[Node] = []
    for start in starts:
        if start in order:
            continue
        order[start] = low[start] = len(order)
        open_nodes.append(start)
        path = [(start, iter(graph.get(start, ())))]
        while path:
            node, rest = path[-1]
            lowest = low[node]
            for end in rest:
                if (seen := order.get(end)) is None:
                    low[node] = lowest
                    if not len(order) % PACE:
                        pause()
                    order[end] = low[end] = len(order)
                    open_nodes.append(end)
                    path.append((end, iter(graph.get(end, ()))))
                    break
                if seen < lowest:  # noqa: PLR1730 - min() would take longer than all the rest
                    lowest = seen
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], lowest)
                if lowest == order[node]:
                    component = [open_nodes.pop()]
                    while component[-1] != node:
                        component.append(open_nodes.pop())
                    order.update(dict.fromkeys(component, sys.maxsize))
                    if len(component) > 1 or node in graph.get(node, ()):
                        cyclic += component
    return cyclic


def void_moves(
    base_children: Sequence[Node],
    base_parents: Sequence[Node | None],
    nodes: Sequence[Node],
    parents: Sequence[Node | None],
    *,
    rings: bool = False,
    pause: Pause = no_pause,
) -> list[bool]:
    """Say which moves of a sequence are void: those that would put a node below itself.

    This is the ``do`` of Kleppmann, Mulligan, Gomes and Beresford, "A highly-available move operation for
    replicated trees" (IEEE TPDS 2022). It runs over the part of the tree in which cycles are possible. A void
    move leaves the tree as it is, so later ones are judged without it.

    As of a vector that is not causally closed the base need be no forest. A node may be inserted more than
    once, and the vector may name the later insert alone. That insert may lie below a node that others have
    meanwhile inserted below it. Nothing in such a ring hangs from the top. A move is void all the same when
    it would put a node below itself, once round the ring. The first node that is moved out of the ring opens
    it. No move makes a ring.

    :param base_children: nodes of the tree before the first move: at least all that can lie on a
        cycle of its edges and those of the moves.
    :param base_parents: the parent of each, None at a root.
    :param nodes: the nodes moved, in the order of the moves' stamps.
    :param parents: the new parent of each, None for a root.
    :param rings: whether the base may be no forest.
    :param pause: see :mod:`kerai.pace`.
    :returns: one flag a move.
    :raises ValueError: when it must be one and is not.
    """
    # Small numbers in place of ids: the way up is walked a dozen times a move. What is no node here ends it.
    number = {node: i for i, node in enumerate(dict.fromkeys([*base_children, *nodes]))}
    above = [NOWHERE] * len(number)
    for child, parent in zip(base_children, base_parents, strict=True):
        above[number[child]] = number.get(parent, NOWHERE) if parent is not None else NOWHERE
    in_ring = _in_ring(above, range(len(above)), pause)
    if in_ring != NOWHERE and not rings:
        raise ValueError(f"the tree has a cycle above node {list(number)[in_ring]!r}")
    targets = [number.get(parent, NOWHERE) if parent is not None else NOWHERE for parent in parents]
    return _replay(above, [number[node] for node in nodes], targets, rings=in_ring != NOWHERE, pause=pause)


def _replay(
    above: list[int], nodes: Sequence[int], targets: Sequence[int], *, rings: bool, pause: Pause
) -> list[bool]:
    """Say which moves are void, and put the nodes in ``above`` where the others leave them.

    A way up is as long as the tree is deep. So moves are taken in blocks: in a block only its own moved nodes
    change their parents, and what lies between them is skipped. A block costs a step a node at most, and a
    move in it a step a move of the block at most. Blocks have about the square root of the number of nodes.
    So m moves among n nodes take some m times the square root of n steps, however deep the tree.
    """
    flags: list[bool] = []
    size = int(3 * len(above) ** 0.5) + 100
    for start in range(0, len(nodes), size):
        pause()
        flags += _replay_block(above, nodes[start : start + size], targets[start : start + size], rings=rings)
    return flags


def _replay_block(
    above: list[int], nodes: Sequence[int], targets: Sequence[int], *, rings: bool
) -> list[bool]:
    moving = set(nodes)
    near = _stand_ins(moving, [*targets, *(above[node] for node in moving)], above)
    near += [HERE, NOWHERE]  # each is above itself: -2 and -1 are the last places of a list
    aims = [near[target] for target in targets]
    for node, end in [(node, near[above[node]]) for node in moving]:
        near[node] = end

    flags = []
    for moved, target, aim in zip(nodes, targets, aims, strict=True):
        home, near[moved] = near[moved], HERE  # so that the way up ends at the moved node too
        ancestor = aim
        if rings:
            passed: set[int] = set()
            while ancestor >= 0 and ancestor not in passed:
                passed.add(ancestor)
                ancestor = near[ancestor]
        else:
            while ancestor >= 0:  # tested at every fourth step
                ancestor = near[near[near[near[ancestor]]]]
        void = ancestor == HERE
        near[moved] = home if void else aim
        if not void:
            above[moved] = target
        flags.append(void)
    return flags


def _in_ring(above: Sequence[int], starts: Iterable[int], pause: Pause) -> int:
    """Return a node that is above itself, at or above one of some; NOWHERE when none is."""
    seen_from: dict[int, int] = {}
    for part in in_parts(starts, pause):
        for start in part:
            node = start
            while node != NOWHERE and node not in seen_from:
                seen_from[node] = start
                node = above[node]
            if node != NOWHERE and seen_from[node] == start:
                return node
    return NOWHERE

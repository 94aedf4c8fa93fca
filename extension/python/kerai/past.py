"""Which moves are void as of a version vector that need not be causally closed."""

from __future__ import annotations

from collections.abc import Sequence

from kerai import server
from kerai.server import Node


def void_moves(
    base_children: Sequence[Node],
    base_parents: Sequence[Node | None],
    nodes: Sequence[Node],
    parents: Sequence[Node | None],
) -> list[bool]:
    """Say the same as :func:`kerai.server.void_moves`, also where the base is no forest.

    A node may be inserted more than once, and a vector may name the later insert alone, below what others
    have meanwhile inserted below the node: then these inserts make a ring. Nothing in it hangs from the top.
    A move is void all the same when it would put a node below itself, once round the ring; the first of its
    nodes that is moved out of it opens it. No move makes another ring.

    :param base_children: nodes of the tree before the first move: at least all that the moves are judged by.
    :param base_parents: the parent of each, None at a root.
    :param nodes: the nodes moved, in the order of the moves' stamps.
    :param parents: the new parent of each, None for a root.
    :returns: one flag a move.
    """
    try:
        return server.void_moves(base_children, base_parents, nodes, parents)
    except ValueError:
        pass  # A move leads into a ring, which is seldom: only here each step is remembered.
    parent_of = dict(zip(base_children, base_parents, strict=True))
    flags = []
    for node, parent in zip(nodes, parents, strict=True):
        passed: set[Node] = set()
        ancestor = parent
        while ancestor is not None and ancestor != node and ancestor not in passed:
            passed.add(ancestor)
            ancestor = parent_of.get(ancestor)
        void = ancestor == node
        if not void:
            parent_of[node] = parent
        flags.append(void)
    return flags

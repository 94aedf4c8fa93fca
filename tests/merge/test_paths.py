"""Paths have a bound, so that no names break the index on them, for whoever comes after."""

from __future__ import annotations

from random import Random
from string import ascii_letters
from typing import Any
from uuid import UUID

import pytest
from psycopg import Connection
from tests.merge.live import Body, LiveAuthor, insert, logged, move, update
from tests.merge.model import fold
from tests.merge.observe import assert_state, scalar

PAGE = 8192 - 24 - 16  # what is left of a GiST page for its entries
WIDEST = (
    [15] * 19 + [7] * 12 + [199]
)  # of all paths that the bound allows one that ltree stores in most bytes


def chain(chance: Random, lengths: list[int]) -> list[Body]:
    """Return inserts of nested nodes with random names of these lengths."""
    nodes = [str(UUID(int=chance.getrandbits(128))) for _ in lengths]
    names = ["".join(chance.choices(ascii_letters, k=length)) for length in lengths]
    parents = [None, *nodes[:-1]]
    return [insert(node, parent, name=name) for node, parent, name in zip(nodes, parents, names, strict=True)]


def index_bytes(connection: Connection[Any]) -> int:
    return int(scalar(connection, "select pg_relation_size('kerai.nodes_path')"))


def assert_index(connection: Connection[Any]) -> None:
    """Check that the index on paths finds what the table holds, below each of some paths."""
    below = """
        select count(*) from kerai.nodes as n
        where n.name is not null and n.path operator(public.<@) %s::text::kerai_private.path"""
    for row in connection.execute(
        "select path::text from kerai.nodes order by md5(id::text) limit 20"
    ).fetchall():
        counts = []
        for setting in ("enable_seqscan", "enable_bitmapscan"):
            with connection.transaction(force_rollback=True):
                connection.execute(f"set local {setting} = off")
                if setting == "enable_bitmapscan":
                    connection.execute("set local enable_indexscan = off")
                counts.append(scalar(connection, below, [row["path"]]))
        assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("levels", [255, 502])
def test_deep_random_names_harm_nobody(connect: Any, levels: int) -> None:
    """They failed with XX000, or filled the disk, and others' pushes failed after them."""
    connection, chance = connect(), Random(levels)
    for n in range(3):
        assert LiveAuthor(connection, f"deep-{n}").push(*chain(chance, [1] * levels)) == "merged"
    honest = LiveAuthor(connection, "honest")
    for _ in range(20):
        assert honest.push(*chain(chance, [chance.randint(1, 12)] * chance.randint(2, 20))) == "merged"
    assert index_bytes(connection) < 2_000_000
    assert connection.execute("select * from kerai.verify()").fetchall() == []
    assert_index(connection)


def test_an_inner_page_of_the_index_holds_several_paths(connect: Any) -> None:
    """Random paths of the widest form; those of pushes that were undone stay in the index until VACUUM."""
    connection, chance = connect(), Random(5)
    author, rows = LiveAuthor(connection, "wide"), 0
    for n in range(60):
        operations = chain(chance, WIDEST)
        deepest = operations[-2]["node"]
        operations += [{**chain(chance, [199])[0], "parent": deepest} for _ in range(30)]
        rows += len(operations)
        with connection.transaction(force_rollback=n % 2 == 0):
            assert author.push(*operations) == "merged"
    widest = scalar(
        connection, "select max(pg_column_size(n.path::text::kerai_private.path)) from kerai.nodes as n"
    )
    # A tuple's header, the key's, its signature, two paths, and the pointer to it: as in ltree_gist.c.
    assert PAGE // (8 + 8 + 8 + 2 * widest + 4) == 4
    assert index_bytes(connection) < 3_500 * rows
    assert_state(connection, fold(logged(connection)))
    assert_index(connection)


def test_a_path_that_is_full_goes_no_deeper_wherever_it_is_made(connect: Any) -> None:
    """By inserts, renames and moves, and by a rebuild; kerai.tree() shows the same."""
    connection, chance = connect(), Random(7)
    author = LiveAuthor(connection, "ann")
    first, second = chain(chance, [1] * 40), chain(chance, [60] * 10)
    assert author.push(*first, *second) == "merged"
    assert (
        author.push(move(second[0]["node"], first[20]["node"]), update(first[0]["node"], name="n" * 250))
        == "merged"
    )
    state = fold(logged(connection))
    assert_state(connection, state)
    paths = [row["path"] for row in connection.execute("select path::text from kerai.tree()").fetchall()]
    assert sorted(paths) == sorted(state.path(node) for node in state.nodes)
    assert max(path.count(".") for path in paths) == 31 or max(map(len, paths)) > 400
    connection.execute("select kerai.rebuild()")
    assert_state(connection, state)
    assert connection.execute("select * from kerai.verify()").fetchall() == []

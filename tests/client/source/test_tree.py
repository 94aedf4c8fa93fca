"""Reading rows, and operations as the server merges them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from kerai_client.source import (
    FileState,
    SourceError,
    Tree,
    UnsafeTree,
    apply_operations,
    diff,
    new_id,
    snapshot_of,
)
from kerai_client.source.tree import _COLUMNS

A, B, C, D, E = (UUID(int=number) for number in range(1, 6))


def row(node: UUID, parent: UUID | None, kind: str, **fields: Any) -> dict[str, Any]:
    blank = {
        "position": "a",
        "depth": 0,
        "name": None,
        "language": None,
        "content": None,
        "path": None,
        "metadata": {},
    }
    return {"id": node, "parent_id": parent, "kind": kind, **blank, **fields}


def small() -> Tree:
    return Tree.from_rows(
        [
            row(A, None, "directory"),
            row(B, A, "file", name="f.txt"),
            row(C, B, "line", content="one\n", position="a"),
            row(D, B, "line", content="two\n", position="b"),
        ]
    )


def text(tree: Tree) -> str:
    return tree.text(B)


def test_rows_as_mappings_or_sequences_with_ids_and_metadata_in_text() -> None:
    rows = [row(A, None, "directory"), row(B, A, "file", name="f", metadata={"executable": True})]
    sequences = [
        tuple(
            json.dumps(v) if k == "metadata" else str(v) if isinstance(v, UUID) else v for k, v in one.items()
        )
        for one in ({key: r[key] for key in _COLUMNS} for r in rows)
    ]
    for tree in (Tree.from_rows(rows), Tree.from_rows(sequences)):
        assert snapshot_of(tree) == {"f": FileState(b"", executable=True)}
        assert tree.root is not None
        assert tree.root.id == A
        assert tree.path_of(B) == "f"
        assert tree.find("/f/") == tree[B]
        assert tree.find("") == tree[A]
        assert tree.find("g") is None


def test_a_subtree_is_a_tree() -> None:
    tree = Tree.from_rows(
        [row(B, A, "directory", name="src"), row(C, B, "file", name="f"), row(D, C, "line", content="x")]
    )
    assert snapshot_of(tree) == {"src/f": FileState(b"x")}
    assert tree.path_of(D) == "src/f"
    assert [node.id for node in tree.subtree(C)] == [C, D]


def test_insert_update_move_delete_restore() -> None:
    tree = small()
    after = apply_operations(
        tree,
        [
            {
                "op": "node_insert",
                "node": str(E),
                "parent": str(B),
                "position": "a",
                "kind": "line",
                "content": "1b\n",
            },
            {"op": "node_update", "node": str(D), "set": {"content": "2\n"}, "metadata": {"x": 1, "y": None}},
        ],
    )
    assert text(after) == "one\n1b\n2\n"  # of equal positions the later placed comes later
    assert after[D].metadata == {"x": 1}
    assert text(tree) == "one\ntwo\n"
    assert text(
        apply_operations(after, [{"op": "node_move", "node": str(C), "parent": str(B), "position": "b"}])
    ) == ("1b\n2\none\n")
    gone = apply_operations(after, [{"op": "node_delete", "node": str(B)}])
    assert snapshot_of(gone) == {}
    back = apply_operations(
        gone,
        [
            {"op": "node_update", "node": str(C), "set": {"content": "I\n"}},
            {"op": "node_restore", "node": str(B)},
        ],
    )
    assert text(back) == "I\n1b\n2\n"


def test_what_the_merge_ignores_is_ignored() -> None:
    tree = small()
    ops = [
        {
            "op": "node_insert",
            "node": str(C),
            "parent": str(A),
            "position": "z",
            "kind": "file",
            "name": "other",
        },
        {"op": "node_move", "node": str(A), "parent": str(B), "position": "a"},
        {"op": "node_move", "node": str(B), "parent": str(B), "position": "a"},
        {"op": "node_update", "node": str(E), "set": {"content": "?"}},
        {"op": "node_delete", "node": str(E)},
        {"op": "edge_insert", "source": str(A), "target": str(B), "relation": "r"},
        {"op": "perspective_set", "node": str(A), "context": None, "weight": 1, "reasoning": ""},
    ]
    assert snapshot_of(apply_operations(tree, ops)) == snapshot_of(tree)


def test_nodes_below_an_unknown_parent_are_not_visible_and_make_no_circle() -> None:
    tree = apply_operations(
        small(),
        [
            {
                "op": "node_insert",
                "node": str(E),
                "parent": str(new_id()),
                "position": "a",
                "kind": "file",
                "name": "x",
            },
            {"op": "node_insert", "node": str(D), "parent": str(E), "position": "a", "kind": "line"},
        ],
    )
    assert snapshot_of(tree) == snapshot_of(small())
    one, two = new_id(), new_id()
    circle = apply_operations(
        small(),
        [
            {"op": "node_insert", "node": str(one), "parent": str(two), "position": "a", "kind": "x"},
            {"op": "node_insert", "node": str(two), "parent": str(one), "position": "a", "kind": "x"},
            {"op": "node_update", "node": str(one), "set": {"name": "y"}},
        ],
    )
    assert snapshot_of(circle) == snapshot_of(small())


def test_two_files_and_two_directories_of_one_name() -> None:
    tree = Tree.from_rows(
        [
            row(A, None, "directory"),
            row(B, A, "directory", name="src"),
            row(UUID(int=10), B, "file", name="a"),
            row(C, A, "directory", name="src"),
            row(UUID(int=11), C, "file", name="a"),
            row(UUID(int=12), UUID(int=11), "line", content="second"),
            row(UUID(int=13), C, "file", name="b"),
            row(D, A, "file", name="src"),
        ]
    )
    expected = {
        "src/a": FileState(b""),
        "src/a~2": FileState(b"second"),
        "src/b": FileState(b""),
        "src~2": FileState(b""),
    }
    assert snapshot_of(tree) == expected
    assert diff(tree, expected, author="x") == []
    # the second is edited, and the first deleted: the other one stays what it is
    edited = {**expected, "src/a~2": FileState(b"edited")}
    del edited["src/a"]
    after = apply_operations(tree, diff(tree, edited, author="x"))
    assert snapshot_of(after) == edited
    assert after.find("src/a~2") is not None


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/etc", "a\0b", "", None])
def test_names_that_are_no_names_are_refused(name: str | None) -> None:
    tree = Tree.from_rows([row(A, None, "directory"), row(B, A, "file", name=name)])
    with pytest.raises(UnsafeTree) as caught:
        snapshot_of(tree)
    assert "not a name" in caught.value.message
    assert caught.value.hint
    if name:
        with pytest.raises(UnsafeTree):
            snapshot_of(Tree.from_rows([row(A, None, "directory"), row(B, A, "directory", name=name)]))


def test_merged_rewrites_of_a_binary_file_do_not_fail() -> None:
    tree = Tree.from_rows(
        [
            row(A, None, "directory"),
            row(B, A, "file", name="x", metadata={"encoding": "base64"}),
            row(C, B, "base64", content="AA=="),
            row(D, B, "base64", content="//8="),
        ]
    )
    assert snapshot_of(tree) == {"x": FileState(b"AA==//8=")}
    wanted = {"x": FileState(b"\xff\xff")}
    assert snapshot_of(apply_operations(tree, diff(tree, wanted, author="x"))) == wanted


def test_ids_ascend_and_say_version_7() -> None:
    ids = [new_id() for _ in range(5000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 5000
    assert {node.version for node in ids} == {7}
    assert {node.variant for node in ids} == {"specified in RFC 4122"}


def test_a_path_of_an_unknown_node() -> None:
    with pytest.raises(KeyError):
        small().path_of(E)


def test_a_scope_that_is_not_there() -> None:
    with pytest.raises(SourceError, match="not in the tree"):
        diff(small(), {}, author="x", scope=E)

"""Reading rows, and operations as the server merges them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from kerai_client.source import (
    ROOT_ID,
    FileState,
    Snapshot,
    SourceError,
    Tree,
    UnsafeTree,
    apply_operations,
    diff,
    new_id,
    read_directory,
    snapshot_of,
    write_directory,
)
from kerai_client.source.tree.tree import _COLUMNS

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


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("..", "%2E%2E"),
        (".", "%2E"),
        (".git", "%2Egit"),
        (".kerai", "%2Ekerai"),
        ("a/b", "a%2Fb"),
        ("../../evil", "..%2F..%2Fevil"),
        ("/etc", "%2Fetc"),
        ("a\0b", "a%00b"),
        ("é" * 200, f"{'é' * 50}~{B}"),
        ("x" * 255, "x" * 255),
        ("a%2Fb", "a%2Fb"),
        (".gitignore", ".gitignore"),
        ("\x1b[31m\n", "\x1b[31m\n"),
        ("", f"unnamed-{B}"),
        (None, f"unnamed-{B}"),
    ],
)
def test_a_name_that_is_no_name_costs_one_file(name: str | None, entry: str, tmp_path: Path) -> None:
    tree = Tree.from_rows(
        [
            row(A, None, "directory"),
            row(B, A, "file", name=name),
            row(C, B, "line", content="odd\n"),
            row(D, A, "file", name="good"),
        ]
    )
    expected = {entry: FileState(b"odd\n"), "good": FileState(b"")}
    check_round_trip(tree, expected, tmp_path / "file")
    edited = {**expected, entry: FileState(b"even\n"), "new": FileState(b"")}
    ops = diff(tree, edited, author="x")
    assert snapshot_of(apply_operations(tree, ops)) == edited
    assert [op["op"] for op in ops] == ["node_insert", "node_update"]
    assert ops[1]["node"] == str(C)
    below = Tree.from_rows(
        [row(A, None, "directory"), row(B, A, "directory", name=name), row(C, B, "file", name="f")]
    )
    check_round_trip(below, {f"{entry}/f" if name else "f": FileState(b"")}, tmp_path / "directory")


def check_round_trip(tree: Tree, expected: Snapshot, directory: Path) -> None:
    """A tree is written, read again, and compared with itself: nothing is renamed, nothing deleted."""
    assert snapshot_of(tree) == expected
    write_directory(tree, directory)
    found, problems = read_directory(directory)
    assert (found, problems) == (expected, [])
    assert diff(tree, found, author="x") == []


def test_odd_names_that_become_equal_stay_apart(tmp_path: Path) -> None:
    long = "x" * 255
    ids = [UUID(int=number) for number in range(10, 20)]
    names = ["a%2Fb", "a/b", "a/b", "a/b~2", "..", long, long, "d/e", "a/b~4"]
    rows = [row(A, None, "directory"), row(B, A, "directory", name="d/e"), row(C, B, "file", name="f")]
    rows += [row(node, A, "file", name=name) for node, name in zip(ids, names, strict=False)]
    tree = Tree.from_rows(rows)
    expected = ["a%2Fb", "a%2Fb~2", "a%2Fb~4", "%2E%2E", long, "a%2Fb~3", "a%2Fb~5"]
    expected += ["d%2Fe/f", "d%2Fe~2", f"{'x' * 50}~{ids[6]}~2"]
    check_round_trip(tree, dict.fromkeys(sorted(expected), FileState(b"")), tmp_path)
    assert [tree.path_of(ids[at]) for at in (1, 2, 3)] == ["a%2Fb~3", "a%2Fb~5", "a%2Fb~2"]


def row_insert(node: UUID, name: str) -> dict[str, Any]:
    return {
        "op": "node_insert",
        "node": str(node),
        "parent": None,
        "position": "a",
        "kind": "x",
        "name": name,
    }


def test_files_need_not_lie_in_directories(tmp_path: Path) -> None:
    tree = Tree.from_rows(
        [
            row(A, None, "project", name="app"),
            row(B, A, "package", name="core"),
            row(C, B, "file", name="x.py"),
            row(D, C, "line", content="x\n"),
            row(E, B, "note", content="kept"),
        ]
    )
    check_round_trip(tree, {"app/core/x.py": FileState(b"x\n")}, tmp_path)
    edited = {"app/core/y.py": FileState(b"y\n")}
    for scope in (None, B):
        ops = diff(tree, edited, author="x", scope=scope)
        assert snapshot_of(apply_operations(tree, ops)) == edited
    named = apply_operations(tree, [row_insert(ROOT_ID, "root")])
    for before in (tree, named):
        more = {**snapshot_of(before), "top": FileState(b""), "a/b": FileState(b"")}
        assert snapshot_of(apply_operations(before, diff(before, more, author="x"))) == more
    # what is no directory stays when its last file goes
    assert diff(tree, {}, author="x") == [{"op": "node_delete", "node": str(C)}]


def test_thousands_of_files_of_one_name_take_little_time() -> None:
    rows = [row(A, None, "directory")]
    rows += [row(UUID(int=number), A, "file", name="same") for number in range(100, 20_100)]
    began = time.process_time()
    assert "same~20000" in snapshot_of(Tree.from_rows(rows))
    assert time.process_time() - began < 5  # a quarter of a second; counting from 2 each time takes a minute


def test_what_lies_too_deep_is_left_out_and_left_alone(tmp_path: Path) -> None:
    rows = [row(A, None, "directory"), row(B, A, "file", name="good")]
    parent = A
    for number in range(100, 120):
        rows.append(row(UUID(int=number), parent, "directory", name="x" * 200))
        parent = UUID(int=number)
        if number in (100, 119):
            rows.append(row(UUID(int=number + 100), parent, "file", name="f"))
    tree = Tree.from_rows(rows)
    check_round_trip(tree, {"good": FileState(b""), "x" * 200 + "/f": FileState(b"")}, tmp_path)
    assert tree.path_of(UUID(int=219)) == "/".join(["x" * 200] * 9)
    # nor does the directory go that holds it
    assert diff(tree, {"good": FileState(b"")}, author="x") == [
        {"op": "node_delete", "node": str(UUID(int=200))}
    ]
    with pytest.raises(UnsafeTree, match="2000 bytes"):
        diff(tree, {"y/" * 1000 + "y": FileState(b"")}, author="x")


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "..", "../up", "sub/../..", "back/..", "sub/back/f/../g", "", "\0", "y" * 2001]
)
def test_a_link_that_leads_out_is_a_file_that_holds_its_target(target: str, tmp_path: Path) -> None:
    tree = Tree.from_rows(
        [
            row(A, None, "directory"),
            row(B, A, "file", name="link", metadata={"symlink": True, "executable": True}),
            row(C, B, "symlink", content=target),
            row(D, A, "directory", name="sub"),
            row(E, D, "file", name="f"),
            row(UUID(int=10), D, "file", name="back", metadata={"symlink": True, "executable": True}),
            row(UUID(int=11), UUID(int=10), "symlink", content="./g/../../sub"),
            row(UUID(int=12), A, "file", name="back", metadata={"symlink": True}),
            row(UUID(int=13), UUID(int=12), "symlink", content="sub"),
        ]
    )
    expected = {
        "back": FileState(b"sub", symlink=True),
        "link": FileState(target.encode(), executable=True),
        "sub/back": FileState(b"./g/../../sub", symlink=True),
        "sub/f": FileState(b""),
    }
    (tmp_path / "sub/g").mkdir(parents=True)
    check_round_trip(tree, expected, tmp_path)


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

"""What holds for every edit: the operations give exactly the edited directory, from any tree."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.laws import many
from tests.support.samples import SAMPLES

from kerai_client.repo.fitting import fit
from kerai_client.source import (
    ROOT_ID,
    FileState,
    Snapshot,
    Tree,
    apply_operations,
    diff,
    new_id,
    reshaping_late,
    snapshot_of,
)
from kerai_client.source.compare.diff import _Check
from kerai_client.source.tree.layout import settled


def imported(snapshot: Snapshot) -> Tree:
    return apply_operations(Tree(), diff(Tree(), snapshot, author="first"))


START: Snapshot = {
    **{f"src/{name}": FileState(text.encode()) for name, text in SAMPLES.items()},
    "src/empty/__init__.py": FileState(b""),
    "src/deep/er/data.bin": FileState(b"\xff\x00\x01"),
    "tools/run.sh": FileState(b"echo\r\nno newline at end", executable=True),
    "link": FileState(b"src/window.py", symlink=True),
}
TREE = imported(START)
BELOW = imported({f"kept/{path}": state for path, state in START.items()})


@pytest.fixture(autouse=True, scope="module")
def _nothing_mended() -> Iterator[None]:
    """The comparison itself has to be right; its fallback must not be what makes these tests pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Check, "rewritten", _refuse_mending(_Check.rewritten))
        yield


def _refuse_mending(rewritten: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def wrapped(self: _Check, after: Tree) -> list[Any]:
        mending = rewritten(self, after)
        assert not mending, mending
        return mending

    return wrapped


names = st.sampled_from(
    [
        *START,
        "new.py",
        "src/new.go",
        "src/deep/er/other.rs",
        "a/b/c/x.c",
        "tools",
        "link/below.py",
        "src/empty",
    ]
)
snippets = st.sampled_from(
    [
        "x = 1\n",
        "    return (\n",
        "def g():\n    pass\n\n",
        "}\n",
        "{",
        "/*",
        '"""',
        "# note\n",
        "\n\n",
        "\r\n",
        "\x0c",
        "é\u2028ü\n",
        "if (a) {\n  b();\n}\n",
        "\ufeff",
        "\x00",
        "else:\n",
        "@d\n",
    ]
) | st.text(string.printable, max_size=8)


@st.composite
def edited(draw: st.DrawFn, before: Snapshot) -> Snapshot:  # noqa: PLR0912 - one case an edit
    """A directory after a few edits of the kinds that people and agents make."""
    files = {path: FileState(state.data, state.executable, state.symlink) for path, state in before.items()}
    for _ in range(draw(st.integers(1, 5))):
        if not files:
            break
        path = draw(st.sampled_from(sorted(files)))
        state = files[path]
        rows = state.data.splitlines(keepends=True)
        low, high = sorted(draw(st.tuples(st.integers(0, len(rows)), st.integers(0, len(rows)))))
        match draw(st.integers(0, 12)):
            case 0:
                rows[low:high] = []
            case 1 | 2 | 3:
                rows[low:low] = [draw(snippets).encode("utf-8", "replace")]
            case 4:
                block = rows[low:high]
                del rows[low:high]
                at = draw(st.integers(0, len(rows)))
                rows[at:at] = block
            case 5:
                rows[low:low] = rows[low:high]
            case 6 if rows:
                row = rows[low % len(rows)]
                at = draw(st.integers(0, len(row)))
                rows[low % len(rows)] = row[:at] + draw(snippets).encode("utf-8", "replace") + row[at + 1 :]
            case 7:
                rows = [b"    " + row for row in rows[low:high]]
            case 8:
                other = files[draw(st.sampled_from(sorted(files)))]
                rows[low:low] = other.data.splitlines(keepends=True)[low:high]
                other.data = b"".join(other.data.splitlines(keepends=True)[high:])
            case 9:
                files[path] = FileState(state.data, not state.executable and not state.symlink, state.symlink)
                continue
            case 10:
                del files[path]
                if draw(st.booleans()):
                    files[draw(names)] = state
                continue
            case 11:
                old = path.split("/")[0]
                new = draw(st.sampled_from(["moved", "src/moved", "tools", "src"]))
                files = {
                    (new + name[len(old) :] if name.startswith(old + "/") else name): kept
                    for name, kept in files.items()
                }
                continue
            case 12:
                files[draw(names)] = FileState(state.data, False, draw(st.booleans()) and bool(state.data))
                continue
        data = b"".join(rows)
        symlink = state.symlink and bool(data)
        files[path] = FileState(data, state.executable, symlink)
    directories = {path[:at] for path in files for at, sign in enumerate(path) if sign == "/"}
    return {path: state for path, state in files.items() if path not in directories}


def kept(wanted: Snapshot) -> Snapshot:
    """What a tree keeps of a directory: links that lead out of it become files."""
    return {path: settled(path, state, wanted) for path, state in wanted.items()}


def check(tree: Tree, wanted: Snapshot, **options: Any) -> Tree:
    ops = diff(tree, wanted, author="editor", **options)
    after = apply_operations(tree, ops)
    assert snapshot_of(after) == kept(wanted)
    assert diff(after, wanted, author="editor", **options) == []
    known = {str(node.id) for top in tree.tops() for node in tree.subtree(top.id)}
    for op in ops:
        if op["op"] == "node_insert":
            assert op["parent"] is None or op["parent"] in known
            known.add(op["node"])
        else:
            assert op["node"] in known
            assert op.get("parent", op["node"]) in known
            assert len(op) > 2 or op["op"] in ("node_delete", "node_restore")
    return after


@many(1.5)
@given(edited(START))
def test_operations_give_the_edited_directory(wanted: Snapshot) -> None:
    check(TREE, wanted)


@many(1.5)
@given(edited(START))
def test_the_tree_is_reshaped_late_to_the_same_end(wanted: Snapshot) -> None:
    operations = diff(TREE, wanted, author="second")
    usual, late = (apply_operations(TREE, ops) for ops in (operations, reshaping_late(operations)))
    assert snapshot_of(late) == snapshot_of(usual)
    assert list(late.subtree(ROOT_ID)) == list(usual.subtree(ROOT_ID))


@many(1.5)
@given(edited(START), edited(START))
def test_fitted_edits_hide_nothing_that_others_have_done(theirs: Snapshot, mine: Snapshot) -> None:
    new = apply_operations(TREE, diff(TREE, theirs, author="theirs"))
    fitted = fit(TREE, new, diff(TREE, mine, author="mine"))
    merged = apply_operations(new, fitted.operations)
    after = {node.id for _, node in merged.files()}
    before = {node.id for _, node in TREE.files()}
    for _, node in new.files():
        if node.id not in before or new.state(node.id).data != TREE.state(node.id).data:
            assert node.id in after  # added or changed by others
    for operation in fitted.operations:
        if operation["op"] == "node_insert" and operation["kind"] == "file":
            assert UUID(operation["node"]) in after


@many(1.5)
@given(st.data())
def test_edits_upon_edits(data: st.DataObject) -> None:
    tree = TREE
    for _ in range(3):
        tree = check(tree, data.draw(edited(snapshot_of(tree))))


@many(1.5)
@given(edited(START), edited(START), st.data())
def test_edits_upon_merged_edits(one: Snapshot, other: Snapshot, data: st.DataObject) -> None:
    """Two authors edit the same state; their merge, whatever it holds, is edited again."""
    merged = apply_operations(TREE, diff(TREE, one, author="one"))
    merged = apply_operations(merged, diff(TREE, other, author="other"))
    now = snapshot_of(merged)
    assert diff(merged, now, author="third") == []
    check(merged, data.draw(edited(now)))


@many(1.5)
@given(edited(START), st.booleans())
def test_edits_below_a_directory_leave_the_rest_alone(wanted: Snapshot, there: bool) -> None:
    tree = BELOW if there else imported({"kept/a": FileState(b"a")})
    into = "kept" if there else "new/place"
    after = apply_operations(tree, diff(tree, wanted, author="editor", into=into))
    expected = kept({f"{into}/{path}": state for path, state in wanted.items()})
    if not there:
        expected["kept/a"] = FileState(b"a")
    assert snapshot_of(after) == expected


position = st.sampled_from(["", "a", "a0", "a0", "b", "~", "\x01", "a\x01", "é"])
entries = st.sampled_from(
    [
        "a.py",
        "a.py",
        "b.txt",
        "c.js",
        "a.py~2",
        None,
        "",
        "..",
        ".",
        ".git",
        "a/b",
        "a%2Fb",
        "/",
        "é" * 200,
        "x" * 255,
    ]
)
kinds = st.sampled_from(
    ["function_definition", "line", "expression_statement", "if_statement", "comment", "odd"]
)


@st.composite
def foreign_trees(draw: st.DrawFn) -> Tree:
    """Trees that no client of ours would make: equal and strange positions, content at containers, names
    that no directory can hold, links to anywhere."""
    rows: list[dict[str, Any]] = []

    def add(parent: UUID | None, kind: str, **fields: Any) -> UUID:
        node = new_id()
        blank = {"name": None, "language": None, "content": None, "metadata": {}, "position": draw(position)}
        rows.append({"id": node, "parent_id": parent, "kind": kind, **blank, **fields})
        return node

    directories = [add(None, "directory")]
    for name in draw(st.lists(entries, max_size=3)):
        above = draw(st.none() | st.sampled_from(directories))
        directories.append(add(above, draw(st.sampled_from(["directory", "package"])), name=name))
    for name in draw(st.lists(entries, max_size=4)):
        file = add(
            draw(st.sampled_from(directories)),
            "file",
            name=name,
            language=draw(st.sampled_from([None, "python", "javascript", "x"])),
            metadata=draw(
                st.sampled_from([{}, {}, {"symlink": True}, {"symlink": True, "executable": True}])
            ),
        )
        parents = [file]
        for _ in range(draw(st.integers(0, 8))):
            content = draw(st.none() | snippets.filter(lambda text: "\0" not in text))
            called = draw(st.none() | st.sampled_from(["f", "g"]))
            parents.append(add(draw(st.sampled_from(parents)), draw(kinds), content=content, name=called))
    by_parent: dict[UUID | None, list[dict[str, Any]]] = {}
    for row in rows:
        by_parent.setdefault(row["parent_id"], []).append(row)
    ordered: list[dict[str, Any]] = []
    stack = sorted(by_parent[None], key=lambda row: row["position"], reverse=True)
    while stack:
        row = stack.pop()
        ordered.append(row)
        stack.extend(sorted(by_parent.get(row["id"], []), key=lambda row: row["position"], reverse=True))
    return Tree.from_rows(ordered)


@many(3)
@given(foreign_trees(), st.data())
def test_edits_of_trees_that_others_made(tree: Tree, data: st.DataObject) -> None:
    now = snapshot_of(tree)
    assert diff(tree, now, author="editor") == []
    check(tree, data.draw(edited(now)) if now else dict(START))


@many(1.5)
@given(
    edited(START), st.sampled_from(["src", "src/window.py", "tools", "src/deep", "Window", "clock", "load"])
)
def test_a_scope_confines_operations(wanted: Snapshot, where: str) -> None:
    node = TREE.find(where) or next(n for n in TREE.subtree(TREE.tops()[0].id) if n.name == where)
    ops = diff(TREE, wanted, author="editor", scope=node.id)
    inside = {str(below.id) for below in TREE.subtree(node.id)}
    for op in ops:
        if op["op"] == "node_insert":
            assert op["parent"] in inside
            inside.add(op["node"])
        else:
            assert op["node"] in inside
            assert op.get("parent", op["node"]) in inside
    after = snapshot_of(apply_operations(TREE, ops))
    for path, state in START.items():
        if path != TREE.path_of(node.id) and not path.startswith(TREE.path_of(node.id) + "/"):
            assert after[path] == state

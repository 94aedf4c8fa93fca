"""Reading and writing working trees, also when they are broken or hostile."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.laws import many

from kerai_client.source import (
    FileState,
    Snapshot,
    Tree,
    UnsafeTree,
    apply_operations,
    diff,
    read_directory,
    snapshot_of,
    write_directory,
)
from kerai_client.source.tree.layout import parents


def put(top: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    return top


def reasons(top: Path, **options: Any) -> dict[str, str]:
    return {problem.path: problem.reason for problem in read_directory(top, **options)[1]}


def test_everything_comes_back(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"a.py": b"x\r\n", ".hidden/b": b"\0\xff", "deep/er/c": b"", ".git/config": b"secret", "é/ü": b"1"},
    )
    (tmp_path / "a.py").chmod(0o755)
    (tmp_path / "deep/link").symlink_to("./er/../../a.py")
    (tmp_path / "to_directory").symlink_to("deep")
    counts: list[int] = []
    snapshot, problems = read_directory(tmp_path, progress=counts.append)
    assert problems == []
    assert snapshot == {
        ".hidden/b": FileState(b"\0\xff"),
        "a.py": FileState(b"x\r\n", executable=True),
        "deep/er/c": FileState(b""),
        "deep/link": FileState(b"./er/../../a.py", symlink=True),
        "to_directory": FileState(b"deep", symlink=True),
        "é/ü": FileState(b"1"),
    }
    assert counts == [1, 2, 3, 4, 5, 6]
    tree = apply_operations(Tree(), diff(Tree(), snapshot, author="x"))
    write_directory(tree, tmp_path / "out/copy")
    assert read_directory(tmp_path / "out/copy") == (snapshot, [])


def test_ignore_files(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            ".gitignore": b"*.log\n/build/\n!keep.log\n\\#x\r\n",
            "a.log": b"",
            "keep.log": b"",
            "#x": b"",
            "build/x": b"",
            "sub/build/x": b"",
            "sub/.gitignore": b"!a.log\nlocal\n",
            "sub/a.log": b"",
            "sub/b.log": b"",
            "sub/local/y": b"",
            "local": b"",
            "build/.gitignore": b"!x\n",
        },
    )
    snapshot, problems = read_directory(tmp_path)
    assert problems == []
    assert set(snapshot) == {".gitignore", "keep.log", "sub/build/x", "sub/.gitignore", "sub/a.log", "local"}
    assert "a.log" in read_directory(tmp_path, ignore=False)[0]
    assert "build/x" in read_directory(tmp_path, tracked=["build/x", "a.log"])[0]
    assert "a.log" in read_directory(tmp_path, tracked=["build/x", "a.log"])[0]
    assert set(read_directory(tmp_path, exclude=["sub", "*.log"], ignore=False)[0]) == {
        ".gitignore", "#x", "build/x", "build/.gitignore", "local",
    }  # fmt: skip


def test_a_bad_pattern_is_named_and_the_others_count(tmp_path: Path) -> None:
    put(tmp_path, {".gitignore": b"!\n*.log\n", "a.log": b"", "b": b""})
    snapshot, problems = read_directory(tmp_path)
    assert set(snapshot) == {".gitignore", "b"}
    assert [problem.path for problem in problems] == [".gitignore"]
    assert "'!'" in str(problems[0])


def test_what_cannot_be_read_is_named_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"outside")
    top = put(tmp_path / "top", {"good": b"1", "big": b"x" * 2000, "locked": b"2", "sub/fine": b"3"})
    (top / "absolute").symlink_to(secret)
    (top / "above").symlink_to("../secret")
    (top / "sub/sneaky").symlink_to("../sub/../../secret")
    (top / "dangling").symlink_to("nowhere")
    (top / "loop").symlink_to("loop")
    (top / "outward").symlink_to("sub/back/secret")
    (top / "sub/back").symlink_to("../..")
    (top / "hop").symlink_to("sub")
    (top / "hopping").symlink_to("hop/../good")
    put(top, {".kerai/server/x": b"", "sub/.git": b"gitdir: /elsewhere"})
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(top)
        listener.bind("socket")
    (top / os.fsdecode(b"bad\xff")).write_bytes(b"4")
    (top / os.fsdecode(b"dir\xff")).mkdir()
    (top / os.fsdecode(b"dir\xff") / "x").write_bytes(b"5")
    real_open, real_scan = os.open, os.scandir

    def refusing_open(path: Any, *args: Any, **options: Any) -> int:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *args, **options)

    monkeypatch.setattr(os, "open", refusing_open)  # root may read everything
    put(top, {"closed/x": b""})

    def refusing_scan(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real_scan(path)

    monkeypatch.setattr(os, "scandir", refusing_scan)
    snapshot, problems = read_directory(top, max_file_bytes=1000)
    assert set(snapshot) == {"good", "hop", "sub/fine"}
    assert {problem.path: problem.reason for problem in problems} == {
        "absolute": f"is a symlink to '{secret}', outside of the directory",
        "above": "is a symlink to '../secret', outside of the directory",
        "bad\\xff": "its name is not UTF-8",
        "big": "has 2000 bytes, more than the limit of 1000 bytes",
        "closed": "cannot be read: permission denied",
        "dangling": "is a symlink to 'nowhere', which is not there",
        "dir\\xff": "its name is not UTF-8",
        "hopping": "is a symlink to 'hop/../good', through another one and up again",
        "locked": "cannot be read: permission denied",
        "loop": "is a symlink to 'loop', a loop",
        "outward": "is a symlink to 'sub/back/secret', which leads outside of the directory",
        "pipe": "is a named pipe, not a file",
        "socket": "is a socket, not a file",
        "sub/back": "is a symlink to '../..', outside of the directory",
        "sub/sneaky": "is a symlink to '../sub/../../secret', outside of the directory",
    }
    assert "\n" not in "".join(map(str, problems))


def test_a_path_that_is_too_long_for_a_tree_is_named(tmp_path: Path) -> None:
    put(tmp_path, {"/".join(["x" * 200] * 9) + "/" + name: b"" for name in ("y" * 191, "y" * 192)})
    snapshot, problems = read_directory(tmp_path)
    assert [len(path) for path in snapshot] == [2000]
    assert [problem.reason for problem in problems] == ["its path has more than 2000 bytes"]


def test_links_in_a_circle_are_written_and_stay(tmp_path: Path) -> None:
    start = {"a": FileState(b"b", symlink=True), "b": FileState(b"a", symlink=True), "c": FileState(b"")}
    tree = apply_operations(Tree(), diff(Tree(), start, author="x"))
    write_directory(tree, tmp_path)
    found, problems = read_directory(tmp_path)
    assert (set(found), [problem.path for problem in problems]) == ({"c"}, ["a", "b"])
    assert diff(tree, found, author="x", unread=["a", "b"]) == []


def test_a_fifty_megabyte_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(50 << 20)
    put(tmp_path, {"small": b"1"})
    assert reasons(tmp_path) == {"big": "has 50.0 MiB, more than the limit of 4.0 MiB"}


def test_no_such_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(NotADirectoryError):
            read_directory(tmp_path / name)


def test_writing_changes_only_what_differs(tmp_path: Path) -> None:
    snapshot = {
        "a": FileState(b"1"),
        "b/c": FileState(b"2", executable=True),
        "l": FileState(b"b/../a", symlink=True),
    }
    write_directory(snapshot, tmp_path)
    for path in ("a", "b/c"):
        os.utime(tmp_path / path, ns=(1, 1))
    put(tmp_path, {"mine": b"kept", "b/mine": b"kept"})
    new = {**snapshot, "b/c": FileState(b"2"), "d/e": FileState(b"3"), "a": FileState(b"1")}
    del new["l"]
    write_directory(new, tmp_path, previous=list(snapshot))
    assert read_directory(tmp_path)[0] == {**new, "mine": FileState(b"kept"), "b/mine": FileState(b"kept")}
    assert (tmp_path / "a").stat().st_mtime_ns == 1
    assert (tmp_path / "b/c").stat().st_mtime_ns == 1  # the mode changed, the bytes did not
    write_directory({}, tmp_path, previous=list(new))
    assert read_directory(tmp_path)[0] == {"mine": FileState(b"kept"), "b/mine": FileState(b"kept")}
    assert not (tmp_path / "d").exists()


def test_files_directories_and_links_replace_each_other(tmp_path: Path) -> None:
    steps: list[Snapshot] = [
        {"a": FileState(b"file"), "z": FileState(b"")},
        {"a/b": FileState(b"below"), "z": FileState(b"")},
        {"a": FileState(b"z", symlink=True), "z": FileState(b"")},
        {"a": FileState(b"./z", symlink=True), "z": FileState(b"")},
        {"a": FileState(b"file again", executable=True), "z": FileState(b"")},
    ]
    before: Snapshot = {}
    for step in steps:
        write_directory(step, tmp_path, previous=list(before))
        assert read_directory(tmp_path) == (step, [])
        before = step


@pytest.mark.parametrize(
    "hostile",
    [
        {"../out": FileState(b"x")},
        {"/tmp/out": FileState(b"x")},
        {"a/../../out": FileState(b"x")},
        {"a//b": FileState(b"x")},
        {".git/config": FileState(b"x")},
        {"sub/.kerai/x": FileState(b"x")},
        {"": FileState(b"x")},
        {"a\0b": FileState(b"x")},
        {"a": FileState(b"x"), "a/b": FileState(b"x")},
        {"l": FileState(b"sub", symlink=True), "l/out": FileState(b"x"), "sub/x": FileState(b"")},
        {"l": FileState(b"..", symlink=True)},
        {"l": FileState(b"/etc/passwd", symlink=True)},
        {"l": FileState(b"", symlink=True)},
        {"l": FileState(b"\xff", symlink=True)},
        {"a/b/up": FileState(b"..", symlink=True), "l": FileState(b"a/b/up/../..", symlink=True)},
        {"x/l": FileState(b"../m", symlink=True), "m": FileState(b"../out", symlink=True)},
    ],
)
def test_a_hostile_tree_writes_nothing(hostile: Snapshot, tmp_path: Path) -> None:
    top = tmp_path / "top"
    with pytest.raises(UnsafeTree):
        write_directory({"first": FileState(b""), **hostile}, top)
    assert list(tmp_path.rglob("*")) == []


def test_a_link_that_is_there_already_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    top = tmp_path / "top"
    top.mkdir()
    (top / "d").symlink_to(outside)
    (top / "f").symlink_to(outside / "victim")
    with pytest.raises(UnsafeTree, match="no directory"):
        write_directory({"d/x": FileState(b"x")}, top)
    put(outside, {"x": b"old"})
    write_directory({"f": FileState(b"mine")}, top, previous=["d/x"])
    assert read_directory(outside)[0] == {"x": FileState(b"old")}
    assert not (top / "f").is_symlink()
    with pytest.raises(UnsafeTree):
        write_directory({}, top, previous=["../outside/x"])


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_directory({"a": FileState(b"1")}, tmp_path / "link")
    assert read_directory(tmp_path / "link")[0] == {"a": FileState(b"1")}


name = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5
).filter(lambda text: text not in (".", "..", ".git", ".gitignore"))
states = st.builds(FileState, st.binary(max_size=30), st.booleans())


@many(0.5)
@given(
    before=st.dictionaries(name, states, max_size=4),
    after=st.dictionaries(name, states, max_size=4),
    data=st.data(),
)
def test_a_written_tree_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, before: Snapshot, after: Snapshot, data: st.DataObject
) -> None:
    top = tmp_path_factory.mktemp("tree")
    one = {f"{data.draw(name)}/{path}": state for path, state in before.items()}
    two = {f"{data.draw(name)}/{path}": state for path, state in after.items()}
    tree = apply_operations(Tree(), diff(Tree(), one, author="x"))
    write_directory(tree, top)
    assert read_directory(top) == (one, [])
    tree = apply_operations(tree, diff(tree, two, author="x"))
    write_directory(tree, top, previous=list(one))
    assert read_directory(top)[0] == two == snapshot_of(tree)


steps = st.lists(st.sampled_from(["..", "..", ".", "", "a", "b", "c", "/"]), min_size=1, max_size=8)
places = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)


@many(1.5)
@given(links=st.dictionaries(places, steps.map("/".join), min_size=1, max_size=6))
def test_no_link_of_a_written_tree_leads_out(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]
) -> None:
    files = {path: FileState(target.encode(), symlink=True) for path, target in links.items()}
    files = {path: state for path, state in files.items() if not set(parents(path)) & set(files)}
    tree = apply_operations(Tree(), diff(Tree(), dict.fromkeys(files, FileState(b"x")), author="x"))
    # as somebody who does not use this client could have made it
    for path, node in list(tree.files()):
        (leaf,) = tree.children(node.id)
        hostile = [
            {"op": "node_update", "node": str(node.id), "metadata": {"symlink": True}},
            {"op": "node_update", "node": str(leaf.id), "set": {"content": links[path]}},
        ]
        tree = apply_operations(tree, hostile)
    top = tmp_path_factory.mktemp("above") / "top"
    write_directory(tree, top)
    for path in files:
        with contextlib.suppress(OSError, RuntimeError):  # a link to nothing, a circle
            assert (top / path).resolve(strict=True).is_relative_to(top), (path, links)

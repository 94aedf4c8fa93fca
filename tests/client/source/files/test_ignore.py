"""What a directory's files are, in a git work tree and outside of one: git is the judge."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.laws import many

from kerai_client.source import read_directory
from kerai_client.source.files.ignore import Ignore


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


def git(top: Path, *arguments: str | Path, text: bytes = b"") -> list[str]:
    """Run git and return what it prints, one name each NUL."""
    done = subprocess.run(["git", *arguments], cwd=top, input=text, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def put(top: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
    return top


def added(top: Path) -> set[str]:
    """Return what ``git add --all`` would take."""
    return set(git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard"))


NAMES = [
    "a",
    "b",
    "ab",
    "foo",
    "bar",
    "é",
    "A1",
    "a b",
    "x-y",
    "[a]",
    "a*",
    "\\",
    "data",
    "x.log",
    ":a",
    "#b",
]
PARTS = [
    "a", "b", "foo", "bar", "data", "x", "é", "*", "*", "**", "***", "?", "/", "/", "[ab]", "[!a]", "[^b-z]",
    "[[:alpha:]]", "[[:digit:]1]", "[[:punct:]]", "[[:nothing:]]", "[[:a]", "[a", "[]-]", "[a-]", "[\\]a]",
    "\\a", "\\*", "\\ ", "\\/", "\\", " ", "-", ".log", "#", "\xa0",
]  # fmt: skip
names = st.sampled_from(NAMES)
patterns = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "!"]),
        st.one_of(names, st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join)),
        st.sampled_from(["", "", "/", "/**", "/*", "/**/", "**/b", " ", "\r"]),
    ),
)
ignore_files = st.builds(
    lambda mark, lines, end: mark + "\n".join(lines).encode() + end,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(patterns, min_size=1, max_size=6),
    st.sampled_from([b"", b"\n"]),
)
paths = st.lists(names, min_size=1, max_size=4)


@many()
@given(
    files=st.lists(paths, max_size=25),
    ignores=st.lists(st.tuples(paths, ignore_files), min_size=1, max_size=4),
)
def test_a_directory_outside_git_is_read_as_git_would(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], ignores: list[tuple[list[str], bytes]]
) -> None:
    top = tmp_path_factory.mktemp("tree")
    written = [
        *((path, b"") for path in files),
        *(([*path[:-1], ".gitignore"], data) for path, data in ignores),
    ]
    for path, data in written:
        place = top.joinpath(*path)
        if not any(above.is_file() for above in place.parents) and not place.is_dir():
            put(top, {str(place.relative_to(top)): data})
    alone = set(read_directory(top, max_file_bytes=1 << 20)[0])
    git(top, "init", "-q")
    assert alone == added(top)
    assert set(read_directory(top, git=True)[0]) == alone


@pytest.mark.parametrize("pattern", [b"*a" * 60 + b"b", b"**/*a/" * 200 + b"z", b"**/a*a*a*/" * 100 + b"z"])
def test_a_pattern_that_is_hard_to_match_costs_no_more_than_another(pattern: bytes) -> None:
    """A matcher that tries every length for every star would not end in the time of the universe."""
    rules, _ = Ignore().with_file("", pattern)
    started = time.monotonic()
    assert not any(rules(path) for path in ("a" * 250, "/".join(["a" * 20] * 90), "a/" * 900 + "b"))
    assert time.monotonic() - started < 5


def test_a_work_tree_is_what_git_add_would_take(tmp_path: Path) -> None:
    put(tmp_path, {"gitconfig": f"[core]\n\texcludesFile = {tmp_path}/mine\n".encode(), "mine": b"*.swp\n"})
    top = put(
        tmp_path / "top",
        {
            ".gitignore": b"*.o\nlib/\n",
            "a.o": b"",
            "b.o": b"",
            "lib/kept.c": b"",
            "lib/lost.c": b"",
            "sub/x.swp": b"",
            "sub/local": b"",
            "sub/deep/.gitignore": b"!c.o\n",
            "sub/deep/c.o": b"",
            "sub/:magic": b"",
            "sub/new\nline": b"",
            "other/.gitignore": b"never\n",
            "other/never": b"",
            "other/always": b"",
        },
    )
    git(top, "init", "-q")
    put(top, {".git/info/exclude": b"local\n"})
    git(top, "add", "--force", "b.o", "lib/kept.c")
    assert {"b.o", "lib/kept.c", "sub/deep/c.o"} <= added(top)
    assert set(read_directory(top, git=True)[0]) == added(top)
    assert set(read_directory(top / "sub", git=True)[0]) == added(top / "sub")
    assert set(read_directory(top, git=True, exclude=["sub"])[0]) == {
        path for path in added(top) if not path.startswith("sub/")
    }
    assert "a.o" in read_directory(top, git=True, ignore=False)[0]
    assert "a.o" in read_directory(top, git=True, tracked=["a.o"])[0]
    # a harness's own copy of a tree is judged by its .gitignore files alone
    assert "b.o" not in read_directory(top)[0]


def test_repositories_within_a_directory_speak_for_themselves(tmp_path: Path) -> None:
    top = put(tmp_path / "top", {".gitignore": b"*.o\nout/\n", "a.o": b"", "mod/k.o": b"", "mod/m.o": b""})
    put(top, {"mod/.gitignore": b"*.tmp\n", "mod/y.tmp": b"", "mod/z": b"", "out/copy/file.o": b""})
    for repository in (top / "mod", top):
        git(repository, "init", "-q")
    git(top / "mod", "add", "--force", "k.o")
    expected = {".gitignore", "mod/.gitignore", "mod/k.o", "mod/m.o", "mod/z"}
    assert set(read_directory(top, git=True)[0]) == expected
    # what a repository ignores as a whole is none of its files: a checkout there is read for itself
    assert set(read_directory(top / "out/copy", git=True)[0]) == {"file.o"}
    (top / ".git").rename(tmp_path / "gone")
    assert "mod/k.o" in read_directory(top, git=True)[0]


def test_a_work_tree_that_git_cannot_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, {".git": b"gitdir: /nowhere\n", ".gitignore": b"*.o\n", "a.o": b"", "b": b""})
    files, problems = read_directory(tmp_path, git=True)
    assert set(files) == {".gitignore", "b"}
    assert [problem.path for problem in problems] == [".git"]
    assert "/nowhere" in problems[0].reason
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in read_directory(tmp_path, git=True)[1][0].reason


def test_nothing_of_a_repository_or_the_environment_runs_or_misleads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = put(tmp_path / "top", {".gitignore": b"a\n", "a": b"", "b": b""})
    git(top, "init", "-q")
    git(top, "add", "--force", "a")
    spy = tmp_path / "spy"
    spy.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    spy.chmod(0o755)
    git(top, "config", "core.fsmonitor", str(spy))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert set(read_directory(top, git=True)[0]) == {".gitignore", "a", "b"}
    assert not (tmp_path / "ran").exists()


def test_many_names_do_not_stop_the_pipe(tmp_path: Path) -> None:
    top = put(
        tmp_path / "top", {".gitignore": b"*7\n" + b"!*17\n", **{f"{'n' * 200}{i}": b"" for i in range(2000)}}
    )
    git(top, "init", "-q")
    assert set(read_directory(top, git=True)[0]) == added(top)

"""What the replay makes of a small repository whose merges are known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.replay.__main__ import main, show
from tests.replay.instance import Clock
from tests.replay.judge import against_git, loses_undisputed
from tests.replay.report import cases, figures, shown
from tests.replay.repository import Case, Found, Merge, Repository, meeting
from tests.replay.run import Worker, run
from tests.support.sources import commit_all, git

from kerai_client.server.private import PrivateServer
from kerai_client.source import FileState

BASE = "def one():\n    return 1\n\n\ndef two():\n    return 2\n\n\ndef three():\n    return 3\n"


def merged(place: Path, name: str, ours: dict[str, str], theirs: dict[str, str], human: str) -> str:
    """Commit two sides of the present state, and what a person makes of a.py; return the merge commit."""
    start = git(place, "rev-parse", "HEAD").strip()
    for side, files in ((f"{name}-theirs", theirs), (f"{name}-ours", ours)):
        git(place, "checkout", "--quiet", "-B", side, start)
        for path, text in files.items():
            (place / path).write_text(text)
        commit_all(place, side)
    git(place, "merge", "--quiet", "--no-commit", "--strategy=ours", f"{name}-theirs")
    for path, text in {**theirs, **ours, "a.py": human}.items():
        (place / path).write_text(text)
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", name)
    return git(place, "rev-parse", "HEAD").strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A repository, and its merge commits by what they are."""
    place = tmp_path / "repository"
    place.mkdir()
    (place / "a.py").write_text(BASE)
    commit_all(place, "base")
    ten, twenty = BASE.replace("return 1", "return 10"), BASE.replace("return 2", "return 20")
    both = ten.replace("return 2", "return 20")
    clean = merged(
        place, "clean", {"a.py": ten, "b.py": "b = 1\n"}, {"a.py": twenty, "c.py": "c = 1\n"}, both
    )
    left, right = both.replace("return 3", "return 4"), both.replace("return 3", "return 5")
    conflict = merged(
        place, "conflict", {"a.py": left}, {"a.py": right}, both.replace("return 3", "return 9")
    )
    nine = both.replace("return 3", "return 9")
    twice = merged(place, "twice", {"d.py": "d = 1\n"}, {"d.py": "d = 1\n"}, nine)
    apart = merged(place, "apart", {"b.py": "b = 2\n"}, {"c.py": "c = 2\n"}, nine)
    return place, {"clean": clean, "conflict": conflict, "twice": twice, "apart": apart}


def test_merges_are_made_again_and_judged(
    repository: tuple[Path, dict[str, str]], server: PrivateServer
) -> None:
    place, commits = repository
    done = run(place, server)
    assert (done.found.merges, done.found.apart, done.found.criss_cross) == (4, 1, 0)
    assert done.found.unreadable == {}
    by_commit = {merge.commit: merge for merge in done.merges}
    assert by_commit.keys() == {commits["clean"], commits["conflict"], commits["twice"]}

    clean = by_commit[commits["clean"]]
    assert [(each.path, each.classes, each.human) for each in clean.verdicts] == [("a.py", ("equal",), True)]
    assert (clean.clean, clean.orders_differ, clean.contested) == (True, False, False)
    assert (clean.operations, clean.changed_lines) == (2, 2)

    conflict = by_commit[commits["conflict"]]
    (verdict,) = conflict.verdicts
    assert verdict.conflict and not verdict.human
    assert verdict.classes in (("silent",), ("recorded",))  # one register, and the later write shows
    assert conflict.contested and conflict.orders_differ

    # Both sides make the same file: two nodes of one name, or one node should kerai learn to see that.
    (verdict,) = by_commit[commits["twice"]].verdicts
    assert verdict.path == "d.py"
    assert (verdict.classes, verdict.human) in ((("twice",), False), (("equal",), True))

    row = figures(done)
    assert (row["clean"], row["git human"]) == (2, 1.0)
    assert row["clean equal"] == row["clean human"] == (0.5 if row["clean twice"] else 1.0)
    assert (row["conflict"], row["conflict human"], row["conflict both"]) == (1, 0.0, 0.0)
    assert row["orders differ"] == 1 and row["orders differ, uncontested"] == 0
    assert f"  {commits['conflict'][:12]} a.py" in list(cases(done))


def test_a_merge_is_shown_in_full(repository: tuple[Path, dict[str, str]], server: PrivateServer) -> None:
    place, commits = repository
    worker = Worker(place, server)
    try:
        (merge,) = worker.repository.merges(Found(), commits["clean"])
        case = worker.repository.case(merge, whole=True)
        assert sorted(case.git) == ["a.py", "b.py", "c.py"]
        outcomes = worker.instance.merge(case.base, case.ours, case.theirs, Clock())
    finally:
        worker.close()
    assert all(outcome.files == case.git == case.human for outcome in outcomes)
    text = list(shown(case, outcomes, everything=True))
    assert "==== a.py: equal as the person's" in text
    assert "-    return 1" in text and "+    return 10" in text


def test_the_command_prints_a_table(
    repository: tuple[Path, dict[str, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    place, commits = repository
    arguments = [str(place / ".git"), "--jobs", "2", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["replay", *arguments])
    assert main() == 0
    printed = capsys.readouterr().out
    assert "replayed: 3" in printed and "git finds a conflict" in printed
    assert commits["conflict"] in (tmp_path / "out.json").read_text()


def test_a_commit_that_is_no_merge_is_refused(
    repository: tuple[Path, dict[str, str]], server: PrivateServer, capsys: pytest.CaptureFixture[str]
) -> None:
    place, commits = repository
    assert show(place, server, commits["apart"], everything=False) == 1
    assert "no two parents" in capsys.readouterr().err


def test_git_writes_nothing_into_the_repository(repository: tuple[Path, dict[str, str]]) -> None:
    place, commits = repository
    before = sorted((place / ".git" / "objects").rglob("*"))
    with Repository(place) as found:
        (merge,) = found.merges(Found(), commits["conflict"])
        case = found.case(merge)
    assert case.conflicted == {"a.py"} and not case.clean
    assert b"<<<<<<<" in case.git["a.py"].data
    assert sorted((place / ".git" / "objects").rglob("*")) == before


@pytest.mark.parametrize(
    ("merged_text", "classes"),
    [
        ("one = 1\ntwo = 2\n", {"equal"}),
        ("one = 1\n", {"lost"}),
        ("one = 1\ntwo = 2\ntwo = 2\n", {"doubled"}),
        ("one = 1\ntwo = 2\nzero = 0\n", {"returned"}),
        ("two = 2\none = 1\n", {"reordered"}),
        ("one = 1\n\ntwo = 2\n", {"other"}),
        ("zero = 0\ntwo = 2\n}\n", {"lost", "returned"}),
    ],
)
def test_classes_where_git_merges(merged_text: str, classes: set[str]) -> None:
    base, result = FileState(b"zero = 0\n"), FileState(b"one = 1\ntwo = 2\n")
    assert against_git(base, result, FileState(merged_text.encode())) == classes


def test_a_loss_outside_of_the_conflict_is_told() -> None:
    git_file = FileState(b"one = 1\n<<<<<<< ours\ntwo = 2\n=======\ntwo = 3\n>>>>>>> theirs\nend = 4\n")
    base = {"a.py": FileState(b"end = 0\n")}
    case = Case(
        merge=Merge("m", "o", "t", "b"),
        base=base,
        ours=base,
        theirs=base,
        git={"a.py": git_file},
        human={},
        conflicted=frozenset({"a.py"}),
        clean=False,
        changed_lines=0,
        left_out=0,
    )
    assert not loses_undisputed(case, "a.py", FileState(b"one = 1\ntwo = 3\nend = 4\n"))
    assert loses_undisputed(case, "a.py", FileState(b"one = 1\ntwo = 3\nend = 0\n"))


def test_files_that_lines_move_between_are_read() -> None:
    moved = b"def helper(value):\n    return value\n"
    base = {"a.py": FileState(moved + b"x = 1\n"), "b.py": FileState(b""), "c.py": FileState(b"")}
    ours = {**base, "a.py": FileState(b"x = 1\n"), "b.py": FileState(moved), "c.py": FileState(b"c = 1\n")}
    theirs = {**base, "a.py": FileState(moved + b"x = 2\n")}
    assert meeting(base, ours, theirs) == {"a.py", "b.py"}

"""`make release` makes a whole release or nothing. Each test has a repository of the sources to itself."""

from __future__ import annotations

import hashlib
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.sources import commit_all, copy_sources, git

FIRST = "1.0.0"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The sources on main, with one change that is unreleased."""
    folder = copy_sources(tmp_path)
    commit_all(folder, "sources")
    list_change(folder, "What a user notices.")
    return folder


def list_change(folder: Path, text: str) -> None:
    """Put an entry under [Unreleased] and commit it."""
    file = folder / "CHANGELOG.md"
    file.write_text(file.read_text().replace("## [Unreleased]\n", f"## [Unreleased]\n\n- {text}\n", 1))
    commit_all(folder, "changelog: an entry")


def release(folder: Path, version: str) -> subprocess.CompletedProcess[str]:
    """Run `make release` there."""
    command = ["make", "--silent", "release", f"VERSION={version}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def everything(folder: Path) -> tuple[str, ...]:
    """Return what a refused release must leave as it is."""
    commands = ("show-ref", "status --porcelain", "diff HEAD", "worktree list", "stash list")
    return tuple(git(folder, *command.split()) for command in commands)


def refused(folder: Path, version: str, why: str) -> None:
    """Check that a release is refused for a reason, and that nothing has changed."""
    before = everything(folder)
    done = release(folder, version)
    assert done.returncode != 0
    assert "make release: " in done.stderr
    assert re.search(why, done.stderr), done.stderr
    assert everything(folder) == before


def build(folder: Path, output: Path) -> list[str]:
    """Build the scripts and return their names."""
    command = [folder / "extension/build.py", "--python-path", "/lib/kerai", "--output", output]
    subprocess.run(command, check=True, capture_output=True)
    return sorted(file.name for file in output.glob("*.sql"))


def test_a_release(repository: Path, tmp_path: Path) -> None:
    before = git(repository, "rev-parse", "HEAD")
    done = release(repository, FIRST)
    assert done.returncode == 0, done.stderr
    assert f"git push --atomic origin main v{FIRST}" in done.stdout

    assert git(repository, "log", "-1", "--format=%s%n%P").splitlines() == [
        f"release: {FIRST}",
        before.strip(),
    ]
    assert git(repository, "rev-parse", f"v{FIRST}^{{commit}}") == git(repository, "rev-parse", "main")
    assert git(repository, "cat-file", "-t", f"v{FIRST}").strip() == "tag"
    assert git(repository, "branch", "--show-current").strip() == "main"
    assert git(repository, "status", "--porcelain") == ""
    assert len(git(repository, "worktree", "list").splitlines()) == 1

    assert f"default_version = '{FIRST}'" in (repository / "kerai.control").read_text()
    assert f'__version__ = "{FIRST}"' in (repository / "extension/python/kerai/__init__.py").read_text()
    section = re.search(
        r"^## \[Unreleased\]\n\n## \[(.*)\] - (.*)\n\n- What a user notices.\n",
        (repository / "CHANGELOG.md").read_text(),
        re.MULTILINE,
    )
    assert section is not None
    assert section[1] == FIRST
    today = datetime.now(UTC).date()
    assert today - datetime.fromisoformat(section[2]).date() in (timedelta(0), timedelta(1))

    sql = repository / "extension/sql"
    frozen = [line.split() for line in (sql / "frozen.txt").read_text().splitlines()]
    assert {version for version, _, _ in frozen} == {FIRST}
    assert all(hashlib.sha256((sql / name).read_bytes()).hexdigest() == digest for _, digest, name in frozen)
    assert any("010-identity" in name for _, _, name in frozen)
    assert build(repository, tmp_path / "build") == [f"kerai--{FIRST}.sql"]


def test_a_second_release(repository: Path, tmp_path: Path) -> None:
    assert release(repository, FIRST).returncode == 0
    refused(repository, "1.0.1", r"lists nothing under \[Unreleased\]")
    list_change(repository, "Another thing.")
    refused(repository, FIRST, "not higher than 1.0.0")
    refused(repository, "0.9.9", "lower than 1.0.0")
    frozen = (repository / "extension/sql/frozen.txt").read_text()

    done = release(repository, "1.10.0")
    assert done.returncode == 0, done.stderr
    assert git(repository, "tag", "--list").split() == ["v1.0.0", "v1.10.0"]
    # The table files stay those of the release that brought them.
    assert (repository / "extension/sql/frozen.txt").read_text().startswith(frozen)
    assert build(repository, tmp_path / "build") == ["kerai--1.0.0--1.10.0.sql", "kerai--1.10.0.sql"]

    # 1.10.0 has brought no table file, and upgrades all the same.
    table = repository / "extension/sql/010-identity/tables-2.0.0.sql"
    table.write_text("create table kerai.extra (id int);\n")
    list_change(repository, "A table.")
    done = release(repository, "2.0.0")
    assert done.returncode == 0, done.stderr
    names = ["kerai--1.0.0--2.0.0.sql", "kerai--1.10.0--2.0.0.sql", "kerai--2.0.0.sql"]
    assert build(repository, tmp_path / "build") == names
    assert all("kerai.extra" in (tmp_path / "build" / name).read_text() for name in names)


def test_a_version_has_three_numbers_and_is_not_lower_than_the_stated_one(repository: Path) -> None:
    for version in ("", "1", "1.0", "v1.0.0", "1.0.0rc1", "01.0.0"):
        refused(repository, version, "is not a version")
    refused(repository, "0.0.1", "0.0.1 is lower than ")


def test_a_dirty_tree(repository: Path) -> None:
    (repository / "extension/sql/new.sql").write_text("select 1;\n")
    refused(repository, FIRST, r"in no commit.*\n\?\? extension/sql/new.sql")


def test_another_branch(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create", "work")
    refused(repository, FIRST, "this is work, and releases are made on main")
    git(repository, "switch", "--quiet", "--detach")
    refused(repository, FIRST, "this is no branch")


def test_an_empty_changelog(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [0.0.1]\n\n- Old.\n")
    commit_all(repository, "changelog: nothing")
    refused(repository, FIRST, r"lists nothing under \[Unreleased\]")


def test_scripts_that_do_not_build(repository: Path) -> None:
    """The failure comes after files have been changed, in the worktree."""
    with (repository / "extension/sql/head.sql").open("a") as file:
        file.write("-- @nobody_knows_this@\n")
    commit_all(repository, "sql: a slip of the pen")
    refused(repository, FIRST, "unknown placeholders: @nobody_knows_this@")


def test_a_branch_that_cannot_follow(repository: Path) -> None:
    """The last step fails: the tag, which is there by then, goes again."""
    lock = repository / ".git/index.lock"
    before = everything(repository)
    lock.touch()
    done = release(repository, FIRST)
    lock.unlink()
    assert done.returncode != 0
    assert "index.lock" in done.stderr
    assert everything(repository) == before

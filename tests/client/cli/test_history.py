"""Log, diff and revert, as a user types them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.sample import PACKAGE, Run, files_below, make

pytestmark = pytest.mark.usefixtures("here")


def change(package: Path) -> None:
    """Edit, add, delete, rename, make executable; binary, and without a newline at the end."""
    (package / "pkg/auth/token.py").write_text(PACKAGE["pkg/auth/token.py"].replace("LIFE = 3", "LIFE = 4"))
    (package / "run.sh").chmod(0o755)
    (package / "pkg/other.py").rename(package / "pkg/twice as much.py")
    (package / "tests/test_token.py").unlink()
    make(package, {"no newline": "a\nb", 'odd "name"': "\u2028\n\x0c\r\n"})


def test_a_diff_is_a_patch_that_git_takes(
    ok: Run, rows: Callable[..., Any], package: Path, tmp_path: Path
) -> None:
    ok("import", package)
    ok("checkout", "before")
    change(package)
    ok("import", package)
    for words in ([], [rows("log")[0]["changeset"][:12]] * 2):
        target = tmp_path / f"patched{len(words)}"
        subprocess.run(["cp", "-r", "before", target], check=True)
        patch = ok("diff", *words).stdout
        subprocess.run(
            ["git", "apply", "-p1", "--whitespace=nowarn"],
            cwd=target, input=patch.encode(), check=True, capture_output=True,
        )  # fmt: skip
        assert files_below(target) == files_below(package)
        assert (target / "run.sh").stat().st_mode & 0o100
    assert ok("diff", "now").stdout == ""
    assert ok("diff", "--scope", "pkg/auth").stdout.count("diff --git") == 1
    told = rows("diff")
    assert {each["path"] for each in told} > {"run.sh", "pkg/twice as much.py", "tests/test_token.py"}
    nodes = rows("diff", "--nodes", "--scope", "pkg/auth")
    assert [(node["path"], node["changes"]) for node in nodes] == [("pkg/auth/token.py", ["content"])]


def test_binary_files_differ(ok: Run, package: Path) -> None:
    (package / "photo.jpg").write_bytes(b"\xff\x00")
    ok("import", package)
    (package / "photo.jpg").write_bytes(b"\xff\x01")
    ok("import", package)
    assert "Binary files a/photo.jpg and b/photo.jpg differ" in ok("diff").stdout


def test_a_revert_brings_the_files_back(kerai: Run, ok: Run, rows: Callable[..., Any], package: Path) -> None:
    ok("import", package)
    change(package)
    ok("import", package, "--message", "many things")
    changeset = rows("log")[0]["changeset"]
    assert len(rows("revert", changeset, "--dry-run")["operations"]) > 4
    assert rows("revert", changeset, "--agent", "somebody-else")["operations"] > 4
    ok("checkout", "undone")
    assert files_below(Path("undone")) == PACKAGE
    assert not (Path("undone") / "run.sh").stat().st_mode & 0o100
    entry = rows("log")[0]
    assert entry["message"] == f"revert {changeset[:12]}" and entry["author"].startswith("somebody-else.")
    again = kerai("revert", changeset)
    assert again.returncode == 1 and "KR011" in again.stderr and "hint" in again.stderr
    ok("revert", entry["changeset"][:10], "--message", "after all")
    ok("checkout", "again")
    assert files_below(Path("again")) == files_below(package)
    assert rows("log")[0]["message"] == "after all"


def test_log_pages_and_scopes(ok: Run, rows: Callable[..., Any], package: Path) -> None:
    for number in range(3):
        make(package, {"run.sh": f"echo {number}\n"})
        ok("import", package, "--message", f"{number}")
    first = rows("log", "--limit", "2")
    assert [entry["message"] for entry in first] == ["2", "1"]
    assert [entry["files"] for entry in first] == [1, 1] and first[0]["paths"] == ["run.sh"]
    rest = rows("log", "--before", str(first[-1]["arrival"]))
    assert [entry["message"] for entry in rest] == ["0"]
    assert [entry["message"] for entry in rows("log", "--scope", "pkg")] == ["0"]


def test_what_cannot_be_compared_or_undone_is_told(kerai: Run, ok: Run, package: Path) -> None:
    assert "no changesets yet" in kerai("diff").stderr
    ok("import", package)
    for words, told in (
        (["diff", "zz"], "is not a changeset"),
        (["diff", "abc"], "is not a changeset"),
        (["diff", "0" * 64], "there is no changeset 000"),
        (["diff", "now", "{"], "is not a version vector"),
        (["diff", "{}", "now", "--scope", "nowhere"], "nothing at 'nowhere'"),
        (["revert", "0000"], "there is no changeset 0000"),
        (["revert", "now"], "is not a changeset"),
    ):
        result = kerai(*words)
        assert result.returncode == 1 and told in result.stderr and "hint: " in result.stderr, result.stderr
        failure = json.loads(kerai(*words, "--json").stderr)["error"]
        assert told in failure["message"] and failure["hint"]

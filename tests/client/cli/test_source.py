"""Import, checkout and log, as a user types them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest
from click.testing import CliRunner
from tests.support.sample import PACKAGE, Run, files_below, make

from kerai_client.cli.main import cli

pytestmark = pytest.mark.usefixtures("here")


def test_import_and_checkout_give_the_same_files(ok: Run, rows: Callable[..., Any], package: Path) -> None:
    (package / "run.sh").chmod(0o755)
    first = rows("import", package)
    assert first["files"] == len(PACKAGE) and first["operations"] > len(PACKAGE)
    assert rows("import", package)["operations"] == 0
    ok("checkout", "out")
    assert files_below(Path("out")) == PACKAGE
    assert os.access("out/run.sh", os.X_OK) and not os.access("out/pkg/other.py", os.X_OK)
    assert rows("import", "out")["operations"] == 0


def test_import_takes_what_git_tracks(ok: Run, package: Path) -> None:
    make(package, {".gitignore": "*.log\n", "kept.log": "1\n", "lost.log": "2\n"})
    for arguments in (["init", "-q"], ["add", "--force", "kept.log"]):
        subprocess.run(["git", "-C", package, *arguments], check=True)
    ok("import", package)
    ok("checkout", "out")
    assert set(files_below(Path("out"))) == {*PACKAGE, ".gitignore", "kept.log"}


def test_import_mirrors_the_directory(ok: Run, rows: Callable[..., Any], package: Path) -> None:
    ok("import", package)
    (package / "pkg/other.py").unlink()
    make(package, {"pkg/new.py": "x = 1\n"})
    (package / "pkg/auth/token.py").write_text(PACKAGE["pkg/auth/token.py"].replace("LIFE = 3", "LIFE = 4"))
    assert 0 < rows("import", package, "--message", "second")["operations"] <= 6
    ok("checkout", "out")
    assert files_below(Path("out")) == files_below(package)
    log = rows("log")
    assert [entry["message"] for entry in log] == ["second", "import package"]
    assert [entry["message"] for entry in rows("log", "--path", "run.sh")] == ["import package"]
    assert len(rows("log", "--limit", "1")) == 1
    author = log[0]["author"].rpartition(".")[0]
    assert len(rows("log", "--author", author)) == 2 and rows("log", "--author", "nobody") == []


def test_import_refuses_to_delete_most_of_the_tree(
    kerai: Run, ok: Run, rows: Callable[..., Any], package: Path
) -> None:
    ok("import", package)
    make(Path("wrong"), {"a.txt": "a\n"})
    refused = kerai("import", "wrong")
    assert refused.returncode == 1
    assert "would delete 5 of the 5 files" in refused.stderr and "--replace" in refused.stderr
    assert rows("import", "wrong", "--into", "vendor/wrong")["files"] == 1
    ok("checkout", "out")
    assert files_below(Path("out")) == {**PACKAGE, "vendor/wrong/a.txt": "a\n"}
    # A rename of everything loses nothing.
    Path("moved").mkdir()
    package.rename("moved/package")
    ok("checkout", "moved/package", "--force")
    assert "would delete" not in kerai("import", "moved").stderr
    assert rows("import", "moved", "--replace")["files"] == 6
    ok("import", "wrong", "--replace")
    ok("checkout", "last")
    assert files_below(Path("last")) == {"a.txt": "a\n"}


def test_import_tells_what_it_could_not_read(kerai: Run, ok: Run, package: Path) -> None:
    (package / "outside").symlink_to("/etc/passwd")
    result = ok("import", package)
    assert len(result.stderr.strip().splitlines()) == 1 and "outside" in result.stderr
    assert kerai("import", package, "--strict").returncode == 1
    ok("checkout", "out")
    assert files_below(Path("out")) == PACKAGE


def test_checkout_loses_nothing_of_the_user(kerai: Run, ok: Run, package: Path) -> None:
    ok("import", package)
    make(Path("full"), {"mine.txt": "mine"})
    refused = kerai("checkout", "full")
    assert refused.returncode == 1 and "not empty" in refused.stderr
    assert files_below(Path("full")) == {"mine.txt": "mine"}
    ok("checkout", "out")
    Path("out/pkg/other.py").write_text("edited\n")
    make(Path("out"), {"extra.txt": "mine"})
    refused = kerai("checkout", "out")
    assert refused.returncode == 1 and "pkg/other.py" in refused.stderr and "--force" in refused.stderr
    ok("checkout", "out", "--force")
    assert files_below(Path("out")) == {**PACKAGE, "extra.txt": "mine"}
    (package / "run.sh").unlink()
    ok("import", package)
    ok("checkout", "out")
    assert "run.sh" not in files_below(Path("out")) and "extra.txt" in files_below(Path("out"))


def test_a_checkout_that_was_cut_off_is_just_repeated(kerai: Run, ok: Run, package: Path) -> None:
    ok("import", package)
    make(Path("cut"), {path: PACKAGE[path] for path in ("pkg/other.py", "run.sh")})
    for mine in ("mine.txt", "pkg/mine/"):
        make(Path("cut"), {mine: "mine"}) if not mine.endswith("/") else Path("cut", mine).mkdir()
        refused = kerai("checkout", "cut")
        assert refused.returncode == 1 and "not an earlier checkout" in refused.stderr
        Path("cut", mine).rmdir() if mine.endswith("/") else Path("cut", mine).unlink()
    Path("cut/run.sh").write_text("edited\n")
    assert "not an earlier checkout" in kerai("checkout", "cut").stderr
    Path("cut/run.sh").write_text(PACKAGE["run.sh"])
    ok("checkout", "cut")
    assert files_below(Path("cut")) == PACKAGE


def test_checkout_over_what_was_imported_into_a_part(kerai: Run, ok: Run, package: Path) -> None:
    ok("import", package, "--into", "vendor/package")
    refused = kerai("checkout", package, "--scope", "vendor/package")
    assert refused.returncode == 1 and "package was imported into vendor/package" in refused.stderr
    assert files_below(package) == PACKAGE


def test_an_agent_without_a_name_is_not_the_user(kerai: Run, ok: Run, package: Path) -> None:
    refused = kerai("import", package, "--agent", "")
    assert refused.returncode == 1 and "'' cannot name a key" in refused.stderr
    ok("import", package)
    for words in (["agent", "work", "--swarm", "x", "--solver", "true"], ["perspective", "set", "pkg", "1"]):
        assert "'' cannot name a key" in kerai(*words, "--agent", "").stderr


def test_import_leaves_out_its_own_records(
    ok: Run, rows: Callable[..., Any], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(package.resolve() / "state"))
    ok("import", package)
    assert list(package.glob("state/kerai/checkouts/*.json"))
    assert rows("import", package)["operations"] == 0
    ok("checkout", "out")
    assert files_below(Path("out")) == PACKAGE


def test_checkout_where_something_else_is_in_the_way(kerai: Run, ok: Run, package: Path) -> None:
    ok("import", package)
    ok("checkout", "out")
    Path("out/run.sh").unlink()
    make(Path("out/run.sh"), {"mine.txt": "mine"})
    os.mkfifo("out/pkg/pipe")
    Path("out/pkg/pipe").replace("out/pkg/other.py")
    refused = kerai("checkout", "out")
    assert refused.returncode == 1
    assert "2 files in out have changes" in refused.stderr and "pkg/other.py, run.sh" in refused.stderr
    forced = kerai("checkout", "out", "--force")
    assert forced.returncode == 1 and "cannot write 'run.sh': a directory with" in forced.stderr
    assert files_below(Path("out/run.sh")) == {"mine.txt": "mine"}
    Path("out/run.sh/mine.txt").unlink()
    ok("checkout", "out", "--force")
    assert files_below(Path("out")) == PACKAGE
    # A directory of the tree becomes a file of the tree: nothing of the user's is in the way.
    shutil.rmtree(package / "pkg")
    make(package, {"pkg": "now a file\n"})
    ok("import", package, "--replace")
    make(Path("out"), {"pkg/auth/mine.txt": "mine"})
    assert "out have changes that a checkout would lose" in kerai("checkout", "out").stderr
    Path("out/pkg/auth/mine.txt").unlink()
    ok("checkout", "out")
    assert files_below(Path("out")) == files_below(package)


def test_a_directory_in_the_place_of_a_checkout_is_not_one(kerai: Run, ok: Run, package: Path) -> None:
    ok("import", package)
    ok("checkout", "out")
    Path("out").rename("moved")
    make(Path("out"), {"mine.txt": "mine"})
    refused = kerai("checkout", "out")
    assert refused.returncode == 1 and "not an earlier checkout" in refused.stderr
    assert files_below(Path("out")) == {"mine.txt": "mine"}


def test_checkout_without_a_place_for_its_record(
    ok: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok("import", package)
    (imported,) = (tmp_path / "state").rglob("*.json")
    imported.unlink()
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    written = ok("checkout", "out", "--json")
    assert json.loads(written.stdout)["files"] == len(PACKAGE)
    assert written.stderr.startswith("warning: the next checkout will need --force: not a directory")
    assert files_below(Path("out")) == PACKAGE
    ok("checkout", "out", "--force")
    # A record is replaced as a whole: what interrupts its writing leaves the earlier one.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ok("checkout", "out", "--force")
    (record,) = (tmp_path / "state").rglob("*.json")
    before = record.read_text()

    def full_disk(_: Any, stream: TextIO) -> None:
        stream.write("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("json.dump", full_disk)
    again = CliRunner().invoke(cli, ["checkout", "out"])
    assert again.stderr.startswith("warning: ") and record.read_text() == before
    assert [path for path in (tmp_path / "state").rglob("*") if path.is_file()] == [record]


def test_what_the_system_refuses_is_no_traceback(package: Path) -> None:
    not_utf8 = os.fsdecode(b"a\xff")
    for words, told in (
        (["import", "/dev/null"], "not a directory\ndetail: /dev/null"),
        (["checkout", "/dev/null/x"], "Not a directory\ndetail: /dev/null/x"),
        (["checkout", "/proc/x"], "No such file or directory\ndetail: /proc/x"),
        (["import", str(package), "--message", not_utf8], "a text is not valid UTF-8"),
        (["log", "--author", not_utf8], "a text is not valid UTF-8"),
        (["log", "--path", not_utf8], "a text is not valid UTF-8"),
        (["task", "create", not_utf8, "--success-command", "true"], "a text is not valid UTF-8"),
    ):
        result = CliRunner().invoke(cli, words)
        assert (result.exit_code, result.stderr.startswith(f"error: {told}")) == (1, True), result.stderr
    undecodable = CliRunner().invoke(cli, ["sql"], input=b"\xff")
    assert undecodable.stderr.startswith("error: a text is not valid UTF-8\n")


def test_checkout_of_a_part_and_of_the_past(
    kerai: Run, ok: Run, rows: Callable[..., Any], package: Path
) -> None:
    ok("import", package)
    vector = rows("sql", "SELECT kerai.version_vector() AS v")[0]["v"]
    (package / "pkg/other.py").write_text("def twice(x):\n    return 2 * x\n")
    ok("import", package)
    ok("checkout", "part", "--scope", "pkg/auth")
    assert list(files_below(Path("part"))) == ["pkg/auth/token.py"]
    ok("checkout", "past", "--at", json.dumps(vector))
    assert files_below(Path("past")) == PACKAGE
    assert "not a version vector" in kerai("checkout", "x", "--at", "{").stderr
    assert "no file at or below" in kerai("checkout", "x", "--scope", "nowhere").stderr
    unknown = kerai("checkout", "x", "--at", '{"nobody.0123456789abcdef": 7}')
    assert unknown.returncode == 1 and "KR004" in unknown.stderr and "Traceback" not in unknown.stderr

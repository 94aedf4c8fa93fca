"""Import compares a directory with the state that it was made from, and takes nothing of others back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.sample import PACKAGE, files_below, make

from kerai_client.cli.main import cli

pytestmark = pytest.mark.usefixtures("here")

TOKEN = "pkg/auth/token.py"


def run(*words: str | Path) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [*map(str, words)])


def ok(*words: str | Path) -> dict[str, Any]:
    """Run a command that must succeed, and return what it prints as JSON."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def tree(at: str = "now", *words: str) -> dict[str, str]:
    """Return the tree's files, by a checkout of their own."""
    shutil.rmtree(f"tree-{at}", ignore_errors=True)
    ok("checkout", f"tree-{at}", *words)
    return files_below(Path(f"tree-{at}"))


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def until(found: Callable[[], Any]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start(*words: str | Path) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "kerai_client", *map(str, words), "--json"], stdout=subprocess.PIPE, text=True
    )


def records() -> list[Path]:
    return sorted(Path(os.environ["XDG_STATE_HOME"]).rglob("*.json"))


# -- what others have done stays -------------------------------------------------------------------


def test_an_edited_checkout_takes_nothing_of_others_back(package: Path) -> None:
    ok("import", package, "--agent", "ann")
    ok("checkout", "mine")
    ok("checkout", "theirs")
    mine, theirs = Path("mine"), Path("theirs")
    # Somebody else changes, adds, renames and deletes.
    edit(theirs / "pkg/other.py", "x + x", "2 * x")
    make(theirs, {"pkg/theirs.py": "theirs = 1\n"})
    (theirs / "run.sh").rename(theirs / "go.sh")
    (theirs / "pkg/__init__.py").unlink()
    ok("import", theirs, "--agent", "ben")
    expected = {
        **PACKAGE,
        "pkg/other.py": "def twice(x):\n    return 2 * x\n",
        "pkg/theirs.py": "theirs = 1\n",
        "go.sh": PACKAGE["run.sh"],
    }
    del expected["run.sh"], expected["pkg/__init__.py"]
    assert tree() == expected
    for number in (4, 5):
        make(mine, {f"pkg/mine{number}.py": f"mine = {number}\n"})
        edit(mine / TOKEN, f"LIFE = {number - 1}", f"LIFE = {number}")
        ok("import", mine, "--agent", "ann")
        expected[TOKEN] = PACKAGE[TOKEN].replace("LIFE = 3", f"LIFE = {number}")
        expected[f"pkg/mine{number}.py"] = f"mine = {number}\n"
        assert tree() == expected
        assert ok("import", mine, "--agent", "ann")["operations"] == 0
        assert ok("import", mine, "--agent", "ben")["operations"] == 0
    # The directory that was imported first is known too.
    edit(package / "tests/test_token.py", "assert valid(3)", "assert valid(2)")
    (package / "tests/test_token.py").rename(package / "tests/test_life.py")
    ok("import", package, "--agent", "ann")
    expected["tests/test_life.py"] = expected.pop("tests/test_token.py").replace("valid(3)", "valid(2)")
    assert tree() == expected
    # A checkout over each of them brings what the others have done.
    for directory in (mine, theirs, package):
        ok("checkout", directory)
        assert files_below(directory) == expected
        assert ok("import", directory)["operations"] == 0


def test_two_directories_of_one_agent_neither_revert_nor_repeat_each_other(package: Path) -> None:
    """No version vector names what the agent has done from one of them alone."""
    ok("import", package)
    ok("checkout", "other")
    one, two = package, Path("other")
    for number in range(3):
        make(one, {f"one{number}.py": f"x = {number}\n"})
        edit(one / "run.sh", "hi", "hi hi")
        ok("import", one)
        make(two, {f"two{number}.py": f"x = {number}\n"})
        edit(two / "pkg/other.py", "x + x", "x + x + x")
        assert ok("import", two)["conflicts"] == 0
        if number:
            (one / f"one{number - 1}.py").unlink()
    ok("import", one)
    expected = {**PACKAGE, "run.sh": PACKAGE["run.sh"].replace("hi", "hi hi hi hi hi hi hi hi")}
    expected["pkg/other.py"] = Path("other/pkg/other.py").read_text()
    expected |= {f"two{number}.py": f"x = {number}\n" for number in range(3)} | {"one2.py": "x = 2\n"}
    assert tree() == expected
    for directory in (one, two):
        assert ok("import", directory)["operations"] == 0
        ok("checkout", directory)
        assert files_below(directory) == expected


def test_a_checkout_of_the_past_is_compared_with_the_past(package: Path) -> None:
    first = ok("import", package)
    vector = json.dumps(ok("checkout", "past")["vector"])
    edit(package / "run.sh", "hi", "ho")
    ok("import", package)
    ok("checkout", "past", "--at", vector)
    assert files_below(Path("past")) == PACKAGE and first["operations"] > 0
    assert ok("import", "past")["operations"] == 0
    edit(Path("past/pkg/other.py"), "x + x", "2 * x")
    ok("import", "past")
    assert tree()["run.sh"] == "#!/bin/sh\necho ho\n"
    assert tree()["pkg/other.py"] == "def twice(x):\n    return 2 * x\n"


def test_the_same_place_changed_by_two_is_told(package: Path) -> None:
    ok("import", package, "--agent", "ann")
    ok("checkout", "theirs")
    edit(Path("theirs", TOKEN), "LIFE = 3", "LIFE = 4")
    make(Path("theirs"), {"new.py": "theirs = 1\n"})
    Path("theirs/run.sh").write_text("#!/bin/sh\necho theirs\n")
    ok("import", "theirs", "--agent", "ben")
    edit(package / TOKEN, "LIFE = 3", "LIFE = 5")
    make(package, {"new.py": "mine = 1\n"})
    (package / "run.sh").unlink()
    edit(package / "pkg/other.py", "x + x", "2 * x")
    result = run("import", package, "--agent", "ann")
    assert result.exit_code == 0
    assert result.stderr == (
        "deleted here, but changed by others since, so they stay: run.sh\n"
        f"changed at the same places by others since, of which the later shows: new.py, {TOKEN}\n"
    )
    assert {"new.py", "new.py~2", TOKEN, "pkg/other.py"} <= tree().keys()
    # What stays comes with the next checkout, and can be deleted then.
    ok("checkout", package)
    assert (package / "run.sh").read_text() == "#!/bin/sh\necho theirs\n"
    (package / "run.sh").unlink()
    ok("import", package, "--agent", "ann")
    assert tree() == files_below(package)


def test_a_deletion_spares_what_others_have_put_below(package: Path) -> None:
    ok("import", package, "--agent", "ann")
    ok("checkout", "theirs")
    make(Path("theirs"), {"pkg/theirs.py": "theirs = 1\n", "pkg/more/x.txt": "x\n"})
    edit(Path("theirs", TOKEN), "LIFE = 3", "LIFE = 4")
    ok("import", "theirs", "--agent", "ben")
    shutil.rmtree(package / "pkg")
    result = run("import", package, "--agent", "ann", "--replace")
    assert result.exit_code == 0
    assert result.stderr == f"deleted here, but changed by others since, so they stay: {TOKEN}\n"
    expected = files_below(Path("theirs"))
    del expected["pkg/__init__.py"], expected["pkg/other.py"]
    assert tree() == expected
    assert ok("import", package, "--agent", "ann", "--replace")["operations"] == 0
    ok("checkout", package)
    assert files_below(package) == expected


def test_what_is_put_into_a_directory_that_others_have_deleted_shows(package: Path) -> None:
    ok("import", package, "--agent", "ann")
    ok("checkout", "theirs")
    shutil.rmtree("theirs/pkg/auth")
    ok("import", "theirs", "--agent", "ben")
    make(package, {"pkg/auth/new.py": "new = 1\n", "pkg/auth/deep/er.txt": "deeper\n"})
    edit(package / TOKEN, "LIFE = 3", "LIFE = 5")
    (package / "run.sh").rename(package / "pkg/auth/go.sh")
    result = run("import", package, "--agent", "ann")
    assert result.exit_code == 0
    told = f"changed here, but deleted by others since, so that does not show: {TOKEN}\n"
    assert result.stderr == told
    expected = files_below(package)
    del expected[TOKEN]
    assert tree() == expected
    edit(package / "pkg/auth/new.py", "1", "2")
    make(package, {"pkg/auth/newer.py": ""})
    ok("import", package, "--agent", "ann")
    expected |= {"pkg/auth/new.py": "new = 2\n", "pkg/auth/newer.py": ""}
    assert tree() == expected
    ok("checkout", package)
    assert files_below(package) == expected


def test_keys_are_not_imported(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAI_KEYS", str((package / "config/keys").resolve()))
    ok("import", package)
    assert list((package / "config/keys").glob("*/*.key"))
    assert tree() == PACKAGE


# -- a directory of which nothing is known ----------------------------------------------------------


def test_a_directory_without_a_record_is_compared_only_when_asked(package: Path) -> None:
    ok("import", package, "--agent", "ann")
    shutil.copytree(package, "copy")
    # Nothing to import: the copy is known from now on.
    assert ok("import", "copy", "--agent", "ann")["operations"] == 0
    shutil.copytree(package, "unknown")
    edit(package / "pkg/other.py", "x + x", "2 * x")
    make(package, {"new.py": ""})
    ok("import", package, "--agent", "ben")
    expected = tree()
    edit(Path("unknown", TOKEN), "LIFE = 3", "LIFE = 4")
    refused = run("import", "unknown", "--agent", "ann")
    assert refused.exit_code == 1 and tree() == expected
    assert "it is not known what state of the tree unknown was made from" in refused.stderr
    assert f"2 files change ({TOKEN}, pkg/other.py), 1 files go (new.py)" in refused.stderr
    assert "taken back: ben." in refused.stderr and "(2 nodes)" in refused.stderr
    assert "--replace" in refused.stderr
    done = run("import", "unknown", "--agent", "ann", "--replace")
    assert done.exit_code == 0 and "taken back: ben." in done.stderr
    assert tree() == files_below(Path("unknown"))
    # The one that was copied before has a record of its own.
    edit(Path("copy/run.sh"), "hi", "ho")
    ok("import", "copy", "--agent", "ann")
    assert tree() == {**files_below(Path("unknown")), "run.sh": "#!/bin/sh\necho ho\n"}


def test_a_first_import_needs_no_replace(package: Path) -> None:
    ok("import", package)
    lib = make(Path("lib"), {"a.txt": "a\n", "b.txt": "b\n"})
    assert ok("import", lib, "--into", "vendor/lib")["files"] == 2
    make(lib, {"a.txt": "A\n"})
    ok("import", lib, "--into", "/vendor/./lib/")
    assert tree() == {**PACKAGE, "vendor/lib/a.txt": "A\n", "vendor/lib/b.txt": "b\n"}
    # In another part of the tree it is another directory.
    ok("import", lib, "--into", "vendor/second")
    make(lib, {"b.txt": "B\n"})
    ok("import", lib, "--into", "vendor/lib")
    assert tree()["vendor/second/b.txt"] == "b\n"
    ok("import", lib, "--into", "vendor/second")
    assert tree()["vendor/second/b.txt"] == "B\n"


def test_databases_that_do_not_know_each_other_have_a_record_each(
    package: Path, second_database: Any
) -> None:
    other = ("--dsn", second_database.dsn)
    ok("import", package)
    ok("import", package, *other)
    for number in (4, 5):
        edit(package / TOKEN, f"LIFE = {number - 1}", f"LIFE = {number}")
        make(package, {f"new{number}.py": ""})
        ok("import", package)
        ok("import", package, *other)
    assert tree() == tree("there", *other) == files_below(package)
    assert max(len(json.loads(record.read_text())["records"]) for record in records()) == 2


def test_a_checkout_of_an_empty_database_is_nothing_elsewhere(package: Path, second_database: Any) -> None:
    other = ("--dsn", second_database.dsn)
    ok("checkout", "work", *other)
    ok("import", package)
    make(Path("work"), {"run.sh": "mine\n"})
    assert "--replace" in run("import", "work").stderr
    ok("import", "work", *other)
    assert tree("there", *other) == {"run.sh": "mine\n"}


# -- parts ------------------------------------------------------------------------------------------


def test_a_checkout_of_a_part_is_only_that_part(package: Path) -> None:
    ok("import", package, "--agent", "ann")
    ok("checkout", "part", "--scope", "pkg/auth")
    edit(package / "run.sh", "hi", "ho")
    ok("import", package, "--agent", "ben")
    part = Path("part")
    edit(part / TOKEN, "LIFE = 3", "LIFE = 4")
    make(part, {"pkg/auth/new.py": "new = 1\n", "beside.txt": "beside\n"})
    ok("import", part, "--agent", "ann")
    expected = {**files_below(package), **files_below(part)}
    assert tree() == expected
    (part / "pkg/auth/new.py").unlink()
    ok("import", part, "--agent", "ann")
    del expected["pkg/auth/new.py"]
    assert tree() == expected


def test_a_part_of_a_checkout_by_its_path(package: Path) -> None:
    ok("import", package, "--agent", "ann")
    ok("checkout", "work")
    edit(package / "pkg/other.py", "x + x", "2 * x")
    ok("import", package, "--agent", "ben")
    edit(Path("work", TOKEN), "LIFE = 3", "LIFE = 4")
    edit(Path("work/run.sh"), "hi", "ho")
    make(Path("work"), {"pkg/auth/new.py": "new = 1\n"})
    refused = run("import", "work/pkg")
    assert refused.exit_code == 1 and tree() == files_below(package)
    assert f"it lies in {Path('work').resolve()}: import that, or say --into 'pkg'" in refused.stderr
    ok("import", "work/pkg", "--into", "pkg", "--agent", "ann")
    expected = {
        **files_below(package),
        TOKEN: Path("work", TOKEN).read_text(),
        "pkg/auth/new.py": "new = 1\n",
    }
    assert tree() == expected
    # The edits that were left out are still to come, and nothing comes twice.
    ok("import", "work", "--agent", "ann")
    assert tree() == {**expected, "run.sh": "#!/bin/sh\necho ho\n"}
    ok("checkout", "work")
    assert ok("import", "work/pkg", "--into", "pkg")["operations"] == 0


# -- what can go wrong ------------------------------------------------------------------------------


def test_a_state_that_was_compacted_away_is_told_with_what_was_edited(package: Path, connect: Any) -> None:
    ok("import", package)
    ok("checkout", "old")
    edit(package / "run.sh", "hi", "ho")
    ok("import", package)
    connect().execute("select kerai.compact(now())")
    assert ok("import", package)["operations"] == 0
    edit(Path("old", TOKEN), "LIFE = 3", "LIFE = 4")
    Path("old/run.sh").unlink()
    refused = run("import", "old")
    assert refused.exit_code == 1
    assert "the state that old was made from has been compacted away" in refused.stderr
    assert f"edited in it since: {TOKEN}, run.sh\n" in refused.stderr


def test_an_import_of_many_operations_is_whole_or_nothing(connect: Any) -> None:
    files = {f"{number:04}.txt": "a\n" * 10 for number in range(700)}
    make(Path("many"), files)
    connection = connect()
    connection.execute(
        """create function public.fail() returns trigger language plpgsql
        as $$ begin raise 'the second page fails' using errcode = 'KR011'; end $$"""
    )
    connection.execute(
        """create trigger fail before insert on kerai.changesets for each row
        when (new.first_seq > 1) execute function public.fail()"""
    )
    assert "the second page fails" in run("import", "many").stderr
    assert connection.execute("select from kerai.nodes").rowcount == 0
    assert connection.execute("select from kerai.changesets").rowcount == 0
    connection.execute("drop trigger fail on kerai.changesets")
    assert ok("import", "many")["operations"] > 5000
    assert connection.execute("select from kerai.changesets").rowcount == 2
    assert tree() == files
    assert ok("import", "many")["operations"] == 0


@pytest.mark.parametrize("merged", [True, False])
def test_an_import_that_was_cut_off_is_not_repeated(package: Path, connect: Any, merged: bool) -> None:
    """The record is kept before the push; the database says what became of it."""
    ok("import", package)
    edit(package / TOKEN, "LIFE = 3", "LIFE = 4")
    make(package, {"new.py": "new = 1\n"})
    blocker, witness = connect(), connect()
    (record,) = records()
    before = record.read_text()
    with blocker.transaction(force_rollback=True):
        blocker.execute("lock table kerai.changesets in exclusive mode")
        cut = start("import", package)
        until(lambda: witness.execute("select from pg_locks where not granted").rowcount)
        assert record.read_text() != before
        cut.send_signal(signal.SIGKILL)
        cut.communicate()
        if not merged:
            witness.execute(
                "select pg_terminate_backend(pid, 10000) from pg_locks where not granted and pid is not null"
            )
    assert (ok("import", package)["operations"] == 0) == merged
    assert tree() == files_below(package)
    edit(package / "new.py", "1", "2")
    ok("import", package)
    assert tree() == files_below(package)


def test_two_imports_of_one_directory_at_a_time(package: Path, connect: Any) -> None:
    ok("import", package, "--agent", "ann")
    ok("import", make(Path("beside"), {"a": ""}), "--into", "beside", "--agent", "ben")
    make(package, {"new.py": "new = 1\n"})
    blocker, witness = connect(), connect()
    with blocker.transaction(force_rollback=True):
        blocker.execute("lock table kerai.changesets in exclusive mode")
        both = [start("import", package, "--agent", "ann")]
        until(lambda: witness.execute("select from pg_locks where not granted").rowcount)
        both.append(start("import", package, "--agent", "ben"))  # waits for the directory
        both.append(start("import", package, "--agent", "ann"))  # waits for the agent
        until(lambda: witness.execute("select from kerai.agents where name = 'ben'").rowcount)
    told = [json.loads(process.communicate()[0])["operations"] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert told[0] > 0 and told[1:] == [0, 0]
    assert tree() == {**files_below(package), "beside/a": ""}


def test_a_record_that_cannot_be_kept(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    done = run("import", package)
    assert done.exit_code == 0 and "warning: the next import will need --replace" in done.stderr
    edit(package / "run.sh", "hi", "ho")
    assert run("import", package).exit_code == 1
    assert run("import", package, "--replace").exit_code == 0
    assert tree() == files_below(package)


def test_a_record_that_nobody_can_read_is_told(package: Path) -> None:
    ok("import", package)
    (record,) = records()
    for text in ("{", "[]", '{"directory": []}', "\xff"):
        record.write_text(text)
        edit(package / "run.sh", "hi", "hi hi")
        refused = run("import", package)
        assert refused.exit_code == 1
        assert ("cannot read" in refused.stderr) or ("it is not known" in refused.stderr)
        ok("import", package, "--replace")
    edit(package / "run.sh", "hi", "ho")
    ok("import", package)
    assert tree() == files_below(package)


# -- small things -----------------------------------------------------------------------------------


def test_links_are_read_back_as_they_were_written(package: Path) -> None:
    for name, target in (("a", "pkg/"), ("b", "./pkg/other.py"), ("c", "pkg//auth/.")):
        (package / name).symlink_to(target)
    ok("import", package)
    ok("checkout", "out")
    written = [os.readlink(f"out/{name}") for name in "abc"]  # noqa: PTH115 -- a Path would drop "./"
    assert written == ["pkg/", "./pkg/other.py", "pkg//auth/."]
    ok("checkout", "out")
    assert ok("import", "out")["operations"] == 0


def test_the_private_servers_directory_is_not_imported(package: Path) -> None:
    server = {"server/config.toml": "", "server/lock": "", "server/data/PG_VERSION": "15"}
    data = {f"old/{name}": "" for name in ("PG_VERSION", "global/1", "pg_wal/1")}
    make(package, {**server, **data})
    result = run("import", package, "--dsn", os.environ["KERAI_DSN"], "--dir", package / "server")
    assert result.exit_code == 0
    assert result.stderr == "old: is the data directory of a PostgreSQL server\n"
    assert tree() == PACKAGE
    refused = run("import", package / "server", "--dsn", os.environ["KERAI_DSN"], "--dir", package / "server")
    assert "is the private server's directory" in refused.stderr

"""The commands on source, tasks, swarms and SQL, as a user types them."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click
import pytest
from click.testing import CliRunner

from kerai_client.dashboard import economics_lines
from kerai_client.errors import KeraiError
from kerai_client.main import cli
from kerai_client.options import DURATION
from kerai_client.tasks import detect_success_command

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

SEED_LAUNCH = """kerai swarm launch \
  --task "make all tests in pkg/auth pass" \
  --agents 100 \
  --model claude-opus-4-6 \
  --timeout 1h \
  --budget 500000"""


@pytest.fixture(autouse=True)
def _here(database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a database and an empty folder of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("KERAI_DSN", database.dsn)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture
def ok(kerai: Run) -> Run:
    """Run a command that must succeed."""

    def run(*arguments: str | Path, **options: Any) -> Result:
        result = kerai(*arguments, **options)
        assert result.returncode == 0, result.stderr + result.stdout
        return result

    return run


@pytest.fixture
def rows(ok: Run) -> Callable[..., Any]:
    """Run a command with --json and return what it prints."""
    return lambda *arguments: json.loads(ok(*arguments, "--json").stdout)


def make(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


PACKAGE = {
    "pkg/__init__.py": "",
    "pkg/auth/token.py": "LIFE = 3\n\n\ndef valid(age):\n    return age < LIFE\n",
    "pkg/other.py": "def twice(x):\n    return x + x\n",
    "tests/test_token.py": "from pkg.auth.token import valid\n\n\ndef test_valid():\n    assert valid(3)\n",
    "run.sh": "#!/bin/sh\necho hi\n",
}


@pytest.fixture
def package() -> Path:
    """A package with one failing test."""
    return make(Path("package"), PACKAGE)


def files_below(folder: Path) -> dict[str, str]:
    """Return the files by their paths: all of them, for a checkout adds none of its own."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# -- import, checkout, log -----------------------------------------------------------------------


def test_import_and_checkout_give_the_same_files(ok: Run, rows: Callable[..., Any], package: Path) -> None:
    (package / "run.sh").chmod(0o755)
    first = rows("import", package)
    assert first["files"] == len(PACKAGE) and first["operations"] > len(PACKAGE)
    assert rows("import", package)["operations"] == 0
    ok("checkout", "out")
    assert files_below(Path("out")) == PACKAGE
    assert os.access("out/run.sh", os.X_OK) and not os.access("out/pkg/other.py", os.X_OK)
    assert rows("import", "out")["operations"] == 0


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
    assert rows("import", "moved")["files"] == 6
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
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    written = ok("checkout", "out", "--json")
    assert json.loads(written.stdout)["files"] == len(PACKAGE)
    assert written.stderr.startswith("warning: the next checkout will need --force: ")
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


# -- sql -----------------------------------------------------------------------------------------


def test_sql_prints_rows(kerai: Run, ok: Run) -> None:
    assert json.loads(ok("sql", "--json", "SELECT 1 AS one, 'x' AS x").stdout) == [{"one": 1, "x": "x"}]
    table = ok("sql", "SELECT 'a%s' AS template").stdout
    assert "template" in table and "a%s" in table
    assert json.loads(ok("sql", "--json", input="SELECT 2 AS two").stdout) == [{"two": 2}]
    several = ok("sql", "CREATE TEMP TABLE t AS SELECT 7 AS n; SELECT n FROM t").stdout
    assert "SELECT 1" in several and "7" in several
    wrong = kerai("sql", "SELECT kerai.balance('00000000-0000-0000-0000-000000000000')")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error KR006: ") and "hint: " in wrong.stderr
    assert kerai("sql", "SELEC").stderr.startswith("error 42601: ")


def sql_rows(statement: str) -> Any:
    """Return the rows of a statement, as JSON has them."""
    result = CliRunner().invoke(cli, ["sql", "--json", statement])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::date", "-infinity"),
        ("date '0044-03-15 BC'", "0044-03-15 BC"),
        ("timestamp '12000-01-01'", "12000-01-01 00:00:00"),
        ("array[timestamp 'infinity', timestamp '2024-05-01']", ["infinity", "2024-05-01T00:00:00"]),
        ("interval '9000000 years'", "9000000 years"),
        ("'24:00'::time", "24:00:00"),
        ("array['12:00+02'::timetz]", ["12:00:00+02"]),
        ("'NaN'::numeric", "NaN"),
        ("array['Infinity'::float8, 0.5]", ["Infinity", 0.5]),
        ("12::numeric", 12),
        ("inet '10.0.0.1'", "10.0.0.1"),
        ("int4range(1, 5)", "[1,5)"),
        ("row(1, 'a')", "(1,a)"),
        ("interval '1 minute'", 60.0),
    ],
)
def test_sql_shows_values_that_python_or_json_does_not_have(value: str, shown: Any) -> None:
    assert sql_rows(f"select {value} as v") == [{"v": shown}]
    assert CliRunner().invoke(cli, ["sql", f"select {value}"]).exit_code == 0


def test_sql_keeps_columns_of_one_name() -> None:
    assert sql_rows("select 1 as a, 2 as a, 3 as a_2, 4 as a") == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]
    assert sql_rows("select 1, 2") == [{"?column?": 1, "?column?_2": 2}]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("copy (select 1) to stdout", "error: COPY from standard input or to standard output"),
        ("select 1\0;", "error: there is a NUL character in the SQL\ndetail: its character 9\n"),
        ("select 1; copy kerai.settings from stdin", "error: COPY from standard input or to standard output"),
    ],
)
def test_sql_refuses_what_it_cannot_run(kerai: Run, statement: str, told: str) -> None:
    refused = kerai("sql", input=statement)
    assert refused.returncode == 1 and refused.stderr.startswith(told)
    assert len(refused.stderr.splitlines()) == 2, "and nothing of the driver's"


# -- agents, tasks, swarms -----------------------------------------------------------------------


def test_the_command_lines_of_the_seed_work(
    kerai: Run, ok: Run, rows: Callable[..., Any], package: Path
) -> None:
    ok("import", package)

    def seed(line: str) -> str:
        return ok(*shlex.split(line)[1:]).stdout

    seed("kerai agent register --name solver-1 --kind llm --model claude-opus-4-6")
    assert [agent["model"] for agent in rows("agent", "list") if agent["name"] == "solver-1"] == [
        "claude-opus-4-6"
    ]
    assert "kerai agent work --swarm" in seed(SEED_LAUNCH)
    (task,) = rows("task", "list")
    assert (task["description"], task["budget_seconds"], task["budget_nkoi"], task["success_command"]) == (
        "make all tests in pkg/auth pass",
        3600,
        500_000,
        "python -m pytest -q",
    )
    assert "make all tests in pkg/auth pass" in seed("kerai swarm status")
    (swarm,) = rows("swarm", "status")
    assert (swarm["status"], swarm["max_agents"]) == ("running", 100)
    seed(f"kerai swarm leaderboard --task {task['id']}")
    seed("kerai swarm hotspots --since 1h")
    seed(f"kerai swarm progress --task {task['id']}")
    seed("kerai swarm trace --agent solver-1")
    assert seed(f"kerai swarm economics --task {task['id']}").splitlines() == [
        "Total budget: 500,000 nKoi",
        "Spent: 0 nKoi (0.0%)",
        "Agents: 0 (0 active, 0 idle)",
        "Rewards minted: 0 nKoi (0 convergence events)",
    ]
    seed(f"kerai swarm stop {swarm['swarm_id']}")
    assert rows("swarm", "status")[0]["status"] == "stopped"
    again = kerai("swarm", "stop", swarm["swarm_id"])
    assert again.returncode == 1 and again.stderr.startswith("error KR011")


def test_things_are_found_by_name_and_by_prefix(kerai: Run, rows: Callable[..., Any]) -> None:
    task = rows("task", "create", "all green", "--success-command", "true")
    assert rows("task", "show", task["id"][:8])["description"] == "all green"
    assert rows("task", "show", "all green")["id"] == task["id"]
    launched = rows("swarm", "launch", "--task", task["id"][:8], "--agents", "3", "--name", "nightly")
    assert launched["task_id"] == task["id"]
    assert rows("swarm", "status", "nightly")["members"] == []
    unknown = kerai("task", "show", "nothing such")
    assert unknown.returncode == 1 and "kerai task list" in unknown.stderr
    both = kerai("swarm", "launch", "--task", task["id"], "--budget", "5")
    assert both.returncode == 1 and "--budget" in both.stderr


def test_bad_values_are_refused_in_words(kerai: Run, ok: Run, package: Path) -> None:
    empty = kerai("task", "create", "x")
    assert empty.returncode == 1 and "the tree is empty" in empty.stderr
    ok("import", package)
    assert "nothing at 'pkg/nowhere'" in kerai("task", "create", "x", "--scope", "pkg/nowhere").stderr
    assert kerai("swarm", "launch", "--task", "x", "--timeout", "soon").returncode == 2
    assert "no solver" in kerai("swarm", "launch", "--task", "x", "--start", "2").stderr
    assert "there is no swarm" in kerai("agent", "work", "--swarm", "none", "--solver", "true").stderr
    wrong = kerai("agent", "register", "--name", "a/b", "--kind", "tool")
    assert wrong.returncode == 1 and "Traceback" not in wrong.stderr


def test_watching_in_json_is_refused() -> None:
    refused = CliRunner().invoke(cli, ["swarm", "status", "--watch", "--json"])
    assert (
        refused.exit_code == 2 and "--watch shows a table" in json.loads(refused.stderr)["error"]["message"]
    )


def test_numbers_that_no_column_holds_are_refused(ok: Run, package: Path) -> None:
    ok("import", package)
    create, launch = ["task", "create", "x", "--success-command", "true"], ["swarm", "launch", "--task", "x"]
    work = ["agent", "work", "--swarm", "x"]
    for words, largest in (
        ([*create, "--budget"], 2**63 - 1),
        ([*create, "--budget-ops"], 2**31 - 1),
        ([*create, "--timeout"], 2**31 - 1),
        ([*launch, "--agents"], 2**31 - 1),
        ([*launch, "--budget"], 2**63 - 1),
        (["log", "--limit"], 2**63 - 1),
        (["swarm", "hotspots", "--since"], 2**31 - 1),
    ):
        taken = CliRunner().invoke(cli, [*words, str(largest)])
        assert taken.exit_code == 0, (words, taken.output)
        refused = CliRunner().invoke(cli, [*words, str(largest + 1)])
        assert refused.exit_code == 2 and "Invalid value" in refused.stderr, words
    assert CliRunner().invoke(cli, [*work, "--cost-per-second", str(2**31)]).exit_code == 2


def test_a_hosted_agent_has_no_key_here(kerai: Run, ok: Run, package: Path, tmp_path: Path) -> None:
    ok("agent", "register", "--name", "psql", "--kind", "human", "--hosted")
    assert not (tmp_path / "keys").exists()
    refused = kerai("import", package, "--agent", "psql")
    assert refused.returncode == 1 and "hosted" in refused.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("1h30m", 5400), ("0.5d", 43200)],
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["0", "soon", "1h!", "25000d", "9" * 400 + "d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize(
    ("names", "command"),
    [
        ({"test_a.py", "a.py"}, "python -m pytest -q"),
        ({"Cargo.toml", "lib.rs"}, "cargo test"),
        ({"go.mod", "a_test.go"}, "go test ./..."),
        ({"package.json", "index.js"}, "npm test"),
        ({"pyproject.toml"}, "python -m pytest -q"),
    ],
)
def test_success_commands_are_detected(names: set[str], command: str) -> None:
    assert detect_success_command(names) == command
    with pytest.raises(KeraiError):
        detect_success_command({"README.md"})


def test_economics_read_like_the_seed() -> None:
    row = {
        "budget_nkoi": 500_000,
        "spent_nkoi": 312_000,
        "spent_percent": 62.4,
        "agents": 100,
        "active": 47,
        "idle": 53,
        "rewards_minted": 85_000,
        "convergence_events": 3,
    }
    assert economics_lines(row) == [
        "Total budget: 500,000 nKoi",
        "Spent: 312,000 nKoi (62.4%)",
        "Agents: 100 (47 active, 53 idle)",
        "Rewards minted: 85,000 nKoi (3 convergence events)",
    ]


# -- agent work ----------------------------------------------------------------------------------

PYTEST = f"{shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider"
REPAIR = "sed -i 's/age < LIFE/age <= LIFE/' pkg/auth/token.py"


@pytest.fixture
def swarm(ok: Run, rows: Callable[..., Any], package: Path) -> dict[str, Any]:
    """A swarm on the package, its scope the folder with the bug."""
    ok("import", package)
    task = ["--task", "all green", "--success-command", PYTEST, "--scope", "pkg/auth"]
    launched: dict[str, Any] = rows("swarm", "launch", *task)
    return launched


def test_an_agent_turns_the_task_green(
    ok: Run, rows: Callable[..., Any], swarm: dict[str, Any], tmp_path: Path
) -> None:
    solver = (
        f"touch $TMPDIR/left; env > {tmp_path}/environment; "
        f"cp $KERAI_TASK_FILE $KERAI_TEST_OUTPUT {tmp_path}; "
        f"echo broken >> pkg/other.py; echo junk > new.txt; {REPAIR}"
    )
    work = ok(
        "agent",
        "work",
        "--swarm",
        swarm["id"],
        "--solver",
        solver,
        "--agent",
        "s-1",
        "--cost-per-second",
        "7",
    )
    assert "merged 1 operations: 1 failing -> 0 failing" in work.stdout
    assert "left out: new.txt, pkg/other.py" in work.stdout
    # Only what lies in the scope is pushed.
    ok("checkout", "out")
    assert files_below(Path("out")) == {
        **PACKAGE,
        "pkg/auth/token.py": PACKAGE["pkg/auth/token.py"].replace("<", "<="),
    }
    status = rows("swarm", "status", swarm["id"])
    assert (status["status"], status["task_status"], status["failing_tests"]) == ("converged", "succeeded", 0)
    task = rows("task", "show", swarm["task_id"])
    assert task["converged_by"] == "s-1" and task["spent_nkoi"] > 0
    supply = rows("sql", "SELECT circulating, balances FROM kerai.supply()")[0]
    assert supply["circulating"] == supply["balances"] == task["reward"] == 1_000_000_000
    environment = (tmp_path / "environment").read_text()
    names = {line.partition("=")[0] for line in environment.splitlines()}
    assert {"KERAI_TASK", "KERAI_SWARM", "KERAI_SUCCESS_COMMAND"} <= names
    assert "KERAI_DSN" not in names and "KERAI_KEYS" not in names and "postgres" not in environment
    assert "KERAI_AGENT=s-1\n" in environment and "KERAI_SCOPE=pkg/auth\n" in environment
    assert "KERAI_ATTEMPT=" in environment
    assert "1 failed" in (tmp_path / "test-output.txt").read_text()
    assert "all green" in (tmp_path / "task.md").read_text()
    # Nothing is left of the working trees and of what the solver has made beside them.
    assert f"TMPDIR={tmp_path}/kerai-agents-" in environment
    (base,) = tmp_path.glob("kerai-agents-*")
    assert sorted(path.name for path in base.iterdir()) == ["lock", "turns"]
    events = [event["event"] for event in rows("swarm", "trace", "--agent", "s-1")]
    assert {"joined", "pushed", "passed", "rewarded"} <= set(events)


def test_an_attempt_that_does_not_help_is_kept_for_study(
    ok: Run, rows: Callable[..., Any], swarm: dict[str, Any]
) -> None:
    before = rows("sql", "SELECT kerai.state_digest() AS d")
    solver = "sed -i 's/LIFE = 3/LIFE = 2/' pkg/auth/token.py"
    work = ok(
        "agent", "work", "--swarm", swarm["id"], "--solver", solver, "--agent", "s-1", "--max-attempts", "2"
    )
    assert work.stdout.count("no better") == 2 and "2 attempts made" in work.stdout
    assert rows("sql", "SELECT kerai.state_digest() AS d") == before
    kept = rows("sql", "SELECT reason, operations FROM kerai.failed_operations")
    assert len(kept) == 2 and "LIFE = 2" in json.dumps(kept[0]["operations"])
    board = rows("swarm", "leaderboard", "--task", swarm["task_id"])
    assert (board[0]["agent"], board[0]["passes"], board[0]["failures"]) == ("s-1", 0, 3)


def test_a_test_that_is_taken_away_is_no_success(ok: Run, rows: Callable[..., Any], package: Path) -> None:
    make(package, {"tests/test_more.py": "def test_more():\n    pass\n"})
    ok("import", package)
    launched = rows("swarm", "launch", "--task", "all green", "--success-command", PYTEST)
    work = ["agent", "work", "--swarm", launched["id"], "--agent", "s-1", "--max-attempts", "1", "--solver"]
    assert "no better" in ok(*work, "rm tests/test_token.py").stdout
    assert rows("swarm", "status", launched["id"])["status"] == "running"


def test_a_stale_push_is_tested_again_on_the_new_state(
    ok: Run, rows: Callable[..., Any], swarm: dict[str, Any], package: Path, tmp_path: Path
) -> None:
    # While the solver of the agent works, somebody else changes the scope.
    dsn = os.environ["KERAI_DSN"]
    python = shlex.quote(sys.executable)
    other = f"{python} -m kerai_client import {package.resolve()} --agent other --dsn '{dsn}'"
    changed = PACKAGE["pkg/auth/token.py"].replace("LIFE = 3", "LIFE = int('3')")
    solver = (
        f"printf %s {shlex.quote(changed)} > {package.resolve()}/pkg/auth/token.py; "
        f"KERAI_KEYS={tmp_path}/other-keys {other} > /dev/null || exit 9; {REPAIR}"
    )
    ok("agent", "work", "--swarm", swarm["id"], "--solver", solver, "--agent", "s-1")
    ok("checkout", "out")
    expected = changed.replace("<", "<=")
    assert files_below(Path("out")) == {**PACKAGE, "pkg/auth/token.py": expected}
    assert rows("swarm", "status", swarm["id"])["status"] == "converged"


def test_a_command_that_only_says_yes_or_no(ok: Run, rows: Callable[..., Any], package: Path) -> None:
    ok("import", package)
    command = "grep -q '<=' pkg/auth/token.py"
    launched = rows("swarm", "launch", "--task", "all green", "--success-command", command)
    ok("agent", "work", "--swarm", launched["id"], "--solver", REPAIR, "--agent", "s-1")
    assert rows("swarm", "status", launched["id"])["status"] == "converged"


def test_launch_with_a_solver_starts_agents(ok: Run, package: Path) -> None:
    ok("import", package)
    launch = ["swarm", "launch", "--task", "all green", "--success-command", PYTEST, "--agents", "3"]
    done = ok(*launch, "--solver", REPAIR, "--start", "3")
    assert "converged" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("prefix", ["a/b", ".h", " h", "x" * 250])
def test_launch_with_names_that_no_agent_can_have_makes_nothing(
    rows: Callable[..., Any], prefix: str
) -> None:
    words = ["swarm", "launch", "--task", "x", "--success-command", "true", "--solver", "true"]
    refused = CliRunner().invoke(cli, [*words, "--start", "1", "--agent-prefix", prefix])
    assert refused.exit_code == 1 and "cannot name a key" in refused.stderr
    assert rows("task", "list") == []


def test_a_solver_that_is_not_there_is_told(kerai: Run, swarm: dict[str, Any]) -> None:
    result = kerai("agent", "work", "--swarm", swarm["id"], "--solver", "no-such-solver", "--agent", "s-1")
    assert result.returncode == 1
    assert "could not be started" in result.stderr and "no-such-solver" in result.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_a_signal_ends_the_work_cleanly(
    swarm: dict[str, Any], tmp_path: Path, name: str, code: int, kerai: Run
) -> None:
    command = [sys.executable, "-m", "kerai_client", "agent", "work", "--swarm", swarm["id"]]
    solver = f"echo $$ > {tmp_path}/pid; sleep 600"
    with subprocess.Popen(
        [*command, "--agent", "s-1", "--solver", solver], stdout=subprocess.PIPE, text=True
    ) as agent:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline and agent.poll() is None
            time.sleep(0.05)
        # One agent, one process: a second one would fork its history.
        second = kerai("agent", "work", "--swarm", swarm["id"], "--agent", "s-1", "--solver", "true")
        assert second.returncode == 1 and "another process works as agent 's-1'" in second.stderr
        agent.send_signal(getattr(signal, name))
        output, _ = agent.communicate(timeout=60)
    assert agent.returncode == code
    assert f"{name} received" in output
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    (base,) = tmp_path.glob("kerai-agents-*")
    assert sorted(path.name for path in base.iterdir()) == ["lock", "turns"]

"""Agents at work, started as a user starts them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.sample import PACKAGE, Run, files_below, make

from kerai_client.cli.main import cli

pytestmark = pytest.mark.usefixtures("here")

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


def test_a_solver_that_removes_its_directory_has_failed_once(
    ok: Run, rows: Callable[..., Any], swarm: dict[str, Any]
) -> None:
    mischief = [
        'rm -rf "$PWD"',
        'rm -rf "$PWD"; echo x > "$PWD"',
        'rm -rf "$PWD"; ln -s / "$PWD"',
        'rm -rf "$(dirname "$PWD")"; ln -s / "$(dirname "$PWD")"',
        'rm -f "$KERAI_TASK_FILE"; mkdir "$KERAI_TASK_FILE"; rm -rf "$PWD" "$TMPDIR"',
    ]
    cases = [f"{number}) {words};;" for number, words in enumerate([*mischief, REPAIR], 1)]
    solver = f"case $KERAI_ATTEMPT in {' '.join(cases)} esac"
    worked = ok("agent", "work", "--swarm", swarm["id"], "--solver", solver, "--agent", "s-1")
    assert worked.stdout.count("what the solver has left cannot be read") == len(mischief)
    assert "the task has succeeded; 6 attempts, 1 merged" in worked.stdout
    kept = rows("sql", "SELECT reason, operations FROM kerai.failed_operations")
    assert len(kept) == len(mischief) and all(row["operations"] == [] for row in kept)
    assert rows("swarm", "status", swarm["id"])["attempts"] == len(mischief) + 2


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ("budget_ops = 0", "the agent's budget of operations is used up"),
        ("budget_seconds = 1, started_at = now() - interval '1 hour'", "the task's time is used up"),
        ("budget_nkoi = 1", "the task's money is used up"),
    ],
)
def test_work_that_a_budget_refuses_leaves_a_trace(
    ok: Run, rows: Callable[..., Any], package: Path, budget: str, reason: str
) -> None:
    ok("import", package)
    task = rows("task", "create", "all green", "--success-command", PYTEST)
    swarm = rows("swarm", "launch", "--task", task["id"])
    ok("sql", "ALTER TABLE kerai.tasks DROP CONSTRAINT tasks_budget_ops_check")
    # The budget ends while the solver works.
    change = f"UPDATE kerai.tasks SET {budget}"
    solver = f"psql -q -d {shlex.quote(os.environ['KERAI_DSN'])} -c {shlex.quote(change)} || exit 9; {REPAIR}"
    work = ["agent", "work", "--swarm", swarm["id"], "--agent", "s-1", "--cost-per-second", "1000"]
    worked = ok(*work, "--solver", solver)
    assert f"refused (KR008): {reason}" in worked.stdout
    (kept,) = rows("sql", "SELECT reason, operations FROM kerai.failed_operations")
    assert kept["reason"] == f"refused (KR008): {reason}" and "age <= LIFE" in json.dumps(kept["operations"])
    status = rows("swarm", "status", swarm["id"])
    # The state as it was imported, and the attempt; what the attempt repaired is not in the tree.
    assert (status["attempts"], status["failures"], status["failing_tests"]) == (2, 2, 1)
    trace = rows("swarm", "trace", "--agent", "s-1")
    refused = [event for event in trace if event["event"] == "failed"][-1]
    assert refused["nkoi"] > 0 and refused["failing"] is None
    assert [event["message"] for event in trace if event["event"] == "discarded"] == [kept["reason"]]
    spent = rows("swarm", "economics", "--task", task["id"])["spent_nkoi"]
    assert spent == sum(event["nkoi"] or 0 for event in trace if event["event"] == "failed")


def test_an_agent_whose_attempts_come_to_nothing_ends_with_the_budget(
    ok: Run, rows: Callable[..., Any], package: Path
) -> None:
    ok("import", package)
    task = rows("task", "create", "all green", "--success-command", PYTEST)
    swarm = rows("swarm", "launch", "--task", task["id"])
    change = "UPDATE kerai.tasks SET budget_nkoi = 1"
    solver = f'psql -q -d {shlex.quote(os.environ["KERAI_DSN"])} -c {shlex.quote(change)}; rm -rf "$PWD"'
    work = ["agent", "work", "--swarm", swarm["id"], "--agent", "s-1", "--cost-per-second", "1000"]
    worked = ok(*work, "--max-attempts", "5", "--solver", solver)
    assert "the task's money is used up; 1 attempts, 0 merged" in worked.stdout


def test_a_result_that_a_budget_refuses_leaves_a_trace(
    ok: Run, rows: Callable[..., Any], package: Path
) -> None:
    ok("import", package)
    task = rows("task", "create", "all green", "--success-command", PYTEST, "--budget", "1")
    swarm = rows("swarm", "launch", "--task", task["id"])
    work = ["agent", "work", "--swarm", swarm["id"], "--agent", "s-1", "--cost-per-second", "1000"]
    assert "the task's money is used up" in ok(*work, "--solver", REPAIR).stdout
    (event,) = [event for event in rows("swarm", "trace", "--agent", "s-1") if event["event"] == "discarded"]
    assert event["message"] == "the result was refused (KR008): the task's money is used up"
    assert rows("swarm", "status", swarm["id"])["attempts"] == 1
    assert rows("task", "show", task["id"])["spent_nkoi"] > 1


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

"""Tasks, swarms and what they report, as a user types it."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import CliRunner
from tests.support.sample import Run

from kerai_client.cli.dashboard import economics_lines
from kerai_client.cli.main import cli
from kerai_client.cli.options import DURATION
from kerai_client.errors import KeraiError
from kerai_client.harness.tasks import detect_success_command, task_to_launch

pytestmark = pytest.mark.usefixtures("here")

SEED_LAUNCH = """kerai swarm launch \
  --task "make all tests in pkg/auth pass" \
  --agents 100 \
  --model claude-opus-4-6 \
  --timeout 1h \
  --budget 500000"""


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


def test_words_of_an_open_task_name_it(kerai: Run, ok: Run, rows: Callable[..., Any], package: Path) -> None:
    ok("import", package)
    launch = ["swarm", "launch", "--task", "all green"]
    limits = ["--scope", "pkg/auth", "--budget", "500", "--timeout", "1h"]
    task = rows("task", "create", "all green", *limits)
    assert rows(*launch)["task_id"] == task["id"]
    # The same options are no others.
    assert rows(*launch, *limits)["task_id"] == task["id"]
    for option in (
        ["--budget", "501"],
        ["--scope", "pkg"],
        ["--timeout", "2h"],
        ["--success-command", "true"],
    ):
        other = kerai(*launch, *option)
        assert (
            other.returncode == 1
            and f"detail: task {task['id']} has not: {' '.join(option[:1])}" in other.stderr
        )
    assert [t["id"] for t in rows("task", "list")] == [task["id"]]
    assert len(rows("swarm", "status")) == 2

    again = rows("task", "create", "all green", "--scope", "pkg")
    several = kerai(*launch)
    assert several.returncode == 1 and "2 open tasks have this description" in several.stderr
    assert task["id"] in several.stderr and again["id"] in several.stderr
    assert rows("swarm", "launch", "--task", again["id"][:12])["task_id"] == again["id"]
    assert len(rows("swarm", "status")) == 3

    # A finished task is none to work on: its words are those of a new one.
    ok("sql", "UPDATE kerai.tasks SET status = 'succeeded', finished_at = now()")
    new = rows(*launch, "--success-command", "true")["task_id"]
    assert new not in (task["id"], again["id"])


def test_two_launches_with_the_same_words_work_on_one_task(database: Any, connect: Any) -> None:
    first, second = connect(), connect()
    with first.transaction():
        made, command = task_to_launch(first, "all green", success_command="true")
        found: list[UUID] = []

        def launch() -> None:
            with second.transaction():
                found.append(task_to_launch(second, "all green")[0])

        other = threading.Thread(target=launch)
        other.start()
        waits = "select 1 from pg_stat_activity where pid = %s and wait_event = 'advisory'"
        observer, deadline = connect(), time.monotonic() + 30
        while observer.execute(waits, [second.info.backend_pid]).fetchone() is None:
            assert other.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)
    other.join(30)
    assert (found, command) == ([made], "true")


def test_a_launch_says_what_task_it_has_made(kerai: Run, rows: Callable[..., Any]) -> None:
    words = ["swarm", "launch", "--task", "all green", "--start", "0"]
    launched = kerai(*words, "--success-command", "true")
    (task,) = rows("task", "list")
    assert launched.stderr == f"made task {task['id']}, done when this exits with 0: true\n"
    assert kerai(*words).stderr == ""


def test_a_launch_limits_its_agents(kerai: Run, ok: Run, rows: Callable[..., Any], package: Path) -> None:
    ok("import", package)
    limits = ["--max-attempts", "1", "--attempt-timeout", "1s", "--test-timeout", "1m"]
    launch = ["swarm", "launch", "--task", "x", "--success-command", "false", "--start", "1"]
    ended = kerai(*launch, *limits, "--cost-per-second", "7", "--solver", "echo 1 > new; sleep 600")
    assert ended.returncode == 1 and "no agent runs here any more" in ended.stderr
    (status,) = rows("swarm", "status")
    assert status["attempts"] >= 1
    assert rows("swarm", "economics", "--task", "x")["spent_nkoi"] > 0


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
    create, launch = ["task", "create", "x", "--success-command", "true"], ["swarm", "launch", "--task"]
    work = ["agent", "work", "--swarm", "x"]
    for words, largest in (
        ([*create, "--budget"], 2**63 - 1),
        ([*create, "--budget-ops"], 2**31 - 1),
        ([*create, "--timeout"], 2**31 - 1),
        ([*launch, "first", "--agents"], 2**31 - 1),
        ([*launch, "second", "--budget"], 2**63 - 1),
        (["log", "--limit"], 10_000),
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

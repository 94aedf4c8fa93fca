"""What an agent at work survives, and what it never merges, on a real database."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

TESTS = f"{shlex.quote(sys.executable)} check.py"
REPAIR = "sed -i 's/a - b/a + b/' sum.py"


@pytest.fixture(autouse=True)
def _here(database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a database, and a folder with one bug in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "sum.py").write_text("def add(a, b):\n    return a - b\n")
    (folder / "check.py").write_text("import sum\n\nfailed = int(sum.add(1, 2) != 3)\nexit(failed)\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAI_DSN", database.dsn)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


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


def launch(rows: Callable[..., Any]) -> Any:
    """Import the folder and launch a swarm on all of it."""
    rows("import", ".")
    return rows("swarm", "launch", "--task", "green", "--success-command", TESTS)


def test_a_push_that_is_refused_costs_one_attempt(ok: Run, rows: Callable[..., Any], tmp_path: Path) -> None:
    swarm = launch(rows)
    rows("sql", "UPDATE kerai.settings SET value = 3000 WHERE name = 'max_changeset_bytes' RETURNING name")
    once = f"test -e {tmp_path}/once || {{ touch {tmp_path}/once; printf '# %5000d\\n' 1 >> sum.py; }}"
    work = ok("agent", "work", "--swarm", swarm["id"], "--agent", "s-1", "--solver", f"{once}; {REPAIR}")
    assert "refused (KR005)" in work.stdout and work.stdout.count("merged 1 operations") == 1
    assert rows("swarm", "status", swarm["id"])["status"] == "converged"
    # too large to be kept for study, but it counts
    assert rows("sql", "SELECT count(*) FROM kerai.failed_operations")[0]["count"] == 0
    assert rows("swarm", "leaderboard", "--task", swarm["task_id"])[0]["failures"] == 2


def test_a_file_of_control_characters_travels(ok: Run, rows: Callable[..., Any]) -> None:
    data = {"ctl.txt": b"\1" * 1_500_000, "quotes.txt": b'"' * (4 << 20), "letters.txt": b"x" * (4 << 20)}
    folder = Path("big")
    folder.mkdir()
    for name, content in data.items():
        (folder / name).write_bytes(content)
    assert rows("import", "big", "--into", "big")["problems"] == 0
    ok("checkout", "out")
    assert {path.name: path.read_bytes() for path in Path("out/big").iterdir()} == data
    assert rows("import", "out")["operations"] == 0
    encoded = "SELECT name FROM kerai.nodes WHERE metadata ->> 'encoding' = 'base64' ORDER BY name"
    assert [row["name"] for row in rows("sql", encoded)] == ["ctl.txt", "quotes.txt"]

"""`make format` and the hooks of pre-commit: they do what `make lint` wants, with the tools of .venv."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.sources import ROOT, commit_all, copy_sources, git

HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0][
    "hooks"
]
UGLY_PYTHON = "import sys\nimport os\nprint( os.sep,sys.path )\n"
UGLY_SQL = "SELECT 1 FROM kerai.nodes   where   TRUE;\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources in a repository, with this environment's tools and only the shortest SQL files: sqlfluff
    takes long."""
    folder = copy_sources(tmp_path)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    for place in ("extension/sql", "client/kerai_client"):
        for file in sorted((folder / place).rglob("*.sql"), key=lambda file: file.stat().st_size)[1:]:
            file.unlink()
    commit_all(folder, "sources")
    return folder


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command there, with git as a user without settings has it."""
    environment = os.environ | {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "PRE_COMMIT_HOME": str(folder.parent / "cache"),
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_format_changes_only_what_lint_would_refuse(copy: Path) -> None:
    # DEV= : the environment is there, although its stamp bears another directory's name.
    make_format = ("make", "--silent", "format", "DEV=")
    done = run_in(copy, *make_format)
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(copy, "status", "--porcelain") == ""

    python, sql = copy / "tests/ugly.py", copy / "extension/sql/ugly.sql"
    python.write_text(UGLY_PYTHON)
    sql.write_text(UGLY_SQL)
    done = run_in(copy, *make_format)
    assert done.returncode == 0, done.stdout + done.stderr
    assert python.read_text() == "import os\nimport sys\n\nprint(os.sep, sys.path)\n"
    assert sql.read_text() == "select 1 from kerai.nodes where true;\n"
    assert git(copy, "status", "--porcelain").split() == [
        "??",
        "extension/sql/ugly.sql",
        "??",
        "tests/ugly.py",
    ]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_runs_a_tool_of_the_environment(hook: dict[str, Any]) -> None:
    python, dash_m, module, *_ = hook["entry"].split()
    assert (hook["language"], python, dash_m) == ("system", ".venv/bin/python", "-m")
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, check=False)
    assert done.returncode == 0


def test_the_hooks_keep_an_ugly_commit_out(copy: Path) -> None:
    def commit() -> subprocess.CompletedProcess[str]:
        git(copy, "add", "--all")
        return run_in(copy, "git", "commit", "--quiet", "--message", "work")

    done = run_in(copy, ".venv/bin/pre-commit", "install")
    assert done.returncode == 0, done.stdout + done.stderr
    (copy / "tests/ugly.py").write_text(UGLY_PYTHON)
    (copy / "extension/sql/ugly.sql").write_text(UGLY_SQL)
    done = commit()
    assert done.returncode != 0
    failed = [line.split(".")[0] for line in done.stderr.splitlines() if line.endswith("Failed")]
    assert failed == ["ruff check", "ruff format", "sqlfluff lint"]

    (copy / "extension/sql/ugly.sql").unlink()
    done = commit()  # what ruff has mended is right now
    assert done.returncode == 0, done.stderr
    assert git(copy, "status", "--porcelain") == ""

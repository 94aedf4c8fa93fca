"""What the tests of the commands share: a database and a folder each, and ways to run a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.client.commands.sample import PACKAGE, Result, Run, make


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


@pytest.fixture
def package() -> Path:
    """A package with one failing test."""
    return make(Path("package"), PACKAGE)

"""What the tests of the commands share: a database and a folder each, and ways to run a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.client.commands.sample import PACKAGE, make


@pytest.fixture(autouse=True)
def _here(database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a database and an empty folder of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("KERAI_DSN", database.dsn)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture
def package() -> Path:
    """A package with one failing test."""
    return make(Path("package"), PACKAGE)

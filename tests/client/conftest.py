"""What tests of whole commands share: a database and a folder each, and a package to work on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.sample import PACKAGE, make


@pytest.fixture
def here(database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with a database of the test's own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("KERAI_DSN", database.dsn)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture
def package(here: None) -> Path:
    """A package with one failing test."""
    return make(Path("package"), PACKAGE)

"""Tests run the functions that users run: they change settings, never the text of a function."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
REWRITES = re.compile(
    r"(?:alter|create or replace) (?:function|procedure) kerai|update (?:pg_catalog\.)?pg_proc",
    re.IGNORECASE,
)
# It writes the scripts of another version.
EXCEPT = {"install/test_upgrade.py"}


def test_no_test_rewrites_a_function() -> None:
    files = [file for ending in ("py", "sql", "psql") for file in TESTS.rglob(f"*.{ending}")]
    assert len(files) > 100
    found = {
        str(file.relative_to(TESTS)): REWRITES.findall(file.read_text("utf-8"))
        for file in files
        if file != Path(__file__)
    }
    assert {file for file, rewrites in found.items() if rewrites} == EXCEPT

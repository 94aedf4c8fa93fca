"""Run each file of tests/pgtap by pg_prove, in a database that has kerai and pgTAP in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.settings.odd import connect as connect_to

FILES = sorted(Path(__file__).with_name("pgtap").glob("*.sql"))


@pytest.fixture(scope="module")
def template(make_database: Any) -> Iterator[str]:
    """The name of a database to copy: CREATE EXTENSION pgtap takes longer than all the rest."""
    with make_database() as made:
        with connect_to(made.dsn) as connection:
            connection.execute("create extension pgtap")
        yield made.name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pgtap(file: Path, template: str, make_database: Any) -> None:
    pg_prove = shutil.which("pg_prove")
    assert pg_prove, "pg_prove is missing: apt install libtap-parser-sourcehandler-pgtap-perl"
    with make_database(template=template) as database:
        # pg_prove has options for these, and none for a connection string.
        way = {f"PG{name.upper()}": str(value) for name, value in conninfo_to_dict(database.dsn).items()}
        way |= {"PGDATABASE": way.pop("PGDBNAME"), "PGAPPNAME": "pg_prove"}
        run = subprocess.run(
            [pg_prove, "--verbose", file],
            env={**os.environ, **way},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode != 0:
        pytest.fail(f"{run.stdout}\n{run.stderr}", pytrace=False)

"""SQL, as a user types it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.sample import Run

from kerai_client.cli.main import cli

pytestmark = pytest.mark.usefixtures("here")


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

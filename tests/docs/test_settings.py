"""The page about settings lists what an instance has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "install-and-upgrade.md"
ROW = re.compile(r"^\| `(\w+)` \| ([\d,]+) \| (.+) \|$", re.MULTILINE)


def test_the_page_lists_every_setting_with_its_default(connect: Any) -> None:
    told = [
        (name, int(value.replace(",", "")), text)
        for name, value, text in ROW.findall(PAGE.read_text("utf-8"))
    ]
    found = connect().execute('select name, value, description from kerai.settings order by name collate "C"')
    assert told == [tuple(row.values()) for row in found]


@pytest.mark.parametrize(("value", "taken"), [(0, False), (1, True), (10**9, True), (10**9 + 1, False)])
def test_every_setting_has_the_range_that_the_page_says(connect: Any, value: int, taken: bool) -> None:
    connection = connect()
    assert "from 1 to 1,000,000,000" in PAGE.read_text("utf-8")
    for row in connection.execute("select name from kerai.settings").fetchall():
        change = ["update kerai.settings set value = %s where name = %s", [value, row["name"]]]
        if taken:
            assert connection.execute(*change).rowcount == 1
        else:
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(*change)
            assert refused.value.sqlstate == "KR005"

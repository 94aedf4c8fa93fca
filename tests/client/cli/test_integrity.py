"""A long life: kerai verify, rebuild, compact, maintain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.sample import Run

pytestmark = pytest.mark.usefixtures("here")


def test_a_damaged_tree_is_found_and_made_anew(ok: Run, kerai: Run, package: Path, connect: Any) -> None:
    ok("import", package)
    assert "All is well" in ok("verify").stdout
    assert json.loads(ok("verify", "--json").stdout) == []
    connect().execute("update kerai.nodes set content = 'x' where content like '%def %'")
    found = kerai("verify", "--json")
    assert found.returncode == 1
    assert {row["what"] for row in json.loads(found.stdout)} == {"node"}
    assert "kerai rebuild" in json.loads(found.stderr)["error"]["hint"]
    assert "content is 'x', should be" in kerai("verify").stdout
    assert ok("verify", "--shallow").stdout.strip() == "All is well."
    assert json.loads(ok("rebuild", "--json").stdout)["changed"] is True
    assert json.loads(ok("verify", "--json").stdout) == []


def test_history_is_dropped_when_it_is_old_and_one_says_yes(ok: Run, kerai: Run, package: Path) -> None:
    ok("import", package)
    assert "Nothing is old enough" in ok("compact", "--older-than", "1h", "--yes").stdout
    declined = kerai("compact", "--older-than", "0.000001s", input="n\n")
    assert declined.returncode == 1 and "for good?" in declined.stderr
    row = json.loads(ok("compact", "--older-than", "0.000001s", "--yes", "--json").stdout)
    assert row["changesets"] == 1 and row["operations_dropped"] == 0 and row["bytes_dropped"] > 0
    assert "All is well" in ok("verify").stdout
    ok("checkout", "there")


def test_what_has_expired_is_removed_once(ok: Run) -> None:
    ok("sql", "UPDATE kerai.settings SET value = 60 WHERE name = 'test_results_ttl_seconds'")
    ok(
        "sql",
        "INSERT INTO kerai.test_results (task_id, agent_id, version_vector, passed, created_at) "
        "SELECT gen_random_uuid(), gen_random_uuid(), '{}', false, now() - interval '30 days'",
    )
    (row,) = json.loads(ok("maintain", "--json").stdout)
    assert row["action"] == "emptied" and row["relation"].startswith("kerai.test_results_p")
    assert ok("maintain").stdout.strip() == "no changes"

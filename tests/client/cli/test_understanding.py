"""Perspectives, associations and consensus, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.sample import Run

from kerai_client.cli.main import cli

pytestmark = pytest.mark.usefixtures("here")

Rows = Callable[..., Any]
TOKEN = "pkg/auth/token.py"


def said(*words: str) -> Any:
    """Return what a command prints as JSON; it has to succeed."""
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == 0, (words, result.output)
    return json.loads(result.stdout)


def refused(*words: str) -> str:
    """Return the message and hint with which a command is refused."""
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code in (1, 2), (words, result.output)
    error = json.loads(result.stderr)["error"]
    return f"{error['code']} {error['message']} | {error['detail']} | {error['hint']}"


@pytest.fixture(autouse=True)
def _imported(package: Path) -> None:
    said("import", str(package), "--agent", "owner")


def test_perspectives(ok: Run) -> None:
    first = said("perspective", "set", TOKEN, "0.5", "--reason", "the heart of it", "--agent", "ann")
    assert (first["status"], first["seq"], first["weight"]) == ("merged", 1, 0.5)
    said("perspective", "set", TOKEN, "-0.5", "--agent", "bob")
    said("perspective", "set", "pkg.auth.token_py.valid", "-1", "--context", "tests", "--agent", "bob")
    said("perspective", "set", "pkg/other.py", ".25", "--agent", "ann", "--message", "a closer look")
    (own,) = said("perspective", "list", "--agent", "ann", "--scope", "pkg/auth")
    assert (own["node_id"], own["path"], own["weight"], own["reasoning"]) == (
        first["node"],
        "pkg.auth.token_py",
        0.5,
        "the heart of it",
    )
    assert len(said("perspective", "list")) == 4
    assert [row["path"] for row in said("perspective", "list", "--context", "tests")] == [
        "pkg.auth.token_py.valid"
    ]
    (both,) = said("consensus", "--scope", first["node"])
    assert (both["count"], both["mean"], both["spread"]) == (2, 0.0, 0.5)
    assert len(said("consensus", "--min-count", "1")) == 3
    assert "-0.500" in ok("consensus").stdout and "spread" in ok("consensus").stdout
    assert {row["path"] for row in said("perspective", "insights")} == {
        "pkg.auth.token_py.valid",
        "pkg.other_py",
    }
    differing = said("perspective", "diff", "ann", "bob")
    assert [(row["path"], row["difference"]) for row in differing] == [
        ("pkg.auth.token_py", -1.0),
        ("pkg.auth.token_py.valid", None),
        ("pkg.other_py", None),
    ]
    said("perspective", "set", TOKEN, "1", "--agent", "ann")
    assert said("perspective", "list", "--agent", "ann")[0]["weight"] == 1
    said("perspective", "delete", TOKEN, "--agent", "ann")
    assert [row["path"] for row in said("perspective", "list", "--agent", "ann")] == ["pkg.other_py"]
    # All of it was pushed as operations that are signed.
    assert [row["message"] for row in said("log", "--author", "ann")] == [
        "perspective delete",
        "perspective set",
        "a closer look",
        "perspective set",
    ]


def test_associations() -> None:
    test = "tests/test_token.py"
    said("associations", "set", TOKEN, test, "tested-by", "1", "--agent", "ann", "--reason", "imports it")
    said("associations", "set", TOKEN, test, "tested-by", "-0.5", "--agent", "bob")
    said("associations", "set", TOKEN, "pkg/other.py", "calls", "0.1", "--agent", "bob")
    (own,) = said("associations", "list", "--agent", "ann")
    assert (
        own["source_path"],
        own["target_path"],
        own["relation_name"],
        own["weight"],
        own["reasoning"],
    ) == (
        "pkg.auth.token_py",
        "tests.test_token_py",
        "tested-by",
        1.0,
        "imports it",
    )
    assert len(said("associations", "list", "--scope", "pkg/auth")) == 3
    assert len(said("associations", "list", "--relation", "calls")) == 1
    (both,) = said("associations", "consensus", "--relation", "tested-by")
    assert (both["count"], both["mean"], both["spread"]) == (2, 0.25, 0.75)
    said("associations", "delete", TOKEN, test, "tested-by", "--agent", "bob")
    assert said("associations", "consensus") == []


def test_wrong_values_are_told() -> None:
    for weight in ("1.5", "-1.01", "nan", "much"):
        assert "WEIGHT" in refused("perspective", "set", TOKEN, weight)
    assert "unexpected extra argument" in refused("perspective", "set", TOKEN, "1", "--reaso", "x")
    assert "nothing at 'nowhere'" in refused("perspective", "set", "nowhere", "1")
    assert "nothing at 'nowhere.at.all'" in refused("consensus", "--scope", "nowhere.at.all")
    assert "nothing at 'nowhere'" in refused("associations", "set", TOKEN, "nowhere", "calls", "1")
    gone = refused("perspective", "delete", TOKEN, "--agent", "ann")
    assert "agent 'ann' has no such perspective" in gone and "kerai perspective list --agent ann" in gone
    gone = refused("associations", "delete", TOKEN, TOKEN, "calls", "--agent", "ann")
    assert "agent 'ann' has no such association" in gone and "relation: calls" in gone
    assert refused("perspective", "list", "--agent", "nobody").startswith("KR006 no such author")
    assert refused("perspective", "diff", "owner", "nobody").startswith("KR006 no such author")
    assert refused("associations", "set", TOKEN, TOKEN, "", "1").startswith("KR005")
    assert "--min-count" in refused("consensus", "--min-count", "0")


def test_a_path_that_several_nodes_have_is_not_guessed(package: Path) -> None:
    (package / "pkg/other_py").write_text("a name that ltree cannot tell from the other's\n")
    said("import", str(package), "--agent", "owner")
    several = refused("perspective", "set", "pkg.other_py", "1")
    assert "several nodes have the path pkg.other_py" in several and "by its id" in several
    assert said("perspective", "set", "pkg/other_py", "1")["status"] == "merged"

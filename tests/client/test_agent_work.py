"""What an agent at work survives, and what it never merges, on a real database."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerai_client.database import Database
from kerai_client.harness.worker import Worker
from kerai_client.session import Session, read_state
from kerai_client.source import ROOT_ID, Tree, new_id

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

TESTS = f"{shlex.quote(sys.executable)} check.py"
REPAIR = "sed -i 's/a - b/a + b/' sum.py"


@pytest.fixture(autouse=True)
def _here(database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a database, and a folder with one bug in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "sum.py").write_text("def add(a, b):\n    return a - b\n")
    (folder / "check.py").write_text("import sum\n\nfailed = int(sum.add(1, 2) != 3)\nexit(failed)\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAI_DSN", database.dsn)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def launch(rows: Callable[..., Any]) -> Any:
    """Import the folder and launch a swarm on all of it."""
    rows("import", ".")
    return rows("swarm", "launch", "--task", "green", "--success-command", TESTS)


def test_a_push_that_is_refused_costs_one_attempt(ok: Run, rows: Callable[..., Any], tmp_path: Path) -> None:
    swarm = launch(rows)
    rows("sql", "UPDATE kerai.settings SET value = 3000 WHERE name = 'max_changeset_bytes' RETURNING name")
    once = f"test -e {tmp_path}/once || {{ touch {tmp_path}/once; printf '# %5000d\\n' 1 >> sum.py; }}"
    work = ok("agent", "work", "--swarm", swarm["id"], "--agent", "s-1", "--solver", f"{once}; {REPAIR}")
    assert "refused (KR005)" in work.stdout and work.stdout.count("merged 1 operations") == 1
    assert rows("swarm", "status", swarm["id"])["status"] == "converged"
    # too large to be kept for study, but it counts
    assert rows("sql", "SELECT count(*) FROM kerai.failed_operations")[0]["count"] == 0
    assert rows("swarm", "leaderboard", "--task", swarm["task_id"])[0]["failures"] == 2


def test_a_file_of_control_characters_travels(ok: Run, rows: Callable[..., Any]) -> None:
    data = {"ctl.txt": b"\1" * 1_500_000, "quotes.txt": b'"' * (4 << 20), "letters.txt": b"x" * (4 << 20)}
    folder = Path("big")
    folder.mkdir()
    for name, content in data.items():
        (folder / name).write_bytes(content)
    assert rows("import", "big", "--into", "big")["problems"] == 0
    ok("checkout", "out")
    assert {path.name: path.read_bytes() for path in Path("out/big").iterdir()} == data
    assert rows("import", "out")["operations"] == 0
    encoded = "SELECT name FROM kerai.nodes WHERE metadata ->> 'encoding' = 'base64' ORDER BY name"
    assert [row["name"] for row in rows("sql", encoded)] == ["ctl.txt", "quotes.txt"]


# -- what was tested is what is merged -----------------------------------------------------------


def insert(parent: str | None, kind: str, name: str | None, position: str = "!") -> dict[str, Any]:
    """A new node as an operation; its position is before that of whatever a client inserts."""
    fields = {"parent": parent, "position": position, "kind": kind, "name": name}
    return {"op": "node_insert", "node": str(new_id()), **fields}


def test_a_second_tree_that_comes_while_the_tests_run_makes_a_push_stale(
    ok: Run, rows: Callable[..., Any], database: Any, tmp_path: Path
) -> None:
    rows("import", ".")
    top = insert(None, "directory", None)
    ops = json.dumps([top, insert(top["node"], "file", "poison")])
    rows("sql", "SELECT name FROM kerai.register_agent('rival', 'tool')")
    # Once the candidate passes, and before it is pushed, somebody else merges a file beside the root.
    rival = f"SELECT status FROM kerai.push_ops('{ops}')"
    kerai = f"{shlex.quote(sys.executable)} -m kerai_client --dsn {shlex.quote(database.dsn)}"
    once = f"{{ test -e {tmp_path}/once || {{ touch {tmp_path}/once; {kerai} sql {shlex.quote(rival)}; }}; }}"
    command = f"{TESTS} && {once} && ! test -e poison"
    swarm = rows("swarm", "launch", "--task", "green", "--success-command", command)
    work = [
        "agent",
        "work",
        "--swarm",
        swarm["id"],
        "--agent",
        "s-1",
        "--solver",
        REPAIR,
        "--max-attempts",
        "1",
    ]
    said = ok(*work).stdout
    assert "the state has changed meanwhile" in said and "no better" in said and "0 merged" in said
    assert rows("swarm", "status", swarm["id"])["status"] == "running"
    assert rows("sql", "SELECT count(*) FROM kerai.changesets WHERE task_id IS NOT NULL")[0]["count"] == 0


def test_the_guard_is_the_root_that_all_clients_share(database: Any) -> None:
    class Everything:
        """A membership of a swarm without a scope."""

        class assignment:
            scope = None

    worker = Worker(None, Everything(), "", None, None, None)  # type: ignore[arg-type]

    def tree(*ids: Any) -> Tree:
        kinds = {"position": "a", "depth": 0, "kind": "directory", "name": None, "language": None}
        rest = {"content": None, "path": None, "metadata": {}}
        return Tree.from_rows([{"id": node, "parent_id": None, **kinds, **rest} for node in ids])

    other = new_id()
    assert worker._guard(tree(other, ROOT_ID)) == ROOT_ID
    assert worker._guard(tree(other)) == other
    assert worker._guard(Tree()) is None


def test_an_exact_push_that_is_sent_again_is_merged_and_not_stale(database: Any) -> None:
    with (
        Database(database.dsn) as way,
        Session(way, "first") as first,
        Session(way, "second") as second,
    ):
        first.push([{**insert(None, "directory", None), "node": str(ROOT_ID)}], {})
        state = read_state(way)
        ops = [insert(str(ROOT_ID), "file", "a")]
        pages = list(first._pages(ops, state.vector, ROOT_ID, None, ""))
        alone = {**state.vector, first.author: pages[-1].last_seq}
        assert first._send(way.connection(), pages, alone)
        assert second.push([insert(None, "directory", "beside")], state.vector).status == "merged"
        # the answer to the first push was lost, so it is sent again
        assert first._send(way.connection(), pages, alone)
        # what was made from a state without "beside" is stale, and leaves nothing behind
        late = {**state.vector, first.author: pages[-1].last_seq}
        more = [insert(str(ROOT_ID), "file", "b")]
        assert first.push(more, late, guard=ROOT_ID, exact=True).status == "stale"
        assert read_state(way).tree.find("b") is None
        assert first.push(more, late, guard=ROOT_ID).status == "merged"

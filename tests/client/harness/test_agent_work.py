"""What an agent at work survives, and what it never merges, on a real database."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from kerai_client.agent import session
from kerai_client.agent.session import WHOLE_STATE, Session
from kerai_client.agent.state import read_state, read_vector
from kerai_client.db.connection import Database
from kerai_client.db.connection import connect as connect_to
from kerai_client.harness.coordination import Membership
from kerai_client.source import ROOT_ID, new_id

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

TESTS = f"{shlex.quote(sys.executable)} check.py"
SUBMIT = "select kerai.submit_push(%(document)s, %(signature)s, %(public_key)s) as ticket"
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


def test_an_attempt_that_is_not_pushed_is_no_result_of_the_state(
    ok: Run, rows: Callable[..., Any], database: Any
) -> None:
    Path("check.py").write_text(
        "import sum\n\nfailed = 2 * int(sum.add(1, 2) != 3)\n"
        "print(f'{failed} failed, 1 passed in 0.1s')\nexit(failed)\n"
    )
    swarm = launch(rows)
    worse = "sed -i 's/failed, 1/failed, 0/; s/2 [*]/3 */' check.py"
    ok("agent", "work", "--swarm", swarm["id"], "--agent", "s-1", "--max-attempts", "1", "--solver", worse)
    found = rows("sql", "SELECT pushed, failing, output FROM kerai.test_results ORDER BY created_at")
    assert [(row["pushed"], row["failing"]) for row in found] == [(True, 2), (False, 3)]
    assert [row["output"] for row in found] == ["2 failed, 1 passed in 0.1s", "3 failed, 0 passed in 0.1s"]
    assert rows("swarm", "status", swarm["id"])["failing_tests"] == 2
    (kept,) = rows("sql", "SELECT failing, output_tail FROM kerai.failed_operations")
    assert kept == {"failing": 3, "output_tail": found[1]["output"]}
    with Database(database.dsn) as way, Session(way, "s-2") as other:
        known = Membership(way, UUID(swarm["id"]), other.agent_id).result_at(read_vector(way))
    assert known is not None and known[1] == found[0]["output"]


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


# -- the tested state is the merged one -----------------------------------------------------------


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


def root() -> dict[str, Any]:
    """The directory that all clients share, as an operation."""
    return {**insert(None, "directory", None), "node": str(ROOT_ID)}


def test_a_push_that_is_sent_again_is_merged_and_not_stale(database: Any) -> None:
    with (
        Database(database.dsn) as way,
        Session(way, "first") as first,
        Session(way, "second") as second,
    ):
        base = first.push([root()], {}).vector
        ops = [insert(str(ROOT_ID), "file", "a")]
        guarded = {"guard": str(WHOLE_STATE), "task": None, "message": ""}
        pages = list(first._changesets(ops, base=base, **guarded))
        merged = first._send(way.connection(), pages)
        assert merged is not None
        assert second.push([insert(None, "directory", "beside")], base).status == "merged"
        # the answer to the first push was lost, so it is sent again
        assert first._send(way.connection(), pages) == merged
        # an edit of a state without "beside" is stale, and leaves nothing behind
        late = {**base, first.author: 2}
        more = [insert(str(ROOT_ID), "file", "b")]
        stale = first.push(more, late, guard=WHOLE_STATE)
        assert (stale.status, stale.vector) == ("stale", late)
        assert read_state(way).tree.find("b") is None
        assert first.push(more, late, guard=ROOT_ID).vector == {**late, first.author: 3}


def test_several_changesets_are_merged_whole_or_not_at_all(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "paged", lambda ops: ([op] for op in ops))
    with Database(database.dsn) as way, Session(way, "first") as first, Session(way, "second") as second:
        base = first.push([root()], {}).vector
        ops = [insert(str(ROOT_ID), "file", name) for name in "abc"]
        pushed = first.push(ops, base, guard=WHOLE_STATE)
        assert (pushed.changesets, pushed.vector) == (3, {**base, first.author: 4})
        second.push([insert(str(ROOT_ID), "file", "other")], pushed.vector)
        ops = [insert(str(ROOT_ID), "file", name) for name in "de"]
        assert first.push(ops, pushed.vector, guard=ROOT_ID).status == "stale"
        assert read_vector(way)[first.author] == 4


# -- submit and settle ---------------------------------------------------------------------------


def test_what_a_killed_agent_has_submitted_forks_nothing(database: Any) -> None:
    with Database(database.dsn) as way, Session(way, "witness") as witness:
        with Session(way, "killed") as killed:
            base = killed.push([root()], {}).vector
            ops = [insert(str(ROOT_ID), "file", "never asked after")]
            (page,) = killed._changesets(ops, base=base, guard=None, task=None, message="")
            # killed before it could settle
            way.connection().execute(SUBMIT, killed._signed(page))
        with Session(way, "killed") as again:
            assert witness.push([insert(str(ROOT_ID), "file", "a")], base).status == "merged"
            assert again.push([insert(str(ROOT_ID), "file", "b")], base).vector == {again.author: 2}
        assert {node.name for node in read_state(way).tree.subtree(ROOT_ID)} == {None, "a", "b"}


def test_a_refused_push_does_not_wait_for_better_times(database: Any) -> None:
    with Database(database.dsn) as way, Session(way, "first") as first, Session(way, "witness") as witness:
        base = first.push([root()], {}).vector
        made = "select id from kerai.create_task('green', 'true', budget_ops => 1)"
        task = way.connection().execute(made).fetchone()
        assert task is not None
        ops = [insert(str(ROOT_ID), "file", name) for name in "ab"]
        with pytest.raises(psycopg.Error, match="budget"):
            first.push(ops, base, task=task["id"])
        way.connection().execute("update kerai.tasks set budget_ops = null")
        assert witness.push([insert(str(ROOT_ID), "file", "c")], base).status == "merged"
        assert first.push([insert(str(ROOT_ID), "file", "d")], base).vector == {first.author: 2}
        assert {node.name for node in read_state(way).tree.subtree(ROOT_ID)} == {None, "c", "d"}


def test_another_role_with_the_key_pushes_without_submitting(database: Any, role_connection: Any) -> None:
    with Database(database.dsn) as way, Session(way, "shared") as shared:
        base = shared.push([root()], {}).vector
    role_connection("kerai_agent")
    with Database(database.dsn_as("test_kerai_agent")) as way, Session(way, "shared") as again:
        ops = [insert(str(ROOT_ID), "file", "a")]
        assert again.push(ops, base, guard=WHOLE_STATE).vector == {again.author: 2}
    with connect_to(database.dsn) as connection:
        # One was taken by the first push.
        last = connection.execute("select last_value from kerai_private.arrivals").fetchone()
        assert last == {"last_value": 1}


def test_withdrawing_waits_for_whoever_settles(database: Any) -> None:
    with Database(database.dsn) as way, Session(way, "first") as first, ThreadPoolExecutor(1) as pool:
        (page,) = first._changesets([root()], base={}, guard=None, task=None, message="")
        (ticket,) = way.connection().execute(SUBMIT, first._signed(page)).fetchall()
        with connect_to(database.dsn) as settler, connect_to(database.dsn) as other:
            with settler.transaction():
                settler.execute("select kerai.await_push(%(ticket)s)", ticket)
                waiting = pool.submit(
                    lambda: other.execute("select kerai.withdraw(%s)", [first.agent_id]).fetchall()
                )
                blocked = "select from pg_locks where pid = %s and not granted"
                while not way.connection().execute(blocked, [other.info.backend_pid]).rowcount:
                    assert not waiting.done()
            assert waiting.result(60) == [{"withdraw": 0}]
        assert read_vector(way) == {first.author: 1}

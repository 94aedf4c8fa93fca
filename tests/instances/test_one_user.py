"""One user at several instances: his default agent has a key at each of them, and never forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from tests.support.sample import Run, files_below, make

from kerai_client.db.connection import connect as connect_to

FILES = {"a.py": "A = 1\n", "b.py": "B = 1\n"}


@pytest.fixture
def pair(make_database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Two instances that know each other, each with a key of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with ExitStack() as stack:
        made = [stack.enter_context(make_database(template=None)) for _ in range(2)]
        with connect_to(made[0].dsn) as connection:
            connection.execute("select kerai.add_peer('other', %s)", [made[1].dsn])
        yield made


def forks(*databases: Any) -> list[Any]:
    found = []
    for database in databases:
        with connect_to(database.dsn) as connection:
            found += connection.execute("select author from kerai.forks").fetchall()
    return found


def until_blocked(connection: Any) -> None:
    """Wait until somebody waits for a lock."""
    deadline = time.monotonic() + 60
    while not connection.execute("select from pg_locks where not granted").rowcount:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_imports_at_two_synced_instances_fork_nothing(pair: list[Any], ok: Run) -> None:
    here, there = (database.dsn for database in pair)
    mine = make(Path("mine"), FILES)
    ok("import", mine, "--dsn", here)
    ok("sync", "other", "--dsn", here)
    ok("checkout", "theirs", "--dsn", there)
    theirs = Path("theirs")
    # Both are edited before the instances meet again.
    for number in range(2, 4):
        (mine / "a.py").write_text(f"A = {number}\n")
        ok("import", mine, "--dsn", here)
        (theirs / "b.py").write_text(f"B = {number}\n")
        ok("import", theirs, "--dsn", there)
        ok("sync", "other", "--dsn", here)
    for name, dsn in (("here", here), ("there", there)):
        ok("checkout", name, "--dsn", dsn)
        assert files_below(Path(name)) == {"a.py": "A = 3\n", "b.py": "B = 3\n"}
    assert forks(*pair) == []
    # The first import at either of two instances that have never met.
    keys = sorted(path.name for path in Path(os.environ["KERAI_KEYS"]).glob("*/*.key"))
    assert len(keys) == 2 and len(set(keys)) == 1


def test_a_copy_of_a_database_is_told_before_anything_is_signed(pair: list[Any], ok: Run, kerai: Run) -> None:
    """A copy has the instance key of the original, so its folder among the keys is the same."""
    original, other = pair
    mine = make(Path("mine"), FILES)
    ok("import", mine, "--dsn", original.dsn)
    admin = original.server.dsn_of("postgres")
    with connect_to(admin) as connection:
        connection.execute(sql.SQL("drop database {}").format(sql.Identifier(other.name)))
        connection.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(other.name), sql.Identifier(original.name)
            )
        )
    (mine / "a.py").write_text("A = 2\n")
    ok("import", mine, "--dsn", original.dsn)
    (mine / "b.py").write_text("B = 2\n")
    refused = kerai("import", mine, "--dsn", other.dsn, "--replace", "--json")
    error = json.loads(refused.stderr.splitlines()[-1])["error"]
    assert "does not have all that agent" in error["message"] and "--agent" in error["hint"]
    with connect_to(other.dsn) as connection:
        assert connection.execute("select from kerai.changesets").rowcount == 1
    assert ok("import", mine, "--dsn", original.dsn).returncode == 0
    assert forks(*pair) == []


def test_an_agent_that_was_registered_with_one_key_at_two_instances_is_told(
    pair: list[Any], ok: Run, kerai: Run
) -> None:
    """So older clients did it. One of both databases gets the key, the other says what to do."""
    here, there = (database.dsn for database in pair)
    mine = make(Path("mine"), FILES)
    ok("import", mine, "--dsn", here, "--agent", "ann")
    keys = Path(os.environ["KERAI_KEYS"])
    (file,) = keys.glob("*/ann.key")
    file.rename(keys / "ann.key")
    with connect_to(here) as one, connect_to(there) as two:
        row = one.execute("select public_key from kerai.agents where name = 'ann'").fetchone()
        assert row is not None
        two.execute("select kerai.register_agent('ann', 'human', %s)", [row["public_key"]])
    (mine / "a.py").write_text("A = 2\n")
    ok("import", mine, "--dsn", here, "--agent", "ann")
    refused = kerai("import", mine, "--dsn", there, "--agent", "ann")
    assert refused.returncode == 1 and "error KR002" in refused.stderr
    assert "signs for another database" in refused.stderr and "--agent NAME" in refused.stderr
    ok("import", mine, "--dsn", there, "--agent", "ann-2")


def test_imports_into_two_servers_do_not_exclude_each_other(
    pair: list[Any], ok: Run, kerai: Run, connect: Callable[..., Any]
) -> None:
    here, there = pair
    mine = make(Path("mine"), FILES)
    ok("import", mine, "--dsn", here.dsn, "--agent", "ann")
    with connect(here.dsn) as blocker, blocker.transaction():
        blocker.execute("lock table kerai.changesets in access exclusive mode")
        (mine / "a.py").write_text("A = 2\n")
        command = ["import", str(mine), "--dsn", here.dsn, "--agent", "ann"]
        slow = subprocess.Popen([sys.executable, "-m", "kerai_client", *command])
        try:
            until_blocked(blocker)
            second = make(Path("second"), FILES)
            ok("import", second, "--dsn", there.dsn, "--agent", "ann")
        finally:
            blocker.execute("rollback")
            assert slow.wait(60) == 0

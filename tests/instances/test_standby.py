"""A hot standby: each function for reading gives what it gives on the primary, or says what is missing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert, move, update
from tests.merge.members import Member, launch
from tests.merge.observe import scalar

from kerai_client.db.connection import connect as connect_to
from kerai_client.server.postgres import program
from kerai_client.server.private import PrivateServer

# What kerai_reader and kerai_peer may call, and kerai.verify: nothing of it is for changing anything here.
READING = """
select p.proname as name, p.oid::regprocedure::text as signature, p.proretset as is_set,
    coalesce(p.proargnames[1:p.pronargs], '{}') as arguments,
    array(select format_type(t, null) from unnest(p.proargtypes::oid[]) as t) as types
from pg_proc as p
where p.pronamespace in ('kerai'::regnamespace, 'kerai_sync'::regnamespace) and p.prokind = 'f'
    and (has_function_privilege('kerai_reader', p.oid, 'execute')
        or has_function_privilege('kerai_peer', p.oid, 'execute') or p.proname in ('verify', 'instance_key'))
order by 1, 2"""
WRITES = {"accept", "report_fork"}


@dataclass(frozen=True)
class Pair:
    """A primary and its standby, both to be asked as a superuser; values for the arguments of functions."""

    primary: Connection[Any]
    standby: Connection[Any]
    values: dict[str, Any]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix=f"kerai-test-{os.getpid()}-"))
    folder.chmod(0o755)
    primary = PrivateServer(folder / "server", fsync=False)
    copy = primary.home / "standby"
    run = primary.owner.run
    try:
        primary.up()
        primary.owner.write(primary.data / "pg_hba.conf", "local replication all trust\n", append=True)
        with connect_to(primary.dsn) as writer:
            writer.execute("select pg_reload_conf()")
            # What is committed is written then, and the place in the log is after it.
            writer.execute("set synchronous_commit = on")
            values = fill(writer)
            copy.mkdir(mode=0o700)
            os.chown(copy, primary.owner.uid, primary.owner.gid)
            base = ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
            made = run([program("pg_basebackup"), f"--dbname={primary.dsn}", f"--pgdata={copy}", *base])
            assert made.returncode == 0, made.stdout
            options = f"-c port=5433 -c log_directory={copy}/log"
            control = [program("pg_ctl"), f"--pgdata={copy}", "--wait", "--timeout=60"]
            started = run([*control, "start", f"--options={options}", f"--log={copy}/start.log"])
            assert started.returncode == 0, (copy / "start.log").read_text()
            try:
                dsn = primary.dsn.replace("port=5432", "port=5433")
                # What comes by streaming, after the backup.
                LiveAuthor(writer, "later").push(update(values["root"], content="later"))
                place = scalar(writer, "select pg_current_wal_lsn()::text")
                with connect_to(dsn) as reader:
                    wait_for(reader, place)
                    yield Pair(writer, reader, values)
            finally:
                run([*control, "stop", "--mode=immediate"])
    finally:
        primary.destroy()
        shutil.rmtree(folder)


def wait_for(standby: Connection[Any], place: str) -> None:
    deadline = time.monotonic() + 60
    while not scalar(standby, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", [place]):
        assert time.monotonic() < deadline, "the standby does not catch up"
        time.sleep(0.02)


def fill(connection: Connection[Any]) -> dict[str, Any]:
    """Make an instance with something in every view; return a value for each name of an argument."""
    connection.execute("select kerai.instance_key()")
    root, other = str(uuid4()), str(uuid4())
    ann = LiveAuthor(connection, "ann")
    ann.push(insert(root, name="a.py"), insert(other, root, name="f"))
    task, swarm = launch(connection, grouped=False)
    member = Member(connection, "member")
    member.join(swarm)
    bob = LiveAuthor(connection, "member", member.key)
    bob.push(update(root, content="x"), move(other, None), task=task)
    bob.push({"op": "perspective_set", "node": root, "weight": 1})
    bob.push({"op": "association_set", "source": root, "target": other, "relation": "r", "weight": 1})
    vector = scalar(connection, "select kerai.version_vector()")
    for passed in (False, True):
        connection.execute(
            "select kerai.record_test_result(%s, %s, %s, %s, '2 failed in 1s', 5, 3)",
            [task, member.id, json.dumps(vector), passed],
        )
    connection.execute("select kerai_sync.serve_scope(%s)", [root])
    changeset = scalar(connection, "select id from kerai.changesets order by arrival limit 1")
    first = {ann.author: 2}
    node = dict.fromkeys(("root", "scope", "node", "file", "source", "context", "node_id"), root)
    vectors = dict.fromkeys(
        ("at", "vector", "seen", "a", "b", "base", "up_to", "have", "want"), json.dumps(first)
    )
    return {
        **node,
        **vectors,
        "target": other,
        "before": None,
        "after": json.dumps(vector),
        "author": ann.author,
        "task": task,
        "swarm": swarm,
        "agent": member.id,
        "wallet": member.wallet,
        "changeset": changeset,
        "since": None,
        "served": scalar(connection, "select id from kerai_private.served_scopes"),
    }


# These differ from the primary by what comes from test results, which are not replicated.
WITHOUT_RESULTS = {
    "agent_trace", "lineage", "swarm_agents", "swarm_economics", "swarm_leaderboard", "swarm_status"
}  # fmt: skip
NOT_THERE = {"swarm_progress", "serve_scope", "scope_members", "scope_backfill", "scope_page"}


def argument(pair: Pair, function: str, name: str, kind: str) -> Any:
    """Return a value for an argument: by its type and name, so that a new function needs no line here."""
    if kind == "jsonb" and name in pair.values:
        return pair.values[name]
    if function == "view_diff" and name in {"a", "b"}:
        return pair.values["author"]
    if name == "since":
        return "1 hour"
    plain = {"integer": 10, "bigint": 0, "boolean": True, "text": None}
    return pair.values[name] if kind in {"uuid", "bytea"} or name == "author" else plain[kind]


def ask(connection: Connection[Any], signature: str, values: list[Any]) -> Any:
    """Call a function; return its rows, or the SQLSTATE of the refusal."""
    name, types = signature.removesuffix(")").split("(", 1)
    casts = ", ".join(f"%s::{kind}" for kind in types.split(",") if kind)
    try:
        found = connection.execute(f"select * from {name}({casts})", values).fetchall()
    except psycopg.Error as refused:
        return refused.sqlstate
    return [tuple(row.values()) for row in found]


def test_every_reading_function_works_on_a_standby(pair: Pair) -> None:
    """By the catalog: what is added later is tested too."""
    wrong = {}
    functions = pair.primary.execute(READING).fetchall()
    for each in functions:
        name, signature = each["name"], each["signature"]
        if name in WRITES:
            continue
        values = [
            argument(pair, name, *pair_of) for pair_of in zip(each["arguments"], each["types"], strict=True)
        ]
        here, there = (ask(connection, signature, values) for connection in (pair.primary, pair.standby))
        expected = here if isinstance(here, list) else None
        if name in NOT_THERE:
            expected = "KR011"
        elif name in WITHOUT_RESULTS:
            expected = there if isinstance(there, list) and there and there != here else "rows, and others"
        if there != expected:
            wrong[signature] = here, there
    assert wrong == {} and len(functions) > 40
    assert {each["name"] for each in functions} > WITHOUT_RESULTS | NOT_THERE


def test_what_comes_from_results_is_unknown_on_a_standby(pair: Pair) -> None:
    """Not zero: a standby does not know how often a swarm has failed."""
    calls = {
        "lineage": ("node", "passed, passes, test_result_id", "op_type, agent, task_id"),
        "swarm_agents": ("swarm", "attempts, passes, failures, failing_tests", "agent, pushed, operations"),
        "swarm_status": ("swarm", "attempts, passes, failures, failing_tests", "name, agents, operations"),
        "swarm_leaderboard": ("task", "attempts, passes, pass_rate, total_cost", "agent, pushed, operations"),
        "swarm_economics": ("task", "attempts, passes, cost_per_pass", "description, agents, rewards_minted"),
    }
    for function, (name, unknown, known) in calls.items():

        def rows(connection: Connection[Any], columns: str) -> list[tuple[Any, ...]]:
            statement = f"select {columns} from kerai.{function}(%s)"  # noqa: B023
            found = connection.execute(statement, [pair.values[name]]).fetchall()  # noqa: B023
            return [tuple(row.values()) for row in found]

        assert rows(pair.standby, known) == rows(pair.primary, known) != [], function
        assert {value for row in rows(pair.standby, unknown) for value in row} == {None}, function
        assert {value for row in rows(pair.primary, unknown) for value in row} != {None}, function
    events = "select event from kerai.agent_trace(%s)"
    here, there = (
        [row["event"] for row in connection.execute(events, [pair.values["agent"]]).fetchall()]
        for connection in (pair.primary, pair.standby)
    )
    assert {"passed", "failed"} < set(here)
    assert there == [event for event in here if event not in {"passed", "failed"}]


def test_what_came_after_the_backup_is_there(pair: Pair) -> None:
    query = "select kerai.state_digest(), kerai.version_vector()"
    here, there = (connection.execute(query).fetchone() for connection in (pair.primary, pair.standby))
    assert here == there
    assert scalar(pair.standby, "select pg_is_in_recovery()")


def test_a_standby_makes_no_key(pair: Pair) -> None:
    key = scalar(pair.primary, "select kerai.instance_key()")
    pair.primary.execute("delete from kerai_private.instance")
    wait_for(pair.standby, scalar(pair.primary, "select pg_current_wal_lsn()::text"))
    assert ask(pair.standby, "kerai.instance_key()", []) == "KR011"
    assert scalar(pair.primary, "select kerai.instance_key()") == key
    wait_for(pair.standby, scalar(pair.primary, "select pg_current_wal_lsn()::text"))
    assert ask(pair.standby, "kerai.instance_key()", []) == [(key,)]

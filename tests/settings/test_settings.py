"""Nothing depends on settings that a DBA or a user is free to choose.

The connections are raw: the client pins what it needs, other harnesses do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert, update
from tests.merge.members import Member, status
from tests.merge.observe import scalar
from tests.settings.odd import ICU_LOCALE, SETTINGS, connect_raw

# What a role, a database, postgresql.conf or a client's environment may say.
ODD = {
    **SETTINGS,
    "backslash_quote": "off",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "xmloption": "document",
    "quote_all_identifiers": "on",
    "check_function_bodies": "off",
    "default_transaction_deferrable": "on",
    "default_toast_compression": "pglz",
    "row_security": "off",
    "plan_cache_mode": "force_custom_plan",
    "enable_indexscan": "off",
    "enable_hashjoin": "off",
    "enable_sort": "off",
    "jit": "on",
    "jit_above_cost": "0",
    "work_mem": "64kB",
    "statement_timeout": "5min",
    "lock_timeout": "1min",
    "idle_in_transaction_session_timeout": "5min",
}
# A body that finds one of these by its name alone is caught.
TRAPS = """
create schema traps;
create function traps.lower(text) returns text language sql as $$ select 'trap' $$;
create function traps.format(text, variadic text[]) returns text language sql as $$ select 'trap' $$;
create function traps.equal(text, text) returns boolean language sql as $$ select false $$;
create operator traps.= (leftarg = text, rightarg = text, function = traps.equal);
create table traps.nodes (n int);
create table traps.authors (n int);
create function traps.note() returns event_trigger language plpgsql as $$ begin perform now(); end $$;
create event trigger trap on ddl_command_end execute function traps.note();
"""
TRAPPED = "set search_path = traps, pg_catalog, public"

Raw = Callable[[str], Connection[Any]]

OURS = "('kerai'::regnamespace, 'kerai_sync'::regnamespace, 'kerai_private'::regnamespace)"

# All that is made once and stays: what CREATE EXTENSION has parsed under the settings of its session.
MADE = f"""
select format('function %s', p.oid::regprocedure) as what, pg_get_functiondef(p.oid) as text
from pg_proc as p where p.pronamespace in {OURS}
union all
select format('constraint %s of %s %s', c.conname, c.conrelid::regclass, c.contypid::regtype),
    pg_get_constraintdef(c.oid)
from pg_constraint as c where c.connamespace in {OURS}
union all
select format('view %s', v.oid::regclass), pg_get_viewdef(v.oid) from pg_class as v
where v.relnamespace in {OURS} and v.relkind = 'v'
union all
select format('index %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid)
from pg_index as i inner join pg_class as c on c.oid = i.indrelid
where c.relnamespace in {OURS}
union all
select format('default of %s.%s', d.adrelid::regclass, d.adnum), pg_get_expr(d.adbin, d.adrelid)
from pg_attrdef as d inner join pg_class as c on c.oid = d.adrelid
where c.relnamespace in {OURS}
union all
select format('comment on %s', pg_describe_object(d.classoid, d.objoid, d.objsubid)), d.description
from pg_description as d
inner join pg_depend as e on e.classid = d.classoid and e.objid = d.objoid and e.deptype = 'e'
inner join pg_extension as x on x.oid = e.refobjid and e.refclassid = 'pg_extension'::regclass
where x.extname = 'kerai'
union all
select 'errors', json_agg(e order by e.code collate "C")::text from kerai.errors as e
union all
select 'settings', json_agg(s order by s.name collate "C")::text from kerai.settings as s
"""


@pytest.fixture(scope="module")
def odd_database(make_database: Any) -> Iterator[Any]:
    """An instance that was made, and is used, under odd settings."""
    with make_database(template=None, settings=ODD, icu_locale=ICU_LOCALE) as made:
        yield made


@pytest.fixture
def raw() -> Iterator[Raw]:
    """Return a factory of connections that pin nothing."""
    opened: list[Connection[Any]] = []

    def open_one(dsn: str) -> Connection[Any]:
        opened.append(connect_raw(dsn))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def odd(odd_database: Any, raw: Raw) -> Connection[Any]:
    """A session with the odd settings."""
    connection = raw(odd_database.dsn)
    for name, value in SETTINGS.items():
        assert str(scalar(connection, "select current_setting(%s)", [name])).startswith(value)
    return connection


def test_create_extension_makes_the_same(odd: Connection[Any], database: Any, raw: Raw) -> None:
    def made(connection: Connection[Any]) -> dict[str, str]:
        connection.execute("set quote_all_identifiers = off; set intervalstyle = postgres")
        return {row["what"]: row["text"] for row in connection.execute(MADE)}

    ordinary = made(raw(database.dsn))
    assert len(ordinary) > 500
    assert made(odd) == ordinary


def test_a_hosted_agent_pushes(odd: Connection[Any]) -> None:
    scalar(odd, "select (kerai.register_agent('gardener', 'human')).id")
    node = str(uuid4())
    operation = insert(node, name="back\\slash", content="it's a \\n, a \\\\ and a \"\n")
    pushed = odd.execute("select * from kerai.push_ops(%s)", [json.dumps([operation])]).fetchone()
    assert pushed is not None
    assert pushed["status"] == "merged"
    assert scalar(odd, "select kerai.source(%s)", [node]) == operation["content"]


def test_what_is_pushed_can_be_read_in_every_way(odd: Connection[Any]) -> None:
    author = LiveAuthor(odd, "a_n%n\\")
    before = scalar(odd, "select kerai.version_vector()")
    node = str(uuid4())
    assert author.push(insert(node, name="one.py", content="1\n"), update(node, content="2\\\n")) == "merged"
    after = scalar(odd, "select kerai.version_vector()")
    vectors = [json.dumps(before), json.dumps(after)]
    assert scalar(odd, "select kerai.vector_compare(%s, %s)", vectors) == "before"
    assert scalar(odd, "select kerai.vector_merge(%s, %s)", vectors) == after
    log = odd.execute("select * from kerai.log(author => %s)", ["a_n%n\\"]).fetchall()
    assert [row["operations"] for row in log] == [2]
    assert odd.execute("select * from kerai.log(author => 'axn%n\\\\')").fetchall() == []
    assert odd.execute("select * from kerai.diff(%s, %s)", vectors).fetchall()
    assert odd.execute("select * from kerai.verify()").fetchall() == []


RUNS = [
    "= 2 failed, 1 passed in 0.10s =",
    "test result: FAILED. 3 passed; 4 failed; 0 ignored;",
    "FAILED (failures=1, errors=2)",
    "  1 passing\n  3 failing",
    "Tests:       5 failed, 5 passed, 10 total",
    "1..3\nnot ok 1 - a\nnot ok 2 - b # skip it\nNOT OK 3",
    "=== RUN   TestI\n--- FAIL: TestI (0.00s)\nFAIL",
    "\u0663 failed, 1 passed in 0.10s",
]


def test_patterns_mean_the_same(odd: Connection[Any], database: Any, raw: Raw) -> None:
    ordinary = raw(database.dsn)
    count = "select array(select kerai_private.failing_tests(t) from unnest(%s::text[]) as t)"
    expected = scalar(ordinary, count, [RUNS])
    assert expected[:3] == [2, 4, 3]
    assert scalar(odd, count, [RUNS]) == expected
    for name in ("s", "\\", "I\u0131\u0130i", "a\\s"):
        assert scalar(odd, "select (kerai.register_agent(%s, 'tool')).name", [name]) == name
    for name in (" a", "a\n", ""):
        with pytest.raises(psycopg.Error, match="printable"):
            odd.execute("select kerai.register_agent(%s, 'tool')", [name])


def test_the_locale_neither_orders_nor_changes_names(odd: Connection[Any]) -> None:
    author = LiveAuthor(odd, "ordering")
    root, *nodes = (str(uuid4()) for _ in range(7))
    positions = ["I", "i", "\u0131", "a", "B", "_"]
    inserts = [insert(node, root, position=p, name=f"I{p}") for node, p in zip(nodes, positions, strict=True)]
    assert author.push(insert(root, name="Ii\u0130\u0131"), *inserts) == "merged"
    found = odd.execute("select position, path::text from kerai.tree(%s) where depth > 0", [root]).fetchall()
    assert [row["position"] for row in found] == sorted(positions)
    assert found[0]["path"] == "Ii__.IB"


def test_two_instances_sync_and_find_a_fork(odd: Connection[Any], database: Any, raw: Raw) -> None:
    there = raw(database.dsn)
    odd.execute("select kerai.add_peer('ordinary', %s)", [f"{database.dsn}&options=-cdatestyle%3DSQL"])
    LiveAuthor(odd, "ann").push(insert(str(uuid4()), content="it's \\ '' \\n", metadata={"weight": 0.1}))
    LiveAuthor(there, "bob").push(insert(str(uuid4()), content="\\'"))
    result = odd.execute("select * from kerai.sync('ordinary')").fetchone()
    assert result is not None
    assert result["complete"] and result["problem"] is None
    digest = "select kerai.state_digest()"
    assert scalar(odd, digest) == scalar(there, digest)

    cleo = LiveAuthor(odd, "cleo")
    first, second = (cleo.write([insert(str(uuid4()), content=text)]) for text in ("\\", "'"))
    assert cleo.send(first) == "merged"
    with pytest.raises(psycopg.Error) as refused:
        cleo.send(second)
    assert refused.value.sqlstate == "KR003"
    assert "both are kept in kerai.forks" in str(refused.value.diag.message_detail)
    kept = odd.execute("select second_changeset::text as text from kerai.forks").fetchall()
    assert [row["text"] for row in kept] == [second]


def test_a_task_is_worked_on_and_paid(odd: Connection[Any]) -> None:
    task = scalar(odd, "select (kerai.create_task('words', 'true')).id")
    swarm = scalar(odd, "select (kerai.launch_swarm(%s)).id", [task])
    member = Member(odd, "paid")
    member.join(swarm)
    assert status(member.send(member.own(insert(str(uuid4())), task=str(task)))) == "merged"
    vector = scalar(odd, "select kerai.version_vector()::text")
    odd.execute("select kerai.record_test_result(%s, %s, %s, true)", [task, member.id, vector])
    assert scalar(odd, "select kerai.balance(%s)", [member.wallet]) == 10**9
    for view in ("swarm_leaderboard", "swarm_progress", "swarm_economics"):
        assert odd.execute(f"select * from kerai.{view}(%s)", [task]).fetchall()
    assert odd.execute("select * from kerai.maintain()").fetchall() == []
    assert scalar(odd, "select changed from kerai.rebuild()") is False
    assert odd.execute("select * from kerai.verify()").fetchall() == []


def test_a_search_path_full_of_traps(odd: Connection[Any], odd_database: Any, raw: Raw) -> None:
    """What a body names is found in its own schema, also where the caller's path hides pg_catalog."""
    connection = raw(odd_database.dsn)
    odd.execute("drop schema if exists traps cascade")
    odd.execute(TRAPS)
    connection.execute(TRAPPED)
    assert scalar(connection, "select lower('I')") == "trap"
    author = LiveAuthor(connection, "careful")
    node = str(uuid4())
    assert author.push(insert(node, name="trapped"), update(node, content="x")) == "merged"
    assert author.push(update(node, content="y"), guard=node) == "merged"
    assert scalar(connection, "select kerai.source(%s)", [node]) == "y"
    assert connection.execute("select * from kerai.verify()").fetchall() == []
    odd.execute("drop schema traps cascade")


def test_the_client_works(odd_database: Any, ok: Any, rows: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KERAI_DSN", odd_database.dsn)
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGOPTIONS", "-c intervalstyle=iso_8601 -c search_path=nowhere")
    folder, text = tmp_path / "files", "x = '\\\\ \u010d'\n"
    folder.mkdir()
    (folder / "\u0130\u0131.py").write_text(text)
    ok("import", "--into", "client", folder)
    assert "x = " in ok("sql", "select content from kerai.nodes where content like 'x = %'").stdout
    assert datetime.fromisoformat(rows("log")[0]["received"]).tzinfo is not None
    ok("sql", "set datestyle = 'SQL'; select now()")
    for command in (["task", "list"], ["swarm", "status"], ["agent", "list"], ["verify"]):
        ok(*command)

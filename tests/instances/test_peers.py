"""Whose rights a contact has, who reads what, and what becomes of what a peer makes up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection, sql
from tests.instances.conftest import begin_anew
from tests.merge.live import LiveAuthor, insert
from tests.merge.observe import scalar
from tests.settings.odd import connect as connect_to

Call = Callable[..., dict[str, Any]]


def refusal(connection: Connection[Any], statement: str, parameters: list[Any] | None = None) -> str | None:
    """Return the SQLSTATE with which a statement is refused."""
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(statement, parameters)
    return refused.value.sqlstate


WRONG_PEERS = [
    ("", "dbname=x"),
    (" a", "dbname=x"),
    ("a\nb", "dbname=x"),
    ("a" * 101, "dbname=x"),
    (None, "dbname=x"),
    ("a", None),
    ("a", ""),
    ("a", "dbname=x password=two words"),
    ("a", "dbname=x password='open"),
    ("a", "dbname=x\npassword=y"),
    ("a", "dbname=" + "x" * 4000),
]


def test_a_peer_needs_a_name_and_a_connection(connect: Any) -> None:
    here = connect()
    for given in WRONG_PEERS:
        assert refusal(here, "select kerai.add_peer(%s, %s)", list(given)) == "KR005", given


def test_peers_are_added_once_and_removed_once(connect: Any) -> None:
    here = connect()
    for connection in (
        "host=x user='a b' password='it\\'s'",
        "postgresql://u:p@h:5432/d",
        "a_server",
        "dbname = x",
    ):
        row = here.execute("select * from kerai.add_peer('a', %s)", [connection]).fetchone()
        assert row["name"] == "a" and row["acknowledged"] == {} and row["added_by"] == here.info.user
        assert refusal(here, "select kerai.add_peer('a', 'dbname=x')") == "KR011"
        here.execute("select kerai.remove_peer('a')")
    assert refusal(here, "select kerai.remove_peer('a')") == "KR006"
    assert refusal(here, "select kerai.sync('a')") == "KR006"
    assert refusal(here, "select kerai.sync(null)") == "KR006"


def test_passwords_are_for_operators_and_nobody_signs_for_another(role_connection: Any, connect: Any) -> None:
    connect().execute("select kerai.add_peer('a', 'dbname=x password=secret')")
    operator = role_connection("kerai_operator")
    assert scalar(operator, "select connection from kerai.peer_connections") == "dbname=x password=secret"
    for role in ("kerai_reader", "kerai_agent", "kerai_peer"):
        reader = role_connection(role)
        assert scalar(reader, "select name from kerai.peers") == "a"
        assert refusal(reader, "select name from kerai.peer_connections") == "42501"
        for statement in (
            "select kerai.add_peer('b', 'dbname=x')",
            "select kerai.remove_peer('a')",
            "select kerai.sync('a')",
            "select kerai_sync.begin_contact('a', 'postgres')",
        ):
            assert refusal(reader, statement) == "42501"
    for statement in (
        "insert into kerai.peer_connections (name, connection, added_by) values ('b', 'a', 'postgres')",
        "update kerai.peer_connections set connection = 'dbname=y'",
        "update kerai.peer_connections set added_by = 'postgres'",
        "delete from kerai.peer_connections",
    ):
        assert refusal(operator, statement) == "42501"


def test_agents_do_not_get_past_their_guards(role_connection: Any) -> None:
    empty = "select * from kerai.accept('{}', '{}', '{}')"
    assert refusal(role_connection("kerai_agent"), empty) == "42501"
    assert role_connection("kerai_peer").execute(empty).rowcount == 0
    assert refusal(role_connection("kerai_peer"), "select kerai.push_ops('[]')") == "42501"
    assert refusal(role_connection("kerai_peer"), "select kerai.create_task('d', 'true')") == "42501"


WRONG_PAGES = [
    "null, null, null",
    "array['{}']::json[], '{}', '{}'",
    "array['{}']::json[], array[null]::bytea[], '{}'",
    "array[['{}']]::json[], array[''::bytea], array[''::bytea]",
]


@pytest.mark.parametrize("vector", ['{"a": -1}', "[]", None])
def test_a_pull_begins_with_a_vector(connect: Any, vector: str | None) -> None:
    here = connect()
    here.execute("set statement_timeout = '20s'")
    assert refusal(here, "select kerai_sync.begin_pull(%s)", [vector]) == "KR005"


def test_a_page_is_three_lists_of_one_length(connect: Any) -> None:
    here = connect()
    for arguments in WRONG_PAGES:
        assert refusal(here, f"select * from kerai.accept({arguments})") == "KR005", arguments
        assert (
            refusal(here, f"select * from kerai_sync.backfill_documents(array[1], {arguments})") == "KR005"
        ), arguments


def test_a_page_has_a_largest_size(connect: Any) -> None:
    here = connect()
    page = """select * from kerai.accept(array_fill('{}'::json, array[%s]),
        array_fill(''::bytea, array[%s]), array_fill(''::bytea, array[%s]))"""
    assert refusal(here, page, [100001] * 3) == "KR005"
    assert {row["code"] for row in here.execute(page, [3] * 3).fetchall()} == {"KR005"}
    here.execute("update kerai.settings set value = 1 where name = 'max_page_bytes'")
    assert refusal(here, page, [3] * 3) == "KR005"
    # One by itself is refused by itself, and others are not kept back.
    here.execute("update kerai.settings set value = 1 where name = 'max_changeset_bytes'")
    assert [row["message"] for row in here.execute(page, [1] * 3).fetchall()] == [
        "the changeset is too large"
    ]


def test_a_superuser_follows_no_connection_of_another(
    instances: Any, role_connection: Any, database: Any, connect: Any, call: Call
) -> None:
    """Such as one that logs in at the server's own socket, where only the server's account may."""
    operator = role_connection("kerai_operator")
    operator.execute("select kerai.add_peer('trap', %s)", [database.dsn])
    assert refusal(connect(), "select kerai.sync('trap')") == "KR013"
    with connect() as as_operator:
        as_operator.execute("set role test_kerai_operator")
        assert "password" in call(as_operator, "sync", "trap")["problem"].lower()


def test_an_operator_connects_with_a_password_only(
    role_connection: Any, database: Any, connect: Any, call: Call
) -> None:
    connect().execute("select kerai.add_peer('trap', %s)", [database.dsn])
    result = call(role_connection("kerai_operator"), "sync", "trap")
    assert not result["complete"] and result["problem"].startswith("2F003")
    assert "password" in scalar(connect(), "select last_problem from kerai.peers")


def test_roles_with_passwords_sync_by_string_and_by_foreign_server(
    other_server: Any, connect: Any, role_connection: Any, call: Call
) -> None:
    server, port = other_server
    with connect_to(server.dsn) as there:
        there.execute("create role sync login password 'it''s' in role kerai_peer")
        LiveAuthor(there, "bob").push(insert(str(uuid4())))
        here, operator = connect(), role_connection("kerai_operator")
        LiveAuthor(here, "ann").push(insert(str(uuid4())))
        way = f"host=127.0.0.1 port={port} dbname=kerai user=sync"
        operator.execute("select kerai.add_peer('string', %s)", [way + r" password='it\'s'"])
        assert call(operator, "sync", "string") | {"bytes": 0} == {
            "peer": "string",
            "pulled_changesets": 1,
            "pulled_operations": 1,
            "pushed_changesets": 1,
            "pushed_operations": 1,
            "bytes": 0,
            "refused": 0,
            "forks": 0,
            "complete": True,
            "problem": None,
        }
        here.execute(
            sql.SQL(
                """create server berlin foreign data wrapper dblink_fdw
                options (host '127.0.0.1', port {}, dbname 'kerai');
                grant usage on foreign server berlin to kerai_operator;
                create user mapping for test_kerai_operator server berlin
                options (user 'sync', password 'it''s')"""
            ).format(sql.Literal(str(port)))
        )
        operator.execute("select kerai.add_peer('server', 'berlin')")
        assert call(operator, "sync", "server")["complete"]
        operator.execute("select kerai.add_peer('wrong', %s)", [way + " password=no"])
        result = call(operator, "sync", "wrong")
        assert "password authentication failed" in result["problem"] and "=no" not in result["problem"]


ENVELOPE = '{"v":1,"author":"a.0123456789abcdef","seq":%s,"lamport":1,"prev":null,"base":{},"ops":[{}]}'
LIES = {
    "a vector that is none": "update kerai.said set vector = '[]'",
    "a vector of words": """update kerai.said set vector = '{"a": "b"}'""",
    "a vector that is no JSON": "update kerai.said set vector = '{'",
    "no JSON": "insert into kerai.pages values (1, 1, '{', '', '')",
    "no changeset": "insert into kerai.pages values (null, 1, '[]', '', '')",
    "nothing": "insert into kerai.pages values (null, 1, null, null, null)",
    "an unknown author": f"insert into kerai.pages values (null, 1, '{ENVELOPE % 1}', '', null)",
    "another key": f"""insert into kerai.pages values (null, 1, '{ENVELOPE % 1}', '',
        decode(repeat('00', 32), 'hex'))""",
    "endless numbers": f"""insert into kerai.pages select null, n, format('{ENVELOPE}', n), '', ''
        from generate_series(1, 2000) as n""",
    "more than was asked for": """insert into kerai.pages select null, n, '{}', '', ''
        from generate_series(1, 110000) as n""",
    "an error": "insert into kerai.lies values (1, 'select 1 / 0')",
    "a cancelled query": "insert into kerai.lies values (1, $$do 'begin raise query_canceled; end'$$)",
    "an assertion": "insert into kerai.lies values (1, $$do 'begin assert false; end'$$)",
    "kerai's own error": "insert into kerai.lies values (1, $$do 'begin raise sqlstate ''KR000''; end'$$)",
    "another schema": "drop function kerai.changesets_since(jsonb, int)",
    "a history without heads": """update kerai.said set vector = jsonb_build_object((select 'AUTHOR'), 1)""",
    "heads that nobody has signed": """update kerai.said set vector = '{"AUTHOR": 1}';
        insert into kerai.changesets values ('AUTHOR', 1, 1, E'\\\\x00', '{"v":1}', '')""",
    "a fork that is none": """update kerai.said set vector = '{"AUTHOR": 1}';
        insert into kerai.forks values (1, 'AUTHOR', '', '{}', '', '{}', '')""",
}


def test_what_a_peer_makes_up_changes_nothing(connect: Any, impostor: Connection[Any], call: Call) -> None:
    here = connect()
    ann = LiveAuthor(here, "ann")
    for what, lie in LIES.items():
        assert ann.push(insert(str(uuid4()))) == "merged"
        begin_anew(impostor)
        impostor.execute(lie.replace("AUTHOR", ann.author))  # type: ignore[call-overload]
        before = scalar(here, "select kerai.state_digest() || kerai.version_vector()::text")
        for _ in range(2):
            impostor.execute("alter sequence kerai.asked restart")
            result = call(here, "pull", "liar")
            assert not result["complete"] and result["problem"], (what, result)
            assert scalar(here, "select last_problem from kerai.peers") == result["problem"], what
        assert scalar(here, "select kerai.state_digest() || kerai.version_vector()::text") == before, what
        assert scalar(here, "select count(*) from kerai.forks") == 0, what
        assert scalar(here, "select count(*) from kerai.refusals") <= 1000, what
        assert scalar(here, "select dblink_get_connections()") is None, what


def test_what_a_peer_says_of_a_push_is_only_noted(
    connect: Any, impostor: Connection[Any], call: Call
) -> None:
    here = connect()
    LiveAuthor(here, "ann").push(insert(str(uuid4())))
    result = call(here, "push", "liar")
    assert not result["complete"] and result["pushed_changesets"] == result["pushed_operations"] == 0
    assert len(result["problem"]) <= 2000


def test_without_pg_cron_nothing_is_scheduled(connect: Any, role_connection: Any) -> None:
    here = connect()
    here.execute("select kerai.add_peer('a', 'dbname=x')")
    assert refusal(here, "select kerai.schedule_sync('a', '* * * * *')") == "KR011"
    # A schema of that name that somebody else has made.
    here.execute(
        sql.SQL("create role test_nobody; grant create on database {} to test_nobody").format(
            sql.Identifier(here.info.dbname)
        )
    )
    try:
        here.execute("set role test_nobody; create schema cron; reset role")
        assert refusal(here, "select kerai.schedule_sync('a', '* * * * *')") == "KR011"
        assert scalar(here, "select schedule from kerai.peers") is None
    finally:
        here.execute("drop owned by test_nobody cascade; drop role test_nobody")


def test_a_schedule_is_made_with_the_callers_rights(connect: Any, role_connection: Any) -> None:
    here, operator = connect(), role_connection("kerai_operator")
    here.execute(
        """create schema cron;
        create table cron.job (jobname text primary key, schedule text, command text, username text);
        create function cron.schedule(name text, schedule text, command text) returns bigint language sql as
        'insert into cron.job values ($1, $2, $3, current_user) returning 7::bigint';
        create function cron.unschedule(name text) returns boolean language sql as
        'delete from cron.job where jobname = $1 returning true';
        grant usage on schema cron to kerai_operator; grant all on cron.job to kerai_operator"""
    )
    assert refusal(operator, "select kerai.schedule_sync('it''s', '* * * * *')") == "KR006"
    operator.execute("select kerai.add_peer('it''s', 'dbname=x')")
    assert refusal(operator, "select kerai.unschedule_sync('it''s')") == "KR011"
    assert scalar(operator, "select kerai.schedule_sync('it''s', '*/5 * * * *')") == 7
    assert list(here.execute("select * from cron.job").fetchone().values()) == [
        "kerai sync it's",
        "*/5 * * * *",
        "select kerai.sync('it''s', 100000)",
        "test_kerai_operator",
    ]
    assert scalar(here, "select schedule from kerai.peers") == "*/5 * * * *"
    assert refusal(operator, "select kerai.remove_peer('it''s')") == "KR011"
    assert scalar(operator, "select kerai.unschedule_sync('it''s')")
    operator.execute("select kerai.remove_peer('it''s')")
    assert here.execute("select * from cron.job").fetchall() == []


@pytest.mark.parametrize("silent", ["version_vector", "changesets_since", "accept"])
def test_a_peer_that_does_not_answer_can_be_left(
    impostor: Connection[Any], connect: Any, silent: str
) -> None:
    """dblink() waits for the answer whatever the session is told; this peer gives it after a minute."""
    here = connect()
    LiveAuthor(here, "author").push(insert(str(uuid4())))
    impostor.execute("insert into kerai.silences values (%s, 60)", [silent])
    here.execute("set statement_timeout = '500ms'")
    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        here.execute("select * from kerai.sync('liar')")
    assert time.monotonic() - began < 20
    impostor.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )
    # The waiting session is told to end, and its connection is closed.
    here.execute("set statement_timeout = 0")
    assert scalar(here, "select count(*) from kerai.peers where name = 'liar'") == 1
    assert scalar(here, "select public.dblink_get_connections()") is None

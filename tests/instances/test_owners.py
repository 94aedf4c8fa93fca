"""An agent belongs to a role, whatever that is called: renamed, dropped, restored on another server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection, sql
from tests.merge.live import insert
from tests.merge.observe import scalar

from kerai_client.db.connection import connect as connect_to

ROLES = ["owner_ann", "owner_bob", "owner_cid"]


@pytest.fixture
def roles(database: Any, connect: Any) -> Iterator[Any]:
    """Return a function that makes a login role for agents and gives a session of it."""
    admin = connect()

    def make(name: str) -> Connection[Any]:
        run(admin, "create role {} login in role kerai_agent", name)
        return connect(database.dsn_as(name))  # type: ignore[no-any-return]

    yield make
    for name in ROLES:
        run(admin, "drop role if exists {}", name)


def run(connection: Connection[Any], statement: str, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]


def register(connection: Connection[Any], name: str, key: bytes | None = None) -> Any:
    return scalar(connection, "select id from kerai.register_agent(%s, 'llm', %s)", [name, key])


def acts(connection: Connection[Any], name: str) -> list[str | None]:
    """Return the SQLSTATEs of registering, withdrawing for, and pushing as an agent; None when it may."""
    agent = scalar(connection, "select id from kerai.agents where name = %s", [name])
    codes: list[str | None] = []
    connection.execute("select set_config('kerai.agent', %s, false)", [name])
    for statement, parameter in (
        ("select kerai.register_agent(%s, 'llm')", name),
        ("select kerai.withdraw(%s)", agent),
        ("select kerai.push_ops(%s::json)", json.dumps([insert(str(uuid4()))])),
    ):
        try:
            connection.execute(statement, [parameter])
            codes.append(None)
        except psycopg.Error as refused:
            codes.append(refused.sqlstate)
    return codes


FREE = [None, None, None]
NOT_ITS_OWN = ["KR002", "KR013", "KR006"]


def test_a_renamed_role_keeps_its_agents(roles: Any, database: Any, connect: Any) -> None:
    admin, session = connect(), roles("owner_ann")
    register(session, "a-1")
    run(admin, "alter role {} rename to {}", "owner_ann", "owner_bob")
    assert acts(session, "a-1") == FREE
    assert acts(connect(database.dsn_as("owner_bob")), "a-1") == FREE
    # Nobody else gets them, also not by the name that they were registered under.
    other = roles("owner_ann")
    assert acts(other, "a-1") == NOT_ITS_OWN
    register(other, "a-2")
    assert acts(other, "a-2") == FREE and acts(session, "a-2") == NOT_ITS_OWN
    with pytest.raises(psycopg.Error, match="belongs to another role") as refused:
        other.execute("select kerai.withdraw(id) from kerai.agents where name = 'a-1'")
    assert "owner_bob" in str(refused.value.diag.message_detail)


def test_a_dropped_roles_agents_are_nobodys(roles: Any, connect: Any) -> None:
    admin = connect()
    roles("owner_ann").execute("select kerai.register_agent('a-1', 'llm')")
    run(admin, "drop role {}", "owner_ann")
    assert acts(roles("owner_ann"), "a-1") == NOT_ITS_OWN
    # Its oid, which may be given again, is forgotten.
    admin.execute("select kerai.maintain()")
    assert (
        scalar(
            admin,
            "select count(*) from kerai_private.owner_roles where role not in (select oid from pg_roles)",
        )
        == 0
    )
    assert acts(roles("owner_bob"), "a-1") == NOT_ITS_OWN
    with pytest.raises(psycopg.Error) as refused:
        connect().execute("select kerai.give_agent(id, 'nobody_of_this_name') from kerai.agents")
    assert refused.value.sqlstate == "KR006"


def test_an_operator_gives_an_agent_to_another_role(roles: Any, database: Any, connect: Any) -> None:
    admin, ann, bob = connect(), roles("owner_ann"), roles("owner_bob")
    agent = register(ann, "a-1")
    run(admin, "drop role {}", "owner_ann")
    with pytest.raises(psycopg.Error):
        bob.execute("select kerai.give_agent(%s, 'owner_bob')", [agent])
    row = admin.execute("select * from kerai.give_agent(%s, 'owner_bob')", [agent]).fetchone()
    assert row["owner_role"] == "owner_bob" and acts(bob, "a-1") == FREE


def test_a_name_that_is_no_identifier(roles: Any, connect: Any) -> None:
    ROLES.append(name := 'Owner "x" ü')
    session = roles(name)
    register(session, "a-1")
    assert acts(session, "a-1") == FREE


def test_a_new_superuser_does_not_stand_for_who_added_a_peer(
    database: Any, connect: Any, role_connection: Any, roles: Any
) -> None:
    """A superuser follows connections of superusers: of those who were when they wrote them."""
    admin = connect()
    operator = role_connection("kerai_operator", "owner_ann")
    operator.execute("select kerai.add_peer('trap', %s)", [database.dsn])
    run(admin, "alter role {} rename to {}", "owner_ann", "owner_bob")
    run(admin, "create role {} superuser", "owner_ann")
    with pytest.raises(psycopg.Error) as refused:
        admin.execute("select kerai.sync('trap')")
    assert refused.value.sqlstate == "KR013"


def test_a_dump_restores_owners_by_their_names_of_that_time(
    roles: Any, database: Any, connect: Any, other_server: Any
) -> None:
    """On a server whose roles have other oids, and lack some; nobody gets what another role owned."""
    admin = connect()
    for name in ("owner_ann", "owner_bob", "owner_cid"):
        register(roles(name), f"{name}-1")
    run(admin, "alter role {} rename to {}", "owner_ann", "owner_dan")
    ROLES.append("owner_dan")
    run(admin, "drop role {}", "owner_bob")
    # Nothing was noted of the new name: a role of the old one must not get the agent.
    stale = dump(database.dsn)
    admin.execute("select kerai.maintain()")
    fresh = dump(database.dsn)
    server, _ = other_server
    for text, of_ann in ((stale, None), (fresh, "owner_dan")):
        with connect_to(server.dsn_of("postgres")) as there:
            there.execute("drop database if exists restored")
            there.execute("create database restored template template0")
            for name in (*ROLES, "owner_dan"):
                run(there, "drop role if exists {}", name)
            for name in ("owner_filler", "owner_dan", "owner_ann", "owner_bob"):
                run(there, "drop role if exists {}", name)
                run(there, "create role {} login in role kerai_agent", name)
        done = subprocess.run(
            ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.dsn_of("restored")],
            input=text, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

        def owner(agent: str) -> str | None:
            """Return the role that acts for an agent on the other server."""
            found = []
            for role in ("owner_ann", "owner_bob", "owner_cid", "owner_dan", "owner_filler"):
                try:
                    with connect_to(server.dsn_of("restored", role)) as session:
                        session.execute(
                            "select kerai.withdraw(id) from kerai.agents where name = %s", [agent]
                        )
                    found.append(role)
                except psycopg.OperationalError:
                    pass  # there is no such role yet
                except psycopg.Error as refused:
                    assert refused.sqlstate == "KR013"
            assert len(found) <= 1
            return found[0] if found else None

        assert owner("owner_ann-1") == of_ann
        assert owner("owner_bob-1") is None
        # Roles are restored after the database here.
        with connect_to(server.dsn_of("restored")) as there:
            run(there, "create role {} login in role kerai_agent", "owner_cid")
        assert owner("owner_cid-1") == "owner_cid"
        with connect_to(server.dsn_of("restored")) as there:
            there.execute("select kerai.maintain()")
            run(there, "alter role {} rename to {}", "owner_cid", "owner_filler_2")
            run(there, "create role {} login in role kerai_agent", "owner_cid")
        assert owner("owner_cid-1") is None
        with connect_to(server.dsn_of("postgres")) as there:
            run(there, "drop database restored")
            run(there, "drop role {}", "owner_cid")
            run(there, "drop role {}", "owner_filler_2")


def dump(dsn: str) -> str:
    return subprocess.run(["pg_dump", "-d", dsn], capture_output=True, text=True, check=True).stdout

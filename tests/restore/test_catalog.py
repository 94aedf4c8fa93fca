"""What the catalog says of the extension: nothing lost in a dump, nothing for PUBLIC, all commented.

``KERAI_SNAPSHOT=write pytest tests/restore/test_catalog.py`` writes privileges.txt anew: look at the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from tests.merge.observe import scalar
from tests.settings.odd import connect as connect_to

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("privileges.txt")
ROLES = ["kerai_reader", "kerai_agent", "kerai_peer", "kerai_operator"]
NOT_DUMPED = {
    "kerai_private.submissions",
    "kerai_private.push_outcomes",
    "kerai_private.arrivals",
    "kerai_private.batches",  # numbers what does not outlive the server
    "kerai_private.batch_locks",  # three rows, everywhere
    "kerai_private.state_changes",  # one row, everywhere
    "kerai_private.owner_roles",  # oids of this cluster
    "kerai_private.served_scopes",  # follows from the log
    "kerai_private.served_nodes",
    "kerai_private.repeated_inserts",
    "kerai_private.repeats_noted",
    "kerai.errors",  # constants of the version, which CREATE EXTENSION makes
    "kerai_private.default_settings",
    "kerai_private.default_rewards",
    # These have no rows of their own: the partitions have them.
    "kerai.operations",
    "kerai.test_results",
    "kerai.failed_operations",
    "kerai_private.tree_lock",  # never has any: it is a lock
}

# Tables that kerai.verify() compares with the signed changesets, and what follows from the log.
LAYERS = (
    "('operations', 'nodes', 'perspectives', 'associations', 'moves', 'authors', 'scope_nodes', "
    "'served_nodes', 'repeated_inserts', 'submissions')"
)
# What is compared with the changesets too, and what may name a row of another instance or an expired one.
NOT_VERIFIED = {
    "kerai.changesets.author",
    "kerai.changesets.draft_id",
    "kerai.changesets.member",
    "kerai.changesets.task_id",
    "kerai.convergences.test_result_id",
    "kerai.forks.author",
    "kerai.forks.first_id",
    "kerai.forks.second_id",
    "kerai.refusals.author",
    "kerai.refusals.changeset_id",
    "kerai_private.followed_branches.author",
}

OURS = "('kerai'::regnamespace, 'kerai_sync'::regnamespace, 'kerai_private'::regnamespace)"
# What some role may use.
PUBLISHED = "('kerai'::regnamespace, 'kerai_sync'::regnamespace)"
OWN_TYPES = f"""
    select t.* from pg_type as t left join pg_class as c on c.oid = t.typrelid
    where t.typnamespace in {OURS} and t.typelem = 0 and coalesce(c.relkind, 'c') = 'c'"""

LOOSE = f"""
select pg_describe_object(o.classid, o.oid, 0)
from (
    select 'pg_class'::regclass as classid, oid from pg_class
    where relnamespace in {OURS} and relkind in ('r', 'p', 'v', 'm')
    union all
    select 'pg_proc'::regclass, oid from pg_proc where pronamespace in {OURS}
    union all
    select 'pg_type'::regclass, oid from pg_type
    where typnamespace in {OURS} and typrelid = 0 and typelem = 0
) as o
where not exists (
    select from pg_depend as d where d.classid = o.classid and d.objid = o.oid and d.deptype = 'e')"""

PUBLIC = f"""
select o.what
from (
    select 'schema ' || nspname as what, coalesce(nspacl, acldefault('n', nspowner)) as acl
    from pg_namespace where oid in {OURS}
    union all
    select 'relation ' || oid::regclass,
        coalesce(relacl, acldefault(case relkind when 'S' then 's'::"char" else 'r' end, relowner))
    from pg_class where relnamespace in {OURS}
    union all
    select 'column ' || c.oid::regclass || '.' || a.attname, a.attacl
    from pg_attribute as a inner join pg_class as c on c.oid = a.attrelid and c.relnamespace in {OURS}
    union all
    select 'function ' || oid::regprocedure, coalesce(proacl, acldefault('f', proowner))
    from pg_proc where pronamespace in {OURS}
    union all
    select 'type ' || t.oid::regtype, coalesce(t.typacl, acldefault('T', t.typowner)) from ({OWN_TYPES}) as t
) as o
cross join aclexplode(o.acl) as a
where a.grantee = 0
order by 1"""

REACHABLE = """
select p.oid::regprocedure::text from pg_proc as p
where p.pronamespace = 'kerai_private'::regnamespace and has_function_privilege(%(role)s, p.oid, 'execute')
union all
select c.oid::regclass::text from pg_class as c
where c.relnamespace = 'kerai_private'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
    and has_any_column_privilege(%(role)s, c.oid, 'select, insert, update, references')"""

PRIVILEGES = f"""
select o.what, string_agg(replace(r.role, 'kerai_', ''), ', ' order by r.n) filter (where o.may) as who
from unnest(%(roles)s::text[]) with ordinality as r (role, n)
cross join lateral (
    select 'schema ' || n.nspname || ' ' || v.verb as what, has_schema_privilege(r.role, n.oid, v.verb) as may
    from pg_namespace as n cross join unnest('{{usage,create}}'::text[]) as v (verb)
    where n.oid in {PUBLISHED}
    union all
    select 'function ' || p.oid::regprocedure || ' execute', has_function_privilege(r.role, p.oid, 'execute')
    from pg_proc as p where p.pronamespace in {PUBLISHED}
    union all
    select 'relation ' || c.oid::regclass || ' ' || v.verb, has_table_privilege(r.role, c.oid, v.verb)
    from pg_class as c
    cross join unnest('{{select,insert,update,delete,truncate,references,trigger}}'::text[]) as v (verb)
    where c.relnamespace in {PUBLISHED} and c.relkind in ('r', 'p', 'v', 'm')
    union all
    select 'column ' || c.oid::regclass || '.' || a.attname || ' ' || v.verb,
        has_column_privilege(r.role, c.oid, a.attnum, v.verb)
            and not has_table_privilege(r.role, c.oid, v.verb)
    from pg_class as c
    inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
    cross join unnest('{{select,insert,update,references}}'::text[]) as v (verb)
    where c.relnamespace in {PUBLISHED} and c.relkind in ('r', 'p', 'v', 'm')
) as o
group by o.what
having bool_or(o.may) or o.what like 'function%%'
order by o.what collate "C" """

ROLE_FACTS = """
select r.rolname, r.rolcanlogin, r.rolsuper or r.rolcreatedb or r.rolcreaterole or r.rolreplication as mighty,
    array(
        select m.roleid::regrole::text from pg_auth_members as m where m.member = r.oid order by 1
    ) as within
from pg_roles as r where r.rolname = any(%s) order by 1"""

# A body that was bound when the function was made looks nothing up by name later.
UNPINNED = f"""
select oid::regprocedure::text from pg_proc
where pronamespace in {OURS} and prosqlbody is null
    and not coalesce('search_path=pg_catalog, pg_temp' = any(proconfig), false)"""

UNCOMMENTED = f"""
select oid::regprocedure::text as what from pg_proc
where pronamespace in {PUBLISHED} and obj_description(oid, 'pg_proc') is null
union all
select oid::regclass::text from pg_class
where relnamespace in {PUBLISHED} and relkind in ('r', 'p', 'v', 'm') and not relispartition
    and obj_description(oid, 'pg_class') is null
union all
select t.oid::regtype::text from ({OWN_TYPES}) as t
where t.typnamespace in {PUBLISHED} and obj_description(t.oid, 'pg_type') is null
order by what"""


@pytest.fixture(scope="module")
def catalog(module_database: Any) -> Any:
    """A session for looking only."""
    with connect_to(module_database.dsn) as connection:
        yield connection


def column(connection: Connection[Any], query: str, parameters: Any = None) -> list[Any]:
    """Return the first column of a query."""
    return [next(iter(row.values())) for row in connection.execute(query, parameters).fetchall()]


def test_every_table_and_sequence_is_in_a_dump(catalog: Connection[Any]) -> None:
    kinds = "('r', 'p', 'm', 'S')"
    ours = f"select oid::regclass::text from pg_class where relnamespace in {OURS} and relkind in {kinds}"
    dumped = "select unnest(extconfig)::regclass::text from pg_extension where extname = 'kerai'"
    assert set(column(catalog, ours)) - set(column(catalog, dumped)) == NOT_DUMPED
    # All rows, but for owners under names that are not theirs any more: tests/instances/test_owners.py.
    partly = """select t.relation::regclass::text from pg_extension as e
        cross join lateral unnest(e.extconfig, e.extcondition) as t (relation, condition)
        where e.extname = 'kerai' and t.condition <> ''"""
    assert column(catalog, partly) == ["kerai_private.owners"]


def test_a_restore_needs_no_order(catalog: Connection[Any]) -> None:
    """What a foreign key refuses is lost, and no dump has the constraints of an extension."""
    keys = (
        f"select conrelid::regclass::text from pg_constraint where contype = 'f' and connamespace in {OURS}"
    )
    assert column(catalog, keys) == []


def test_rows_are_the_same_with_and_without_triggers(catalog: Connection[Any]) -> None:
    """COPY fires row triggers, unless --disable-triggers: none may change what is restored.

    check_peer gives to a new row what a restored one has. find_owner_role fills a table that is not dumped,
    with what kerai_private.own_owners() finds without it too.
    """
    triggers = f"""
        select t.tgname::text from pg_trigger as t inner join pg_class as c on c.oid = t.tgrelid
        where c.relnamespace in {OURS} and c.relkind <> 'v' and not t.tgisinternal and t.tgtype & 4 <> 0"""
    assert sorted(column(catalog, triggers)) == ["check_peer", "find_owner_role"]


def test_each_name_of_another_row_is_verified(catalog: Connection[Any]) -> None:
    columns = f"""
        select c.oid::regclass || '.' || a.attname
        from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid
        where c.relnamespace in {OURS} and c.relkind in ('r', 'p') and not c.relispartition
            and c.relname not in {LAYERS} and not a.attisdropped and (
                a.attname ~ '_id$|wallet' or a.attname in ('author', 'member', 'peer'))"""
    verified = "select relation || '.' || referring from kerai_private.named_rows()"
    assert set(column(catalog, columns)) - set(column(catalog, verified)) == NOT_VERIFIED


def test_everything_belongs_to_the_extension(catalog: Connection[Any]) -> None:
    """What does not would be dumped a second time, and be left behind by DROP EXTENSION."""
    assert column(catalog, LOOSE) == []


def test_public_has_nothing(catalog: Connection[Any]) -> None:
    assert column(catalog, PUBLIC) == []


@pytest.mark.parametrize("role", ROLES)
def test_kerai_private_is_for_nobody(catalog: Connection[Any], role: str) -> None:
    assert not scalar(catalog, "select has_schema_privilege(%s, 'kerai_private', 'usage')", [role])
    assert column(catalog, REACHABLE, {"role": role}) == []


def test_each_role_may_do_what_the_snapshot_says(catalog: Connection[Any]) -> None:
    rows = catalog.execute(PRIVILEGES, {"roles": ROLES}).fetchall()
    found = "".join(f"{row['what']}: {row['who'] or 'nobody'}\n" for row in rows)
    if os.environ.get("KERAI_SNAPSHOT") == "write":
        SNAPSHOT.write_text(found, "utf-8")
    assert found == SNAPSHOT.read_text("utf-8")


@pytest.mark.parametrize(
    "change",
    [
        "create function kerai.forgotten() returns int language sql return 1",
        "grant execute on function kerai.push_ops to kerai_operator",
        "revoke select on kerai.nodes from kerai_reader",
        "create function kerai_private.given() returns int language sql return 1; "
        "grant execute on function kerai_private.given to kerai_reader",
    ],
)
def test_a_grant_that_is_forgotten_or_given_twice_stops_the_script(connect: Any, change: str) -> None:
    connection = connect()
    last = (ROOT / "extension" / "sql" / "last.sql").read_text("utf-8")
    connection.execute(last)
    connection.execute(change)
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(last)
    assert refused.value.sqlstate == "KR013"
    assert re.search("forgotten|push_ops|nodes|given", str(refused.value.diag.message_detail))


def test_the_roles_cannot_log_in_and_follow_each_other(catalog: Connection[Any]) -> None:
    rows = catalog.execute(ROLE_FACTS, [ROLES]).fetchall()
    assert [tuple(row.values()) for row in rows] == [
        ("kerai_agent", False, False, ["kerai_reader"]),
        ("kerai_operator", False, False, ["kerai_agent", "kerai_peer"]),
        ("kerai_peer", False, False, ["kerai_reader"]),
        ("kerai_reader", False, False, []),
    ]


def test_every_function_pins_its_search_path(catalog: Connection[Any]) -> None:
    # What commits can have no settings; tests/concurrency calls it with a path full of traps.
    assert column(catalog, UNPINNED) == [
        "kerai.push_batched(json,bytea,bytea,text,bytea,text,integer,bigint,bigint)"
    ]


def test_everything_public_has_a_comment(catalog: Connection[Any]) -> None:
    assert column(catalog, UNCOMMENTED) == []


def test_drop_extension_leaves_nothing_but_the_roles(connect: Any) -> None:
    connection = connect()
    connection.execute("drop extension kerai cascade")
    assert column(connection, "select nspname::text from pg_namespace where nspname like 'kerai%'") == []
    connection.execute("create extension kerai")
    assert scalar(connection, "select kerai.version_vector()") == {}


@pytest.mark.parametrize("schema", ["kerai", "kerai_sync", "kerai_private"])
def test_a_schema_of_that_name_is_not_taken_over(connect: Any, schema: str) -> None:
    connection = connect()
    connection.execute("drop extension kerai cascade")
    connection.execute(f"create schema {schema}")
    with pytest.raises(psycopg.Error) as refused:
        connection.execute("create extension kerai")
    assert refused.value.sqlstate == "KR011"
    assert str(refused.value.diag.message_detail).startswith(f"Already here: {schema} (")
    assert "DROP or rename" in str(refused.value.diag.message_hint)

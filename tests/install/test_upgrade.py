"""A database that was upgraded is the same as a new one, on a server that has both versions' scripts."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from tests.settings.odd import connect as connect_to
from tests.support.own_postgres import copy_postgres, pg_config

from kerai_client.server.postgres import program
from kerai_client.server.private import PrivateServer

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "0.1.0", "0.99.0"
SCHEMAS = ("kerai", "kerai_sync", "kerai_private")

# What the next release changes, of everything that an upgrade must bring along: a file -> what it says, or
# what is
# added to it. The first one has a lower number than the type that it names, which a released file has made.
NEW_FILES = {
    f"010-identity/tables-{NEW}.sql": """
        create table kerai.notes (
            id bigint primary key generated always as identity,
            made_by kerai_private.operation,
            note text not null
        );
        comment on table kerai.notes is 'A table of a later release.';
        create index notes_note on kerai.notes (note);
        select pg_extension_config_dump('kerai.notes', '');
        select pg_extension_config_dump(pg_get_serial_sequence('kerai.notes', 'id')::regclass, 'where false');
        insert into kerai_private.default_settings (name, value, description) values ('max_notes', 7,
            'most notes');
    """,
    f"040-swarms/tables-{NEW}.sql": """
        alter table kerai.tasks add column note text collate "C" not null default '';
        alter table kerai.tasks alter column success_command set compression lz4;
        comment on column kerai.tasks.note is 'A column of a later release.';
        create sequence kerai_private.note_numbers;
        create type kerai.note_kind as enum ('short', 'long');
        comment on type kerai.note_kind is 'A type of a later release.';
        drop function if exists kerai.swarm_progress(uuid);
    """,
    "010-identity/notes.sql": """
        create or replace function kerai.count_notes() returns bigint
        language sql stable parallel safe security definer
        set search_path = pg_catalog, pg_temp
        as $$ select count(*) from kerai.notes $$;
        comment on function kerai.count_notes() is 'A function of a later release.';
        create or replace function kerai_private.refuse_note() returns trigger
        language plpgsql
        set search_path = pg_catalog, pg_temp
        as $$ begin return null; end $$;
        create or replace trigger refuse_note before insert on kerai.notes
        for each row execute function kerai_private.refuse_note();
        create or replace view kerai.short_notes as select n.id, n.note
            from kerai.notes as n where length(n.note) < 9;
        comment on view kerai.short_notes is 'A view of a later release.';
    """,
}

# One function goes from agents to operators.
NEW_GRANTS = """
grant execute on function kerai.instance_key, kerai.count_notes to kerai_operator;
grant select on table kerai.notes, kerai.short_notes to kerai_reader;
grant insert (note) on table kerai.notes to kerai_agent;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """A server that has the sources' version as it would be released, and the next one."""
    folder = Path(tempfile.mkdtemp(prefix="kerai-upgrade-"))
    folder.chmod(0o755)
    (folder / "postgres").mkdir()
    own = copy_postgres(folder / "postgres")
    project = folder / "project"
    shutil.copytree(ROOT / "extension", project / "extension", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "kerai.control", project)
    release(project, own)
    change(project)
    release(project, own)
    private = PrivateServer(folder / "server", fsync=False)
    try:
        with programs_of(own):
            private.up()
        yield private
    finally:
        private.destroy()
        shutil.rmtree(folder)


@contextmanager
def programs_of(own: Path) -> Iterator[None]:
    """Let the client start the programs of another PostgreSQL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PG_CONFIG", str(own))
        program.cache_clear()
        try:
            yield
        finally:
            program.cache_clear()


def sources_of(project: Path) -> Any:
    """Return build.py's view of a project, by the project's own build.py."""
    spec = importlib.util.spec_from_file_location("upgraded_build", project / "extension" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Sources(project)


def release(project: Path, own: Path) -> None:
    """Freeze a project's table files, and install it."""
    sources = sources_of(project)
    sources.freeze()
    package = pg_config("--pkglibdir", own) / "own" / sources.version
    shutil.copytree(project / "extension" / "python", package)
    extensions = pg_config("--sharedir", own) / "extension"
    for name, text in sources.scripts(str(package)).items():
        (extensions / name).write_text(text, "utf-8")
    shutil.copy2(project / "kerai.control", extensions)


def change(project: Path) -> None:
    """Make a project the next release."""
    for file in (project / "kerai.control", project / "extension" / "python" / "kerai" / "__init__.py"):
        text = file.read_text("utf-8")
        assert OLD in text
        file.write_text(text.replace(OLD, NEW), "utf-8")
    sql_folder = project / "extension" / "sql"
    for name, text in NEW_FILES.items():
        (sql_folder / name).write_text(text, "utf-8")
    grants = sql_folder / "010-identity" / "grants.sql"
    text = grants.read_text("utf-8")
    agents = "grant execute on function kerai.instance_key to kerai_agent;\n"
    assert agents in text
    grants.write_text(text.replace(agents, "") + NEW_GRANTS)
    views = sql_folder / "040-swarms" / "history.sql"
    # Dropped, and made anew with another result.
    found = re.search(
        r"create or replace function kerai\.swarm_progress.*?\n\$\$;\n", views.read_text("utf-8"), re.S
    )
    assert found is not None
    changed = """create or replace function kerai.swarm_progress(task uuid) returns text
        language sql immutable set search_path = pg_catalog, pg_temp as $$ select 'changed' $$;\n"""
    views.write_text(views.read_text("utf-8").replace(found[0], changed), "utf-8")


def database(server: PrivateServer, name: str, *versions: str) -> str:
    """Make a database with a version of kerai,
    upgraded to others one after the other; return the way to it."""
    with connect_to(server.dsn_of("postgres")) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    dsn = server.dsn_of(name)
    first, *later = versions
    with connect_to(dsn) as connection:
        connection.execute(sql.SQL("create extension kerai version {} cascade").format(sql.Literal(first)))
    for version in later:
        with connect_to(dsn) as connection:
            connection.execute(sql.SQL("alter extension kerai update to {}").format(sql.Literal(version)))
    return dsn


@pytest.fixture(scope="module")
def fresh(server: PrivateServer) -> str:
    """A new database of the new version."""
    return database(server, "fresh", NEW)


@pytest.fixture(scope="module")
def upgraded(server: PrivateServer) -> str:
    """A database of the old version, brought to the new one."""
    return database(server, "upgraded", OLD, NEW)


OBJECTS = {
    "functions": """
        select p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proowner::regrole::text
            from pg_proc as p
        where p.pronamespace = any(%(ours)s::regnamespace[]) and p.prokind <> 'a'""",
    "members": """
        select pg_describe_object(d.classid, d.objid, d.objsubid), d.deptype::text from pg_depend as d
        where d.refclassid = 'pg_extension'::regclass
            and d.refobjid = (select e.oid from pg_extension as e where e.extname = 'kerai')""",
    "dumped": """
        select t.relation::regclass::text, t.condition from pg_extension as e
        cross join lateral unnest(e.extconfig, e.extcondition) as t (relation, condition)
        where e.extname = 'kerai'""",
    "comments": """
        select pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description from pg_description as d
        where exists (
            select from pg_depend as m
            where m.classid = d.classoid and m.objid = d.objoid and m.refclassid = 'pg_extension'::regclass
                and m.refobjid = (select e.oid from pg_extension as e where e.extname = 'kerai'))""",
    "privileges": """
        select o.what, array(select a::text from unnest(o.acl) as a order by 1) from (
            select 'relation ' || c.oid::regclass as what, c.relacl as acl from pg_class as c
            where c.relnamespace = any(%(ours)s::regnamespace[])
            union all
            select 'column ' || c.oid::regclass || '.' || a.attname, a.attacl
            from pg_attribute as a inner join pg_class as c on c.oid = a.attrelid
            where c.relnamespace = any(%(ours)s::regnamespace[])
            union all
            select 'function ' || p.oid::regprocedure, p.proacl from pg_proc as p
            where p.pronamespace = any(%(ours)s::regnamespace[])
            union all
            select 'type ' || t.oid::regtype, t.typacl from pg_type as t
            where t.typnamespace = any(%(ours)s::regnamespace[])
            union all
            select 'schema ' || n.nspname, n.nspacl from pg_namespace as n
            where n.oid = any(%(ours)s::regnamespace[])
        ) as o""",
    "privileges that a dump takes for granted": """
        select pg_describe_object(i.classoid, i.objoid, i.objsubid),
            array(select a::text from unnest(i.initprivs) as a order by 1), i.privtype::text
        from pg_init_privs as i""",
    "types": """
        select t.oid::regtype::text, t.typtype::text, t.typlen, t.typnotnull, t.typdefault,
            t.typcollation::text,
            format_type(t.typbasetype, t.typtypmod), array(
                select e.enumlabel::text from pg_enum as e where e.enumtypid = t.oid order by e.enumsortorder)
        from pg_type as t
        where t.typnamespace = any(%(ours)s::regnamespace[])""",
    "columns": """
        select c.oid::regclass::text, a.attnum, a.attname, a.atttypid::regtype::text, a.atttypmod,
            a.attnotnull,
            a.attisdropped, a.attcompression::text, a.attstorage::text, a.attidentity::text,
            array(select o from unnest(a.attoptions) as o where o ~ '^n_distinct')
        from pg_attribute as a inner join pg_class as c on c.oid = a.attrelid
        where c.relnamespace = any(%(ours)s::regnamespace[]) and a.attnum > 0""",
    "relations": """
        select c.oid::regclass::text, c.relkind::text, c.relpersistence::text, c.reloptions,
            c.relowner::regrole::text, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid)
        from pg_class as c where c.relnamespace = any(%(ours)s::regnamespace[])""",
    "sequences": """
        select s.seqrelid::regclass::text, s.seqtypid::regtype::text, s.seqstart, s.seqincrement, s.seqmax,
            s.seqmin,
            s.seqcache, s.seqcycle
        from pg_sequence as s inner join pg_class as c on c.oid = s.seqrelid
        where c.relnamespace = any(%(ours)s::regnamespace[])""",
    "constraints": """
        select o.conrelid::regclass::text, o.conname::text, pg_get_constraintdef(o.oid)
            from pg_constraint as o
        where o.connamespace = any(%(ours)s::regnamespace[])""",
    "triggers": """
        select t.tgrelid::regclass::text, pg_get_triggerdef(t.oid), t.tgenabled::text from pg_trigger as t
        inner join pg_class as c on c.oid = t.tgrelid
        where c.relnamespace = any(%(ours)s::regnamespace[]) and not t.tgisinternal""",
    "constants": "select d::text from kerai_private.default_settings as d",
}


def objects(dsn: str) -> dict[str, set[str]]:
    """Return each kind of object with a line for each that says all about it."""
    found = {}
    with connect_to(dsn) as connection:
        for kind, query in OBJECTS.items():
            rows = connection.execute(query, {"ours": list(SCHEMAS)}).fetchall()
            found[kind] = {repr(tuple(row.values())) for row in rows}
            assert found[kind], kind
    return found


def described(dsn: str) -> list[str]:
    r"""Return what psql's \d+ says of every relation, type and index."""
    commands = [part for schema in SCHEMAS for part in ("-c", rf"\d+ {schema}.*", "-c", rf"\dT+ {schema}.*")]
    done = subprocess.run(
        [program("psql"), "-X", "-d", dsn, *commands], capture_output=True, text=True, check=True
    )
    # A partition names its parent by the number that it has in this database.
    return re.sub(r"(satisfies_hash_partition\()'\d+'", r"\1'parent'", done.stdout).splitlines()


def test_a_new_table_file_of_a_lower_folder_comes_after_the_released_ones(fresh: str, upgraded: str) -> None:
    for dsn in (fresh, upgraded):
        with connect_to(dsn) as connection:
            assert connection.execute("select kerai.count_notes() as n").fetchall() == [{"n": 0}]


def test_an_upgraded_database_is_like_a_new_one(fresh: str, upgraded: str) -> None:
    new, old = objects(fresh), objects(upgraded)
    for kind in OBJECTS:
        assert old[kind] ^ new[kind] == set(), kind
    assert described(upgraded) == described(fresh)


def test_the_comparison_sees_a_difference(server: PrivateServer, fresh: str) -> None:
    """An old database is another one, in all that the release has changed."""
    old, new = objects(database(server, "old", OLD)), objects(fresh)
    same = {kind for kind in OBJECTS if old[kind] == new[kind]}
    assert same == set()

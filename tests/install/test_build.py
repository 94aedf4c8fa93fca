"""The install script is put together from its parts, and releases stay what they were."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """extension/build.py as a module."""
    spec = importlib.util.spec_from_file_location("kerai_build", ROOT / "extension" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one file of each kind, at version 0.1.0."""
    sql = tmp_path / "extension" / "sql"
    (sql / "010-first").mkdir(parents=True)
    (sql / "020-second").mkdir()
    (sql / "head.sql").write_text("select 'head @version@';\n")
    (sql / "020-second" / "tables.sql").write_text("select 'second table';\n")
    (sql / "010-first" / "tables.sql").write_text("select 'first table';\n")
    (sql / "010-first" / "subject.sql").write_text("select '@python_path@', '@extschema@';\n")
    (sql / "010-first" / "grants.sql").write_text("select 'grants';\n")
    (sql / "revoke.sql").write_text("select 'revoked';\n")
    (sql / "last.sql").write_text("select 'last';\n")
    package = tmp_path / "extension" / "python" / "kerai"
    package.mkdir(parents=True)
    set_version(tmp_path, "0.1.0")
    return tmp_path


def set_version(project: Path, version: str) -> None:
    file = project / "extension" / "python" / "kerai" / "__init__.py"
    file.write_text(f'"""A package."""\n\n__version__ = "{version}"\n')
    (project / "kerai.control").write_text(f"default_version = '{version}'\n")


def test_an_install_script_has_everything_in_order(build: ModuleType, project: Path) -> None:
    scripts = build.Sources(project).scripts("/lib/kerai/0.1.0")
    assert list(scripts) == ["kerai--0.1.0.sql"]
    text = scripts["kerai--0.1.0.sql"]
    assert text.startswith('\\echo Use "CREATE EXTENSION kerai CASCADE" to load this file. \\quit\n')
    parts = [
        "head 0.1.0",
        "first table",
        "second table",
        "/lib/kerai/0.1.0', '@extschema@",
        "revoked",
        "grants",
        "last",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_an_upgrade_has_the_new_tables_and_all_functions(build: ModuleType, project: Path) -> None:
    build.Sources(project).freeze()
    set_version(project, "0.2.0")
    sql = project / "extension" / "sql"
    (sql / "020-second" / "tables-0.2.0.sql").write_text("select 'third table';\n")
    build.Sources(project).freeze()
    set_version(project, "0.10.0")
    (sql / "020-second" / "tables-more.sql").write_text("select 'fourth table';\n")
    scripts = build.Sources(project).scripts("/lib")
    assert sorted(scripts) == ["kerai--0.1.0--0.10.0.sql", "kerai--0.10.0.sql", "kerai--0.2.0--0.10.0.sql"]

    def holds(version: str) -> list[str]:
        words = [
            "head",
            "first table",
            "second table",
            "third table",
            "fourth table",
            "/lib",
            "grants",
            "last",
        ]
        return [word for word in words if word in scripts[f"kerai--{version}.sql"]]

    assert holds("0.1.0--0.10.0") == ["third table", "fourth table", "/lib", "grants", "last"]
    assert holds("0.2.0--0.10.0") == ["fourth table", "/lib", "grants", "last"]
    assert len(holds("0.10.0")) == 8


def test_a_released_table_file_comes_before_a_new_one(build: ModuleType, project: Path) -> None:
    """It stood alone in every database that has it, so no new one may come before it."""
    build.Sources(project).freeze()
    set_version(project, "0.2.0")
    (project / "extension" / "sql" / "010-first" / "tables-new.sql").write_text("select 'new of 010';\n")
    for _ in range(2):  # before and after it is frozen itself
        text = build.Sources(project).scripts("/lib")["kerai--0.2.0.sql"]
        places = [text.index(part) for part in ("first table", "second table", "new of 010", "/lib")]
        assert places == sorted(places)
        build.Sources(project).freeze()


def test_a_released_table_file_must_not_change(build: ModuleType, project: Path) -> None:
    build.Sources(project).freeze()
    file = project / "extension" / "sql" / "010-first" / "tables.sql"
    file.write_text("select 'changed';\n")
    with pytest.raises(build.BuildError, match=r"010-first/tables\.sql was released with 0\.1\.0"):
        build.Sources(project).scripts("/lib")
    file.unlink()
    with pytest.raises(build.BuildError, match="is gone"):
        build.Sources(project).scripts("/lib")


def test_the_control_file_must_agree(build: ModuleType, project: Path) -> None:
    (project / "kerai.control").write_text("default_version = '0.2.0'\n")
    with pytest.raises(build.BuildError, match=r"default_version 0\.2\.0"):
        build.Sources(project)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("020-second/typo.sql", "select '@pyhton_path@'", "@pyhton_path@"),
        ("020-second/030-number.sql", "select 1", "without a number"),
        ("functions/subject.sql", "select 1", "NNN-domain"),
        ("020-second/dots.sql", "select 1;\n-- …", "020-second/dots.sql:2 is not ASCII"),
    ],
)
def test_a_slip_is_named(build: ModuleType, project: Path, name: str, text: str, told: str) -> None:
    file = project / "extension" / "sql" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(build.BuildError, match=told):
        build.Sources(project).scripts("/lib")


@pytest.mark.parametrize("path", ["relative", "/it's", '/a"b', "/a$b", "/a\\b", "/a\nb"])
def test_a_path_that_would_break_out_of_its_literal(build: ModuleType, project: Path, path: str) -> None:
    with pytest.raises(build.BuildError, match="Python path"):
        build.Sources(project).scripts(path)


def test_scripts_of_earlier_builds_go(build: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "kerai--0.0.9.sql").write_text("old")
    build.write_scripts({"kerai--0.1.0.sql": "new"}, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["kerai--0.1.0.sql"]


def spot_holes(script: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "spot_holes.py", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_function_without_search_path_does_not_pass_the_linter(tmp_path: Path) -> None:
    good = "create function kerai.good() returns int language sql set search_path = pg_catalog, pg_temp"
    bad = "create function kerai.bad() returns int language sql security definer"
    script = tmp_path / "kerai--1.sql"
    head = "\\echo … \\quit\ncreate schema kerai;\n"
    script.write_text(f"{head}create function kerai.own() returns int return 1;\n{good} as $$ select 1 $$;\n")
    assert spot_holes(script).returncode == 0
    script.write_text(f"{script.read_text()}{bad} as $$ select 1 $$;\n")
    found = spot_holes(script)
    assert found.returncode == 1
    assert "kerai.bad()" in found.stdout
    assert "kerai.good()" not in found.stdout


def test_a_procedure_that_commits_names_every_schema(tmp_path: Path) -> None:
    script = tmp_path / "kerai--1.sql"
    text = """create schema kerai;
    create procedure kerai.go_on() language plpgsql as
        $$ begin commit; perform pg_catalog.set_config('a.b', '', false); end $$;"""
    script.write_text(text)
    assert spot_holes(script).returncode == 0
    script.write_text(text.replace("pg_catalog.", ""))
    found = spot_holes(script)
    assert found.returncode == 1
    assert "Unqualified function call: set_config" in found.stdout


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (r"comment on schema a is '\dn';", r"'\dn'"),
        (r"comment on schema a is E'\\dn';", None),
        (r"create function f() returns text language sql as $$ select '\s' $$;", r"'\s'"),
        (r"create function f() returns bool language sql return 'a' like '\_';", r"'\_'"),
        (
            r"create function f() returns text language plpgsql as $$ begin execute $x$ '\s' $x$; end $$;",
            r"'\s'",
        ),
        (r"do $$ begin raise '\'; end $$;", r"'\'"),
        (r"create function f() returns text language sql as $$ select $re$'\s'$re$ -- '\d' $$;", None),
        (r"create function f() returns text language plpython3u as $$ return '\n' $$;", None),
    ],
)
def test_a_literal_that_depends_on_a_setting_does_not_pass_the_linter(
    tmp_path: Path, statement: str, found: str | None
) -> None:
    script = tmp_path / "kerai--1.sql"
    script.write_text(f"\\echo … \\quit\n-- ä\n{statement}\n")
    command = [sys.executable, ROOT / "scripts" / "spot_literals.py", script]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == (found is not None)
    assert run.stdout.splitlines()[:1] == ([f"{script}:3: {found}"] if found else [])


def test_make_is_as_good_as_its_word(tmp_path: Path) -> None:
    """Every target of `make help` exists, from a copy in a folder with spaces, and -n runs nothing."""
    copy = tmp_path / "a copy"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "tests", "client", ".kerai")
    )
    listed = subprocess.run(["make", "-C", copy, "help"], capture_output=True, text=True, check=True).stdout
    targets = [line.split()[0] for line in listed.splitlines() if line[:1].isalpha() and ":" not in line]
    assert {"install", "client", "demo", "test", "lint", "bench", "clean"} <= set(targets)
    before = sorted(copy.rglob("*"))
    for target in targets:
        subprocess.run(["make", "-n", "-C", copy, target], capture_output=True, check=True)
    assert sorted(copy.rglob("*")) == before

"""A server without kerai's Python package, or with another version of it, says so and what to do."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert
from tests.merge.observe import digest

ROOT = Path(__file__).parents[2]
PYTHON = re.compile(
    r"^create or replace function (?:(?!^create ).)*?^language plpython3u.*?^\$\$;", re.M | re.S
)


def built(python_path: Path, version: str | None = None) -> str:
    """Return what the install script says of the functions in Python, for a folder and a version."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "extension" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    sources = build.Sources()
    sources.version = version or sources.version
    (script,) = (text for name, text in sources.scripts(str(python_path)).items() if name.count("--") == 1)
    functions = PYTHON.findall(script)
    assert len(functions) > 4
    assert any("kerai_private.load_python()" in each.splitlines()[0] for each in functions)
    return "\n".join(functions)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that the server's user can read."""
    path = Path(tempfile.mkdtemp(prefix="kerai-python-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def package(folder: Path, **modules: str) -> None:
    """Put a package called kerai into a folder."""
    (folder / "kerai").mkdir()
    for name, text in modules.items():
        (folder / "kerai" / f"{name}.py").write_text(text, "utf-8")


def refused(connection: Connection[Any], query: str) -> psycopg.errors.Diagnostic:
    """Return the refusal of a query, which must be a KR011."""
    with pytest.raises(psycopg.Error) as error:
        connection.execute(query)
    assert error.value.sqlstate == "KR011"
    primary = str(error.value.diag.message_primary)
    assert re.search(r"kerai's Python package \S+ is not usable on this server$", primary)
    return error.value.diag


def test_a_missing_package(connect: Any, folder: Path) -> None:
    connect().execute(built(folder))
    connection = connect()
    before = digest(connection)
    author = LiveAuthor(connect(), "author")
    document = author.write([insert(str(uuid4()))])
    for query in ("select kerai_private.load_python()", "select kerai.instance_key()"):
        diagnostic = refused(connection, query)
        assert "No module named 'kerai'" in str(diagnostic.message_detail)
        assert f"looked in {folder}" in str(diagnostic.message_detail)
        assert "make install" in str(diagnostic.message_hint)
    with pytest.raises(psycopg.Error) as error:
        author.send(document)
    assert error.value.sqlstate == "KR011"
    assert digest(connection) == before


def test_a_package_that_lacks_a_dependency(connect: Any, folder: Path) -> None:
    package(folder, __init__="__version__ = '0'", changeset="import nacl_that_is_not_there")
    connect().execute(built(folder))
    diagnostic = refused(connect(), "select kerai_private.load_python()")
    assert "nacl_that_is_not_there" in str(diagnostic.message_detail)
    assert "python3-nacl" in str(diagnostic.message_hint)


def test_a_package_of_another_version(connect: Any, folder: Path) -> None:
    package(folder, __init__="__version__ = '9.9.9'", changeset="", moves="", results="", server="")
    connect().execute(built(folder))
    diagnostic = refused(connect(), "select kerai_private.load_python()")
    assert diagnostic.message_detail == f"The package in {folder} is version 9.9.9."
    assert "make install" in str(diagnostic.message_hint)


def test_a_session_from_before_an_upgrade(connect: Any, folder: Path) -> None:
    """An interpreter keeps what it has imported: the old session is told, a new one works."""
    package(folder, __init__="__version__ = '9.9.9'", changeset="", moves="", results="", server="")
    connection = connect()
    connection.execute("select kerai_private.load_python()")
    connection.execute(built(folder, "9.9.9"))
    diagnostic = refused(connection, "select kerai_private.load_python()")
    assert "This session has loaded version" in str(diagnostic.message_detail)
    assert "new session" in str(diagnostic.message_hint)
    connect().execute("select kerai_private.load_python()")


def test_a_database_is_not_made_where_the_package_is_missing() -> None:
    """The install script asks for the package, so that CREATE EXTENSION fails and not the first push."""
    last = (ROOT / "extension" / "sql" / "last.sql").read_text("utf-8").rstrip().splitlines()[-1]
    assert last == "select kerai_private.load_python();"

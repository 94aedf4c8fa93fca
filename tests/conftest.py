"""What the tests share: a throwaway server, databases with kerai in them, roles, a pooler, the command.

The server runs as an unprivileged user, also when root runs pytest, and listens on a socket in a folder of
its own. It is gone at the end, also after Ctrl-C or a SIGTERM.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg import sql
from tests.settings.odd import ICU_LOCALE, IS_ODD, make_odd, settings_of
from tests.settings.odd import connect as connect_to
from tests.support import laws  # noqa: F401 -- loads the profile of the laws, before any is collected

from kerai_client.db.connection import Connection
from kerai_client.db.instance import ensure_extension
from kerai_client.server.private import DATABASE, PrivateServer

SERVER_FOLDER = "kerai-test-"
# Files that take longest begin first, so that no worker is left with one of them at the end.
LONGEST_FILES = (
    "swarm/test_swarm.py",
    "instances/test_scopes_law.py",
    "client/solve/test_mutate.py",
    "docs/test_docs.py",
    "merge/test_convergence.py",
    "merge/test_layout.py",
)
MEMORY = Path("/dev/shm")
ENOUGH_MEMORY = 4 * 2**30
numbers = count(1)


def pytest_configure() -> None:
    """Let a SIGTERM (a timeout, a CI runner) end the session like Ctrl-C, with the server stopped.

    A shell starts background jobs with SIGINT ignored, and nohup ignores SIGHUP: the commands that tests
    interrupt would inherit that.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    _keep_files_in_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    place = {str(Path(__file__).parent / name): n for n, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(str(item.path), len(place)))


def _keep_files_in_memory() -> None:
    """Put servers and temporary files into a file system in memory, where there is a large one.

    Each test makes a database of 16 MB: 0.2 s in memory, over a second on a busy disk.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    place = os.statvfs(MEMORY)
    if place.f_bavail * place.f_frsize >= ENOUGH_MEMORY and not place.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's settings, keys and environment out of the tests."""
    for name in (
        "KERAI_DSN",
        "KERAI_DIR",
        "PGSERVICE",
        "PGHOST",
        "PGUSER",
        "PGDATABASE",
        "PGPORT",
        "COLUMNS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KERAI_KEYS", str(tmp_path / "keys"))


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """The throwaway server of this session, up, with the extension in its database ``kerai``."""
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{SERVER_FOLDER}{os.getpid()}-"))
    folder.chmod(0o755)
    private = PrivateServer(folder / "server", fsync=False)
    try:
        private.up()
        if IS_ODD:
            make_odd(private)
        yield private
    finally:
        private.destroy()
        shutil.rmtree(folder)


def _remove_leftovers() -> None:
    """Stop the servers of sessions that were killed before they could do it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SERVER_FOLDER}*"):
        session = folder.name.removeprefix(SERVER_FOLDER).partition("-")[0]
        if folder.stat().st_uid == os.geteuid() and not Path("/proc", session).exists():
            PrivateServer(folder / "server").destroy()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class FreshDatabase:
    """A database of its own for a test.

    :param dsn: the superuser's way to it.
    """

    name: str
    dsn: str
    server: PrivateServer

    def dsn_as(self, role: str) -> str:
        """Return the way to it for another role."""
        return self.server.dsn_of(self.name, role)


MakeDatabase = Callable[..., AbstractContextManager[FreshDatabase]]


@pytest.fixture(scope="session")
def make_database(server: PrivateServer) -> MakeDatabase:
    """Return what makes a database and drops it: ``with make_database() as database: …``.

    ``make_database(template=None)`` runs CREATE EXTENSION in an empty one, which takes longer and gives
    an instance with a key of its own; a copy of the template has the template's.

    ``settings`` are the database's own, from before CREATE EXTENSION on. ``icu_locale`` needs an empty one.
    """
    admin = server.dsn_of("postgres")

    @contextmanager
    def make(
        template: str | None = DATABASE, settings: Mapping[str, str] | None = None, icu_locale: str = ""
    ) -> Iterator[FreshDatabase]:
        made = FreshDatabase(name := f"test_{next(numbers)}", server.dsn_of(name), server)
        names = sql.Identifier(name), sql.Identifier(template or "template0")
        command = sql.SQL("create database {} template {}").format(*names)
        if icu_locale or (IS_ODD and template is None):
            command += sql.SQL(" locale_provider icu icu_locale {}").format(icu_locale or ICU_LOCALE)
        with connect_to(admin) as connection:
            connection.execute(command)
            for setting, value in (settings or {}).items():
                change = sql.SQL("alter database {} set {} = {}")
                connection.execute(change.format(names[0], sql.Identifier(setting), value))
        try:
            if template is None:
                with connect_to(made.dsn) as connection:
                    ensure_extension(connection)
            yield made
        finally:
            with connect_to(admin) as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(names[0]))

    return make


@pytest.fixture
def database(make_database: MakeDatabase, request: pytest.FixtureRequest) -> Iterator[FreshDatabase]:
    """A database with kerai and nothing else in it, for one test."""
    with make_database(settings=settings_of(request)) as made:
        yield made


@pytest.fixture(scope="module")
def module_database(make_database: MakeDatabase, request: pytest.FixtureRequest) -> Iterator[FreshDatabase]:
    """The same, for all tests of a module."""
    with make_database(settings=settings_of(request)) as made:
        yield made


@pytest.fixture
def second_database(make_database: MakeDatabase, request: pytest.FixtureRequest) -> Iterator[FreshDatabase]:
    """Another instance, with another key, for one test."""
    with make_database(template=None, settings=settings_of(request)) as made:
        yield made


class Connect(Protocol):
    """``connect()`` to the test's database, ``connect(dsn)`` to another."""

    def __call__(self, dsn: str | None = None) -> Connection: ...


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return a factory of connections (autocommit, rows are dicts) that are closed after the test."""
    opened: list[Connection] = []

    def open_one(dsn: str | None = None) -> Connection:
        opened.append(connect_to(dsn or request.getfixturevalue("database").dsn))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def role_connection(database: FreshDatabase, connect: Connect) -> Callable[..., Connection]:
    """Return a factory of connections as a login role that was granted one of kerai's roles.

    ``role_connection('kerai_agent')``, or with a name for the login role when a test needs two.
    """

    def open_as(role: str, name: str | None = None) -> Connection:
        login = name or f"test_{role}"
        with connect_to(database.dsn) as connection:
            if not connection.execute("select from pg_roles where rolname = %s", [login]).rowcount:
                command = "create role {} login in role {}"
                connection.execute(sql.SQL(command).format(sql.Identifier(login), sql.Identifier(role)))
        return connect(database.dsn_as(login))

    return open_as


@pytest.fixture
def pgbouncer(database: FreshDatabase) -> Iterator[str]:
    """Return the DSN of the test's database through a PgBouncer in transaction pooling."""
    owner = database.server.owner
    folder = Path(tempfile.mkdtemp(prefix="kerai-bouncer-"))
    os.chown(folder, owner.uid, owner.gid)
    way = f"host={database.server.socket_directory} port=5432 user={owner.name}"
    settings = {
        "unix_socket_dir": folder,
        "listen_port": 6432,
        "pool_mode": "transaction",
        "default_pool_size": 4,  # fewer than the clients of a test, so that they do share
        "auth_type": "any",
        "logfile": folder / "log",
    }
    lines = [
        "[databases]",
        f"{database.name} = {way}",
        "[pgbouncer]",
        *(f"{k} = {v}" for k, v in settings.items()),
    ]
    owner.write(folder / "pgbouncer.ini", "\n".join(lines) + "\n")
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "pgbouncer is missing: apt install pgbouncer"
    with subprocess.Popen(
        [program, "-q", folder / "pgbouncer.ini"],
        **({"user": owner.uid, "group": owner.gid, "extra_groups": []} if os.geteuid() == 0 else {}),
    ) as process:
        try:
            dsn = f"postgresql://{owner.name}@/{database.name}?host={folder}&port=6432"
            _wait_for(dsn)
            yield dsn
        finally:
            process.terminate()
    shutil.rmtree(folder)


def _wait_for(dsn: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            connect_to(dsn).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Kerai(Protocol):
    """``kerai('task', 'list', …)`` runs the command; keywords are subprocess.run's."""

    def __call__(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def kerai() -> Kerai:
    """Return a function that runs the command ``kerai`` in a process of its own."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kerai_client", *map(str, arguments)]
        # A command that never ends is a failed test, not a run that hangs.
        options.setdefault("timeout", 300)
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture
def ok(kerai: Kerai) -> Kerai:
    """Run a command that must succeed."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        result = kerai(*arguments, **options)
        assert result.returncode == 0, result.stderr + result.stdout
        return result

    return run


@pytest.fixture
def rows(ok: Kerai) -> Callable[..., Any]:
    """Run a command with --json and return what it prints."""
    return lambda *arguments: json.loads(ok(*arguments, "--json").stdout)

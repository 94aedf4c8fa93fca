"""The private server: made, started, stopped, killed, and left alone."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kerai import __version__
from kerai_client.db.connection import connect
from kerai_client.errors import KeraiError
from kerai_client.server import postgres
from kerai_client.server import private as server_module
from kerai_client.server.postgres import Owner
from kerai_client.server.private import PrivateServer


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that any account can enter, with a name that needs quoting."""
    folder = Path(tempfile.mkdtemp(prefix='kerai\'s "place" '))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def private(place: Path) -> Iterator[PrivateServer]:
    """A server that was started once."""
    made = PrivateServer(place / ".kerai", fsync=False)
    made.up()
    yield made
    made.destroy()


def query(server: PrivateServer, text: str) -> Any:
    with connect(server.dsn) as connection:
        row = connection.execute(text).fetchone()
        assert row is not None
        return next(iter(row.values()))


def kill(server: PrivateServer) -> int:
    """Kill the postmaster as the kernel does when memory is short; return its process id."""
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)
    return pid


def test_up_gives_a_database_with_kerai(private: PrivateServer) -> None:
    assert query(private, "select extname from pg_extension where extname = 'kerai'") == "kerai"
    assert query(private, "show server_encoding") == "UTF8"
    assert query(private, "select datcollate from pg_database where datname = 'kerai'") == "C.UTF-8"


def test_nothing_listens_on_tcp(private: PrivateServer) -> None:
    assert query(private, "show listen_addresses") == ""
    assert private.status().tcp_port is None


def test_only_the_owner_enters(private: PrivateServer) -> None:
    for folder in (private.data, private.socket_directory):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == private.owner.uid
    assert private.owner.uid != 0


def test_up_is_idempotent(private: PrivateServer) -> None:
    before = private.pid()
    assert private.up() == private.dsn
    assert private.pid() == before is not None


def test_down_and_up_keep_the_data(private: PrivateServer) -> None:
    with connect(private.dsn) as connection:
        connection.execute("create table public.kept as select 42 as answer")
    private.down()
    assert private.status().running is False
    private.down()
    private.up()
    assert query(private, "select answer from public.kept") == 42


def test_up_after_kill_9(private: PrivateServer) -> None:
    killed = kill(private)
    assert (private.data / "postmaster.pid").exists()
    assert private.status().running is False
    private.up()
    assert private.pid() not in {None, killed}
    assert query(private, "select 1") == 1


def test_a_reused_process_id_is_neither_trusted_nor_killed(private: PrivateServer) -> None:
    kill(private)
    # After a reboot the number in the file may be any process, here one of the same account.
    owner = private.owner
    as_owner = {"user": owner.uid, "group": owner.gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "60"], cwd="/", **as_owner) as stranger:
        file = private.data / "postmaster.pid"
        lines = file.read_text().splitlines()
        owner.write(file, "\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert private.pid() is None
        private.down()
        private.up()
        assert query(private, "select 1") == 1
        assert stranger.poll() is None
        stranger.kill()


def test_two_ups_at_once(private: PrivateServer) -> None:
    private.down()
    failures: list[BaseException] = []

    def up() -> None:
        try:
            PrivateServer(private.directory, fsync=False).up()
        except BaseException as error:  # a thread's failure would be lost
            failures.append(error)

    threads = [threading.Thread(target=up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert query(private, "select 1") == 1


def test_settings_of_the_user_win(private: PrivateServer) -> None:
    with connect(private.dsn) as connection:
        connection.execute("alter system set max_connections = 77")
    private.down()
    private.up()
    assert query(private, "show max_connections") == "77"


def test_a_server_that_does_not_start_says_why(private: PrivateServer) -> None:
    private.down()
    file = private.data / "postgresql.conf"
    good = file.read_text()
    private.owner.write(file, "no_such_setting = 1\n", append=True)
    with pytest.raises(KeraiError) as caught:
        private.up()
    private.owner.write(file, good)
    assert caught.value.detail is not None
    assert "no_such_setting" in caught.value.detail
    private.up()


def test_tcp_only_when_asked_and_never_without_a_password(private: PrivateServer) -> None:
    port = 54329
    with pytest.raises(KeraiError, match="runs already"):
        private.up(tcp_port=port)
    private.down()
    private.up(tcp_port=port)
    assert private.status().tcp_port == port
    assert query(private, "select 1") == 1
    with pytest.raises(psycopg.OperationalError, match="password"):
        connect(f"postgresql://{private.owner.name}@127.0.0.1:{port}/kerai")
    private.down()
    private.up()


def test_data_of_another_version_are_left_alone(
    private: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    private.down()
    monkeypatch.setattr(server_module, "output_of", lambda *_: "postgres (PostgreSQL) 99.1")
    with pytest.raises(KeraiError, match="are PostgreSQL"):
        private.up()
    monkeypatch.undo()
    private.up()


def test_a_long_path_gets_a_short_socket(place: Path) -> None:
    deep = PrivateServer(place / ("d" * 100) / ".kerai", fsync=False)
    try:
        deep.up()
        assert query(deep, "select 1") == 1
        assert deep.socket_directory.parent == Path("/tmp")
        assert stat.S_IMODE(deep.socket_directory.stat().st_mode) == 0o700
    finally:
        deep.destroy()
    assert not deep.exists()
    assert not deep.socket_directory.exists()


def test_a_socket_folder_of_somebody_else_is_refused(place: Path) -> None:
    deep = PrivateServer(place / ("e" * 100) / ".kerai", fsync=False)
    deep.socket_directory.mkdir(mode=0o777)
    try:
        with pytest.raises(KeraiError, match="not a private folder"):
            deep.up()
    finally:
        deep.socket_directory.rmdir()
        deep.destroy()


def test_the_servers_python_sees_nothing_of_the_callers_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    other = PrivateServer(place / "python", fsync=False)
    try:
        other.up()
        with connect(other.dsn) as connection:
            connection.execute(
                "create function public.path() returns text language plpython3u"
                " as 'import sys; return \":\".join(sys.path)'"
            )
        assert "/somewhere/else" not in query(other, "select public.path()")
    finally:
        other.destroy()


def test_a_missing_postgresql_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.program.cache_clear()
    monkeypatch.setenv("PG_CONFIG", "/no/such/pg_config")
    with pytest.raises(KeraiError, match="not installed"):
        PrivateServer(place / "missing").up()
    postgres.program.cache_clear()


def test_an_interrupted_initdb_is_done_again(place: Path) -> None:
    half = PrivateServer(place / "half", fsync=False)
    owner = half.owner
    half.directory.mkdir()
    (half.directory / "data.new").mkdir(mode=0o700)
    (half.directory / "data.new" / "PG_VERSION").write_text("15\n")
    os.chown(half.directory / "data.new", owner.uid, owner.gid)
    try:
        half.up()
        assert query(half, "select 1") == 1
    finally:
        half.destroy()


class TestCommands:
    """``kerai up``, ``down`` and ``status`` as an unprivileged user runs them, in a folder with spaces."""

    @pytest.fixture
    def home(self, place: Path) -> Iterator[Path]:
        owner = PrivateServer(place / "x").owner
        folder = place / "my project"
        folder.mkdir()
        os.chown(folder, owner.uid, owner.gid)
        yield folder
        PrivateServer(folder / ".kerai").destroy()
        shutil.rmtree(folder)

    def run(self, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        owner = Owner.of(pwd.getpwuid(home.stat().st_uid))
        change: dict[str, Any] = {}
        # Below /root nobody else can run this Python; the commands then run as root.
        usable = owner.run(["sh", "-c", '"$0" -c "import kerai_client"', sys.executable]).returncode == 0
        if os.geteuid() == 0 and usable:
            change = {"user": owner.uid, "group": owner.gid, "extra_groups": []}
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
        environment |= {name: value for name, value in os.environ.items() if name == "PG_CONFIG"}
        return subprocess.run(
            [sys.executable, "-m", "kerai_client", *arguments],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **change,
        )

    def test_up_status_down(self, home: Path) -> None:
        assert json.loads(self.run(home, "status", "--json").stdout)["running"] is False
        up = self.run(home, "up")
        assert (up.returncode, up.stderr) == (0, "")
        status = json.loads(self.run(home, "--json", "status").stdout)
        assert status["running"] is True
        assert status["directory"] == str(home / ".kerai")
        assert status["changesets"] == 0
        assert status["nodes"] is not None
        assert status["extension_version"] == __version__
        assert status["size"] > 1_000_000
        named = self.run(home, "status", "--json", "--dsn", status["dsn"])
        assert json.loads(named.stdout)["extension_version"] == __version__
        assert self.run(home, "down").returncode == 0
        assert json.loads(self.run(home, "status", "--json").stdout)["running"] is False

    def test_destroy_asks_first(self, home: Path) -> None:
        self.run(home, "up")
        assert self.run(home, "down", "--destroy").returncode == 1
        assert (home / ".kerai" / "data").exists()
        assert self.run(home, "down", "--destroy", "--yes").returncode == 0
        assert not (home / ".kerai" / "data").exists()


@pytest.mark.parametrize("name", ["root", "no-such-user-here"])
def test_an_account_that_cannot_own_a_server(place: Path, name: str) -> None:
    with pytest.raises(KeraiError) as caught:
        PrivateServer(place / "refused", user=name).up()
    assert caught.value.hint is not None
    assert "--user" in caught.value.hint


def test_destroy_tells_what_it_could_not_delete(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = PrivateServer(place / "stays", fsync=False)
    server.data.mkdir(parents=True)
    (server.data / "file").touch()
    unlink = os.unlink

    def refuse(path: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(KeraiError, match="could not delete all of") as caught:
        server.destroy()
    assert caught.value.detail is not None and "Operation not permitted: 'file'" in caught.value.detail
    monkeypatch.setattr(os, "unlink", unlink)
    server.destroy()
    assert not server.exists()


def test_where_the_owner_cannot_enter_the_data_go_elsewhere(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    server = PrivateServer(closed / ".kerai", fsync=False)
    try:
        server.up()
        assert query(server, "select 1") == 1
        status = PrivateServer(closed / ".kerai").status()
        assert status.running
        if os.geteuid() == 0:
            assert status.data.startswith("/var/lib/kerai/")
            assert status.note is not None
            assert "cannot enter" in status.note
        else:
            assert status.data == str(closed / ".kerai" / "data")
    finally:
        server.destroy()
    assert not server.exists()


@pytest.mark.parametrize("name", ["a\nb", "a\rb"])
def test_a_line_end_in_the_directorys_name_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(KeraiError, match="no line end in the name") as refused:
        PrivateServer(tmp_path / name / "server").up()
    assert refused.value.detail is not None and "\n" not in refused.value.detail
    assert refused.value.hint is not None and "--dir" in refused.value.hint
    assert list(tmp_path.iterdir()) == []

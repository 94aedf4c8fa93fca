"""The private server: a PostgreSQL of one's own in a directory, started when wanted, that touches no other.

It listens on a Unix socket in a folder that only its owner (and root) can enter, which is what guards it. A
process that reaches the socket could read the data files as well, so connections there are trusted. On TCP it
listens only when asked, on localhost, for roles that have a password.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from kerai_client.errors import KeraiError
from kerai_client.server.postgres import Owner, output_of, processes_in, program
from kerai_client.server.settings import HBA, SOCKET_PORT, postgresql_conf

DATABASE = "kerai"
LONGEST_SOCKET_PATH = 107  # sockaddr_un of Linux, less the closing zero
START_SECONDS = 60
STOP_SECONDS = 60
START_LOG = "start.log"  # what the server says before it has opened its own log
# Where root keeps the data of a directory that the server's owner cannot enter, as below /root.
SHARED_PLACE = Path("/var/lib/kerai")


@dataclass(frozen=True)
class ServerStatus:
    """A private server from outside: where it is and whether it runs."""

    running: bool
    pid: int | None
    dsn: str
    tcp_port: int | None
    user: str
    directory: str
    data: str
    note: str | None


class PrivateServer:
    """The server whose home is a directory (``.kerai``)."""

    def __init__(self, directory: Path, *, fsync: bool = True, user: str | None = None) -> None:
        """
        :param directory: its directory; it need not exist yet.
        :param fsync: False makes a throwaway server: faster, and broken after a crash of the machine.
        :param user: when root runs it, the account to run as, chosen when the server is made; by
            default the one that called sudo, else ``postgres``. PostgreSQL refuses to run as root.
        """
        self.directory = directory.absolute()
        self.fsync = fsync
        self.user = user

    # ---- where things are -----------------------------------------------------------------------

    @cached_property
    def home(self) -> Path:
        """The folder that holds data and socket: the directory, or a place that the owner can enter."""
        shared = SHARED_PLACE / self._hash()
        if os.geteuid() != 0 or (self.directory / "data").is_dir():
            return self.directory
        if (shared / "data").is_dir() or not self._wanted_owner().can_enter(self.directory):
            return shared
        return self.directory

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.home / "data"

    @property
    def owner(self) -> Owner:
        """The account that the server runs as: the owner of its data, or the one it would get."""
        try:
            return Owner.of(pwd.getpwuid(self.data.stat().st_uid))
        except FileNotFoundError:
            return self._wanted_owner()

    @property
    def socket_directory(self) -> Path:
        """The folder of the Unix socket, whose path must be short."""
        folder = self.home / "run"
        if len(os.fsencode(folder / ".s.PGSQL.65535.lock")) <= LONGEST_SOCKET_PATH:
            return folder
        return Path(f"/tmp/kerai-{self.owner.uid}-{self._hash()}")

    @property
    def dsn(self) -> str:
        """The URI of the database ``kerai``, for the superuser, through the socket."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str, user: str | None = None) -> str:
        """Return the URI of a database of this server.

        :param user: the role, by default the superuser, who is named like the server's owner.
        """
        place = quote(str(self.socket_directory), safe="/")
        role, name = quote(user or self.owner.name, safe=""), quote(database, safe="")
        return f"postgresql://{role}@/{name}?host={place}&port={self._running_port() or SOCKET_PORT}"

    def exists(self) -> bool:
        """Say whether the server was made (it may be stopped)."""
        return self.data.is_dir()

    # ---- up, down, status -----------------------------------------------------------------------

    def up(self, tcp_port: int | None = None) -> str:
        """Start the server if it does not run, with the database and the current extension; return its DSN.

        :param tcp_port: a port of localhost to listen on as well.
        :raises KeraiError: when PostgreSQL or the extension is not installed, or refuses to start.
        """
        from kerai_client.db.instance import ensure_database  # noqa: PLC0415 -- the driver is slow to import

        if set(str(self.directory)) & set("\r\n"):
            raise KeraiError(
                "PostgreSQL takes no line end in the name of its directory",
                detail=ascii(str(self.directory)),
                hint="say another directory with --dir, or give this one another name",
            )
        with self._lock():
            self._start(tcp_port)
            ensure_database(self.dsn_of("postgres"), self.dsn, DATABASE)
            return self.dsn

    def down(self) -> None:
        """Stop the server: open transactions are rolled back. Nothing happens when it does not run."""
        if self.exists():
            with self._lock():
                self._stop()

    def destroy(self) -> None:
        """Stop the server and delete its data.

        :raises KeraiError: when something of them is left.
        """
        if self.exists():
            with self._lock():
                self._stop()
                # Not the folder itself: it holds the lock and perhaps a config file.
                for folder in (self.data, self.home / "data.new", self.socket_directory):
                    self._delete(folder)
                if self.home != self.directory:
                    with suppress(OSError):  # what somebody else has put there stays
                        self.home.rmdir()

    def status(self) -> ServerStatus:
        """Return where the server is and whether it runs."""
        pid = self.pid()
        note = None
        if self.home != self.directory:
            note = f"the data are not in {self.directory}, which {self.owner.name} cannot enter"
        return ServerStatus(
            running=pid is not None,
            pid=pid,
            dsn=self.dsn,
            tcp_port=self._tcp_port(),
            user=self.owner.name,
            directory=str(self.directory),
            data=str(self.data),
            note=note,
        )

    def pid(self) -> int | None:
        """Return the process id of this server's postmaster, None when it does not run."""
        lines = self._pid_file()
        if not lines:
            return None
        pid = int(lines[0])
        # The file survives a kill -9 and a reboot, and its number may be another process's by now.
        return pid if pid in processes_in(self.data) else None

    # ---- the steps ------------------------------------------------------------------------------

    def _start(self, tcp_port: int | None) -> None:
        if self.pid() is not None:
            if tcp_port is not None and self._tcp_port() != tcp_port:
                raise KeraiError(
                    f"the server in {self.directory} runs already, and not on TCP port {tcp_port}",
                    hint="kerai down, then kerai up --port again",
                )
            return
        self._may_control()
        if not self.exists():
            self._make_cluster()
        self._check_version()
        self._remove_stale_pid_file()
        self._make_private(self.socket_directory)
        conf = postgresql_conf(self.socket_directory, tcp_port, fsync=self.fsync)
        self.owner.write(self.data / "kerai.conf", conf)
        started = self._pg_ctl("start", "--wait", f"--timeout={START_SECONDS}", f"--log={START_LOG}")
        if started.returncode != 0:
            log = [*self._tail(self.data / START_LOG), *self._tail(self._newest_log())]
            raise KeraiError(
                "the private server does not start",
                detail=" | ".join(log) or started.stdout.strip(),
                hint=f"the whole story is in {self.data / 'log'}",
            )

    def _stop(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        self._may_control()
        # pg_ctl signals the process that the pid file names, which has just been seen to be the right one.
        stopped = self._pg_ctl("stop", "--mode=fast", "--wait", f"--timeout={STOP_SECONDS}")
        if stopped.returncode != 0 and self.pid() is not None:
            raise KeraiError(
                f"the private server (process {pid}) does not stop", detail=stopped.stdout.strip()
            )

    def _make_cluster(self) -> None:
        """Make a cluster beside its place and move it there when it is whole."""
        new = self.home / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        self._make_private(new)
        command = [f"--pgdata={new}", f"--username={self.owner.name}", "--encoding=UTF8"]
        command += ["--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256", "--data-checksums"]
        made = self.owner.run([program("initdb"), *command, *([] if self.fsync else ["--no-sync"])])
        if made.returncode != 0:
            raise KeraiError("initdb could not make the private server", detail=made.stdout.strip())
        # What ALTER SYSTEM writes comes after this file and wins.
        self.owner.write(new / "postgresql.conf", "include 'kerai.conf'\n", append=True)
        self.owner.write(new / "pg_hba.conf", HBA)
        new.rename(self.data)

    def _check_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        installed = output_of("postgres", "--version").strip()
        if f" {made_by}." not in installed:
            raise KeraiError(
                f"the data in {self.data} are PostgreSQL {made_by}'s",
                detail=f"{program('postgres')} is {installed}",
                hint=f"set PG_CONFIG to the pg_config of PostgreSQL {made_by}, or use pg_upgrade",
            )

    def _remove_stale_pid_file(self) -> None:
        """Wait for what a killed postmaster has left behind, and remove its pid file.

        PostgreSQL itself would refuse to start when the number belongs to another process of this user.
        """
        deadline = time.monotonic() + START_SECONDS
        while left := processes_in(self.data):
            if time.monotonic() > deadline:
                raise KeraiError(
                    f"processes of a killed server are still in {self.data}",
                    detail=", ".join(map(str, sorted(left))),
                )
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    # ---- helpers --------------------------------------------------------------------------------

    def _hash(self) -> str:
        return hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]

    def _wanted_owner(self) -> Owner:
        me = Owner.of(pwd.getpwuid(os.geteuid()))
        if me.uid != 0:
            if self.user not in {None, me.name}:
                raise KeraiError(f"only root can run a server as {self.user}", hint="leave out --user")
            return me
        name = self.user or os.environ.get("SUDO_USER", "root")
        name = "postgres" if name == "root" and self.user is None else name
        try:
            owner = Owner.of(pwd.getpwnam(name))
        except KeyError:
            raise KeraiError(f"there is no user {name}", hint="name another with --user") from None
        if owner.uid == 0:
            raise KeraiError("PostgreSQL does not run as root", hint="name another user with --user")
        return owner

    def _may_control(self) -> None:
        if os.geteuid() not in {0, self.owner.uid}:
            raise KeraiError(
                f"the private server in {self.directory} belongs to {self.owner.name}",
                hint="run this as that user or as root, or use another --dir",
            )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process at a time start or stop the server."""
        try:
            if not self.directory.exists():
                self.directory.mkdir(parents=True)
                if os.geteuid() == 0:
                    # Whatever root's umask is: the owner has to pass.
                    self.directory.chmod(0o755)
                    self._give_back(self.directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.directory / "lock", flags, 0o600)
            self._give_back(descriptor)
        except OSError as error:
            raise KeraiError(
                f"cannot use {self.directory} for a private server", detail=str(error)
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _delete(folder: Path) -> None:
        problems: list[str] = []
        shutil.rmtree(folder, onerror=lambda _function, _path, problem: problems.append(str(problem[1])))
        if folder.exists():
            raise KeraiError(
                f"could not delete all of {folder}",
                detail="; ".join(problems[:5]) or None,
                hint="delete it by hand: the server is stopped",
            )

    def _give_back(self, place: Path | int) -> None:
        """Under sudo, leave to the user what he has to use without sudo later."""
        if os.geteuid() == 0 and os.environ.get("SUDO_USER") == self.owner.name:
            os.chown(place, self.owner.uid, self.owner.gid)

    def _make_private(self, folder: Path) -> None:
        """Make sure that a folder is there and that nobody but the owner enters it."""
        if folder.parent.is_relative_to(SHARED_PLACE) and not folder.parent.exists():
            for parent in (SHARED_PLACE, folder.parent):
                parent.mkdir(exist_ok=True)
                parent.chmod(0o755)
        try:
            folder.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(folder, self.owner.uid, self.owner.gid, follow_symlinks=False)
        except FileExistsError:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.owner.uid or found.st_mode & 0o077:
                raise KeraiError(
                    f"{folder} is not a private folder of {self.owner.name}",
                    hint="remove it, if you know whose it is",
                ) from None

    def _pid_file(self) -> list[str]:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError:
            raise KeraiError(
                f"the private server in {self.directory} belongs to {self.owner.name}",
                hint="run this as that user or as root, or use another --dir",
            ) from None
        return lines if lines and lines[0].isdigit() else []

    def _running_port(self) -> int | None:
        try:
            return int(self._pid_file()[3])
        except (IndexError, ValueError):
            return None

    def _tcp_port(self) -> int | None:
        lines = self._pid_file()
        return self._running_port() if len(lines) > 5 and lines[5].strip() else None

    def _newest_log(self) -> Path | None:
        logs = sorted((self.data / "log").glob("*.log"), key=lambda file: file.stat().st_mtime)
        return logs[-1] if logs else None

    @staticmethod
    def _tail(file: Path | None) -> list[str]:
        if file is None or not file.exists():
            return []
        return file.read_text(errors="replace").splitlines()[-5:]

    def _pg_ctl(self, action: str, *options: str) -> subprocess.CompletedProcess[str]:
        # From inside, because pg_ctl hands the paths to a shell, and not every character survives that.
        return self.owner.run([program("pg_ctl"), action, "--pgdata=.", "--silent", *options], cwd=self.data)

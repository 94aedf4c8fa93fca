"""One run of the mix, from an empty server to its last check."""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.chaos.authors import Author
from tests.chaos.disturbances import PEER, operators
from tests.chaos.mix import Mix, check_end, check_log, check_peer
from tests.merge.live import insert
from tests.merge.members import launch
from tests.merge.observe import scalar

from kerai_client.db.connection import connect as connect_to
from kerai_client.server.private import DATABASE, PrivateServer

AUTHORS = 10
MEMBERS = 5  # of them, in a grouped swarm
LOOSE_LOCKS = """
select count(*) from pg_locks
where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"""


def run(seconds: float, seed: int, *, kills: bool = True, tell: Callable[[str], None] = print) -> Mix:
    """Let the mix go on for a while; return what has happened and what was found.

    :param seconds: for how long; what is under way then is brought to its end, and everything is checked.
    :param seed: for the authors' choices and the pauses. The order of events differs from run to run.
    :param kills: whether the server is killed now and then.
    :param tell: takes a line every ten seconds.
    """
    folder = Path(tempfile.mkdtemp(prefix="kerai-chaos-"))
    folder.chmod(0o755)
    # Without fsync: a kill -9 of the server leaves to the machine what was written.
    server = PrivateServer(folder / "server", fsync=False)
    mix = Mix(server, folder, seed)
    try:
        server.up()
        _prepare(mix)
        _go(mix, seconds, kills=kills, tell=tell)
        return mix
    finally:
        server.destroy()
        shutil.rmtree(folder)


def _prepare(mix: Mix) -> None:
    """Let dumps be written, and the log say each error's code; make another instance."""
    owner = mix.server.owner
    shutil.chown(mix.folder, owner.uid, owner.gid)
    with connect_to(mix.server.dsn_of("postgres")) as connection:
        connection.execute("alter system set log_line_prefix = '%m [%p] %e '")
        connection.execute("alter system set synchronous_commit = on")
        connection.execute("alter system set restart_after_crash = on")
        connection.execute("select pg_reload_conf()")
        # Neither has a key before its first use.
        names = sql.Identifier(PEER), sql.Identifier(DATABASE)
        connection.execute(sql.SQL("create database {} template {}").format(*names))


def _go(mix: Mix, seconds: float, *, kills: bool, tell: Callable[[str], None]) -> None:
    with connect_to(mix.server.dsn) as connection:
        task, swarm = launch(connection)
        way = make_conninfo(mix.server.dsn_of(PEER), connect_timeout=5)
        connection.execute("select kerai.add_peer(%s, %s)", [PEER, way])
    authors = [Author(mix, number, swarm if number < MEMBERS else None) for number in range(AUTHORS)]
    first = authors[-1]
    first.plant([insert(str(UUID(int=number)), None) for number in range(1, 11)])
    helpers = operators(mix, seconds, task, first.id, kills=kills)

    end = time.monotonic() + seconds
    threads = [mix.run(each.name, each.step) for each in (*authors, *helpers)]
    while not mix.stop.wait(min(10.0, max(0.0, end - time.monotonic()))) and time.monotonic() < end:
        tell(figures(mix))
    mix.stop.set()
    for thread in threads:
        while thread.is_alive():
            thread.join(5)
            _wake_idle_sessions(mix)

    try:
        with connect_to(mix.server.dsn) as connection:
            # The authors' sessions are still there, and would hold what a cancel has left to them.
            if loose := scalar(connection, LOOSE_LOCKS):
                mix.found(f"{loose} advisory locks are left")
            digest = check_end(mix, connection)
            check_peer(mix, connection, PEER, digest)
        check_log(mix)
        tell(f"{figures(mix)}\ndigest {digest}")
    except Exception:
        mix.found(traceback.format_exc())
    for each in (*authors, *helpers):
        each.close()


def _wake_idle_sessions(mix: Mix) -> None:
    """Signal the idle sessions again, so that nobody waits for them.

    PostgreSQL 15 forgets a ProcSignalBarrier that comes together with a cancel until the session gets its
    next signal. DROP DATABASE waits for that.
    """
    with connect_to(mix.server.dsn) as connection:
        connection.execute(
            "select pg_cancel_backend(pid) from pg_stat_activity "
            "where application_name like 'chaos %' and state = 'idle'"
        )


def figures(mix: Mix) -> str:
    """Return what has happened so far, in one line."""
    with mix.lock:
        return ", ".join(f"{what}: {n}" for what, n in sorted(mix.counts.items()))

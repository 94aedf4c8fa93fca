"""Whole clusters: roles and databases by pg_dumpall, files by pg_basebackup."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.merge.observe import digest, scalar
from tests.restore.conftest import Restorer, Way, assert_same, everything, hosted_push, ok, run
from tests.settings.odd import connect as connect_to

from kerai_client.server.postgres import program
from kerai_client.server.private import PrivateServer


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for servers, whose paths of sockets have to be short."""
    made = Path(tempfile.mkdtemp(prefix=f"kerai-test-{os.getpid()}-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def bare(folder: Path) -> Iterator[PrivateServer]:
    """Another server, without kerai's roles."""
    server = PrivateServer(folder / "server", fsync=False)
    try:
        server.up()
        with connect_to(server.dsn_of("postgres")) as connection:
            connection.execute("drop database kerai")
            connection.execute("drop role kerai_operator, kerai_peer, kerai_agent, kerai_reader")
        yield server
    finally:
        server.destroy()


def test_a_database_and_all_roles_on_another_server(
    full: Any, restorer: Restorer, bare: PrivateServer
) -> None:
    there = bare.dsn_of("postgres")
    # Without the roles that own agents, and before any other.
    ok("pg_restore", "--create", "--jobs=2", "--dbname", there, restorer.dump(full.dsn, Way()))
    assert_same(full.dsn, bare.dsn_of(full.name))

    # The cluster whole, but for what other tests have made.
    with connect_to(full.dsn) as connection:
        others = connection.execute(
            "select datname from pg_database where datname not in (%s, 'postgres', 'template1', 'template0')",
            [full.name],
        ).fetchall()
    script = str(restorer.folder / "all.sql")
    excluded = [f'--exclude-database="{row["datname"]}"' for row in others]
    ok(
        "pg_dumpall",
        "--clean",
        "--if-exists",
        *excluded,
        f"--file={script}",
        "--dbname",
        full.server.dsn_of("postgres"),
    )
    restored = run("psql", "-X", "-q", "-o", os.devnull, "-f", script, "-d", there)
    # The superuser who restores is there already, and is who he is.
    problems = {line.split("ERROR: ", 1)[1] for line in restored.stderr.splitlines() if "ERROR: " in line}
    assert problems <= {
        " current user cannot be dropped",
        f' role "{bare.owner.name}" already exists',
    }
    assert_same(full.dsn, bare.dsn_of(full.name))
    with connect_to(bare.dsn_of(full.name)) as connection:
        assert scalar(connection, "select pg_has_role('keeper of hosts', 'kerai_agent', 'member')")


def test_a_copy_of_the_files_has_the_key_and_all_that_is_logged(full: Any, folder: Path) -> None:
    copy = PrivateServer(folder / "copy", fsync=False)
    home = folder / "copy"
    home.mkdir()
    shutil.chown(home, full.server.owner.uid, full.server.owner.gid)
    command = [program("pg_basebackup"), f"--pgdata={home / 'data'}", "--checkpoint=fast", "--no-sync"]
    made = full.server.owner.run([*command, "--dbname", full.server.dsn_of("postgres")])
    assert made.returncode == 0, made.stdout
    try:
        copy.up()
        unlogged = ("kerai.test_results", "kerai.failed_operations", "sequences")
        with connect_to(full.dsn) as original, connect_to(copy.dsn_of(full.name)) as restored:
            before, after = everything(original), everything(restored)
            assert {name for name in before if after[name] != before[name]} <= {
                name for name in before if name.startswith(unlogged)
            }
            assert digest(restored) == digest(original)
            assert restored.execute("select * from kerai.verify()").fetchall() == []
            hosted_push(restored)
    finally:
        copy.destroy()

"""The .py files of the running Python's standard library through kerai and back. That is import (read, parse,
diff, sign, push, merge) into an empty database, checkout into an empty directory, and a comparison byte for
byte. The outside is git add, commit and checkout of the same files, which stores text and not a tree of
statements.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median

from psycopg import sql
from report import Row

from kerai_client.agent.session import Session
from kerai_client.agent.state import read_state
from kerai_client.db.connection import Database, connect
from kerai_client.db.instance import ensure_extension
from kerai_client.repo.checkout import write_checkout
from kerai_client.repo.importing import import_directory
from kerai_client.server.private import PrivateServer

ROUNDS = 3


def copy_library(target: Path) -> int:
    """Copy the library's own .py files, nothing that was installed beside it; return how many."""
    source = Path(sysconfig.get_path("stdlib"))
    count = 0
    for file in source.rglob("*.py"):
        parts = file.relative_to(source).parts
        if not {"site-packages", "dist-packages"} & set(parts) and not file.is_symlink():
            (target / Path(*parts)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / Path(*parts))
            count += 1
    return count


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


def through_kerai(server: PrivateServer, number: int, library: Path, out: Path) -> tuple[float, int, int]:
    """Import and check out; return the seconds of the import, its nodes and its operations."""
    with connect(server.dsn_of("postgres")) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(f"library{number}")))
    with connect(server.dsn_of(f"library{number}")) as connection:
        ensure_extension(connection)
    with (
        Database(server.dsn_of(f"library{number}")) as database,
        Session(database, "bench", "tool") as session,
    ):
        started = time.perf_counter()
        report = import_directory(session, library)
        seconds = time.perf_counter() - started
        if report.problems:
            raise RuntimeError(f"not imported: {report.problems}")
        write_checkout(database, read_state(database), out)
    return seconds, report.nodes, report.operations


def through_git(library: Path, out: Path) -> float:
    """Add, commit and check out; return the seconds of the first two."""
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-C", str(library)]
    shutil.rmtree(library / ".git", ignore_errors=True)
    subprocess.run([*git, "init", "--quiet"], check=True)
    started = time.perf_counter()
    subprocess.run([*git, "add", "--all", "--force"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "library"], check=True)
    seconds = time.perf_counter() - started
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(out)], check=True)
    shutil.rmtree(library / ".git")
    return seconds


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratio of the files a second."""
    ours, others = [], []
    nodes = operations = 0
    folder = Path(tempfile.mkdtemp(prefix="kerai-bench-library-"))
    os.environ["KERAI_KEYS"] = str(folder / "keys")
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    try:
        files = copy_library(folder / "library")
        expected = contents(folder / "library")
        for number in range(ROUNDS):
            out = folder / f"kerai{number}"
            seconds, nodes, operations = through_kerai(server, number, folder / "library", out)
            ours.append(seconds)
            others.append(through_git(folder / "library", folder / f"git{number}"))
            if contents(out) != expected:
                raise RuntimeError("what came back is not what went in")
    finally:
        shutil.rmtree(folder)
    rates = [f"{count / median(ours):,.0f} {what}/s" for count, what in ((files, "files"), (nodes, "nodes"))]
    return [
        Row(
            f"import of the standard library, {files} files, {operations:,} operations, against git commit",
            "\n".join([*rates, f"{operations / median(ours):,.0f} op/s"]),
            f"{files / median(others):,.0f} files/s",
            median(others) / median(ours),
        )
    ]

#!/usr/bin/env python3
"""The benchmarks: ``make bench``. A table of ratios, each against something outside kerai in the same run.

    tests/bench/run.py [NAME …]     all of them, or the named ones

Each benchmark is a module beside this one with a ``run(server) -> list[Row]``. They run on a throwaway
server with fsync on. Machines are shared and noisy, so both sides of a ratio take turns in one run and
medians are compared.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from support import administer

from kerai_client.server.private import PrivateServer

HERE = Path(__file__).parent
HELPERS = {"run", "report", "support"}
LOG_FILES = 64  # of 16 MB
sys.path.insert(0, str(HERE))


def age(server: PrivateServer) -> None:
    """Let the server have what one has that has run for a while: files for its log that it uses again."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"alter system set min_wal_size = '{LOG_FILES * 16}MB'")
        connection.execute("select pg_reload_conf()")
        for _ in range(LOG_FILES):
            connection.execute("select pg_logical_emit_message(false, '', ''), pg_switch_wal()")


def main(names: list[str]) -> int:
    """Run the benchmarks and print one table; the exit code is 1 when a ratio misses its aim."""
    known = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in HELPERS)
    unknown = set(names) - set(known)
    if unknown:
        print(
            f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr
        )
        return 2
    folder = Path(tempfile.mkdtemp(prefix="kerai-bench-"))
    folder.chmod(0o755)
    server = PrivateServer(folder / "server")
    table = Table(title="kerai benchmarks")
    for column, justify in (
        ("what", "left"),
        ("kerai", "right"),
        ("outside", "right"),
        ("ratio", "right"),
        ("aim", "right"),
    ):
        table.add_column(column, justify=justify)
    missed = False
    try:
        server.up()
        age(server)
        for name in names or known:
            module = importlib.import_module(name)
            administer(server, "checkpoint")
            started = time.monotonic()
            for row in module.run(server):
                missed = missed or row.missed
                aim = f"≥ {row.aim:.2g}" if row.aim is not None else ""
                table.add_row(
                    row.what,
                    row.kerai,
                    row.outside,
                    f"{row.ratio:.2f}",
                    aim,
                    style="red" if row.missed else "",
                )
            print(f"{name}: {time.monotonic() - started:.0f} s — {' '.join((module.__doc__ or '').split())}")
    finally:
        server.destroy()
        shutil.rmtree(folder)
    Console(width=110).print(table)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""PostgreSQL's programs, the processes that they become, and the accounts that they run as."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kerai_client.errors import KeraiError


@dataclass(frozen=True)
class Owner:
    """The account that a server runs as."""

    name: str
    uid: int
    gid: int
    home: str

    @classmethod
    def of(cls, entry: pwd.struct_passwd) -> Owner:
        """Return the owner that an entry of the user database names."""
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)

    def run(
        self, command: Sequence[str | Path], text: str = "", cwd: Path = Path("/")
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this account; stdout and stderr come as one text.

        Its environment is bare: PYTHONPATH and the like would reach the server's PL/Python. Root uses
        it for whatever happens in folders of the account, whose links it must not follow.

        :param text: what the program reads from stdin.
        """
        change: dict[str, Any] = {}
        if os.geteuid() != self.uid:
            groups = os.getgrouplist(self.name, self.gid)
            change = {"user": self.uid, "group": self.gid, "extra_groups": groups}
        return subprocess.run(
            command,
            cwd=cwd,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": self.home},
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=0o077,
            check=False,
            **change,
        )

    def can_enter(self, folder: Path) -> bool:
        """Say whether this account can reach a folder, or what there is of the way to it."""
        there = next(place for place in (folder, *folder.parents) if place.exists())
        return self.run(["test", "-x", there]).returncode == 0

    def write(self, file: Path, text: str, *, append: bool = False) -> None:
        """Write a file as this account.

        :raises OSError: when it cannot.
        """
        done = self.run(["sh", "-c", f'cat {">>" if append else ">"} "$1"', "sh", file], text)
        if done.returncode != 0:
            raise OSError(done.stdout.strip())


def processes_in(data: Path) -> set[int]:
    """Return the ids of PostgreSQL's processes that work in a data directory."""
    place = os.path.realpath(data)
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            # A process may end while it is looked at, and another user's is nobody's business.
            with suppress(OSError):
                inside = os.readlink(process / "cwd") == place  # noqa: PTH115 -- ten times as fast
                if inside and (process / "comm").read_text().strip() == "postgres":
                    found.add(int(process.name))
    return found


@cache
def program(name: str) -> str:
    """Return the path of a program of the PostgreSQL that PG_CONFIG (else pg_config) names."""
    pg_config = os.environ.get("PG_CONFIG") or "pg_config"
    try:
        found = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise KeraiError(
            "PostgreSQL is not installed, or pg_config does not find it",
            detail=str(error),
            hint="apt install postgresql-15, or set PG_CONFIG to the pg_config of a server",
        ) from error
    program = Path(found.stdout.strip()) / name
    if not program.is_file():
        raise KeraiError(
            f"PostgreSQL's {name} is missing", detail=str(program), hint="apt install postgresql-15"
        )
    return str(program)


def output_of(name: str, option: str) -> str:
    """Return what a program of PostgreSQL prints for an option."""
    return subprocess.run([program(name), option], capture_output=True, text=True, check=True).stdout

"""A copy of PostgreSQL in a folder of the test's own: a test installs there what it likes, without root.

PostgreSQL finds its files by where its programs stand, so a copy of a few programs beside links to all
the rest has an extension folder of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_config")


def pg_config(option: str, program: str | Path | None = None) -> Path:
    """Return a folder that pg_config names.

    :param program: the pg_config to ask, by default the one that PG_CONFIG names.
    """
    command = [program or os.environ.get("PG_CONFIG") or "pg_config", option]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def copy_postgres(folder: Path) -> Path:
    """Make the copy in an empty folder that the server's account can enter; return its pg_config.

    Files may be added to its ``--sharedir``/extension: no link leads there.
    """
    for option in ("--bindir", "--sharedir", "--pkglibdir"):
        original = pg_config(option)
        copy = folder / original.relative_to("/")
        copy.mkdir(parents=True)
        for entry in original.iterdir():
            if option != "--bindir" and entry.name != "extension":
                (copy / entry.name).symlink_to(entry)
    for name in PROGRAMS:
        # A link would lead PostgreSQL back to the original.
        shutil.copy2(pg_config("--bindir") / name, folder / pg_config("--bindir").relative_to("/"))
    extensions = pg_config("--sharedir") / "extension"
    copy = folder / extensions.relative_to("/")
    copy.mkdir()
    for entry in extensions.iterdir():
        if not entry.name.startswith("kerai"):
            (copy / entry.name).symlink_to(entry)
    found = folder / pg_config("--bindir").relative_to("/") / "pg_config"
    assert pg_config("--sharedir", found) == folder / pg_config("--sharedir").relative_to("/")
    return found

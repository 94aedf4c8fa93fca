#!/usr/bin/env python3
"""Assemble the extension's install and upgrade scripts from the files in extension/sql.

    extension/build.py --python-path DIR [--output build]     write build/kerai--*.sql
    extension/build.py --version                              print the version
    extension/build.py --freeze                               at a release: freeze the table files

A folder NNN-domain holds tables.sql (more of them are tables-*.sql), a file of functions a subject and
grants.sql. An install script is head.sql, all table files, all function files, revoke.sql, all grants.sql and
last.sql, each kind in the order of the folders. Only the table files that a release has frozen come before
all others, in the order in which they were frozen. A new one may need any of them, whatever their numbers.

Table files run once in the life of a database, so they are frozen at a release: ``frozen.txt`` keeps
``<version> <sha256> <file>`` for each, and a changed one stops the build. A release that brings no table
file is a line with its version alone. An upgrade script from a released version holds the table files that
the version did not have, and all that follows again. So both ways lead to the same database. (The same
order of things as in timescale/pgai.)

It needs nothing but Python's standard library: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

EXTENSION = "kerai"
ROOT = Path(__file__).resolve().parent.parent
# What PostgreSQL itself replaces in a script; anything else between @s is a slip of the pen.
POSTGRES_PLACEHOLDERS = {"@extschema@", "@extowner@"}
PLACEHOLDER = re.compile(r"@[a-z_]+@")
DOMAIN = re.compile(r"\d{3}-[a-z0-9-]+")
SUBJECT = re.compile(r"[a-z][a-z0-9.-]*\.sql")
TABLES = re.compile(r"tables(-[a-z0-9.-]+)?\.sql")
GRANTS = "grants.sql"
VERSION = re.compile(r"\d+\.\d+\.\d+")


class BuildError(Exception):
    """The sources do not fit together; the message says which and why."""


class Sources:
    """The extension's source files below one project root."""

    def __init__(self, root: Path = ROOT) -> None:
        self.sql = root / "extension" / "sql"
        self.frozen_file = self.sql / "frozen.txt"
        self.version = self._version(root)

    @staticmethod
    def _version(root: Path) -> str:
        """Return the version of the Python package, which the control file must repeat."""
        package = root / "extension" / "python" / EXTENSION / "__init__.py"
        found = re.search(r'^__version__ = "([^"]+)"$', package.read_text("utf-8"), re.MULTILINE)
        if found is None or not VERSION.fullmatch(found[1]):
            raise BuildError(f'{package} has no line like __version__ = "1.2.3"')
        control = root / f"{EXTENSION}.control"
        default = re.search(r"^default_version = '([^']+)'$", control.read_text("utf-8"), re.MULTILINE)
        if default is None or default[1] != found[1]:
            stated = default[1] if default else "nothing"
            raise BuildError(f"{control.name} says default_version {stated}, {package.name} says {found[1]}")
        return found[1]

    def domain_files(self) -> list[Path]:
        """Return the .sql files of all domains, ordered by folder and name."""
        files = []
        for folder in sorted(path for path in self.sql.iterdir() if path.is_dir()):
            if not DOMAIN.fullmatch(folder.name):
                raise BuildError(f"{folder.name}: name the folder NNN-domain")
            files += sorted(folder.glob("*.sql"))
        for file in files:
            if not SUBJECT.fullmatch(file.name):
                raise BuildError(f"{file.relative_to(self.sql)}: name it after its subject, without a number")
        return files

    def tables(self) -> list[Path]:
        """Return the files that run once in the life of a database: in the order in which releases have
        frozen them, then the new ones by folder."""
        frozen = [self.sql / name for _, _, name in self.frozen()]
        known = set(frozen)
        return frozen + [
            file for file in self.domain_files() if TABLES.fullmatch(file.name) and file not in known
        ]

    def again(self) -> list[Path]:
        """Return the files that run again at every upgrade, in their order."""
        files = [file for file in self.domain_files() if not TABLES.fullmatch(file.name)]
        functions = [file for file in files if file.name != GRANTS]
        grants = [file for file in files if file.name == GRANTS]
        return [*functions, self.sql / "revoke.sql", *grants, self.sql / "last.sql"]

    def _frozen_lines(self) -> list[list[str]]:
        """Return the words of each line of frozen.txt."""
        if not self.frozen_file.exists():
            return []
        return [line.split() for line in self.frozen_file.read_text("utf-8").splitlines()]

    def released(self) -> set[str]:
        """Return the versions that are released: databases may have them."""
        return {words[0] for words in self._frozen_lines()}

    def frozen(self) -> list[tuple[str, str, str]]:
        """Return (version, sha256, file) of each table file that a release has frozen, after checking
        that none has changed since."""
        entries = []
        for version, digest, name in (words for words in self._frozen_lines() if len(words) > 1):
            file = self.sql / name
            if not file.exists():
                raise BuildError(f"{name} was released with {version} and is gone")
            if sha256(file) != digest:
                raise BuildError(
                    f"{name} was released with {version} and must not change; alter the table in a new file"
                )
            entries.append((version, digest, name))
        return entries

    def freeze(self) -> None:
        """Add this version to frozen.txt, with the table files that are not frozen yet."""
        known = {name for _, _, name in self.frozen()}
        names = [file.relative_to(self.sql).as_posix() for file in self.tables()]
        new = [[self.version, sha256(self.sql / name), name] for name in names if name not in known]
        if not new and self.version not in self.released():
            new = [[self.version]]
        text = "".join(" ".join(words) + "\n" for words in [*self._frozen_lines(), *new])
        self.frozen_file.write_text(text, "utf-8")

    def scripts(self, python_path: str) -> dict[str, str]:
        """Return every script to install: file name -> text.

        :param python_path: the folder that PL/Python puts on sys.path.
        """
        frozen = self.frozen()
        tables, again = self.tables(), self.again()
        scripts = {
            f"{EXTENSION}--{self.version}.sql": self._assemble(
                [self.sql / "head.sql", *tables, *again], python_path, f"CREATE EXTENSION {EXTENSION} CASCADE"
            )
        }
        for old in self.released() - {self.version}:
            had = {name for version, _, name in frozen if as_tuple(version) <= as_tuple(old)}
            new = [file for file in tables if file.relative_to(self.sql).as_posix() not in had]
            scripts[f"{EXTENSION}--{old}--{self.version}.sql"] = self._assemble(
                [*new, *again], python_path, f"ALTER EXTENSION {EXTENSION} UPDATE"
            )
        return scripts

    def _assemble(self, files: Iterable[Path], python_path: str, command: str) -> str:
        # The path ends up inside an SQL literal, where no installation needs these characters.
        if not python_path.startswith("/") or re.search(r"['\"\\$\x00-\x1f]", python_path):
            raise BuildError(f"the Python path must be absolute and free of quotes: {python_path!r}")
        # CREATE EXTENSION has the schemas of the required extensions on its search_path, public among
        # them, where others may have put a better-matching function.
        parts = [
            f'\\echo Use "{command}" to load this file. \\quit\n',
            "set local search_path = pg_catalog, pg_temp;\n",
        ]
        for file in files:
            name = file.relative_to(self.sql).as_posix()
            try:
                text = file.read_text("utf-8")
            except FileNotFoundError:
                raise BuildError(f"extension/sql/{name} is missing") from None
            if not text.isascii():
                # A refusal or a comment that a client's encoding lacks is another error, and ends a pg_dump.
                line = next(n for n, line in enumerate(text.splitlines(), 1) if not line.isascii())
                raise BuildError(f"extension/sql/{name}:{line} is not ASCII")
            text = text.replace("@version@", self.version).replace("@python_path@", python_path)
            unknown = set(PLACEHOLDER.findall(text)) - POSTGRES_PLACEHOLDERS
            if unknown:
                raise BuildError(
                    f"extension/sql/{name} has unknown placeholders: {', '.join(sorted(unknown))}"
                )
            parts.append(f"-- ==== {name} ====\n\n{text.strip()}\n")
        return "\n".join(parts)


def as_tuple(version: str) -> tuple[int, ...]:
    """Return a version in a form that compares: 0.10.0 is after 0.9.0."""
    return tuple(int(part) for part in version.split("."))


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_scripts(scripts: dict[str, str], output: Path) -> None:
    """Make a folder hold exactly these scripts; one that is the same already is not touched."""
    output.mkdir(parents=True, exist_ok=True)
    for stale in output.glob(f"{EXTENSION}--*.sql"):
        if stale.name not in scripts:
            stale.unlink()
    for name, text in scripts.items():
        file = output / name
        if not file.exists() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Assemble the extension's install and upgrade scripts.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--python-path", help="the folder that PL/Python puts on sys.path")
    action.add_argument("--version", action="store_true", help="print the version and stop")
    action.add_argument("--freeze", action="store_true", help="freeze the table files of this release")
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="where the scripts go")
    options = parser.parse_args(arguments)
    try:
        sources = Sources()
        if options.version:
            print(sources.version)
        elif options.freeze:
            sources.freeze()
        else:
            write_scripts(sources.scripts(options.python_path), options.output)
    except PermissionError as error:
        print(f"build.py: {error.filename} is another user's (made by sudo?); remove it", file=sys.stderr)
        return 1
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where the database is, and what else a user has settled: command line, environment, config files.

The database is, in this order: ``--dsn``; the private server in an explicit ``--dir``; ``KERAI_DSN``;
``dsn`` in a config file; the private server in ``KERAI_DIR`` or ``.kerai``. Config files are
``config.toml`` in the private server's directory and in ``~/.config/kerai``; what the first one says
wins, key by key.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerai_client.errors import KeraiError
from kerai_client.server.private import PrivateServer

DEFAULT_DIRECTORY = ".kerai"


@dataclass(frozen=True)
class Config:
    """What the command line, the environment and the config files come to.

    :param dsn: the database to use, None for the private server's.
    :param directory: the private server's directory.
    :param solvers: the command that runs each model, for ``--model``.
    """

    dsn: str | None
    directory: Path
    solvers: Mapping[str, str] = field(default_factory=dict)

    @property
    def server(self) -> PrivateServer:
        """The private server of this configuration, running or not."""
        return PrivateServer(self.directory)

    def database(self) -> str:
        """Return the DSN to connect to.

        :raises KeraiError: when nothing names a database and no private server runs.
        """
        if self.dsn is not None:
            return self.dsn
        server = self.server
        if server.pid() is None:
            made = "is not running" if server.exists() else "does not exist"
            raise KeraiError(
                f"the private server in {self.directory} {made}",
                hint="start it with `kerai up`, or name another database with --dsn or KERAI_DSN",
            )
        return server.dsn


def config_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the user's own settings and keys: ``~/.config/kerai``."""
    base = environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "kerai"


def load_config(
    dsn: str | None = None, directory: str | None = None, environ: Mapping[str, str] = os.environ
) -> Config:
    """Return the configuration.

    :param dsn: the value of ``--dsn``.
    :param directory: the value of ``--dir``.
    :raises KeraiError: when a config file cannot be read or says something unknown, or there is no home.
    """
    try:
        place = Path(directory or environ.get("KERAI_DIR") or DEFAULT_DIRECTORY).expanduser().absolute()
        folders = (place, config_home(environ))
    except RuntimeError as error:  # pathlib's, for an account without a home
        raise KeraiError(str(error).rstrip("."), hint="set HOME") from error
    project, user = (read_config_file(folder / "config.toml") for folder in folders)
    if dsn is None and directory is None:
        dsn = environ.get("KERAI_DSN") or project.get("dsn") or user.get("dsn")
    return Config(dsn, place, {**user.get("solvers", {}), **project.get("solvers", {})})


def read_config_file(file: Path) -> dict[str, Any]:
    """Return what a config file says, {} when there is none.

    :raises KeraiError: when it cannot be read, is not TOML, or holds unknown keys or wrong types.
    """
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise KeraiError(f"cannot read {file}", detail=str(error)) from error
    hint = 'a config file has `dsn = "…"` and a table [solvers] with lines `model = "command"`'
    unknown = sorted(content.keys() - {"dsn", "solvers"})
    if unknown:
        raise KeraiError(f"unknown settings in {file}", detail=", ".join(unknown), hint=hint)
    solvers = content.get("solvers", {})
    if not isinstance(content.get("dsn", ""), str):
        raise KeraiError(f"dsn in {file} is not a text", hint=hint)
    if not isinstance(solvers, dict) or not all(isinstance(command, str) for command in solvers.values()):
        raise KeraiError(f"[solvers] in {file} must give each model a command", hint=hint)
    return content

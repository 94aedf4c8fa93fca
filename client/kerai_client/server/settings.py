"""The settings of a private server: what is in its ``kerai.conf`` and ``pg_hba.conf``."""

from __future__ import annotations

from pathlib import Path

from kerai_client.server.postgres import output_of

SOCKET_PORT = 5432  # without TCP a port only names the socket's file

SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "idle_in_transaction_session_timeout": "5min",  # a push left open would hold up all others
    "jit": "off",  # it costs more than it brings for short queries
    "log_checkpoints": "off",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "server-%a.log",  # one week of logs
    "log_truncate_on_rotation": "on",
    "log_rotation_size": "0",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_min_error_statement": "panic",  # a refused push would write the whole changeset into the log
    "unix_socket_permissions": "0700",
}
# A throwaway server loses its data when the machine stops, and nobody minds.
UNSAFE_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

HBA = """\
# Who can enter the socket's folder is the owner of these files, or root.
local all         all              trust
local replication all              trust
host  all         all 127.0.0.1/32 scram-sha-256
host  all         all ::1/128      scram-sha-256
"""


def postgresql_conf(socket_directory: Path, tcp_port: int | None, *, fsync: bool) -> str:
    """Return the text of ``kerai.conf``.

    :param tcp_port: a port of localhost to listen on as well.
    :param fsync: False for a throwaway server.
    """
    settings = dict(SETTINGS)
    with_lz4 = "--with-lz4" in output_of("pg_config", "--configure")
    settings["wal_compression"] = "lz4" if with_lz4 else "on"
    if not fsync:
        settings.update(UNSAFE_SETTINGS)
    settings["listen_addresses"] = "" if tcp_port is None else "localhost"
    settings["port"] = str(tcp_port or SOCKET_PORT)
    # A list in a string: doubled double quotes keep spaces and commas of the path together.
    settings["unix_socket_directories"] = '"' + str(socket_directory).replace('"', '""') + '"'
    lines = ["# Written by `kerai up`. To change a setting: ALTER SYSTEM.\n"]
    for name, value in settings.items():
        quoted = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{quoted}'\n")
    return "".join(lines)

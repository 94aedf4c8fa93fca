"""Find what a user names: by id, by the beginning of an id, by name, or by path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from uuid import UUID

from kerai_client.db.connection import Connection, queries
from kerai_client.errors import KeraiError

# Shorter beginnings of ids are rather words.
ID_PREFIX = re.compile(r"[0-9a-f]{4}[0-9a-f-]{0,32}")
NOTHING_THERE = (
    "paths begin at the root of the tree, which `kerai import DIR` fills; what is deleted has only its id, "
    "see `kerai diff --nodes`"
)
LABELS = re.compile(r"[A-Za-z0-9_]{1,200}(\.[A-Za-z0-9_]{1,200})*")


def find(connection: Connection, what: str, text: str) -> UUID:
    """Return the id of the ``task``, ``swarm`` or ``agent`` that a text names.

    A task also answers to its description. Of several swarms or tasks with one name it is the latest.

    :raises KeraiError: when nothing has this name, or ids of several things begin like this.
    """
    name = text.strip()
    prefix = name.lower() if ID_PREFIX.fullmatch(name.lower()) else "-"
    rows = connection.execute(queries()[f"find_{what}"], {"prefix": prefix, "name": name}).fetchall()
    named = [row for row in rows if not str(row["id"]).startswith(prefix)]
    rows = named[:1] or rows
    if not rows:
        raise KeraiError(
            f"there is no {what} {name!r}", hint=f"`kerai {what} {LISTS[what]}` shows what there is"
        )
    if len(rows) > 1:
        ids = ", ".join(f"{row['id']} ({row['label'][:40]})" for row in rows[:5])
        raise KeraiError(
            f"{len(rows)} {what}s have ids that begin with {name}", detail=ids, hint="write more of it"
        )
    found: UUID = rows[0]["id"]
    return found


CHANGESET_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def changeset_like(connection: Connection, text: str) -> bytes:
    """Return the id of the changeset whose id begins like this.

    :raises KeraiError: when it is no such beginning, or there is none or more than one.
    """
    prefix = text.strip().lower()
    if not CHANGESET_PREFIX.fullmatch(prefix):
        raise KeraiError(
            f"{text!r} is not a changeset",
            hint="write at least four of the hex digits that `kerai log` shows",
        )
    rows = connection.execute(queries()["changesets_like"], {"prefix": prefix}).fetchall()
    if not rows:
        raise KeraiError(f"there is no changeset {prefix}", hint="`kerai log` shows what there is")
    if len(rows) > 1:
        raise KeraiError(f"several changesets have ids that begin with {prefix}", hint="write more of it")
    found: bytes = rows[0]["id"]
    return found


LISTS = {"task": "list", "swarm": "status", "agent": "list"}


def node_at(connection: Connection, path: str) -> UUID:
    """Return the id of a node. It is named by the path of a directory or file in the tree, by its id, or by
    its path as the database has it (``src.auth.token_py.validate_token``).

    :raises KeraiError: when there is none, or there are several.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    row = connection.execute(queries()["node_at_path"], {"parts": parts}).fetchone()
    if row is None:
        try:
            row = connection.execute(queries()["node_by_id"], {"id": UUID(path)}).fetchone()
        except ValueError:
            row = None
    if row is None and LABELS.fullmatch(path):
        rows = connection.execute(queries()["nodes_by_labels"], {"path": path}).fetchall()
        if len(rows) > 1:
            ids = ", ".join(f"{found['id']} ({found['kind']})" for found in rows)
            raise KeraiError(f"several nodes have the path {path}", detail=ids, hint="name one by its id")
        row = rows[0] if rows else None
    if row is None:
        raise KeraiError(f"there is nothing at {path!r} in the tree", hint=NOTHING_THERE)
    found_id: UUID = row["id"]
    return found_id


def nodes_at(connection: Connection, places: Mapping[str, str | None]) -> dict[str, UUID | None]:
    """Return the ids of nodes that are named by path or id; None stays None.

    :param places: the paths or ids, by any keys.
    :raises KeraiError: when there is no such node.
    """
    return {key: None if path is None else node_at(connection, path) for key, path in places.items()}

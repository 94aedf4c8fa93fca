"""Agents at a database: their rows there, and the keys that this user has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nacl.signing import SigningKey

from kerai_client.agent import keys
from kerai_client.db.connection import Connection, Database, queries


def instance_of(database: Database) -> str:
    """Return what names the database among this user's keys."""

    def call(connection: Connection) -> str:
        row = connection.execute(queries()["instance_key"]).fetchone()
        assert row is not None
        return keys.instance_id(row["key"])

    return database.run(call)


def agent_named(database: Database, name: str) -> dict[str, Any] | None:
    """Return the row of the agent of a name, None when there is none."""
    return database.run(
        lambda connection: connection.execute(queries()["agent_by_name"], {"name": name}).fetchone()
    )


def signing_key(name: str, instance: str, known: Mapping[str, Any] | None) -> SigningKey:
    """Return an agent's key for a database, made now when the agent is new there.

    :param known: the agent's row.
    :raises KeraiError: when the agent is registered with another key than this user has for the database.
    """
    if known is None or known["hosted"]:
        return keys.load_or_create(name, instance)
    return keys.load_registered(name, instance, known["public_key"])


def register(
    database: Database,
    name: str,
    kind: str,
    *,
    model: str | None = None,
    capabilities: Sequence[str] = (),
    hosted: bool = False,
) -> dict[str, Any]:
    """Register an agent and return its row. Its key is made at the first time; a hosted agent has none."""
    public_key = None
    if not hosted:
        keys.check_name(name)
        key = signing_key(name, instance_of(database), agent_named(database, name))
        public_key = bytes(key.verify_key)

    def call(connection: Connection) -> dict[str, Any]:
        row = connection.execute(
            queries()["register_agent"],
            {
                "name": name,
                "kind": kind,
                "public_key": public_key,
                "model": model,
                "capabilities": list(capabilities),
            },
        ).fetchone()
        assert row is not None
        return row

    return database.run(call)

"""An agent's views: weights of nodes (perspectives) and of relations between nodes (associations)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from kerai_client.agent.pages import Operation
from kerai_client.agent.session import Session
from kerai_client.agent.state import Vector, read_vector
from kerai_client.db.connection import Connection, queries
from kerai_client.errors import KeraiError


def change_view(
    session: Session, kind: str, nodes: Mapping[str, UUID | None], *, message: str, **values: Any
) -> dict[str, Any]:
    """Sign one operation on views, push it, and return the view and where the push stands.

    :param kind: the operation, such as ``perspective_set``.
    :param nodes: the operation's keys that are nodes.
    :param values: its other keys.
    :raises KeraiError: when a view that is to be deleted is not there.
    """
    if kind.endswith("_delete"):
        _require_view(session, kind.removesuffix("_delete"), {**nodes, **values})
    # Read after the nodes were found: it covers what inserted them.
    base: Vector = read_vector(session.database)
    keys = {name: None if node is None else str(node) for name, node in nodes.items()}
    operation: Operation = {"op": kind, **keys, **values}
    pushed = session.push([operation], base, message=message)
    return {
        "status": pushed.status,
        "author": session.author,
        "seq": pushed.vector[session.author],
        **nodes,
        **values,
    }


def _require_view(session: Session, what: str, keys: dict[str, Any]) -> None:
    def look(connection: Connection) -> bool:
        query = queries()[f"own_{what}"]
        return connection.execute(query, {"author": session.author, **keys}).fetchone() is not None

    if not session.database.run(look):
        command = {"perspective": "perspective", "association": "associations"}[what]
        raise KeraiError(
            f"agent {session.name!r} has no such {what}",
            detail=", ".join(f"{name}: {value}" for name, value in keys.items() if value is not None),
            hint=f"`kerai {command} list --agent {session.name}` shows what there is",
        )

"""An agent's views: weights of nodes (perspectives) and of relations between nodes (associations)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from kerai_client.agent.session import Operation, Session, Vector, read_vector
from kerai_client.cli.main import Client
from kerai_client.cli.source import human_session
from kerai_client.db.connection import Connection, queries
from kerai_client.errors import KeraiError
from kerai_client.repo.lookup import node_at


def nodes_of(connection: Connection, **paths: str | None) -> dict[str, UUID | None]:
    """Return the ids of the nodes that are named by path or id; None stays None.

    :raises KeraiError: when there is no such node.
    """
    return {name: None if path is None else node_at(connection, path) for name, path in paths.items()}


def read(
    client: Client, query: str, places: dict[str, str | None], **parameters: Any
) -> list[dict[str, Any]]:
    """Return the rows of a named query.

    :param places: parameters that are nodes, by path or id.
    """
    with client.connect() as connection:
        found = nodes_of(connection, **places)
        return connection.execute(queries()[query], {**found, **parameters}).fetchall()


def say(
    client: Client, agent: str, kind: str, places: dict[str, str | None], *, message: str, **said: Any
) -> dict[str, Any]:
    """Sign one operation on views as an agent, push it, and return what was said and where it stands now.

    :param kind: the operation, such as ``perspective_set``.
    :param places: the operation's keys that are nodes, by path or id.
    :param said: its other keys.
    :raises KeraiError: when a node is not there, or a view that is to be deleted is not.
    """
    with client.database() as database:

        def find(connection: Connection) -> dict[str, UUID | None]:
            return nodes_of(connection, **places)

        nodes = database.run(find)
        with human_session(database, agent) as session:
            if kind.endswith("_delete"):
                _require_view(session, kind.removesuffix("_delete"), {**nodes, **said})
            # Read after the nodes were found: it covers what inserted them.
            base: Vector = read_vector(database)
            keys = {name: None if node is None else str(node) for name, node in nodes.items()}
            operation: Operation = {"op": kind, **keys, **said}
            pushed = session.push([operation], base, message=message)
            return {
                "status": pushed.status,
                "author": session.author,
                "seq": pushed.vector[session.author],
                **nodes,
                **said,
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

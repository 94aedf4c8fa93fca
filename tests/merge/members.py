"""Members of a swarm that groups them, in one database: drafts, and what became of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import psycopg
from nacl.signing import SigningKey
from psycopg import Connection
from tests.merge.live import Body
from tests.merge.observe import scalar

from kerai import changeset

PUSH = "select (r).* from (select kerai.push_ops(%s::json, %s, %s) as r offset 0) as p"
AWAIT_PUSH = "select (r).* from (select kerai.await_push(%s) as r offset 0) as p"
SUBMIT = "select kerai.submit_push(%s::json, %s, %s)"


class Member:
    """An agent with a key of its own, registered, and a member of the swarms that it joins.

    The key follows from the name, and from the key the member's writer and partition.
    """

    def __init__(self, connection: Connection[Any], name: str) -> None:
        self.connection = connection
        self.key = SigningKey(hashlib.sha256(name.encode()).digest())
        self.public_key = bytes(self.key.verify_key)
        self.author = changeset.author_id(name, self.public_key)
        row = connection.execute(
            "select id, wallet_id from kerai.register_agent(%s, 'tool', %s)", [name, self.public_key]
        ).fetchone()
        assert row is not None
        self.id, self.wallet = row["id"], row["wallet_id"]

    def join(self, swarm: str) -> None:
        """Become a member."""
        self.connection.execute("select kerai.join_swarm(%s, %s)", [swarm, self.id])

    def draft(self, swarm: str, *operations: Body, seen: dict[str, int] | None = None, **keys: Any) -> str:
        """Return the text of a draft on what is merged now, or on what the member has seen."""
        base = scalar(self.connection, "select kerai.version_vector()") if seen is None else seen
        return changeset.draft(self.author, swarm, operations, base=base, **keys)

    def own(self, *operations: Body, **keys: Any) -> str:
        """Return the text of an ordinary changeset, under the member's own author id."""
        found = self.connection.execute(
            "select seq, lamport, prev, base from kerai.next_changeset(%s)", [self.author]
        ).fetchone()
        assert found is not None
        return changeset.build(self.author, ops=operations, **{**found, **keys})

    def send(self, document: str) -> dict[str, Any]:
        """Sign and push a document; return the push_result, or the refusal's code."""
        return called(self.connection, PUSH, [document, changeset.sign(document, self.key), self.public_key])

    def submit(self, document: str) -> str:
        """Sign and submit a document; return the ticket."""
        return str(
            scalar(self.connection, SUBMIT, [document, changeset.sign(document, self.key), self.public_key])
        )

    def push_batched(self, document: str, **given: str) -> dict[str, Any]:
        """Sign and push a document with what others push; return the answer, or the refusal's code."""
        call = f"call kerai.push_batched(%s, %s, %s{''.join(f', {name} => %s' for name in given)})"
        signature = changeset.sign(document, self.key)
        return called(self.connection, call, [document, signature, self.public_key, *given.values()])

    def answer(self, ticket: str) -> dict[str, Any]:
        """Return the push_result, or the refusal's code."""
        return called(self.connection, AWAIT_PUSH, [ticket])


def called(connection: Connection[Any], query: str, parameters: Sequence[Any]) -> dict[str, Any]:
    """Return the one row of a call, or its refusal: code, message, detail."""
    try:
        row = connection.execute(query, parameters).fetchone()
    except psycopg.Error as error:
        about = error.diag
        return {"code": about.sqlstate, "message": about.message_primary, "detail": about.message_detail}
    assert row is not None
    return row


def status(result: dict[str, Any]) -> str:
    """Return the status, or the code of the refusal."""
    return str(result.get("status") or result["code"])


def launch(
    connection: Connection[Any], *, grouped: bool = True, name: str = "crew", **task: Any
) -> tuple[str, str]:
    """Make a task and launch a swarm for it; return the ids of both."""
    named = "".join(f", {key} => %s" for key in task)
    made = scalar(connection, f"select (kerai.create_task('d', 'true'{named})).id::text", list(task.values()))
    swarm = scalar(
        connection,
        "select id::text from kerai.launch_swarm(%s, %s, grouped => %s)",
        [made, name, grouped],
    )
    return made, swarm


def writer_of(connection: Connection[Any], swarm: str) -> str:
    """Return the author id of a grouped swarm."""
    query = "select author from kerai_private.writers where swarm_id = %s"
    return str(scalar(connection, query, [swarm]))


def verified(row: dict[str, Any], public_key: bytes) -> dict[str, Any]:
    """Check a member's signature over the draft's exact text in a document; return the draft."""
    text = row["document"]
    found = text.index('"draft":') + len('"draft":')
    _, end = json.JSONDecoder().raw_decode(text, found)
    assert changeset.verify(text[found:end], row["member_signature"], public_key)
    assert row["draft_id"] == bytes.fromhex(changeset.changeset_id(text[found:end]))
    draft: dict[str, Any] = json.loads(text[found:end])
    return draft

"""An agent at a database: signs changes, and pushes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from nacl.signing import SigningKey
from psycopg.types.json import Json, Jsonb

from kerai.changeset import author_id, build, changeset_id, draft, sign
from kerai_client.agent import keys
from kerai_client.agent.lock import LastPush, agent_lock, note_last_push, require_last_push
from kerai_client.agent.pages import Operation, Page, Signed, paged
from kerai_client.agent.registration import agent_named, instance_of, register, signing_key
from kerai_client.agent.state import Vector
from kerai_client.db.connection import Connection, Database, is_transient, queries
from kerai_client.errors import KeraiError

# An earlier process of this agent may have died with its last push under way; the server ends that by itself.
LAST_PUSH_SECONDS = 30.0
# The guard of a change to all there is, whatever roots it has.
WHOLE_STATE = UUID(int=2**128 - 1)
NOT_PERMITTED = "KR013"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of a push: ``merged`` or ``stale``; how much it was.

    ``vector`` names the state that the push was made from, and the push. In a swarm that groups its members
    it also names what other members have pushed meanwhile, where the guard does not reach.
    """

    status: str
    vector: Vector
    operations: int
    changesets: int


class _Stale(Exception):
    """Rolls back the pages of a guarded push."""


class Session:
    """One agent, one key, one database. Use it as a context manager: it has the agent for itself meanwhile.

    Where the agent's own history ends is asked of the server before each push, so a crash loses nothing.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        kind: str = "tool",
        *,
        model: str | None = None,
        capabilities: Sequence[str] = (),
        patience: float = 0.0,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        """:param patience: for so many seconds another process that works as this agent is waited for.
        :param waiting: told once about that process.
        """
        self.database = database
        self.name = name
        self._patience, self._waiting = patience, waiting
        self._kind, self._model, self._capabilities = kind, model, capabilities
        self._stack = ExitStack()
        self._unsettled = self._may_submit = False

    def __enter__(self) -> Session:
        keys.check_name(self.name)
        self.instance = instance_of(self.database)
        self._stack.enter_context(
            agent_lock(self.name, self.instance, patience=self._patience, waiting=self._waiting)
        )
        try:
            known = agent_named(self.database, self.name)
            if known is not None and known["hosted"]:
                raise KeraiError(
                    f"agent {self.name!r} is hosted: the instance signs for it, this client cannot",
                    hint="push with kerai.push_ops as its role, or use another --agent",
                )
            self.key: SigningKey = signing_key(self.name, self.instance, known)
            self.author = author_id(self.name, bytes(self.key.verify_key))
            if known is not None and known["author"] == self.author:
                self.agent = known
            else:
                self.agent = register(
                    self.database, self.name, self._kind, model=self._model, capabilities=self._capabilities
                )
            self.wait_for_last_push(self.author)
            self.database.run(self._withdraw)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def agent_id(self) -> UUID:
        """The agent's id."""
        found: UUID = self.agent["id"]
        return found

    def wait_for_last_push(self, author: str) -> None:
        """Wait until no other server process is busy in an author's name (it sets application_name)."""

        def under_way(connection: Connection) -> bool:
            name = {"name": _application_name(author)}
            row = connection.execute(queries()["pushes_under_way"], name).fetchone()
            return row is not None and bool(row["busy"])

        deadline = time.monotonic() + LAST_PUSH_SECONDS
        while time.monotonic() < deadline:
            if not self.database.run(under_way):
                return
            time.sleep(0.1)

    def push(
        self,
        ops: Sequence[Operation],
        base: Vector,
        *,
        guard: UUID | None = None,
        task: UUID | None = None,
        swarm: UUID | None = None,
        message: str = "",
        whole: bool = False,
        progress: Callable[[int], None] | None = None,
        signed: Callable[[Sequence[Signed]], None] | None = None,
    ) -> Pushed:
        """Sign operations and push them, in as many changesets as their size asks for.

        A push that is cut off is sent again, byte for byte; what had been merged is a duplicate then.

        :param base: the vector of the state that the operations were made from.
        :param guard: the subtree that must not have changed since ``base``, or ``WHOLE_STATE``; else the
            result is ``stale``.
        :param task: the task that the change works on.
        :param swarm: a swarm that groups its members: the instance signs the changesets, under the author id
            of the swarm, and this agent signs the drafts inside them.
        :param whole: merge all changesets or none, in one transaction. A guarded push always is.
        :param progress: told the number of operations sent so far.
        :param signed: told the changesets before the first is sent.
        :raises KeraiError: when the database lacks what this agent has pushed before, which would be a fork.
        """
        if not ops:
            return Pushed("merged", base, 0, 0)
        if self._unsettled:
            self.database.run(self._withdraw)
        about: dict[str, Any] = {
            "base": base,
            "guard": None if guard is None else str(guard),
            "task": None if task is None else str(task),
            "message": message,
        }
        pages = list(self._changesets(ops, **about) if swarm is None else self._drafts(ops, swarm, **about))
        chain = [page.signed(self.author) for page in pages] if swarm is None else []
        if signed is not None:
            signed(chain)
        done = 0
        batches = [pages] if whole or guard is not None else [[page] for page in pages]
        changeset: str | None = None
        for batch in batches:
            changeset = self.database.run(
                lambda connection, batch=batch, done=done: self._send(  # type: ignore[misc]
                    connection, batch, None if progress is None else lambda sent: progress(done + sent)
                )
            )
            if changeset is None:
                return Pushed("stale", base, 0, 0)
            done += sum(page.operations for page in batch)
            if progress is not None:
                progress(done)
        assert changeset is not None
        if chain:
            note_last_push(
                self.name, self.instance, LastPush(self.author, chain[-1].last, chain[-1].changeset)
            )
        merged = bytes.fromhex(changeset)
        row = self.database.run(
            lambda connection: connection.execute(
                queries()["changeset_vectors"], {"changeset": merged}
            ).fetchone()
        )
        assert row is not None
        return Pushed("merged", row["after"], done, len(pages))

    def _drafts(self, ops: Sequence[Operation], swarm: UUID, **about: Any) -> Iterator[Page]:
        for part in paged(ops):
            document = draft(self.author, str(swarm), part, **about)
            yield Page(document, sign(document, self.key), len(part))

    def _changesets(self, ops: Sequence[Operation], *, base: Vector, **about: Any) -> Iterator[Page]:
        following = self.database.run(
            lambda connection: connection.execute(
                queries()["next_changeset"], {"author": self.author, "base": Jsonb(base)}
            ).fetchone()
        )
        assert following is not None
        seq, lamport, prev = following["seq"], following["lamport"], following["prev"]
        require_last_push(self.name, self.instance, self.author, seq, prev)
        for part in paged(ops):
            document = build(self.author, seq, lamport, part, prev=prev, base=base, **about)
            yield Page(document, sign(document, self.key), len(part), seq)
            seq, lamport, prev = seq + len(part), lamport + len(part), changeset_id(document)

    def _send(
        self, connection: Connection, pages: Sequence[Page], progress: Callable[[int], None] | None = None
    ) -> str | None:
        """Push pages, all or none; return the id of the last changeset, None when they were stale."""
        if len(pages) == 1 and self._may_submit:
            return self._push_together(connection, pages[0])
        result = None
        sent = 0
        try:
            with connection.transaction():
                connection.execute(queries()["name_this_push"], {"name": _application_name(self.author)})
                for page in pages:
                    result = connection.execute(queries()["push_ops"], self._signed(page)).fetchone()
                    assert result is not None
                    if result["status"] == "stale":
                        raise _Stale
                    sent += page.operations
                    if progress is not None:
                        progress(sent)
        except _Stale:
            return None
        assert result is not None
        found: str = result["changeset_id"]
        return found

    def _push_together(self, connection: Connection, page: Page) -> str | None:
        """Push one page together with what other agents push at the same time: in transactions of its own."""
        name = {"name": _application_name(self.author)}
        self._unsettled = True
        try:
            result = connection.execute(queries()["push_batched"], self._signed(page) | name).fetchone()
        except psycopg.Error as error:
            if error.sqlstate is not None and error.sqlstate.startswith("KR") and not is_transient(error):
                self._withdraw(connection)
            raise
        assert result is not None
        self._unsettled = False
        found: bytes = result["changeset_id"]
        return None if result["status"] == "stale" else found.hex()

    def _withdraw(self, connection: Connection) -> None:
        """Take back what an earlier push has submitted, and then was cut off or refused.

        It could be merged later, and fork the history of this agent, who signs something else meanwhile.
        """
        try:
            connection.execute(queries()["withdraw"], {"agent": self.agent_id})
        except psycopg.Error as error:
            # Any role may push with the key, but only the role that the agent belongs to may withdraw.
            if error.sqlstate != NOT_PERMITTED:
                raise
            self._may_submit = False
        else:
            self._may_submit = True
        self._unsettled = False

    def _signed(self, page: Page) -> dict[str, Any]:
        return {
            "document": Json(page.document, dumps=str),
            "signature": page.signature,
            "public_key": bytes(self.key.verify_key),
        }


def _application_name(author: str) -> str:
    # PostgreSQL keeps 63 bytes of it.
    return f"kerai push {author[-50:]}"

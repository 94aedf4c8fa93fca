"""An agent at a database: reads states of the tree, signs changes, and pushes them."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from nacl.signing import SigningKey
from psycopg.types.json import Json, Jsonb

from kerai.changeset import author_id, build, changeset_id, draft, sign
from kerai_client import keys
from kerai_client.database import Connection, Database, is_transient, queries
from kerai_client.errors import KeraiError
from kerai_client.source import Tree

PAGE_OPS = 5_000
PAGE_BYTES = 4 * 1024 * 1024
# An earlier process of this agent may have died with its last push under way; the server ends that by itself.
LAST_PUSH_SECONDS = 30.0
# The guard of a change to all there is, whatever roots it has.
WHOLE_STATE = UUID(int=2**128 - 1)
NOT_PERMITTED = "KR013"

Operation = Mapping[str, Any]
Vector = dict[str, int]


@dataclass(frozen=True, slots=True)
class State:
    """The tree as of a version vector, both from one snapshot of the database."""

    tree: Tree
    vector: Vector


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


@dataclass(frozen=True, slots=True)
class Page:
    """A changeset, or a draft, that is ready to be sent."""

    document: str
    signature: bytes
    operations: int


class _Stale(Exception):
    """Rolls back the pages of a guarded push."""


def read_vector(database: Database) -> Vector:
    """Return the version vector, which changes with every merge: a cheap way to see whether one happened."""

    return database.run(_vector)


def _vector(connection: Connection) -> Vector:
    row = connection.execute(queries()["version_vector"]).fetchone()
    assert row is not None
    vector: Vector = row["vector"]
    return vector


def read_state(database: Database, at: Vector | None = None) -> State:
    """Return the whole tree and its vector, now or as of ``at``, read in one REPEATABLE READ transaction."""

    def read(connection: Connection) -> State:
        with connection.transaction():
            connection.execute(queries()["begin_snapshot"])
            vector = _vector(connection)
            rows = connection.execute(queries()["tree"], {"at": None if at is None else Jsonb(at)}).fetchall()
            return State(Tree.from_rows(rows), vector if at is None else dict(at))

    return database.run(read)


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
    public_key = None if hosted else bytes(keys.load_or_create(name).verify_key)

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


@contextmanager
def sole_use(name: str) -> Iterator[None]:
    """Hold an agent's lock: two processes that sign for one agent at a time would fork its history.

    :raises KeraiError: when another process of this user works as this agent.
    """
    file = keys.key_file(name).with_suffix(".lock")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeraiError(
                f"another process works as agent {name!r}",
                detail=f"it holds {file}",
                hint="end that process, or give this one another --agent",
            ) from None
        yield
    finally:
        os.close(descriptor)


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
    ) -> None:
        self.database = database
        self.name = name
        self._kind, self._model, self._capabilities = kind, model, capabilities
        self._stack = ExitStack()
        self._unsettled = self._may_submit = False

    def __enter__(self) -> Session:
        self._stack.enter_context(sole_use(self.name))
        try:
            known = self._known()
            if known is not None and known["hosted"]:
                raise KeraiError(
                    f"agent {self.name!r} is hosted: the instance signs for it, this client cannot",
                    hint="push with kerai.push_ops as its role, or use another --agent",
                )
            self.key: SigningKey = keys.load_or_create(self.name)
            self.author = author_id(self.name, bytes(self.key.verify_key))
            if known is not None and known["author"] == self.author:
                self.agent = known
            else:
                self.agent = register(
                    self.database, self.name, self._kind, model=self._model, capabilities=self._capabilities
                )
            self._wait_for_last_push()
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

    def _known(self) -> dict[str, Any] | None:
        return self.database.run(
            lambda connection: connection.execute(queries()["agent_by_name"], {"name": self.name}).fetchone()
        )

    def _wait_for_last_push(self) -> None:
        """Wait until no other server process is busy in this agent's name (it sets application_name)."""
        deadline = time.monotonic() + LAST_PUSH_SECONDS
        while time.monotonic() < deadline:
            if not self.database.run(self._pushes_under_way):
                return
            time.sleep(0.1)

    def _pushes_under_way(self, connection: Connection) -> bool:
        row = connection.execute(queries()["pushes_under_way"], {"name": self._application_name}).fetchone()
        return row is not None and bool(row["busy"])

    @property
    def _application_name(self) -> str:
        # PostgreSQL keeps 63 bytes of it.
        return f"kerai push {self.author[-50:]}"

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
        :param progress: told the number of operations merged so far.
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
        done = 0
        batches = [pages] if whole or guard is not None else [[page] for page in pages]
        changeset: str | None = None
        for batch in batches:
            changeset = self.database.run(
                lambda connection, batch=batch: self._send(connection, batch)  # type: ignore[misc]
            )
            if changeset is None:
                return Pushed("stale", base, 0, 0)
            done += sum(page.operations for page in batch)
            if progress is not None:
                progress(done)
        assert changeset is not None
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
        for part in paged(ops):
            document = build(self.author, seq, lamport, part, prev=prev, base=base, **about)
            seq, lamport, prev = seq + len(part), lamport + len(part), changeset_id(document)
            yield Page(document, sign(document, self.key), len(part))

    def _send(self, connection: Connection, pages: Sequence[Page]) -> str | None:
        """Push pages, all or none; return the id of the last changeset, None when they were stale."""
        if len(pages) == 1 and self._may_submit:
            return self._push_together(connection, pages[0])
        result = None
        try:
            with connection.transaction():
                connection.execute(queries()["name_this_push"], {"name": self._application_name})
                for page in pages:
                    result = connection.execute(queries()["push_ops"], self._signed(page)).fetchone()
                    assert result is not None
                    if result["status"] == "stale":
                        raise _Stale
        except _Stale:
            return None
        assert result is not None
        found: str = result["changeset_id"]
        return found

    def _push_together(self, connection: Connection, page: Page) -> str | None:
        """Push one page together with what other agents push at the same time: in transactions of its own."""
        name = {"name": self._application_name}
        self._unsettled = True
        try:
            result = connection.execute(queries()["push_together"], self._signed(page) | name).fetchone()
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
            # Whoever has the key may push, but only the role that the agent belongs to may withdraw.
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


def paged(
    ops: Sequence[Operation], most_ops: int = PAGE_OPS, most_bytes: int = PAGE_BYTES
) -> Iterator[list[Operation]]:
    """Yield the operations in pages of at most this many, and this many bytes of JSON.

    A single operation that is larger than a page has one to itself.
    """
    page: list[Operation] = []
    size = 0
    for op in ops:
        length = len(json.dumps(op, ensure_ascii=False, separators=(",", ":")).encode()) + 1
        if page and (len(page) >= most_ops or size + length > most_bytes):
            yield page
            page, size = [], 0
        page.append(op)
        size += length
    if page:
        yield page

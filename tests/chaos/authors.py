"""Authors who push in every way that there is, and remember what they were told."""

from __future__ import annotations

import hashlib
import json
import random
import time
from typing import Any
from uuid import UUID

import psycopg
from nacl.signing import SigningKey
from tests.chaos.mix import PATIENCE, Interrupted, Mix, Session, interruptible
from tests.merge.live import Body, insert, move, update

from kerai import changeset

WHOLE_STATE = "ffffffff-ffff-ffff-ffff-ffffffffffff"
LEVELS = {7: "repeatable read", 8: "serializable"}  # at which some of the authors push
NAMES = ("a", "b", "src", "main.py", None)
KEPT = 12  # states that an author remembers, to push on one that is no longer the latest
CROWDED = 400  # nodes; where there are more, few are inserted


class Author(Session):
    """One author: an agent with a key of its own, and a member of the swarm, if one is given."""

    def __init__(self, mix: Mix, number: int, swarm: str | None) -> None:
        super().__init__(mix, f"author-{number}", LEVELS.get(number, "read committed"))
        self.chance = random.Random(f"{mix.seed} {number}")
        self.key = SigningKey(hashlib.sha256(f"{mix.seed} {number}".encode()).digest())
        self.public_key = bytes(self.key.verify_key)
        self.author = changeset.author_id(self.name, self.public_key)
        self.swarm = swarm
        register = "select id from kerai.register_agent(%s, 'tool', %s)"
        self.id = self.connection.execute(register, [self.name, self.public_key]).fetchone()["id"]
        if swarm:
            self.connection.execute("select kerai.join_swarm(%s, %s)", [swarm, self.id])
        self.states: list[tuple[dict[str, int], list[str]]] = []
        self.written = 0

    def step(self) -> None:
        """Write one changeset, or some in a row, and deliver until it is known what became of each."""
        try:
            written = self.write()
        except Interrupted:
            return
        sent = [self.mix.send(self.author, document, body) for document, body in written]
        if len(written) > 1:
            self.try_at_once([document for document, _ in written])
        answer = "merged"
        for each, (document, _) in zip(sent, written, strict=True):
            # What follows on a changeset that is not merged cannot be either.
            answer = self.deliver(document, unsure=len(written) > 1) if answer == "merged" else "given up"
            each.answer = answer
            self.mix.count(answer)

    def plant(self, ops: list[Body]) -> None:
        """Push the beginning of the tree."""
        follow = "select seq, lamport, prev, base from kerai.next_changeset(%s)"
        document = changeset.build(self.author, ops=ops, **self.call(follow, [self.author])[0])
        self.mix.send(self.author, document, json.loads(document)).answer = self.push(document)

    # ---- writing --------------------------------------------------------------------------------

    def write(self) -> list[tuple[str, dict[str, Any]]]:
        """Return a draft, or changesets in a row, on the latest state or an earlier one: text and content."""
        if not self.states or self.chance.random() < 0.6:
            self.look()
        vector, nodes = self.states[-1] if self.chance.random() < 0.7 else self.chance.choice(self.states)
        guard = self.chance.choice([WHOLE_STATE, *nodes[:5]]) if self.chance.random() < 0.2 else None
        keys: dict[str, Any] = {"guard": guard, "message": f"{self.written}"}
        if self.swarm and self.chance.random() < 0.7:
            document = changeset.draft(self.author, self.swarm, self.operations(nodes), base=vector, **keys)
            return [(document, json.loads(document))]
        follow = "select seq, lamport, prev, base from kerai.next_changeset(%s, %s)"
        place = self.call(follow, [self.author, json.dumps(vector)])[0]
        written = []
        for _ in range(self.chance.choice([1, 1, 1, 1, 1, 3])):
            ops = self.operations(nodes)
            document = changeset.build(self.author, ops=ops, **place, **keys)
            written.append((document, json.loads(document)))
            place |= {
                "seq": place["seq"] + len(ops),
                "lamport": place["lamport"] + len(ops),
                "prev": changeset.changeset_id(document),
            }
        return written

    def look(self) -> None:
        """Remember the latest vector with nodes that it covers."""

        def read() -> None:
            with self.connection.transaction():
                self.connection.execute("set transaction isolation level repeatable read")
                vector = self.connection.execute("select kerai.version_vector() as v").fetchone()["v"]
                rows = self.connection.execute("select id::text from kerai.nodes order by id limit 2000")
                nodes = [row["id"] for row in rows]
            self.states = [*self.states[1 - KEPT :], (vector, nodes)]

        interruptible(read)

    def operations(self, nodes: list[str]) -> list[Body]:
        """Return some random operations on nodes that everybody else is changing too."""
        chance = self.chance
        known = [*nodes[:20], *chance.sample(nodes, min(len(nodes), 20))]
        self.written += 1
        written: list[Body] = []
        for _ in range(chance.choice([1, 1, 2, 3, 5, 8])):
            node, other = chance.choice(known), chance.choice(known)
            name, text = chance.choice(NAMES), f"{self.name} {self.written}"
            fresh = str(UUID(int=chance.getrandbits(128), version=4))
            inserts = [insert(fresh, other, name=name, metadata={"by": self.name})]
            if self.written % 50 == 0:
                inserts.append(insert(str(UUID(int=chance.randint(1, 50))), other, name=name))
            written.append(
                chance.choice(
                    [
                        *(inserts if len(nodes) < CROWDED or chance.random() < 0.1 else []),
                        move(node, other, chance.choice("abc")),
                        move(node, None if chance.random() < 0.1 else other),
                        update(node, content=text),
                        update(node, name=name),
                        {"op": "node_update", "node": node, "metadata": {chance.choice("xyz"): text}},
                        {"op": chance.choice(["node_delete", "node_restore"]), "node": node},
                        {"op": "edge_insert", "source": node, "target": other, "relation": "calls"},
                        {"op": "edge_delete", "source": node, "target": other, "relation": "calls"},
                        {"op": "perspective_set", "node": node, "weight": 0.5, "reasoning": text},
                        {
                            "op": "association_set",
                            "source": node,
                            "target": other,
                            "relation": "like",
                            "weight": -0.5,
                        },
                    ]
                )
            )
        return written

    # ---- delivering -----------------------------------------------------------------------------

    def try_at_once(self, documents: list[str]) -> None:
        """Submit some that follow on each other, and settle them in any order; whatever comes of it."""
        try:
            tickets = [self.submit(document) for document in documents]
            for ticket in self.chance.sample(tickets, len(tickets)):
                self.call("select kerai.await_push(%s)", [ticket])
            self.mix.count("settled in a row")
        except (Interrupted, psycopg.Error):
            self.mix.count("not merged in a row")

    def deliver(self, document: str, *, unsure: bool) -> str:
        """Push until there is an answer: ``merged``, or why not, and then nothing of it waits any more.

        :param unsure: whether it may wait to be merged already, or be merged.
        """
        deadline = time.monotonic() + PATIENCE
        answer = ""
        while time.monotonic() < deadline:
            try:
                if unsure:
                    # What still waits would be merged by somebody else after the next changeset is signed.
                    self.call("select kerai.withdraw(%s)", [self.id])
                if not answer:
                    answer = self.chance.choice([self.push, self.answer, self.push_batched])(document)
                return "merged" if answer == "duplicate" else answer
            except Interrupted:
                self.mix.count("calls interrupted")
            except psycopg.Error as error:
                answer = self.answer_of(error)
            unsure = True
        raise TimeoutError(f"{self.author} was not told what became of {document[:200]}")

    def answer_of(self, error: psycopg.Error) -> str:
        """Return what a refusal says of a changeset; nothing when it is to be pushed again.

        :raises psycopg.Error: the refusal, when nothing can have led to it.
        """
        message = error.diag.message_primary
        # A crash empties what waits.
        if error.sqlstate in {"KR009", "40001"} or message == "no such ticket":
            self.mix.count(f"pushed again after {error.sqlstate}")
            return ""
        if message == "the history up to there has been compacted":
            return "below the horizon"
        raise error

    def push(self, document: str) -> str:
        """Push it alone."""
        return self.called("select (kerai.push_ops(%s::json, %s, %s)).status", document)

    def push_batched(self, document: str) -> str:
        """Push it with what others push."""
        return self.called("call kerai.push_batched(%s, %s, %s)", document)

    def answer(self, document: str) -> str:
        """Submit it, and settle."""
        ticket = self.submit(document)
        if self.chance.random() < 0.2:
            time.sleep(self.chance.random() * 0.05)  # somebody else may merge it meanwhile
        return str(self.call("select (kerai.await_push(%s)).status", [ticket])[0]["status"])

    def submit(self, document: str) -> str:
        """Submit it; return the ticket."""
        return self.called("select kerai.submit_push(%s::json, %s, %s)::text as status", document)

    def called(self, query: str, document: str) -> str:
        """Return the status that a call with the signed document answers."""
        parameters = [document, changeset.sign(document, self.key), self.public_key]
        return str(self.call(query, parameters)[0]["status"])

"""Random worlds: authors who each see a part of what the others did, and sign what they do themselves.

A world is made from a list of small numbers that hypothesis chooses and can shrink. Their meaning depends
only on the numbers before, so the same numbers are always the same world, byte for byte.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from nacl.signing import SigningKey
from psycopg import Connection
from tests.merge.model import Operation, State, Vector, fold, restrict

from kerai import changeset

# Their order in bytes is not the order of any language's collation.
NAMES = ("bob", "Ann", "éva", "ann-2")
KEYS = {name: SigningKey(hashlib.sha256(name.encode()).digest()) for name in NAMES}

POSITIONS = ("a", "B", "a", "é", "", "a!", "Z")
KINDS = ("directory", "file", "block", "statement")
LABELS = (None, "a", "src", "b.c", "naïve name", "")
CONTENTS = (None, "x\n", "'; drop table kerai.nodes; --\n", "")
METADATA: tuple[dict[str, Any], ...] = (
    {},
    {"k": 1},
    {"k": None, "n": [1, {"é": "y"}]},
    {"n": None},
    {"k": "v", "m": {"null": None}},
)
RELATIONS = ("calls", "tests")
SEEDS = st.integers(0, 2**32)
# A context manager: an empty instance, whose content is gone afterwards.
Instance = Callable[[], AbstractContextManager[Connection[Any]]]
CONTENDED = tuple(str(UUID(int=n << 64)) for n in range(1, 4))


@dataclass(frozen=True, slots=True)
class Signed:
    """A changeset as it travels."""

    author: str
    seq: int
    base: Vector
    operations: tuple[Operation, ...]
    document: str
    signature: bytes
    public_key: bytes

    @property
    def last_seq(self) -> int:
        return self.seq + len(self.operations) - 1


@dataclass(slots=True)
class Author:
    """One author's own view: what he has seen, and the changeset that he is writing."""

    name: str
    author: str
    seen: dict[str, int] = field(default_factory=dict)
    open: list[dict[str, Any]] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    pushed: list[Signed] = field(default_factory=list)
    made: int = 0

    @property
    def seq(self) -> int:
        return self.pushed[-1].last_seq if self.pushed else 0


class World:
    """What several authors have done; ``changesets`` are in one causal order."""

    def __init__(self, authors: int) -> None:
        self.authors = [
            Author(name, changeset.author_id(name, bytes(KEYS[name].verify_key))) for name in NAMES[:authors]
        ]
        self.changesets: list[Signed] = []
        self.lamports: dict[tuple[str, int], int] = {}

    def __repr__(self) -> str:
        """What a failing test shows: who did what, seeing what."""
        lines = ["World:"]
        for signed in self.changesets:
            lines.append(f"{signed.author}, having seen {signed.base}:")
            lines.extend(f"    {o.seq} @{o.lamport} {o.body}" for o in signed.operations)
        return "\n".join(lines)

    @property
    def operations(self) -> list[Operation]:
        """Every operation of the world."""
        return [operation for signed in self.changesets for operation in signed.operations]

    def step(self, who: int, verb: str, x: int, y: int, z: int) -> None:
        """Let an author do one thing. The numbers choose among what there is."""
        author = self.authors[who % len(self.authors)]
        if verb == "push":
            self.close(author)
        elif verb == "look":
            self.look(author, self.authors[x % len(self.authors)], y)
        else:
            author.open.append(self.write(author, verb, x, y, z))

    def look(self, author: Author, other: Author, back: int) -> None:
        """Let an author see another's work up to some operation, with everything that it rests on."""
        self.close(author)
        if author is other or not other.pushed:
            return
        signed = other.pushed[-1 - back % min(2, len(other.pushed))]
        last = signed.last_seq - back % len(signed.operations)
        for name, seq in {**signed.base, other.author: last}.items():
            author.seen[name] = max(author.seen.get(name, 0), seq)
        inserts = restrict(self.operations, author.seen)
        author.known = list(dict.fromkeys(o.body["node"] for o in inserts if o.body["op"] == "node_insert"))

    def close(self, author: Author) -> None:
        """Sign what an author has written since his last changeset."""
        if not author.open:
            return
        base = {name: seq for name, seq in author.seen.items() if name != author.author}
        if author.made % 2 and author.seq:
            base[author.author] = author.seq
        lamport = 1 + max(
            [
                self.lamports[author.author, author.seq] if author.seq else 0,
                *(self.lamports[entry] for entry in base.items()),
            ]
        )
        seq, key = author.seq + 1, KEYS[author.name]
        prev = changeset.changeset_id(author.pushed[-1].document) if author.pushed else None
        document = changeset.build(author.author, seq, lamport, author.open, prev=prev, base=base)
        operations = tuple(
            Operation(author.author, seq + n, lamport + n, body) for n, body in enumerate(author.open)
        )
        signature = changeset.sign(document, key)
        signed = Signed(author.author, seq, base, operations, document, signature, bytes(key.verify_key))
        author.pushed.append(signed)
        author.seen[author.author] = signed.last_seq
        author.open = []
        self.changesets.append(signed)
        self.lamports |= {(author.author, o.seq): o.lamport for o in operations}

    def insert(self, author: Author, node: str, x: int, y: int, z: int) -> dict[str, Any]:
        """Return an insert of a node below one that the author knows, or as a root."""
        known = author.known
        op: dict[str, Any] = {
            "op": "node_insert",
            "node": node,
            "parent": pick([None, *known, *known[-3:]], y),
        }
        op |= {"position": pick(POSITIONS, z), "kind": pick(KINDS, x // 3), "name": pick(LABELS, x + z)}
        if z % 2:
            op |= {"content": pick(CONTENTS, z), "language": pick(LABELS, y), "metadata": pick(METADATA, x)}
        author.known = list(dict.fromkeys([*known, node]))
        return op

    def write(self, author: Author, verb: str, x: int, y: int, z: int) -> dict[str, Any]:
        """Return the operation that the numbers choose, an insert when the author knows no node yet."""
        if verb == "contend":
            return self.insert(author, pick(CONTENDED, x), x, y, z)
        if verb == "insert" or not author.known:
            author.made += 1
            node = UUID(bytes=hashlib.md5(f"{author.name} {author.made}".encode()).digest())
            return self.insert(author, str(node), x, y, z)

        node = pick(author.known, x)
        maybe = pick([None, *author.known], y)
        changes = {"kind": pick(KINDS, y), "name": pick(LABELS, z), "content": pick(CONTENTS, z // 2)}
        changes = {key: value for n, (key, value) in enumerate(changes.items()) if (y + z) >> n & 1}
        # Between few nodes, so that several authors write the same register.
        few = author.known[:2]
        relation = {"source": pick(few, x), "target": pick(few, y), "relation": pick(RELATIONS, z)}
        view = {"weight": (z % 9 - 4) / 4, "reasoning": pick(CONTENTS, z)}
        written: dict[str, dict[str, Any]] = {
            "update": {"op": "node_update", "node": node, "set": changes, "metadata": pick(METADATA, z)},
            "move": {"op": "node_move", "node": node, "parent": maybe, "position": pick(POSITIONS, z)},
            "tombstone": {"op": "node_restore" if z % 3 else "node_delete", "node": node},
            "edge": {"op": "edge_insert", **relation, "metadata": pick(METADATA, y)},
            "unedge": {"op": "edge_delete", **relation},
            "perspective": {"op": "perspective_set", "node": node, "context": maybe, **view},
            "unperspective": {"op": "perspective_delete", "node": node, "context": maybe},
            "association": {"op": "association_set", **relation, **view},
            "unassociation": {"op": "association_delete", **relation},
        }
        return written["un" + verb if "un" + verb in written and z % 3 == 0 else verb]

    def shuffled(self, seed: int) -> list[Signed]:
        """Return the changesets in another causal order."""
        chance = random.Random(seed)
        waiting, have, order = list(self.changesets), dict[str, int](), list[Signed]()
        while waiting:
            ready = [
                each
                for each in waiting
                if have.get(each.author, 0) == each.seq - 1
                and all(have.get(name, 0) >= seq for name, seq in each.base.items())
            ]
            chosen = chance.choice(ready)
            waiting.remove(chosen)
            order.append(chosen)
            have[chosen.author] = chosen.last_seq
        return order

    def vector(self, seed: int) -> dict[str, int]:
        """Return a random causally closed version vector."""
        chance = random.Random(seed)
        vector: dict[str, int] = {}
        for author in self.authors:
            if author.pushed and chance.random() < 0.6:
                signed = chance.choice(author.pushed)
                last = chance.randint(signed.seq, signed.last_seq)
                for name, seq in {**signed.base, author.author: last}.items():
                    vector[name] = max(vector.get(name, 0), seq)
        return vector

    def any_vector(self, seed: int) -> dict[str, int]:
        """Return a random version vector that need not be causally closed."""
        chance = random.Random(seed)
        return {author.author: chance.randint(0, author.seq) for author in self.authors if author.pushed}

    def gaping_vector(self, seed: int) -> dict[str, int]:
        """Return a random version vector that names all of some authors' work and nothing of others'."""
        chance = random.Random(seed)
        return {
            author.author: chance.choice([0, chance.randint(0, author.seq), author.seq])
            for author in self.authors
            if author.pushed
        }

    def state(self, vector: Vector | None = None) -> State:
        """Return the fold of everything, or of what a vector names."""
        return fold(self.operations if vector is None else restrict(self.operations, vector))


def pick(choices: Sequence[Any], n: int) -> Any:
    """Return the n-th choice, counted round and round."""
    return choices[n % len(choices)]


VERBS = (
    *("insert",) * 5,
    *("move",) * 5,
    *("push",) * 3,
    *("look",) * 4,
    *("update",) * 3,
    *("contend",) * 2,
    *("tombstone",) * 3,
    *("edge",) * 3,
    *("perspective", "association"),
)


# Nodes that are inserted more than once, below each other.
REPEATS = (*("contend",) * 12, *("move",) * 4, *("push",) * 8, *("look",) * 10, "insert", "tombstone")
MOVES = (*("move",) * 10, *("push",) * 5, *("look",) * 2, "contend", "tombstone")


@st.composite
def worlds(draw: st.DrawFn, steps: int = 100, verbs: Sequence[str] = VERBS, nodes: int = 0) -> World:
    """A strategy: worlds of two to four authors and so many steps, on nodes that all know from the start."""
    world = World(draw(st.integers(2, len(NAMES))))
    for n in range(nodes):
        # A comb: every second node lies below the one before it.
        world.step(0, "insert", 0, n % 2 * n, n)
    world.close(world.authors[0])
    for author in world.authors[1:]:
        world.look(author, world.authors[0], 0)
    # A list of any length would nearly always be a short one, and short histories hold no conflicts.
    size = draw(st.integers(1, steps))
    small = st.integers(0, 30)
    step = st.tuples(st.integers(0, 3), st.sampled_from(verbs), small, small, small)
    for who, verb, x, y, z in draw(st.lists(step, min_size=size, max_size=size)):
        world.step(who, verb, x, y, z)
    for author in world.authors:
        world.close(author)
    return world

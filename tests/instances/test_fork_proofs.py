"""What proves that an author has forked, and what does not: an honest author is never frozen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from psycopg import Connection
from tests.merge.live import insert
from tests.merge.observe import scalar
from tests.support.laws import many

from kerai import changeset

REPORT = "select kerai.report_fork(%s, %s, %s, %s, %s)"
KINDS = ["changeset", "draft", "envelope"]
STEPS = st.tuples(st.sampled_from(KINDS), st.integers(1, 3))
LAW = many(0.3)


@dataclass(frozen=True)
class Signed:
    """A document and its signature. Of a draft seq is 0, since it has no place in a sequence."""

    document: str
    signature: bytes
    seq: int
    size: int
    prev: str | None


class Signer:
    """One key: an author who writes changesets and drafts, and the instance whose writer holds the drafts."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.public_key = bytes(self.key.verify_key)
        self.author = changeset.author_id("ann", self.public_key)
        self.writer = changeset.author_id("writer", self.public_key)
        # As kerai.launch_swarm names a swarm whose members it groups.
        self.swarm = str(UUID(uuid4().hex[:16] + self.author[-16:]))

    def signed(self, document: str, seq: int, size: int, prev: str | None) -> Signed:
        return Signed(document, changeset.sign(document, self.key), seq, size, prev)

    def changeset(self, seq: int, size: int, prev: str | None) -> Signed:
        return self.signed(changeset.build(self.author, seq, seq, nodes(size), prev=prev), seq, size, prev)

    def draft(self, size: int) -> Signed:
        return self.signed(changeset.draft(self.author, self.swarm, nodes(size)), 0, size, None)

    def envelope(self, seq: int, size: int, prev: str | None) -> Signed:
        draft = self.draft(size)
        keys = {"member_key": self.public_key, "member_signature": draft.signature}
        return self.signed(
            changeset.wrap(self.writer, seq, seq, draft.document, prev=prev, **keys), seq, size, prev
        )

    def chain(self, steps: list[tuple[str, int]], after: list[Signed] | None = None) -> list[Signed]:
        """Return what this key signs honestly: each changeset, and each envelope, after the one before it.

        :param steps: the kind of each document and how many operations it has.
        :param after: a chain of one kind that it follows on.
        """
        last = after[-1] if after else None
        beginning = (last.seq + last.size, changeset.changeset_id(last.document)) if last else (1, None)
        heads: dict[str, tuple[int, str | None]] = dict.fromkeys(KINDS, beginning)
        made = []
        for kind, size in steps:
            if kind == "draft":
                made.append(self.draft(size))
                continue
            seq, prev = heads[kind]
            made.append((self.changeset if kind == "changeset" else self.envelope)(seq, size, prev))
            heads[kind] = seq + size, changeset.changeset_id(made[-1].document)
        return made


def nodes(size: int) -> list[dict[str, Any]]:
    return [insert(str(uuid4())) for _ in range(size)]


def report(connection: Connection[Any], key: bytes | None, first: Signed, second: Signed) -> str | None:
    """Report two documents as a fork; return the SQLSTATE of the refusal, None when they prove one."""
    parameters = [key, first.document, first.signature, second.document, second.signature]
    try:
        connection.execute(REPORT, parameters)
    except psycopg.Error as refused:
        return refused.sqlstate
    return None


def frozen(connection: Connection[Any], signer: Signer) -> int:
    return int(
        scalar(
            connection,
            "select count(*) from kerai.forks where author = any(%s)",
            [[signer.author, signer.writer]],
        )
    )


@given(st.lists(STEPS, min_size=1, max_size=4))
@example([("draft", 1), ("draft", 1)])
@example([("envelope", 1), ("envelope", 1), ("envelope", 2)])
@example([("changeset", 2), ("draft", 1), ("changeset", 1), ("envelope", 1)])
@LAW
def test_no_pair_of_an_honest_chain_is_a_proof(database: Any, connect: Any, steps: Any) -> None:
    here, signer = connect(), Signer()
    chain = signer.chain(steps)
    codes = {report(here, signer.public_key, *pair) for pair in product(chain, chain)}
    assert codes == {"KR005"} and frozen(here, signer) == 0
    here.close()


@given(
    st.sampled_from(["changeset", "envelope"]),
    st.tuples(*(st.lists(st.integers(1, 3), min_size=least, max_size=2) for least in (0, 1, 1))),
)
@LAW
def test_two_histories_of_one_author_are_a_proof(
    database: Any, connect: Any, kind: str, sizes: tuple[list[int], list[int], list[int]]
) -> None:
    """Of two chains that part: each pair that has an operation of the same seq or the same prev, no other."""
    here, signer = connect(), Signer()
    common, *branches = ([(kind, size) for size in each] for each in sizes)
    shared = signer.chain(common)
    ours, theirs = (signer.chain(branch, shared) for branch in branches)
    for one, other in product([*shared, *ours], theirs):
        overlap = one.seq < other.seq + other.size and other.seq < one.seq + one.size
        expected = None if overlap or one.prev == other.prev else "KR005"
        assert report(here, signer.public_key, one, other) == expected
        assert report(here, signer.public_key, other, one) == expected
    assert frozen(here, signer) > 0
    here.close()


SEQ_OF_64_DIGITS = int("1" * 64)
WRONG = [
    None,
    0,
    2,
    -1,
    1.5,
    10**18,
    SEQ_OF_64_DIGITS,
    True,
    "",
    "1",
    "a" * 64,
    [],
    [None],
    [{}],
    {},
    {"a": None},
]


@pytest.mark.parametrize("kind", ["changeset", "envelope"])
def test_whatever_a_document_lacks_is_a_refusal(database: Any, connect: Any, kind: str) -> None:
    """Each field absent, null, or of another type: a refusal, or a proof where it is still a fork."""
    here, signer = connect(), Signer()
    sound, twin = (signer.chain([(kind, 2)])[0] for _ in range(2))
    parsed = json.loads(twin.document)
    changed = [{key: parsed[key] for key in parsed if key != left_out} for left_out in parsed]
    changed += [parsed | {key: value} for key in parsed for value in WRONG]
    inner = "draft" if kind == "envelope" else "ops"
    if kind == "envelope":
        changed += [
            parsed | {inner: parsed[inner] | {key: value}} for key in parsed[inner] for value in WRONG
        ]
    proofs = []
    for each in changed:
        bad = signer.signed(json.dumps(each), 0, 0, None)
        codes = {report(here, signer.public_key, *pair) for pair in ((sound, bad), (bad, sound))}
        assert len(codes) == 1 and codes <= {None, "KR001", "KR002", "KR005", "KR013"}, (each, codes)
        proofs += [each] if codes == {None} else []
    # Where the other place in the sequence has the same prev it is no less a fork.
    assert {each["seq"] for each in proofs} == {1, 2}
    assert all(each["author"] == parsed["author"] for each in proofs)
    for nothing in ("null", "[]", "{}", "1", '""'):
        bad = signer.signed(nothing, 0, 0, None)
        assert report(here, signer.public_key, sound, bad) == report(here, None, bad, bad) == "KR005"


def test_what_is_missing_of_a_report_is_a_refusal(database: Any, connect: Any) -> None:
    here, signer = connect(), Signer()
    one, other = (signer.chain([("changeset", 1)])[0] for _ in range(2))
    given = [signer.public_key, one.document, one.signature, other.document, other.signature]
    # Without a key the author has to be known.
    for missing, code in enumerate(("KR002", "KR005", "KR001", "KR005", "KR001")):
        parameters = [None if place == missing else value for place, value in enumerate(given)]
        with pytest.raises(psycopg.Error) as refused:
            here.execute(REPORT, parameters)
        assert refused.value.sqlstate == code, missing
    assert frozen(here, signer) == 0

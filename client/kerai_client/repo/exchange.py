"""Syncing with other instances, and the log as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TextIO

from psycopg.types.json import Jsonb

from kerai_client.db.connection import Connection, Database, queries
from kerai_client.errors import KeraiError

# Operations of one transaction: what a break can cost, and how long others wait for what it has locked.
CALL_OPS = 100_000
PAGE_OPS = 10_000
PAGE_LINES = 5_000
PAGE_BYTES = 4 * 1024 * 1024
# A changeset has at most 8 MiB by default; as a string in JSON each of its bytes can take six.
LONGEST_LINE = 256 * 1024 * 1024
COUNTS = (
    "pulled_changesets",
    "pulled_operations",
    "pushed_changesets",
    "pushed_operations",
    "bytes",
    "refused",
    "forks",
)
SHOWN_REFUSALS = 20
# A call that refuses more than this ends there, and the next one goes on; see kerai_sync.exchange.
CALL_REFUSALS = 1000

Vector = dict[str, int]


def exchange(database: Database, direction: str, peer: str) -> dict[str, Any]:
    """Pull, push or sync with a peer until all is there or something is wrong; return the sums of all calls.

    Each call is a transaction of its own, so a break loses no more than the last one.

    :param direction: ``pull``, ``push`` or ``sync``.
    """
    total: dict[str, Any] = {}
    while True:
        result = database.run(
            lambda connection: connection.execute(
                queries()[direction], {"peer": peer, "max_ops": CALL_OPS}
            ).fetchone()
        )
        assert result is not None
        moved = result["pulled_changesets"] + result["pushed_changesets"]
        problem = total.get("problem") if total.get("refused") else None
        total = {**result, **{name: total.get(name, 0) + result[name] for name in COUNTS}}
        total["problem"] = problem or result["problem"]
        # Neither a refused changeset nor a break after some progress keeps back the changesets that follow.
        if result["complete"] or not (moved or result["refused"] > CALL_REFUSALS):
            total["complete"] = result["complete"] and not total["refused"]
            return total


@dataclass
class Exported:
    """How much was exported, and the vector that it leads to, from which the next export can go on."""

    changesets: int = 0
    operations: int = 0
    bytes: int = 0
    vector: Vector = field(default_factory=dict)


def export(database: Database, since: Vector, out: TextIO) -> Exported:
    """Write the changesets that a vector has not seen, one a line, in a causal order.

    A line is ``{"changeset": "<exact text>", "signature": "<hex>", "public_key": "<hex>"}``.
    """
    done = Exported(vector=dict(since))
    while True:
        page = database.run(
            lambda connection: connection.execute(
                queries()["changesets_since"], {"vector": Jsonb(done.vector), "max_ops": PAGE_OPS}
            ).fetchall()
        )
        if not page:
            return done
        for row in page:
            line = {name: row[name] for name in ("changeset", "signature", "public_key")}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            done.changesets += 1
            done.operations += row["last_seq"] - row["first_seq"] + 1
            done.bytes += len(row["changeset"].encode())
            done.vector[row["author"]] = row["last_seq"]


@dataclass(frozen=True)
class Line:
    """A changeset of a file, and the number of its line."""

    number: int
    changeset: str
    signature: bytes
    public_key: bytes


@dataclass
class Imported:
    """What became of a file's changesets."""

    changesets: int = 0
    merged: int = 0
    duplicate: int = 0
    refused: int = 0
    operations: int = 0
    refusals: list[dict[str, Any]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the numbers."""
        return {name: value for name, value in asdict(self).items() if name != "refusals"}

    def outcome(self) -> str:
        """Return in words what was done."""
        if not self.changesets:
            return "nothing was merged"
        return (
            f"of the {self.changesets} changesets before it {self.merged} were merged, "
            f"{self.duplicate} were there already, {self.refused} were refused"
        )


def import_lines(database: Database, lines: Iterable[Line]) -> Imported:
    """Let the server verify and merge changesets, page by page, each page a transaction.

    :raises KeraiError: at a line that is no changeset; the hint says what became of those before it.
    """
    done = Imported()
    try:
        for page in _pages(lines):
            answers = database.run(partial(_accept, page=page))
            for line, answer in zip(page, answers, strict=True):
                done.changesets += 1
                if answer["status"] == "merged":
                    done.merged += 1
                    done.operations += answer["applied"]
                elif answer["status"] == "duplicate":
                    done.duplicate += 1
                else:
                    done.refused += 1
                    if len(done.refusals) < SHOWN_REFUSALS:
                        done.refusals.append({"line": line.number, **answer})
    except KeraiError as error:
        hint = "; ".join(filter(None, (error.hint, done.outcome())))
        raise KeraiError(error.message, detail=error.detail, hint=hint, code=error.code) from error
    return done


def _accept(connection: Connection, page: list[Line]) -> list[dict[str, Any]]:
    return connection.execute(
        queries()["accept"],
        {
            "changesets": [line.changeset for line in page],
            "signatures": [line.signature for line in page],
            "public_keys": [line.public_key for line in page],
        },
    ).fetchall()


def _pages(lines: Iterable[Line]) -> Iterator[list[Line]]:
    page: list[Line] = []
    size = 0
    try:
        for line in lines:
            length = len(line.changeset.encode())
            if page and (len(page) >= PAGE_LINES or size + length > PAGE_BYTES):
                yield page
                page, size = [], 0
            page.append(line)
            size += length
    except KeraiError:
        if page:
            yield page  # what comes before a bad line is good
        raise
    if page:
        yield page


def read_lines(file: TextIO, name: str) -> Iterator[Line]:
    """Yield the changesets of a file that :func:`export` has written; empty lines are nothing.

    :param name: what the file is called in an error.
    :raises KeraiError: at a line that is no such changeset.
    """
    number = 0
    while text := file.readline(LONGEST_LINE):
        number += 1
        if not text.endswith("\n") and len(text) >= LONGEST_LINE:
            raise _bad(name, number, "the line is too long")
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _bad(name, number, str(error)) from error
        if not isinstance(found, Mapping):
            raise _bad(name, number, "it is not an object")
        try:
            changeset = found["changeset"]
            signature, public_key = (bytes.fromhex(found[key]) for key in ("signature", "public_key"))
            if not isinstance(changeset, str):
                raise TypeError("changeset is not a string")
            # With what is no text or no JSON there the server would refuse the whole page.
            changeset.encode()
            json.loads(changeset, parse_constant=_no_constant)
        except KeyError as error:
            raise _bad(name, number, f"it has no {error}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise _bad(name, number, str(error)) from error
        yield Line(number, changeset, signature, public_key)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _bad(name: str, number: int, why: str) -> KeraiError:
    return KeraiError(
        f"line {number} of {name} is no changeset",
        detail=why,
        hint='a line is {"changeset": "<exact text>", "signature": "<hex>", "public_key": "<hex>"}',
    )

"""Operations in changesets of a size that a server takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerai.changeset import changeset_id

PAGE_OPS = 5_000
PAGE_BYTES = 4 * 1024 * 1024

Operation = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A changeset, or a draft, that is ready to be sent.

    ``seq`` is the number of its first operation; a draft has none.
    """

    document: str
    signature: bytes
    operations: int
    seq: int | None = None

    def signed(self, author: str) -> Signed:
        """Return what names the changeset."""
        assert self.seq is not None
        return Signed(changeset_id(self.document), author, self.seq, self.seq + self.operations - 1)


@dataclass(frozen=True, slots=True)
class Signed:
    """A changeset of an author, by its id, and the numbers of its first and last operation."""

    changeset: str
    author: str
    first: int
    last: int


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

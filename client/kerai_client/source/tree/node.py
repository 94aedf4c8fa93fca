"""One node of a codebase, and the ids of new ones."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

ROOT_ID = UUID("00000000-0000-7000-8000-000000000000")
"""The root directory's id when a client makes it. It is the same everywhere, so that two first imports at the
same time make one root and not two trees: the second insert of a known node is ignored."""


@dataclass(slots=True)
class Node:
    """A node as ``kerai.tree()`` gives it. A container has no content; a leaf's content is exact text."""

    id: UUID
    parent: UUID | None
    position: str
    kind: str
    name: str | None
    language: str | None
    content: str | None
    metadata: dict[str, Any]


_RANDOM_BITS = 74  # what version and variant leave beside the time


class Ids:
    """Makes ids in the layout of UUID version 7 (RFC 9562), ascending within one process. The time in
    milliseconds comes first, then a counter that starts anywhere, so that B-tree inserts stay local."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> UUID:
        value = (time.time_ns() // 1_000_000) << _RANDOM_BITS
        if value > self._last:
            value |= int.from_bytes(os.urandom(10), "big") >> 6
        else:
            # the same millisecond: step by a random amount, so that ids of two processes stay apart
            value = self._last + 1 + int.from_bytes(os.urandom(4), "big")
        self._last = value
        high, low = value >> 62, value & ((1 << 62) - 1)  # 48 bits of time and 12 random ones; the other 62
        return UUID(int=(high >> 12) << 80 | 7 << 76 | (high & 0xFFF) << 64 | 2 << 62 | low)


new_id = Ids()

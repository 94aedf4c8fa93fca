"""One node of a codebase, and the ids of new ones."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

ROOT_ID = UUID("00000000-0000-7000-8000-000000000000")
"""The root directory's id when a client makes it: the same everywhere, so that two first imports at the
same time make one root (the second insert of a known node is ignored) and not two trees."""


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


class Ids:
    """Makes ids in the layout of UUID version 7 (RFC 9562), ascending within one process: the time in
    milliseconds, then a counter that starts anywhere, so that B-tree inserts stay local."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> UUID:
        value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
        if value >> 80 <= self._last >> 80:
            # the same millisecond: step by a random amount, so that ids stay unguessable and unique
            value = self._last + 64 + int.from_bytes(os.urandom(4), "big")
        self._last = value
        time_and_a, low = value >> 80, value & ((1 << 80) - 1)
        # 74 bits of the counter fit beside version and variant
        counter = low >> 6
        return UUID(
            int=time_and_a << 80 | 7 << 76 | (counter >> 62) << 64 | 2 << 62 | counter & ((1 << 62) - 1)
        )


new_id = Ids()

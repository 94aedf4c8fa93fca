"""How often what PL/Python calls lets a cancel or a timeout come in.

PostgreSQL cannot interrupt Python. A function that may take longer than a few milliseconds gets a ``pause``,
and calls it every few thousand steps. ``pause`` lets a cancel or a timeout come in, by raising.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Pause = Callable[[], object]

PACE = 20_000  # steps from one pause to the next, some 10 ms
PACE_BYTES = 4_000_000  # of texts to sign or verify, likewise


def no_pause() -> None:
    """Let nothing come in: for callers that nobody can cancel."""


def in_parts(items: Iterable[Item], pause: Pause) -> Iterator[list[Item]]:
    """Give items in parts, with a pause after each but the last."""
    rest = iter(items)
    part = list(itertools.islice(rest, PACE))
    while part:
        yield part
        if part := list(itertools.islice(rest, PACE)):
            pause()

"""What a file is made of, before anything has an id: drafts of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Draft:
    """A node that has no id yet. ``start`` and ``end`` count characters of the file's text.

    A container has children and no content; a leaf has its exact text as content.
    """

    kind: str
    start: int
    end: int
    name: str | None = None
    content: str | None = None
    children: list[Draft] = field(default_factory=list)

    def walk(self) -> Iterator[Draft]:
        """Yield this draft and all below it, parents first, in order."""
        stack = [self]
        while stack:
            draft = stack.pop()
            yield draft
            stack.extend(reversed(draft.children))


@dataclass(slots=True)
class FileDraft:
    """A file's language and metadata, the text that its leaves hold, the drafts below it, and whether the
    grammar found errors."""

    language: str | None
    metadata: dict[str, Any]
    text: str
    children: list[Draft]
    broken: bool = False

"""What a comparison has found: which nodes are made, kept, moved and deleted, and what they shall hold.

A plan has no ids of new nodes and no positions among siblings: these come with the operations,
see :mod:`.emit`. It does not change once it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

Ref = UUID | int
"""A node: one of the tree by its id, or one that the plan makes by its number."""


@dataclass(frozen=True, slots=True)
class MakeRoot:
    """The root that all clients share is made, and restored in case that somebody had deleted it."""


@dataclass(frozen=True, slots=True)
class Make:
    """A directory or file is made, the last one in its parent. None: it is a top of the tree."""

    number: int
    parent: Ref | None
    kind: str
    name: str | None = None
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Relocate:
    """A directory or file of the tree moves to the end of another directory."""

    node: UUID
    parent: Ref


@dataclass(frozen=True, slots=True)
class Change:
    """Registers of a node of the tree are set: fields, and keys of its metadata."""

    node: UUID
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewChild:
    """A node that is made below a file, or below a node in it."""

    number: int
    kind: str
    name: str | None
    content: str | None


@dataclass(frozen=True, slots=True)
class KeptChild:
    """A node of the tree, with the registers that change; ``stays``: where it is among its siblings."""

    node: UUID
    stays: bool
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Children:
    """The children that a node shall have, in order; those that are deleted are not named."""

    parent: Ref
    children: tuple[NewChild | KeptChild, ...]

    @property
    def cost(self) -> int:
        """The number of operations that it takes."""
        return sum(
            1 if isinstance(child, NewChild) else (not child.stays) + bool(child.changes)
            for child in self.children
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All that turns one tree into another.

    :param outline: directories and files, in an order that applies: upper ones first.
    :param contents: what is in the files, parents first.
    :param deletions: the tops of what goes, once everything else is done.
    :param places: the path that each file shall have.
    :param homes: the directory node that new files of each path are put into.
    """

    outline: tuple[MakeRoot | Make | Relocate | Change, ...] = ()
    contents: tuple[Change | Children, ...] = ()
    deletions: tuple[UUID, ...] = ()
    places: Mapping[Ref, str] = field(default_factory=dict)
    homes: Mapping[str, Ref] = field(default_factory=dict)

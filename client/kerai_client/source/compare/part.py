"""One shape for both sides of a comparison: the nodes below a file as they are, and as they shall be."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from kerai_client.source.syntax.draft import Draft
from kerai_client.source.tree.tree import Tree


class Part:
    """A node of the old tree (``id`` set) or of the new one, with its text and its counterpart.

    ``match`` is the counterpart on the other side. ``whole`` says that the counterpart's text is the same,
    so that nothing below it changes.
    """

    __slots__ = (
        "children",
        "content",
        "end",
        "id",
        "kind",
        "match",
        "name",
        "parent",
        "source",
        "start",
        "whole",
    )

    def __init__(
        self,
        kind: str,
        source: str,
        start: int,
        end: int,
        *,
        name: str | None = None,
        content: str | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.content = content
        self.source = source
        self.start = start
        self.end = end
        self.children: list[Part] = []
        self.parent: Part | None = None
        self.id: UUID | None = None
        self.match: Part | None = None
        self.whole = False

    @property
    def text(self) -> str:
        """The contents at and below this part, concatenated."""
        return self.source[self.start : self.end]

    @property
    def empty(self) -> bool:
        """Whether there is no text: such nodes are left alone, whoever made them."""
        return self.start == self.end

    @property
    def is_leaf(self) -> bool:
        return self.content is not None and not self.children

    @property
    def is_container(self) -> bool:
        return self.content is None

    def adopt(self, children: list[Part]) -> None:
        """Make ``children`` the children of this part."""
        self.children = children
        for child in children:
            child.parent = self

    def walk(self) -> Iterator[Part]:
        """Yield this part and all below it, parents first, in order."""
        stack = [self]
        while stack:
            part = stack.pop()
            yield part
            stack.extend(reversed(part.children))

    def leaves(self) -> Iterator[Part]:
        """Yield the parts that have text of their own, in order."""
        return (part for part in self.walk() if part.content)


def pair(old: Part, new: Part, whole: bool = False) -> None:
    """Make two parts counterparts."""
    old.match, new.match = new, old
    old.whole = new.whole = whole


def old_parts(tree: Tree, node: UUID) -> Part:
    """Return the parts of a node of the tree and of all below it."""
    source = tree.text(node)
    top = tree[node]
    root = Part(top.kind, source, 0, len(source), name=top.name, content=top.content)
    root.id = node
    at = len(top.content or "")
    stack = [(root, iter(tree.children(node)))]
    while stack:
        part, rest = stack[-1]
        child = next(rest, None)
        if child is None:
            part.end = at
            stack.pop()
            continue
        below = Part(child.kind, source, at, at, name=child.name, content=child.content)
        below.id, below.parent = child.id, part
        part.children.append(below)
        at += len(child.content or "")
        stack.append((below, iter(tree.children(child.id))))
    return root


def new_parts(kind: str, text: str, drafts: list[Draft]) -> Part:
    """Return the parts of a file (or another node) that shall hold ``drafts``."""
    root = Part(kind, text, 0, len(text))
    stack: list[tuple[Part, list[Draft]]] = [(root, drafts)]
    while stack:
        part, below = stack.pop()
        for draft in below:
            child = Part(draft.kind, text, draft.start, draft.end, name=draft.name, content=draft.content)
            child.parent = part
            part.children.append(child)
            if draft.children:
                stack.append((child, draft.children))
    return root

"""Changing a stretch of text without cutting the rest anew.

A fresh parse may cut unchanged text otherwise than the tree does: a syntax error turns statements into
lines, two merged edits leave a comment apart from its statement. Were every client to rewrite such
stretches on sight, two of them doing so at once would leave the text there twice. So where comparing the
trees would rewrite more than the characters that changed, the old leaves around the change stay and
only those it touches are replaced.
"""

from __future__ import annotations

from .part import Part, pair
from .similar import pair_up


def splice(parent: Part, olds: list[Part], news: list[Part], pairs: list[tuple[Part, Part]]) -> bool:
    """Replace ``news`` among the children of ``parent`` by the old parts with only the change in them.

    :param parent: the new parent of ``news``, a stretch of its children that nothing else interrupts.
    :param olds: the old parts that stand there.
    :param pairs: what would be matched otherwise, to compare the number of operations.
    :return: False, and nothing is changed, when matching ``pairs`` takes no more operations.
    """
    text = news[0].source[news[0].start : news[-1].end]
    leaves = [leaf for old in olds for leaf in old.leaves()]
    for part in (part for top in (*olds, *news) for part in top.walk()):
        if part.match is not None or (part.content is not None and part.children):
            return False
    first, start = 0, 0
    while first < len(leaves) and text.startswith(leaves[first].content or "", start):
        start += len(leaves[first].content or "")
        first += 1
    last, end = len(leaves), len(text)
    while last > first:
        content = leaves[last - 1].content or ""
        if end - len(content) < start or not text.startswith(content, end - len(content)):
            break
        end -= len(content)
        last -= 1
    offset = news[0].start
    pieces = clip_parts(news, offset + start, offset + end)
    paired_old, paired_new = {id(a) for a, _ in pairs}, {id(b) for _, b in pairs}
    otherwise = (
        len(pairs)
        + sum(1 for old in olds if id(old) not in paired_old)
        + sum(1 for new in news if id(new) not in paired_new for _ in new.walk())
    )
    if _cost(last - first, pieces) >= otherwise:
        return False
    change = _Change(pieces, leaves[first:last], leaves[first - 1] if first else None)
    kept = [*leaves[:first], *leaves[last:]]
    at = parent.children.index(news[0])
    parent.children[at : at + len(news)] = change.mirror(parent, olds, kept)
    return True


def _cost(replaced: int, pieces: list[Part]) -> int:
    return max(replaced, sum(1 for piece in pieces for _ in piece.walk()))


def clip_parts(parts: list[Part], start: int, end: int) -> list[Part]:
    """Return new parts that hold exactly the characters from ``start`` to ``end`` of their source."""
    found: list[Part] = []
    stack = list(reversed(parts))
    while stack:
        part = stack.pop()
        low, high = max(part.start, start), min(part.end, end)
        if low >= high:
            continue
        if (low, high) == (part.start, part.end):
            found.append(part)
        elif part.children:
            stack.extend(reversed(part.children))
        else:
            found.append(Part(part.kind, part.source, low, high, content=part.source[low:high]))
    return found


class _Change:
    """The pieces of new text that replace some leaves, or (when there are none) follow a leaf."""

    def __init__(self, pieces: list[Part], replaced: list[Part], before: Part | None) -> None:
        self.pieces = pieces
        self.replaced = replaced
        self.before = None if replaced else before
        self.placed = False

    def mirror(self, parent: Part, olds: list[Part], kept: list[Part]) -> list[Part]:
        """Return new parts that mirror ``olds``, to stand below ``parent``, with the change made in them."""
        keeping = _above(kept)
        touched = _above(self.replaced or ([self.before] if self.before is not None else []))
        gone = {id(leaf) for leaf in self.replaced} | (touched - keeping)
        result: list[Part] = []
        if self.before is None and not self.replaced:
            self.place(result, parent, [])
        # depth-first; each entry is an old part, the list that its mirror goes to, and its parent there
        stack = [(old, result, parent) for old in reversed(olds)]
        while stack:
            old, into, above = stack.pop()
            if id(old) in gone:
                if not self.placed:
                    self.place(into, above, [leaf for leaf in self.replaced if leaf.parent is old.parent])
                continue
            new = Part(old.kind, old.text, 0, len(old.text), name=old.name, content=old.content)
            new.parent = above
            pair(old, new, whole=id(old) not in touched)
            into.append(new)
            if not new.whole:
                below = [child for child in old.children if not child.empty]
                stack.extend((child, new.children, new) for child in reversed(below))
            if old is self.before:
                self.place(into, above, [])
        return result

    def place(self, into: list[Part], above: Part, replaced: list[Part]) -> None:
        self.placed = True
        for old, new in pair_up(replaced, self.pieces):
            if old.is_leaf and new.is_leaf:
                pair(old, new)
        for piece in self.pieces:
            piece.parent = above
            into.append(piece)


def _above(leaves: list[Part]) -> set[int]:
    """Return the identities of all parts above some leaves."""
    found: set[int] = set()
    for leaf in leaves:
        part = leaf.parent
        while part is not None and id(part) not in found:
            found.add(id(part))
            part = part.parent
    return found

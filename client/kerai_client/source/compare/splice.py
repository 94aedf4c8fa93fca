"""Changing stretches of text without cutting the rest anew.

A fresh parse may cut unchanged text otherwise than the tree does: a syntax error turns statements into
lines, two merged edits leave a comment apart from its statement. Were every client to rewrite such
stretches on sight, two of them doing so at once would leave the text there twice. So where comparing the
trees would rewrite more than the characters that changed, the old leaves around the changes stay and
only those that a change touches are replaced.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from kerai_client.source.compare.part import Part, pair
from kerai_client.source.compare.sequence import common
from kerai_client.source.compare.similar import pair_up


@dataclass(slots=True, eq=False)
class Hunk:
    """New text (``start:end`` of the source) that replaces some leaves or, when there are none, follows the
    leaf ``before`` (None: comes first)."""

    start: int
    end: int
    before: Part | None
    replaced: list[Part] = field(default_factory=list)
    pieces: list[Part] = field(default_factory=list)
    placed: bool = False

    @property
    def cost(self) -> int:
        """The number of operations that it takes, or nearly so."""
        return max(len(self.replaced), sum(1 for piece in self.pieces for _ in piece.walk()))


def splice(parent: Part, olds: list[Part], news: list[Part], pairs: list[tuple[Part, Part]]) -> bool:
    """Replace ``news`` among the children of ``parent`` by the old parts with only the changes in them.

    :param parent: the new parent of ``news``, a stretch of its children that nothing else interrupts.
    :param olds: the old parts that stand there.
    :param pairs: what would be matched otherwise, to compare the number of operations.
    :return: False, and nothing is changed, when matching ``pairs`` takes no more operations.
    """
    hunks = find_hunks(olds, news)
    if hunks is None:
        return False
    paired_old, paired_new = {id(a) for a, _ in pairs}, {id(b) for _, b in pairs}
    otherwise = (
        len(pairs)
        + sum(1 for old in olds if id(old) not in paired_old)
        + sum(1 for new in news if id(new) not in paired_new for _ in new.walk())
    )
    if sum(hunk.cost for hunk in hunks) >= otherwise:
        return False
    at = parent.children.index(news[0])
    parent.children[at : at + len(news)] = mirror(parent, olds, hunks)
    return True


def find_hunks(olds: list[Part], news: list[Part]) -> list[Hunk] | None:
    """Compare the text of two runs of parts by line, and say which leaves of the old ones change.

    :return: None when some of the parts are matched already or have text besides children.
    """
    for part in (part for top in (*olds, *news) for part in top.walk()):
        if part.match is not None or (part.content is not None and part.children):
            return None
    source, low, high = news[0].source, news[0].start, news[-1].end
    leaves = [leaf for old in olds for leaf in old.leaves()]
    moved = _offsets("".join(leaf.content or "" for leaf in leaves), source[low:high])
    hunks = []
    hunk = Hunk(low, low, None)
    at = 0
    for leaf in leaves:
        size = len(leaf.content or "")
        start = moved(at, at + size)
        at += size
        if start is None or low + start < hunk.start:
            hunk.replaced.append(leaf)
            continue
        hunk.end = low + start
        hunks.append(hunk)
        hunk = Hunk(hunk.end + size, 0, leaf)
    hunk.end = high
    hunks.append(hunk)
    hunks = [hunk for hunk in hunks if hunk.replaced or hunk.start < hunk.end]
    for hunk in hunks:
        _trim(hunk, source)
        hunk.pieces = _pieces(hunk, news)
    return hunks


def _pieces(hunk: Hunk, news: list[Part]) -> list[Part]:
    pieces = clip_parts(news, hunk.start, hunk.end)
    if len(hunk.replaced) == 1 and len(pieces) > 1 and all(piece.kind == "line" for piece in pieces):
        (old,) = hunk.replaced
        text = pieces[0].source[hunk.start : hunk.end]
        if text.count("\n") <= old.text.count("\n"):  # still one statement, with its comment and blank lines
            return [Part(old.kind, pieces[0].source, hunk.start, hunk.end, content=text)]
    return pieces


class _offsets:
    """Where stretches of an old text are in the new one, None for those that changed."""

    def __init__(self, old: str, new: str) -> None:
        old_lines, new_lines = old.split("\n"), new.split("\n")
        self.starts = [0, *accumulate(len(line) + 1 for line in old_lines)]
        new_starts = [0, *accumulate(len(line) + 1 for line in new_lines)]
        # a line without its newline is another one than the same with it
        ends = [*([True] * (len(old_lines) - 1)), False], [*([True] * (len(new_lines) - 1)), False]
        pairs = common(list(zip(old_lines, ends[0], strict=True)), list(zip(new_lines, ends[1], strict=True)))
        self.shift: list[int | None] = [None] * len(old_lines)
        for a, b in pairs:
            self.shift[a] = new_starts[b] - self.starts[a]

    def __call__(self, start: int, end: int) -> int | None:
        first = bisect_right(self.starts, start) - 1
        shift = self.shift[first]
        while shift is not None and self.starts[first + 1] < end:
            first += 1
            if self.shift[first] != shift:
                return None
        return None if shift is None else start + shift


def _trim(hunk: Hunk, source: str) -> None:
    """Keep the leaves at the ends of a hunk whose text is there: not every leaf is a line."""
    while hunk.replaced:
        text = hunk.replaced[0].content or ""
        if hunk.start + len(text) > hunk.end or not source.startswith(text, hunk.start):
            break
        hunk.before = hunk.replaced.pop(0)
        hunk.start += len(text)
    while hunk.replaced:
        text = hunk.replaced[-1].content or ""
        if hunk.start + len(text) > hunk.end or not source.startswith(text, hunk.end - len(text)):
            break
        hunk.replaced.pop()
        hunk.end -= len(text)


def clip_parts(parts: list[Part], start: int, end: int) -> list[Part]:
    """Return new parts that hold exactly the characters from ``start`` to ``end`` of their source: whole ones
    where they fit, else pieces of leaves. A container that is cut gives up its children to the list."""
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


def mirror(parent: Part, olds: list[Part], hunks: list[Hunk]) -> list[Part]:
    """Return new parts that mirror ``olds``, to stand below ``parent``, with the hunks made in them."""
    replacing = {id(leaf): hunk for hunk in hunks for leaf in hunk.replaced}
    following = {id(hunk.before): hunk for hunk in hunks if not hunk.replaced and hunk.before is not None}
    leaves = [leaf for old in olds for leaf in old.leaves()]
    keeping = _above([leaf for leaf in leaves if id(leaf) not in replacing])
    touched = _above([leaf for leaf in leaves if id(leaf) in replacing or id(leaf) in following])
    result: list[Part] = []
    for hunk in hunks:
        if not hunk.replaced and hunk.before is None:
            _place(hunk, result, parent, None)
    # depth-first; each entry is an old part, the list that its mirror goes to, and its parent there
    stack = [(old, result, parent) for old in reversed(olds)]
    while stack:
        old, into, above = stack.pop()
        if id(old) in touched and id(old) not in keeping:  # nothing of it stays
            for leaf in old.leaves():
                _place(replacing[id(leaf)], into, above, old.parent)
            continue
        if id(old) in replacing:
            _place(replacing[id(old)], into, above, old.parent)
            continue
        new = Part(old.kind, old.text, 0, len(old.text), name=old.name, content=old.content)
        new.parent = above
        pair(old, new, whole=id(old) not in touched)
        into.append(new)
        if not new.whole:
            below = [child for child in old.children if not child.empty]
            stack.extend((child, new.children, new) for child in reversed(below))
        if id(old) in following:
            _place(following[id(old)], into, above, None)
    return result


def _place(hunk: Hunk, into: list[Part], above: Part, home: Part | None) -> None:
    """Put the pieces of a hunk into a list, once; leaves that it replaces there lend them their ids."""
    if hunk.placed:
        return
    hunk.placed = True
    for old, new in pair_up([leaf for leaf in hunk.replaced if leaf.parent is home], hunk.pieces):
        if old.is_leaf and new.is_leaf:
            pair(old, new)
    for piece in hunk.pieces:
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

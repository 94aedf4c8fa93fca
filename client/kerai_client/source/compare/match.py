"""Which new part of a file is which old one.

Top-down as in GumTree (Falleri et al., "Fine-grained and accurate source code differencing", 2014), with
texts in place of tree hashes. Equal texts come first, then containers of one kind and name, then equal texts
anywhere (moves), then similar texts at the same place. Text that did not change keeps its nodes even where a
fresh parse would cut it otherwise, see :mod:`.splice`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kerai_client.source.compare.part import Part, pair
from kerai_client.source.compare.sequence import common, increasing
from kerai_client.source.compare.similar import likeness, pair_up, tokens
from kerai_client.source.compare.splice import splice

_MOVABLE_LEAF = 24  # characters; a shorter statement is more likely written again than moved
_PUNCTUATION = ("header", "footer")  # these belong to the container that they open and close
_CANDIDATES = 16  # of many equal texts, how many are considered
_ALIKE = 0.5  # how alike two definitions of one name must be when they stand in different places


class Matcher:
    """Matches the parts of changed files. ``old`` files that are gone and ``new`` ones that were not there
    take part in moves only."""

    def __init__(self, gone: Iterable[Part] = (), added: Iterable[Part] = ()) -> None:
        self.gone = list(gone)
        self.added = list(added)
        self.aligned: list[tuple[Part, Part]] = []
        self._queue: list[tuple[Part, Part]] = []
        self._moved = False

    def add(self, old: Part, new: Part) -> None:
        """Make two files (or other parts) counterparts, to be compared by :meth:`run`."""
        pair(old, new)
        self._queue.append((old, new))

    def run(self) -> None:
        """Match until nothing more is found."""
        self._align()
        self._moves(nested=False)
        done = 0
        while done < len(self.aligned):
            while done < len(self.aligned):
                self._in_place(*self.aligned[done])
                done += 1
            self._moves(nested=True)

    def _in_place(self, old: Part, new: Part) -> None:
        """Match what is alike at the same place."""
        for olds, news, alone in list(_gaps(old, new)):  # all at once: splicing changes the children
            pairs = pair_up(olds, news)
            if alone and splice(new, olds, news, pairs):
                continue
            for a, b in pairs:
                pair(a, b)
                if not a.is_leaf:
                    self._queue.append((a, b))
        self._align()

    def _align(self) -> None:
        """Match the children of counterparts that are the same, or have the same kind and name."""
        while self._queue:
            old, new = self._queue.pop()
            self.aligned.append((old, new))
            olds, news = _open(old), _open(new)
            for a, b in common([part.text for part in olds], [part.text for part in news]):
                if not self._moved or not (_taken_apart(olds[a]) or _taken_apart(news[b])):
                    pair(olds[a], news[b], whole=True)
            named: dict[tuple[str, str], list[Part]] = {}
            for part in reversed(olds):
                if part.match is None and part.name is not None and part.is_container:
                    named.setdefault((part.kind, part.name), []).append(part)
            for part in news:
                if part.match is None and part.name is not None and part.is_container:
                    same = named.get((part.kind, part.name))
                    if same:
                        self.add(same.pop(), part)

    def _moves(self, nested: bool) -> None:
        """Match what is the same, or has the same name and is alike, at different places.

        :param nested: also what stands in something that has no counterpart. That comes after matching what
            is alike at one place, or it would take the statements out of an edited ``if`` one by one.
        """
        tops = [child for old, _ in self.aligned for child in old.children]
        tops += [child for file in self.gone for child in file.children]
        olds = [part for child in tops for part in (_unmatched(child) if nested else _itself(child))]
        if not olds:
            return
        self._moved = True
        same: dict[str, list[Part]] = {}
        named: dict[tuple[str, str], list[Part]] = {}
        for part in reversed(olds):
            same.setdefault(part.text.strip(), []).append(part)
            if part.name is not None and part.is_container:
                named.setdefault((part.kind, part.name), []).append(part)
        same.pop("", None)
        for find in (self._same_text, self._same_name):
            news = [new for _, new in self.aligned] + self.added
            for file in news:
                stack = list(reversed(file.children))
                while stack:
                    new = stack.pop()
                    if new.match is None:
                        old = find(new, same, named)
                        if old is None:
                            stack.extend(reversed(new.children) if nested else ())
                        elif old.text == new.text and not (_taken_apart(old) or _taken_apart(new)):
                            pair(old, new, whole=True)
                        else:
                            self.add(old, new)
        self._align()

    def _same_text(
        self, new: Part, same: dict[str, list[Part]], named: dict[tuple[str, str], list[Part]]
    ) -> Part | None:
        equal = same.get(new.text.strip(), [])
        while equal and not _free(equal[-1]):
            equal.pop()
        candidates = [old for old in equal[-_CANDIDATES:] if _free(old) and _may_move(old, new)]
        if not candidates:
            return None
        home = new.parent.match if new.parent is not None else None
        return max(
            candidates,
            key=lambda old: (old.parent is home, old.source is _source(home), old.text == new.text),
        )

    def _same_name(
        self, new: Part, same: dict[str, list[Part]], named: dict[tuple[str, str], list[Part]]
    ) -> Part | None:
        if new.name is None or not new.is_container:
            return None
        candidates = [old for old in named.get((new.kind, new.name), ()) if _free(old)]
        if len(candidates) != 1:
            return None
        return candidates[0] if likeness(tokens(candidates[0].text), tokens(new.text)) >= _ALIKE else None


def _source(part: Part | None) -> str | None:
    return None if part is None else part.source


def _open(part: Part) -> list[Part]:
    return [child for child in part.children if child.match is None and not child.empty]


def _unmatched(part: Part) -> Iterator[Part]:
    """Yield the parts at and below ``part`` that have no counterpart yet, not looking below those that do."""
    stack = [part]
    while stack:
        here = stack.pop()
        if here.match is None and not here.empty:
            yield here
            stack.extend(reversed(here.children))


def _itself(part: Part) -> list[Part]:
    return [part] if part.match is None and not part.empty else []


def _taken_apart(old: Part) -> bool:
    """Whether something below has moved away already, so that the part cannot be kept as a whole."""
    return any(below.match is not None for below in old.walk() if below is not old)


def _free(old: Part) -> bool:
    """Whether neither the part nor anything above it has been matched as a whole."""
    if old.match is not None:
        return False
    above = old.parent
    while above is not None:
        if above.whole:
            return False
        above = above.parent
    return True


def _may_move(old: Part, new: Part) -> bool:
    """Whether two equal texts may be one node: within a file, unless it is a short statement elsewhere;
    across files for definitions."""
    if old.is_container != new.is_container or (old.is_leaf != new.is_leaf):
        return False
    if old.is_container and old.kind != new.kind and old.name != new.name:
        return False
    if new.parent is not None and new.parent.match is old.parent:
        return True
    if old.is_leaf and (len(old.text.strip()) < _MOVABLE_LEAF or old.kind in _PUNCTUATION):
        return False
    here = new.parent
    while here is not None and here.match is None:
        here = here.parent
    if here is not None and here.match is not None and here.match.source is old.source:
        return True
    return old.is_container and old.name is not None


def _gaps(old: Part, new: Part) -> Iterator[tuple[list[Part], list[Part], bool]]:
    """Yield the unmatched runs between children that stay in place: old ones, new ones, and whether
    nothing else stands there."""
    index = {id(child): at for at, child in enumerate(old.children)}
    stay = [
        (index[id(child.match)], at)
        for at, child in enumerate(new.children)
        if child.match is not None and id(child.match) in index
    ]
    stay = [stay[at] for at in increasing([pair[0] for pair in stay])]
    a = b = 0
    for end_old, end_new in [*stay, (len(old.children), len(new.children))]:
        between_old = [part for part in old.children[a:end_old] if not part.empty]
        between_new = new.children[b:end_new]
        olds = [part for part in between_old if part.match is None]
        news = [part for part in between_new if part.match is None]
        if olds and news:
            yield olds, news, len(olds) == len(between_old) and len(news) == len(between_new)
        a, b = end_old + 1, end_new + 1

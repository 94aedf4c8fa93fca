"""The .gitignore files of a directory, nested ones included, outside of a git work tree.

The rules are those of gitignore(5) as git itself applies them (its ``dir.c`` and ``wildmatch.c``). Paths and
patterns are bytes. The last pattern that matches decides, and so does the nearest file that has one.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Sequence

from kerai_client.source.files import wildmatch


class Ignore:
    """Which paths are ignored. The reader never enters an ignored directory: all of it is ignored too."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """:param patterns: patterns that apply before all .gitignore files, relative to the top."""
        self._levels: list[tuple[int, _Rules]] = []
        if patterns:
            self._levels.append((0, _Rules(map(os.fsencode, patterns))))

    def with_file(self, directory: str, data: bytes) -> tuple[Ignore, list[str]]:
        """Add a .gitignore.

        :param directory: where it lies: "" or a path that ends in a slash.
        :param data: its bytes.
        :return: the rules that hold there, and the patterns that can never match anything.
        """
        rules = _Rules(_lines(data))
        inner = Ignore()
        inner._levels = [*self._levels, (len(os.fsencode(directory)), rules)]
        return inner, [os.fsdecode(pattern) for pattern in rules.bad]

    def __call__(self, path: str) -> bool:
        """Whether a path (relative to the top, ending in a slash when it is a directory) is ignored."""
        name = os.fsencode(path.removesuffix("/")) + (wildmatch.DIRECTORY if path.endswith("/") else b"")
        for start, rules in reversed(self._levels):
            decision = rules.decide(name[start:])
            if decision is not None:
                return decision
        return False


class _Rules:
    """The patterns of one file as one expression: its alternatives stand last pattern first."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self.bad: list[bytes] = []
        self._negated: list[bool] = []
        alternatives = []
        for pattern in reversed(list(patterns)):
            negated = pattern.startswith(b"!")
            expression = wildmatch.expression(pattern[negated:])
            if expression is None:
                self.bad.insert(0, pattern)
                continue
            self._negated.append(negated)
            alternatives.append(b"(" + expression + b")")
        self._match = re.compile(b"|".join(alternatives), re.DOTALL).fullmatch if alternatives else None

    def decide(self, path: bytes) -> bool | None:
        """Say whether a path is ignored; None when no pattern matches it."""
        found = self._match(path) if self._match else None
        return None if found is None else not self._negated[(found.lastindex or 1) - 1]


def _lines(data: bytes) -> list[bytes]:
    """Return the patterns of a .gitignore: no byte order mark, comments, line ends or trailing spaces."""
    patterns = []
    for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        pattern = line.removesuffix(b"\r").partition(b"\0")[0]
        kept = pattern.rstrip(b" ")
        if kept != pattern:
            escaped = (len(kept) - len(kept.rstrip(b"\\"))) % 2 == 1
            pattern = kept + (b" " if escaped else b"")
        if pattern and not pattern.startswith(b"#"):
            patterns.append(pattern)
    return patterns

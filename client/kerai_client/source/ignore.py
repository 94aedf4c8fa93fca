"""The .gitignore files of a directory, nested ones included."""

from __future__ import annotations

from collections.abc import Sequence

from pathspec import GitIgnoreSpec


class Ignore:
    """Which paths are ignored: the last matching pattern of the nearest .gitignore that has one decides,
    as git does it. What lies in an ignored directory is ignored too: such a directory is never entered."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """:param patterns: patterns that apply before all .gitignore files, relative to the top."""
        self._levels: list[tuple[str, GitIgnoreSpec]] = []
        if patterns:
            self._levels.append(("", GitIgnoreSpec.from_lines(patterns)))

    def with_file(self, directory: str, text: str) -> tuple[Ignore, list[str]]:
        """Return the rules that hold in ``directory`` ("" or ending in a slash), and the bad patterns."""
        good, bad = [], []
        for line in text.split("\n"):
            try:
                GitIgnoreSpec.from_lines([line.rstrip("\r")])
            except ValueError:
                bad.append(line)
            else:
                good.append(line.rstrip("\r"))
        inner = Ignore()
        inner._levels = [*self._levels, (directory, GitIgnoreSpec.from_lines(good))]
        return inner, bad

    def __call__(self, path: str) -> bool:
        """Whether a path (relative to the top, ending in a slash when it is a directory) is ignored."""
        for directory, spec in reversed(self._levels):
            decision = spec.check_file(path[len(directory) :]).include
            if decision is not None:
                return decision
        return False

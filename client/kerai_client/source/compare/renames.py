"""Which new file is which old one under another name, and the same for directories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from posixpath import basename, dirname

from kerai_client.source.tree.state import FileState

_ALIKE = 0.5  # the share of lines that a renamed and edited file keeps, as in git
_COMMON_LINE = 16  # a line in more files than this says nothing
_MAX_BYTES = 1 << 20  # of files that are compared by line


def renamed_files(gone: Mapping[str, FileState], added: Mapping[str, FileState]) -> dict[str, str]:
    """Pair added paths with the gone paths that they were: first equal content, then enough equal lines.

    :return: new path -> old path, each at most once.
    """
    pairs: dict[str, str] = {}
    by_content: dict[tuple[bytes, bool], list[str]] = {}
    for path in sorted(gone, reverse=True):
        by_content.setdefault((gone[path].data, gone[path].symlink), []).append(path)
    # A file keeps its name more often than it changes it: pair equal names before others.
    for same_name in (True, False):
        for path in sorted(added):
            state = added[path]
            candidates = by_content.get((state.data, state.symlink), [])
            if path in pairs or (not state.data and not same_name):
                continue
            fitting = [old for old in candidates[-64:] if not same_name or basename(old) == basename(path)]
            if fitting:
                pairs[path] = max(fitting, key=lambda old: _shared_tail(old, path))
                candidates.remove(pairs[path])
    left = {path: state for path, state in gone.items() if path not in set(pairs.values())}
    pairs.update(_alike(left, {path: state for path, state in added.items() if path not in pairs}))
    return pairs


def _shared_tail(a: str, b: str) -> int:
    """Count the path components that two paths share, from the last."""
    count = 0
    for one, other in zip(reversed(a.split("/")), reversed(b.split("/")), strict=False):
        if one != other:
            break
        count += 1
    return count


def _alike(gone: Mapping[str, FileState], added: Mapping[str, FileState]) -> dict[str, str]:
    if not gone or not added:
        return {}
    lines_of = {path: _lines(state) for path, state in gone.items()}
    holders: dict[bytes, list[str]] = {}
    for path, lines in lines_of.items():
        for line in lines:
            holders.setdefault(line, []).append(path)
    scored: list[tuple[float, str, str]] = []
    for path, state in added.items():
        lines = _lines(state)
        shared: Counter[str] = Counter()
        for line, count in lines.items():
            where = holders.get(line, ())
            if len(where) <= _COMMON_LINE:
                for old in where:
                    shared[old] += min(count, lines_of[old][line])
        for old, common in shared.most_common(4):
            score = 2 * common / (lines.total() + lines_of[old].total())
            if score >= _ALIKE and state.symlink == gone[old].symlink:
                scored.append((score + 0.1 * (basename(old) == basename(path)), path, old))
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for _, path, old in sorted(scored, key=lambda entry: (-entry[0], entry[1], entry[2])):
        if path not in pairs and old not in taken:
            pairs[path] = old
            taken.add(old)
    return pairs


def _lines(state: FileState) -> Counter[bytes]:
    if len(state.data) > _MAX_BYTES or b"\0" in state.data:
        return Counter()
    return Counter(line for line in (line.strip() for line in state.data.splitlines()) if len(line) > 2)


def renamed_directories(
    files: Mapping[str, str], wanted: Iterable[str], free: Iterable[str]
) -> dict[str, str]:
    """Say which new directories are old ones renamed or moved, by the files that went along.

    :param files: new path -> old path of the files that were renamed.
    :param wanted: the directories that are not there yet.
    :param free: the old directories that nothing shall stand in any more.
    :return: new directory -> old directory, each at most once.
    """
    wanted, free = set(wanted), set(free)
    votes: dict[str, Counter[str]] = {}
    for new, old in files.items():
        here, there = dirname(new), dirname(old)
        tail = basename(new) == basename(old)
        while here and there:
            if here in wanted and there in free:
                votes.setdefault(here, Counter())[there] += 2 if tail else 1
            if basename(here) != basename(there):
                break
            here, there = dirname(here), dirname(there)
    pairs: dict[str, str] = {}
    for directory in sorted(votes, key=lambda path: (path.count("/"), path)):
        for old, _ in votes[directory].most_common():
            if old in free:
                pairs[directory] = old
                free.discard(old)
                break
    return pairs

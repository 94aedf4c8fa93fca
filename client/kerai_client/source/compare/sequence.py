"""Common and increasing subsequences, in time that a large file can afford."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence

_SMALL = 20_000  # cells of the exact table; larger stretches without a unique anchor are matched greedily


def common(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return index pairs of equal items, ascending on both sides: a long common subsequence.

    Patience diff (B. Cohen): equal ends first, then items that are unique on both sides as anchors, and
    between those again; stretches without anchors exactly when they are small. Near-linear time.
    """
    pairs: list[tuple[int, int]] = []
    stack = [(0, len(old), 0, len(new))]
    while stack:
        low_old, high_old, low_new, high_new = stack.pop()
        while low_old < high_old and low_new < high_new and old[low_old] == new[low_new]:
            pairs.append((low_old, low_new))
            low_old += 1
            low_new += 1
        while low_old < high_old and low_new < high_new and old[high_old - 1] == new[high_new - 1]:
            high_old -= 1
            high_new -= 1
            pairs.append((high_old, high_new))
        if low_old == high_old or low_new == high_new:
            continue
        rows, columns = range(low_old, high_old), range(low_new, high_new)
        anchors = _anchors(old, new, rows, columns)
        if not anchors:
            pairs.extend(_between(old, new, rows, columns))
            continue
        at_old, at_new = low_old, low_new
        for anchor_old, anchor_new in anchors:
            stack.append((at_old, anchor_old, at_new, anchor_new))
            pairs.append((anchor_old, anchor_new))
            at_old, at_new = anchor_old + 1, anchor_new + 1
        stack.append((at_old, high_old, at_new, high_new))
    pairs.sort()
    return pairs


def _anchors(
    old: Sequence[Hashable], new: Sequence[Hashable], rows: range, columns: range
) -> list[tuple[int, int]]:
    once_old = Counter(old[rows.start : rows.stop])
    once_new = Counter(new[columns.start : columns.stop])
    where = {new[index]: index for index in columns if once_new[new[index]] == 1}
    found = [
        (index, where[old[index]]) for index in rows if once_old[old[index]] == 1 and old[index] in where
    ]
    return [found[index] for index in increasing([pair[1] for pair in found])]


def _between(
    old: Sequence[Hashable], new: Sequence[Hashable], rows: range, columns: range
) -> list[tuple[int, int]]:
    shared = set(old[rows.start : rows.stop]) & set(new[columns.start : columns.stop])
    down = [index for index in rows if old[index] in shared]
    across = [index for index in columns if new[index] in shared]
    if len(down) * len(across) > _SMALL:
        return _greedy(old, new, down, across)
    table = [[0] * (len(across) + 1) for _ in range(len(down) + 1)]
    for i in range(len(down) - 1, -1, -1):
        for j in range(len(across) - 1, -1, -1):
            if old[down[i]] == new[across[j]]:
                table[i][j] = table[i + 1][j + 1] + 1
            else:
                table[i][j] = max(table[i + 1][j], table[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(down) and j < len(across):
        if old[down[i]] == new[across[j]]:
            pairs.append((down[i], across[j]))
            i, j = i + 1, j + 1
        elif table[i + 1][j] >= table[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def _greedy(
    old: Sequence[Hashable], new: Sequence[Hashable], rows: list[int], columns: list[int]
) -> list[tuple[int, int]]:
    """Pair the n-th of each repeated item on one side with the n-th on the other; keep what ascends."""
    waiting: dict[Hashable, list[int]] = {}
    for index in reversed(columns):
        waiting.setdefault(new[index], []).append(index)
    pairs = [(index, waiting[old[index]].pop()) for index in rows if waiting[old[index]]]
    return [pairs[index] for index in increasing([pair[1] for pair in pairs])]


def increasing(values: Sequence[int]) -> list[int]:
    """Return the indexes of a longest strictly increasing subsequence (Fredman 1975, n log n)."""
    tails: list[int] = []  # the smallest last value of a run of each length
    ends: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        place = bisect_left(tails, value)
        if place == len(tails):
            tails.append(value)
            ends.append(index)
        else:
            tails[place] = value
            ends[place] = index
        before.append(ends[place - 1] if place else -1)
    found = []
    index = ends[-1] if ends else -1
    while index >= 0:
        found.append(index)
        index = before[index]
    return found[::-1]

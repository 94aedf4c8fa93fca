"""How alike two texts are, and which of two lists belong together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from kerai_client.source.compare.part import Part

_TOKEN = re.compile(r"\w+|[^\w\s]")
_TABLE = 2_500  # pairs that are compared one by one; longer lists are paired in order
_ENOUGH = 0.35
_MAX_CHARACTERS = 4_000  # of a text that is looked at


def tokens(text: str) -> Counter[str]:
    """Return how often each word and sign occurs at the beginning of ``text``."""
    return Counter(_TOKEN.findall(text[:_MAX_CHARACTERS]))


def likeness(a: Counter[str], b: Counter[str]) -> float:
    """Return the Dice coefficient of two bags of tokens: 0 nothing in common, 1 the same."""
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


def pair_up(olds: Sequence[Part], news: Sequence[Part]) -> list[tuple[Part, Part]]:
    """Pair parts of one place in order: leaves with leaves, containers with containers of their kind.

    The pairs are those of the alignment with the greatest sum of likenesses. A lone leaf on each side makes a
    pair however little is alike, for that is an edited statement.
    """
    if len(olds) == len(news) == 1 and olds[0].is_leaf and news[0].is_leaf:
        return [(olds[0], news[0])]
    if len(olds) * len(news) > _TABLE:
        leaves = [part for part in olds if part.is_leaf], [part for part in news if part.is_leaf]
        return list(zip(*leaves, strict=False))
    bags_old = [tokens(part.text) for part in olds]
    bags_new = [tokens(part.text) for part in news]
    rows, columns = len(olds), len(news)
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    score = [[0.0] * columns for _ in range(rows)]
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            if _comparable(olds[i], news[j]):
                score[i][j] = likeness(bags_old[i], bags_new[j])
            here = score[i][j] + best[i + 1][j + 1] if score[i][j] >= _ENOUGH else 0.0
            best[i][j] = max(here, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if score[i][j] >= _ENOUGH and best[i][j] == score[i][j] + best[i + 1][j + 1]:
            pairs.append((olds[i], news[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _comparable(old: Part, new: Part) -> bool:
    if old.is_leaf and new.is_leaf:
        return True
    return old.is_container and new.is_container and old.kind == new.kind

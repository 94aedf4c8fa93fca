"""Position keys: text that orders siblings bytewise, with room between any two.

A key is a list of levels, each ``<gap>`` or ``<gap>-<author and run><offset>``:

- *gap* and *offset* are integers of variable length whose first letter says how many digits follow
  (``a0`` … ``az``, ``b00`` …, and downwards ``Zz`` …, ``Yzz`` …), so that they order as text: the scheme of
  "Implementing Fractional Indexing" (D. Greenspan, 2020). Inserting again and again at the end, or at
  the beginning, counts a gap up or down: keys grow with the logarithm of the number of insertions.
- *author and run* are eight digits of hashes. Two blocks that two authors insert at one place at the same
  time get the same gap and different tags. All keys of a block share the prefix up to the tag, so no key of
  the other block falls between them. That is the "non-interleaving" of Weidner and Kleppmann ("The Art of the
  Fugue", 2023), which the plain schemes Logoot and LSEQ lack.
- Between two keys of one gap a further level is appended to the left one.

A run below a parent that was itself just made needs no tag, as nobody else can insert there yet.
"""

from __future__ import annotations

import hashlib
import secrets
from bisect import bisect_left

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE = len(_DIGITS)
_HEADERS = _DIGITS[10:]  # A … Z are negative, a … z are not
_ZERO_HEADER = _HEADERS.index("a")
_TAG_MARK = "-"
_TAG_DIGITS = 8
_FLOOR = "!"  # sorts before every digit; keys of others may need it


def integer(value: int) -> str:
    """Return the text of an integer; texts of integers order bytewise as the integers do.

    :raises OverflowError: beyond 62**26 or so.
    """
    length, low = 1, 0  # the integers of one header are low … low + 62**length - 1, or mirrored below zero
    rest = value if value >= 0 else -value - 1
    while rest >= low + _BASE**length:
        low += _BASE**length
        length += 1
    if length > 26:
        raise OverflowError(f"{value} is too large for a position")
    rest -= low
    digits = ""
    for _ in range(length):
        rest, digit = divmod(rest, _BASE)
        digits = _DIGITS[digit if value >= 0 else _BASE - 1 - digit] + digits
    return _HEADERS[_ZERO_HEADER + length - 1 if value >= 0 else _ZERO_HEADER - length] + digits


def _read_integer(text: str, start: int) -> tuple[int, int] | None:
    """Return the integer that begins at ``start`` and where it ends, None when there is none."""
    header = _HEADERS.find(text[start]) if start < len(text) else -1
    if header < 0:
        return None
    negative = header < _ZERO_HEADER
    length = _ZERO_HEADER - header if negative else header - _ZERO_HEADER + 1
    digits = text[start + 1 : start + 1 + length]
    if len(digits) < length:
        return None
    value = 0
    for character in digits:
        digit = bisect_left(_DIGITS, character)
        if digit == _BASE or _DIGITS[digit] != character:
            return None
        value = value * _BASE + (_BASE - 1 - digit if negative else digit)
    value += sum(_BASE**shorter for shorter in range(1, length))
    return (-value - 1 if negative else value), start + 1 + length


def _levels(key: str) -> list[tuple[int, int]]:
    """Return where each level of ``key`` begins and the number of its gap.

    A key made elsewhere has levels only where its end reads as levels; an arbitrary text has none.
    """
    for start in range(len(key)):
        levels, at = [], start
        while at < len(key):
            gap = _read_integer(key, at)
            if gap is None:
                break
            levels.append((at, gap[0]))
            at = gap[1]
            if key[at : at + 1] == _TAG_MARK:
                offset = _read_integer(key, at + 1 + _TAG_DIGITS)
                if offset is None:
                    break
                at = offset[1]
        else:
            return levels
    return []


def room(left: str | None, right: str | None) -> bool:
    """Say whether a key fits strictly between two neighbours (None: there is none on that side).

    There is no room between equal keys, between keys in the wrong order, and between a key and its
    continuation by control characters, which only a foreign client writes.
    """
    return _gap(left or "", right) is not None


def _gap(left: str, right: str | None) -> str | None:
    """Return the start of the keys between two neighbours, up to the tag. All that begins with it fits."""
    if right is not None and left >= right:
        return None
    for at, number in _levels(left):
        candidate = left[:at] + integer(number + 1)
        if right is None or (candidate < right and not right.startswith(candidate)):
            return candidate
    if right is None or not right.startswith(left):
        return left + integer(0)
    below = _below(right[len(left) :])
    return None if below is None else left + below


def _below(text: str) -> str | None:
    """Return the start of the keys before ``text``, counting its first gap down where it has one."""
    number = _read_integer(text, 0)
    if number is not None and text[0] != _HEADERS[0]:
        return integer(number[0] - 1)
    prefix = ""
    for character in text:
        if character > _DIGITS[0]:
            return prefix + _DIGITS[0] + integer(0)
        if character > _FLOOR:
            return prefix + _FLOOR + integer(0)
        prefix += character
    return None


def tag(author: str, run: str | None = None) -> str:
    """Return the digits that keep one author's block together.

    :param author: the author id.
    :param run: what tells two runs of the author apart; random when None.
    """
    half = _TAG_DIGITS // 2
    return _hash(author, half) + _hash(run if run is not None else secrets.token_hex(8), half)


def _hash(text: str, digits: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return "".join(_DIGITS[number // _BASE**place % _BASE] for place in range(digits))


def keys(left: str | None, right: str | None, count: int, block: str | None) -> list[str]:
    """Return ``count`` ascending keys between two neighbours.

    :param left: the position of the sibling before, None at the beginning.
    :param right: the position of the sibling after, None at the end.
    :param block: a :func:`tag`; None when the parent is new, so that no tag is needed.
    :return: keys strictly between the neighbours when :func:`room` says that there is room. Otherwise they
        are the nearest ones after ``left``, and the right neighbour does not follow them. Siblings with equal
        positions order by stamp and id, so the caller has to move that neighbour as well.
    """
    if block is None and left is None and right is None:
        return [integer(number) for number in range(count)]
    start = prefix(left, right, block or "0" * _TAG_DIGITS)
    return [start + integer(number) for number in range(count)]


def prefix(left: str | None, right: str | None, block: str) -> str:
    """Return what all keys of a block begin with; ``prefix + integer(n)`` is the n-th of :func:`keys`."""
    gap = _gap(left or "", right)
    return f"{(left or '') + integer(0) if gap is None else gap}{_TAG_MARK}{block}"

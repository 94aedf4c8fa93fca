"""A pattern of a .gitignore as a regular expression for a path, after git's ``wildmatch.c`` and ``dir.c``."""

from __future__ import annotations

import re
from itertools import groupby

DIRECTORY = b"\0"  # stands at the end of a directory's path; no name has it

_SPECIAL = re.compile(rb"[*?\[\\]")
_TOKEN = re.compile(rb"(?P<stars>\*+)|\?|\[|(?P<slash>\\?/)|\\.|[^\\]", re.DOTALL)
_REST = rb"[^/\0]*"  # the rest of a name
_NEVER = rb"(?!)"
_CLASSES = {
    name: frozenset(byte for byte in range(128) if re.match(pattern, chr(byte)))
    for name, pattern in {
        b"alnum": "[0-9A-Za-z]",
        b"alpha": "[A-Za-z]",
        b"blank": "[ \t]",
        b"cntrl": "[\x00-\x1f\x7f]",
        b"digit": "[0-9]",
        b"graph": "[!-~]",
        b"lower": "[a-z]",
        b"print": "[ -~]",
        b"punct": "[!-/:-@[-`{-~]",
        b"space": "[\t-\r ]",
        b"upper": "[A-Z]",
        b"xdigit": "[0-9A-Fa-f]",
    }.items()
}
# One element of a class: a named class, a range, or a byte, escaped or not. "[:" without ":]" is a byte.
_ELEMENT = re.compile(rb"\[:(?P<named>[^\]]*):\]|(?P<low>\\.|[^\\])(?:-(?P<high>\\.|[^\\\]]))?", re.DOTALL)


class _Malformed(Exception):
    """The pattern can match nothing."""


def expression(pattern: bytes) -> bytes | None:
    """Translate a pattern, without its "!".

    No expression backtracks through more than one star. A star takes as little as it can and keeps to it,
    since less for one star never leaves less for the next. So a hostile pattern costs no more than another.

    :return: the source of an expression for the whole of a path whose ``DIRECTORY`` is marked; None when
        the pattern can match nothing.
    """
    only_directories = pattern.endswith(b"/")
    pattern = pattern.removesuffix(b"/")
    anchored = b"/" in pattern
    pattern = pattern.removeprefix(b"/")
    special = _SPECIAL.search(pattern)
    # git compares the text before the first special character as it is, also where that ends within a name.
    # So "a**/b" is "a", and then a "**/" that stands at the start.
    start = special.start() if special else len(pattern)
    try:
        names = _names(pattern[start:])
    except _Malformed:
        return None
    if not pattern:
        return None
    above = b"" if anchored else b"(?:" + _REST + b"/)*"
    end = DIRECTORY if only_directories else DIRECTORY + b"?"
    return above + re.escape(pattern[:start]) + _joined(names) + end


def _names(pattern: bytes) -> list[bytes | None]:
    """Translate each name of a pattern; None stands for ``**``, any number of directories, also none."""
    names: list[bytes | None] = []
    pieces, stars = [b""], 0  # of the name that is being read: what stands between its stars

    def close(slash: bytes) -> None:
        nonlocal pieces, stars
        if stars > 1 and pieces == [b"", b""]:
            names.append(None)
            if slash == b"\\/":
                names.append(_REST)  # an escaped slash is no "**/": it stands for one directory at least
        else:
            inner = [b"(?>" + _REST + b"?" + piece + b")" for piece in pieces[1:-1]]
            last = [_REST + piece for piece in pieces[1:][-1:]]
            names.append(b"".join([pieces[0], *inner, *last]))
        pieces, stars = [b""], 0

    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise _Malformed  # a backslash at the end
        at = token.end()
        if token["slash"]:
            close(token["slash"])
        elif token["stars"]:
            pieces.append(b"")
            stars = len(token["stars"])
        elif token[0] == b"[":
            one, at = _class(pattern, at)
            pieces[-1] += one
        else:
            pieces[-1] += rb"[^/\0]" if token[0] == b"?" else re.escape(token[0][-1:])
    close(b"")
    return names


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Translate a class whose ``[`` stands before ``at``; return it, and where the pattern goes on."""
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        element = _ELEMENT.match(pattern, at)
        if element is None:
            raise _Malformed
        at = element.end()
        if element["named"] is not None:
            if element["named"] not in _CLASSES:
                raise _Malformed
            members |= _CLASSES[element["named"]]
        else:
            low = element["low"][-1]
            members.add(low)
            members.update(range(low, (element["high"] or element["low"])[-1] + 1))
    if negated:
        members = set(range(1, 256)) - members
    members -= {ord("/")}
    listed = b"".join(b"\\x%02x" % byte for byte in sorted(members))
    return (b"[" + listed + b"]" if listed else _NEVER), at + 1


def _joined(names: list[bytes | None]) -> bytes:
    """Join the expressions of names, with what ``**`` leaves between them."""
    written = b""
    groups = [list(group) for _, group in groupby(names, key=lambda name: name is None)]
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        together = b"/".join(name for name in group if name is not None)
        if group[0] is None:
            # "**" at the end is all that lies below; before a name, that name finds its own place
            written += rb"[^\0]*" if last else b""
        elif number == 0:
            written += together + (b"" if last else b"/")
        elif last:
            written += b"(?:" + _REST + b"/)*?" + together
        else:
            written += b"(?>(?:" + _REST + b"/)*?" + together + b"/)"
    return written

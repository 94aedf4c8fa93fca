"""Tables of text: as wide as their values, wrapped where a terminal is narrower, never with a value left out.

Where wrapping would break words, each row becomes a list of names and values (psql's ``\\x auto``). The time
is linear in the text: 10,000 rows take about a quarter of a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

Cell = Sequence[str]  # the lines of a value

LONGEST_WORD = 36  # a UUID; longer words may be broken
NARROWEST_VALUE = (
    12  # where there is less room a table becomes lists, and a list is left to the terminal to wrap
)


class Box:
    """The characters of a table's frame: left, between, right of each of its lines, and what fills them."""

    def __init__(self, top: str, head: str, line: str, row: str, bottom: str) -> None:
        self.top, self.head, self.line, self.row, self.bottom = top, head, line, row, bottom
        self.plain_top = "┌┬┐─" if top != "+++-" else top


HEAVY = Box("┏┳┓━", "┃┃┃ ", "┡╇┩━", "│││ ", "└┴┘─")
ASCII = Box("+++-", "||| ", "+++-", "||| ", "+++-")


def table(
    header: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    right: Collection[int] = (),
    box: Box = HEAVY,
) -> Iterator[str]:
    """Yield the lines of a table.

    :param header: the names of the columns, None for none.
    :param rows: the values, as printable text; line ends and tabs are allowed in them.
    :param width: how many columns of characters there are, None for as many as it takes.
    :param right: the columns whose values stand at the right, by number.
    """
    cells = [[value.expandtabs().split("\n") for value in row] for row in rows]
    names = None if header is None else [[name] for name in header]
    every = cells if names is None else [names, *cells]
    if not every:
        return
    natural = [max(max(map(length, row[n])) for row in every) for n in range(len(every[0]))]
    widths: list[int] | None = natural
    if width is not None and sum(natural) + 3 * len(natural) + 1 > width:
        widths = _narrowed(natural, every, width - 3 * len(natural) - 1)
    if widths is None:
        yield from _lists(names, cells, width)
        return
    if names is not None:
        yield _rule(widths, box.top)
        yield from _row(names, widths, (), box.head)
        yield _rule(widths, box.line)
    else:
        yield _rule(widths, box.plain_top)
    for row in cells:
        yield from _row(row, widths, right, box.row)
    yield _rule(widths, box.bottom)


def length(text: str) -> int:
    """Return how many columns a line takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 -- rich is slow to import

    return cell_len(text)


def wrap(line: str, width: int) -> Iterator[str]:
    """Yield a line in pieces that are at most ``width`` columns wide, broken at spaces where it has any."""
    if length(line) <= width:
        yield line
        return
    ascii_only, start = line.isascii(), 0
    while start < len(line):
        end = min(start + width, len(line)) if ascii_only else _fitting(line, start, width)
        if end < len(line):
            space = line.rfind(" ", start + 1, end + 1)
            if space > 0:
                yield line[start:space]
                start = space + 1
                continue
        yield line[start:end]
        start = end


def _fitting(line: str, start: int, width: int) -> int:
    taken, end = 0, start
    while end < len(line) and (end == start or taken + length(line[end]) <= width):
        taken += length(line[end])
        end += 1
    return end


def _narrowed(natural: list[int], rows: Sequence[Sequence[Cell]], room: int) -> list[int] | None:
    """Return widths that fit into the room and break no word of a usual length, None when there are none."""
    least = []
    for n, most in enumerate(natural):
        words = (length(word) for row in rows for line in row[n] for word in line.split())
        least.append(min(most, LONGEST_WORD, max(NARROWEST_VALUE, *words, 0)))
    if sum(least) > room:
        return None
    low, high = 0, max(natural)  # the width of the widest column
    while low < high:
        middle = (low + high + 1) // 2
        if sum(max(few, min(most, middle)) for few, most in zip(least, natural, strict=True)) <= room:
            low = middle
        else:
            high = middle - 1
    return [max(few, min(most, low)) for few, most in zip(least, natural, strict=True)]


def _row(row: Sequence[Cell], widths: Sequence[int], right: Collection[int], edges: str) -> Iterator[str]:
    wrapped = [
        [piece for line in cell for piece in wrap(line, max(width, 1))]
        for cell, width in zip(row, widths, strict=True)
    ]
    for n in range(max(map(len, wrapped))):
        pieces = []
        for column, (lines, width) in enumerate(zip(wrapped, widths, strict=True)):
            piece = lines[n] if n < len(lines) else ""
            space = " " * (width - length(piece))
            pieces.append(space + piece if column in right else piece + space)
        yield f"{edges[0]} {f' {edges[1]} '.join(pieces)} {edges[2]}"


def _rule(widths: Sequence[int], edges: str) -> str:
    return edges[0] + edges[1].join(edges[3] * (width + 2) for width in widths) + edges[2]


def _lists(names: Sequence[Cell] | None, rows: Sequence[Sequence[Cell]], width: int | None) -> Iterator[str]:
    """Yield each row as a list of names and values; without names, each row is a name and a value."""
    if names is None:
        yield from _list([(row[0], row[1]) for row in rows], width)
        return
    for number, row in enumerate(rows, 1):
        yield f"-[ {number} ]-"
        yield from _list(list(zip(names, row, strict=True)), width)


def _list(pairs: Sequence[tuple[Cell, Cell]], width: int | None) -> Iterator[str]:
    left = max(length(" ".join(name)) for name, _ in pairs)
    room = None if width is None or width - left - 3 < NARROWEST_VALUE else width - left - 3
    for name, value in pairs:
        shown = " ".join(name)
        for line in value:
            for piece in [line] if room is None else wrap(line, room):
                yield f"{shown}{' ' * (left - length(shown))} | {piece}".rstrip()
                shown = ""

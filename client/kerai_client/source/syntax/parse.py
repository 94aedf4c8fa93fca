"""From a file's bytes to a tree of statements whose leaves, in order, are the file again.

A statement that holds statements (function, class, branch, loop, namespace …) is a container; so is a
clause of one (``else``, ``except``, ``case``). Its leaves are a header, the simple statements, and what
stands between and after them (``}``). Every character belongs to exactly one leaf:

- what follows a statement on its last line (blanks, separators, a comment) belongs to it;
- blank lines and comments directly above a statement belong to the statement;
- a comment that a blank line separates from the next statement, or that ends a block, is its own leaf.

So an edit of one statement changes one leaf, and a function carries its comment along when it moves.
Where the grammar reports an error, lines are leaves.
"""

from __future__ import annotations

import time
from bisect import bisect_left

from tree_sitter import Node, Parser, Tree

from kerai_client.source.syntax.draft import Draft, FileDraft
from kerai_client.source.syntax.languages import language_of, reader
from kerai_client.source.syntax.shape import LEADING, Core, Parts, flatten, is_definition, name_and_kind
from kerai_client.source.tree.state import FileState, text_of

MAX_PARSE_BYTES = 1 << 20
"""A larger file is not parsed: it is one leaf. Nobody merges generated data by statement."""

MAX_PARSE_SECONDS = 2.0
"""Some scanners take quadratic time on long runs of comments or quotes; then lines are leaves."""

MAX_DEPTH = 60
"""Containers within containers; what is nested deeper is stored by line."""

_CHUNK = 1 << 16


def parse_file(name: str, state: FileState, language: str | None = None) -> FileDraft:
    """Return the draft of a file.

    :param name: the file's name; its suffix says the language unless ``language`` does.
    :param state: the file.
    :return: a draft whose leaves' contents, concatenated, are exactly the file's stored text: the bytes
        as UTF-8, or base64 (``metadata["encoding"]``) when they are no UTF-8 or hold NUL.
    """
    text, metadata = text_of(state)
    language = None if state.symlink or "encoding" in metadata else language or language_of(name)
    broken = False
    if not text:
        children: list[Draft] = []
    elif state.symlink or "encoding" in metadata:
        children = [Draft("symlink" if state.symlink else "base64", 0, len(text), None, text)]
    elif len(state.data) > MAX_PARSE_BYTES:
        children = [Draft("text", 0, len(text), None, text)]
    else:
        children, broken = parse_text(text, state.data, language)
    return FileDraft(language, metadata, text, children, broken)


def parse_text(text: str, data: bytes, language: str | None) -> tuple[list[Draft], bool]:
    """Return the drafts below a file that holds ``text`` (``data`` in UTF-8), and whether it has errors."""
    grammar = reader(language) if language else None
    if grammar is None:
        return lines(text, 0, len(text)), False
    tree = _syntax_tree(grammar.parser, data)
    if tree is None or tree.root_node.is_error:
        return lines(text, 0, len(text)), True
    try:
        drafts = _Parse(text, data, tree, grammar.holders).drafts()
    except UnicodeDecodeError:  # a grammar that cuts inside a character
        return lines(text, 0, len(text)), True
    if not tiles(drafts, text):
        return lines(text, 0, len(text)), True
    return drafts, tree.root_node.has_error


def _syntax_tree(parser: Parser, data: bytes) -> Tree | None:
    """Return the syntax tree of a file, None when making it takes too long."""
    end = time.monotonic() + MAX_PARSE_SECONDS
    try:
        return parser.parse(
            lambda at, _: data[at : at + _CHUNK], progress_callback=lambda _, __: time.monotonic() > end
        )
    except ValueError:
        parser.reset()  # or the next file would go on where this one was left
        return None


def tiles(drafts: list[Draft], text: str) -> bool:
    """Say whether the leaves of ``drafts`` concatenate to exactly ``text``."""
    leaves = [draft.content for top in drafts for draft in top.walk() if not draft.children]
    return None not in leaves and "".join(map(str, leaves)) == text


def lines(text: str, start: int, end: int) -> list[Draft]:
    """Return one leaf a line (newline included) for ``text[start:end]``. Only ``\\n`` ends a line."""
    found = []
    while start < end:
        newline = text.find("\n", start, end)
        stop = end if newline < 0 else newline + 1
        found.append(Draft("line", start, stop, None, text[start:stop]))
        start = stop
    return found


_Span = tuple[int, int, bool]  # a comment or attribute: start, end, whether it leads a statement


class _Parse:
    """One run over one syntax tree. Offsets are bytes until a draft is made."""

    def __init__(self, text: str, data: bytes, tree: Tree, kinds: frozenset[int]) -> None:
        self.text = text
        self.data = data
        self.ascii = len(text) == len(data)
        self.tree = tree
        self.holders = _starts(tree, kinds)
        self.kinds = kinds
        self.at_byte = self.at_char = 0

    def drafts(self) -> list[Draft]:
        root = self.tree.root_node
        found: list[Draft] = []
        self.fill(found, flatten(root, self.kinds, self.holds, root=True), 0, len(self.data), 0)
        return found

    def holds(self, node: Node) -> bool:
        """Whether a node that holds statements starts within ``node`` (or is it)."""
        index = bisect_left(self.holders, node.start_byte)
        return index < len(self.holders) and self.holders[index] < node.end_byte

    def fill(self, into: list[Draft], parts: Parts, start: int, end: int, depth: int) -> None:
        """Append drafts for the region ``start:end``, divided among its cores by the rules above."""
        cores, comments = parts
        if not cores:
            self.leaf(into, "comment" if comments else "text", start, end)
            return
        spans = [
            (comment.start_byte, comment.end_byte, bool(LEADING.match(comment.type))) for comment in comments
        ]
        spans.sort()
        next_span = 0
        for index, core in enumerate(cores):
            begin = max(core.start, start)
            # comments and attributes that stand between the previous core and this one
            above = next_span
            while next_span < len(spans) and spans[next_span][0] < begin:
                next_span += 1
            split = start
            for low, high, leading in spans[above:next_span]:
                if leading:
                    break
                if low >= start and self.blank_line(high, begin):
                    split = self.line_end(high, begin)
            if split > start:
                self.leaf(into, "comment", start, split)
                start = split
            last = index + 1 == len(cores)
            limit = end if last else max(cores[index + 1].start, start)
            stop = self.after(max(core.end, start), limit, spans, next_span)
            tail = end
            if last:
                rest = self.data[stop:end]
                tail, stop = (end, end) if core.node is None or not rest.strip() else (end, stop)
            self.core(into, core, start, stop, depth)
            start = stop
            if last and start < tail:
                self.leaf(into, "comment", start, tail)

    def core(self, into: list[Draft], core: Core, start: int, end: int, depth: int) -> None:
        node = core.node
        if node is None and core.broken:
            self.by_line(into, start, end)
        elif node is None:
            self.leaf(into, "footer" if core.closing else "header", start, end)
        elif node.is_error:
            self.by_line(into, start, end)
        elif not self.holds(node) or not (
            b"\n" in self.data[node.start_byte : node.end_byte] or is_definition(node)
        ):
            self.plain(into, node, start, end)
        elif depth >= MAX_DEPTH:
            self.by_line(into, start, end)
        else:
            parts = flatten(node, self.kinds, self.holds)
            if not parts.cores or (len(parts.cores) == 1 and not is_definition(node)):
                self.plain(into, node, start, end)
                return
            name, kind = name_and_kind(node, self.data, self.kinds, self.holds)
            container = Draft(kind, *self.chars(start, start), name)
            self.fill(container.children, parts, start, end, depth + 1)
            container.end = container.children[-1].end
            into.append(container)

    def plain(self, into: list[Draft], node: Node, start: int, end: int) -> None:
        if node.has_error:
            self.by_line(into, start, end)
        else:
            self.leaf(into, node.type, start, end)

    def blank_line(self, start: int, end: int) -> bool:
        """Whether the first line break after ``start`` is followed by a blank line before ``end``."""
        first = self.data.find(b"\n", start - 1 if self.data[start - 1 : start] == b"\n" else start, end)
        if first < 0:
            return False
        second = self.data.find(b"\n", first + 1, end)
        return second >= 0 and not self.data[first:second].strip()

    def line_end(self, start: int, end: int) -> int:
        if self.data[start - 1 : start] == b"\n":
            return start
        newline = self.data.find(b"\n", start, end)
        return end if newline < 0 else newline + 1

    def after(self, start: int, limit: int, spans: list[_Span], index: int) -> int:
        """Return where a core that ends at ``start`` ends with what follows it on its line."""
        if start > 0 and self.data[start - 1 : start] == b"\n":
            return min(start, limit)
        newline = self.data.find(b"\n", start, limit)
        while newline >= 0 and index < len(spans) and spans[index][0] < newline:
            if spans[index][1] > newline + 1:  # a comment that begins on this line and ends on a later one
                newline = self.data.find(b"\n", spans[index][1], limit)
            index += 1
        return limit if newline < 0 else newline + 1

    def chars(self, start: int, end: int) -> tuple[int, int]:
        """Turn byte offsets into character offsets. Calls come in ascending order, so this is linear."""
        if self.ascii:
            return start, end
        if start != self.at_byte:
            self.at_char += len(self.data[self.at_byte : start].decode("utf-8"))
            self.at_byte = start
        return self.at_char, self.at_char + len(self.data[start:end].decode("utf-8"))

    def leaf(self, into: list[Draft], kind: str, start: int, end: int) -> None:
        if start < end:
            low, high = self.chars(start, end)
            into.append(Draft(kind, low, high, None, self.text[low:high]))

    def by_line(self, into: list[Draft], start: int, end: int) -> None:
        low, high = self.chars(start, end)
        into.extend(lines(self.text, low, high))


def _starts(tree: Tree, kinds: frozenset[int]) -> list[int]:
    """Return where the nodes of some kinds start, ascending. A plain walk: a tree-sitter query takes
    quadratic time on a long run of unnamed siblings, and any file may hold one."""
    cursor = tree.walk()
    down, across, up = cursor.goto_first_child, cursor.goto_next_sibling, cursor.goto_parent
    found: list[int] = []
    while True:
        node = cursor.node
        if node is not None and node.kind_id in kinds:
            found.append(node.start_byte)
        if down():
            continue
        while not across():
            if not up():
                return found

"""Python source as bytes with exact positions, and the statements in it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
StatementNode = ast.stmt | ast.ExceptHandler
Span = tuple[int, int]

NEWLINE = re.compile(rb"\r\n|\r|\n")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotPython(ValueError):
    """The bytes are not a Python source file in UTF-8."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement, or one `except` clause, with where it stands."""

    node: StatementNode
    block: list[ast.stmt]  # the statements it stands among (for an except clause: the body of its try)
    functions: tuple[FunctionNode, ...]  # the functions around it, outermost first
    lines: frozenset[int]  # its own lines, from 1: without those of statements in it

    @property
    def at_import(self) -> bool:
        """Whether it runs when its module is imported."""
        return not self.functions


@dataclass(slots=True)
class Walked:
    """An expression with its parent; `in_string` when it stands in an f-string."""

    node: ast.expr
    parent: ast.AST
    name: str  # of the parent's field that holds it
    in_string: bool = field(default=False)


class SourceFile:
    """A UTF-8 Python file. Offsets are in bytes of `data`; nothing is normalised.

    Raises NotPython when `data` is something else.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            if encoding not in ("utf-8", "utf-8-sig"):
                raise NotPython(f"{path}: encoded in {encoding}")
            self.text = data.decode(encoding)
            self.tree = ast.parse(data)
        except (SyntaxError, ValueError) as error:
            raise NotPython(f"{path}: {error}") from None
        first = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
        self.starts = [first, *(match.end() for match in NEWLINE.finditer(data))]

    def offset(self, line: int, column: int) -> int:
        """Byte offset of a line (from 1) and a column (bytes, from 0), as `ast` counts them."""
        return self.starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt | ast.ExceptHandler | ast.keyword | ast.arg) -> Span:
        """Byte offsets of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def segment(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode()

    def line_of(self, offset: int) -> int:
        """Line, from 1, of a byte offset."""
        return max(number for number, start in enumerate(self.starts, 1) if start <= offset or number == 1)

    def edited(self, start: int, end: int, replacement: str) -> bytes:
        """The bytes of the file with `start` to `end` replaced."""
        return self.data[:start] + replacement.encode() + self.data[end:]

    def is_where_it_says(self, node: ast.expr) -> bool:
        """Whether the text at a node's position is that node: Python before 3.12 errs inside f-strings."""
        try:
            there = ast.parse(f"({self.segment(node)})", mode="eval").body
        except (SyntaxError, ValueError, IndexError):
            return False
        return ast.dump(there) == ast.dump(node)

    @cached_property
    def statements(self) -> list[Statement]:
        """Every statement, outer before inner, in the order of the text."""
        return list(_statements(self.tree.body, ()))

    def whole_lines(self, node: ast.stmt) -> Span | None:
        """Offsets of the lines that a statement fills alone, line end included; None when it shares them."""
        start, end = self.span(node)
        first = self.starts[node.lineno - 1]
        assert node.end_lineno is not None
        after = self.starts[node.end_lineno] if node.end_lineno < len(self.starts) else len(self.data)
        if self.data[first:start].strip() or self.data[end:after].split(b"#")[0].strip():
            return None
        if getattr(node, "decorator_list", None):
            return None
        return first, after

    def indentation(self, node: ast.stmt) -> str:
        """White space before a statement that begins its line."""
        start, _ = self.span(node)
        return self.data[self.starts[node.lineno - 1] : start].decode()

    @cached_property
    def newline(self) -> str:
        """The file's line end."""
        match = NEWLINE.search(self.data)
        return match.group().decode() if match else "\n"


def _statements(block: list[ast.stmt], functions: tuple[FunctionNode, ...]) -> Iterator[Statement]:
    for node in block:
        yield Statement(node, block, functions, frozenset(range(node.lineno, _header_end(node) + 1)))
        inner = (*functions, node) if isinstance(node, FunctionNode) else functions
        yield from _statements(getattr(node, "body", []), inner)
        for handler in getattr(node, "handlers", []):
            yield Statement(handler, block, inner, frozenset(range(handler.lineno, _header_end(handler) + 1)))
            yield from _statements(handler.body, inner)
        for case in getattr(node, "cases", []):
            yield from _statements(case.body, inner)
        yield from _statements(getattr(node, "orelse", []), inner)
        yield from _statements(getattr(node, "finalbody", []), inner)


def _header_end(node: StatementNode) -> int:
    """Last line of a statement without the statements in it."""
    body: list[ast.stmt | ast.match_case] = getattr(node, "body", None) or getattr(node, "cases", [])
    if not body:
        assert node.end_lineno is not None
        return node.end_lineno
    inner = body[0].pattern if isinstance(body[0], ast.match_case) else body[0]
    first: int = min(
        [inner.lineno, *(decorator.lineno for decorator in getattr(inner, "decorator_list", []))]
    )
    return max(node.lineno, first - 1)


def own_expressions(node: StatementNode) -> list[tuple[ast.expr, ast.AST, str]]:
    """The expressions that a statement evaluates itself, with parent and field, annotations left out."""
    if isinstance(node, FunctionNode):
        defaults = [*node.args.defaults, *(value for value in node.args.kw_defaults if value)]
        return [(value, node.args, "defaults") for value in defaults]
    if isinstance(node, ast.ClassDef | ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal):
        return []
    found: list[tuple[ast.expr, ast.AST, str]] = []
    for name, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.expr) and name != "annotation":
                found.append((part, node, name))
            elif isinstance(part, ast.withitem):
                found.append((part.context_expr, part, "context_expr"))
    return found


def walk(node: ast.expr, parent: ast.AST, name: str, in_string: bool = False) -> Iterator[Walked]:
    """An expression and all expressions in it, each with its parent."""
    yield Walked(node, parent, name, in_string)
    inside = in_string or isinstance(node, ast.JoinedStr)
    for holder in [node, *_holders(node)]:
        for inner, value in ast.iter_fields(holder):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.expr):
                    yield from walk(part, holder, inner, inside)


def _holders(node: ast.expr) -> list[ast.AST]:
    """Parts of an expression that hold expressions: keywords, comprehensions, a lambda's arguments."""
    return [
        child
        for child in ast.iter_child_nodes(node)
        if isinstance(child, ast.keyword | ast.comprehension | ast.arguments)
    ]


def is_docstring(node: ast.AST) -> bool:
    """Whether a statement is nothing but a string."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )

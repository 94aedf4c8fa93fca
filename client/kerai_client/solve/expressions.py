"""Operators that edit one expression: comparisons, arithmetic, constants, bounds, logic, arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from kerai_client.solve.mutations import (
    ATOM,
    NOT,
    SUM,
    UNARY,
    Proposal,
    Site,
    tightness,
)

COMPARISONS = {
    ast.Lt: ("<", {"<=": 1.0, ">": 0.8, ">=": 0.7, "!=": 0.2}),
    ast.LtE: ("<=", {"<": 1.0, ">=": 0.8, ">": 0.7, "==": 0.3}),
    ast.Gt: (">", {">=": 1.0, "<": 0.8, "<=": 0.7, "!=": 0.2}),
    ast.GtE: (">=", {">": 1.0, "<=": 0.8, "<": 0.7, "==": 0.3}),
    ast.Eq: ("==", {"!=": 0.9, "<=": 0.4, ">=": 0.4, "<": 0.2, ">": 0.2}),
    ast.NotEq: ("!=", {"==": 0.9, "<": 0.4, ">": 0.4}),
    ast.Is: ("is", {"is not": 0.9}),
    ast.IsNot: ("is not", {"is": 0.9}),
    ast.In: ("in", {"not in": 0.9}),
    ast.NotIn: ("not in", {"in": 0.9}),
}
ARITHMETIC = {
    ast.Add: ("+", {"-": 0.9, "*": 0.4, "|": 0.1}),
    ast.Sub: ("-", {"+": 0.9, "*": 0.2, "/": 0.2, "%": 0.1}),
    ast.Mult: ("*", {"/": 0.8, "+": 0.6, "//": 0.5, "**": 0.4, "-": 0.2, "%": 0.2}),
    ast.Div: ("/", {"*": 0.8, "//": 0.9, "%": 0.3, "-": 0.2}),
    ast.FloorDiv: ("//", {"/": 0.9, "%": 0.8, "*": 0.6}),
    ast.Mod: ("%", {"//": 0.9, "/": 0.4, "*": 0.4}),
    ast.Pow: ("**", {"*": 0.8, "+": 0.2}),
    ast.BitAnd: ("&", {"|": 0.9, "^": 0.5, "-": 0.4}),
    ast.BitOr: ("|", {"&": 0.9, "^": 0.5, "+": 0.4}),
    ast.BitXor: ("^", {"|": 0.7, "&": 0.7, "**": 0.6}),
    ast.LShift: ("<<", {">>": 0.9}),
    ast.RShift: (">>", {"<<": 0.9}),
}
GAP = re.compile(rb"(?:[\s()\\]|#[^\r\n]*)*")
CONDITION_FIELDS = {"test", "ifs"}
NUMBER = ast.Name | ast.Attribute | ast.Call | ast.Subscript  # what may stand for a number
NUMBER_FIELDS = {"value", "left", "right", "args", "lower", "upper", "step", "elts", "body"}
NEAREST_CONSTANTS = 8


def operator_span(site: Site, left: ast.expr, right: ast.expr) -> tuple[int, int]:
    """Offsets of the operator that stands between two operands, past parentheses and comments."""
    start = GAP.match(site.file.data, site.file.span(left)[1])
    assert start
    end = site.file.span(right)[0]
    # the operator has no comment in it, except `not # … \n in`, which stays as it is
    length = re.match(
        rb"[-+*/%@&|^<>=!]+|is\s+not\b|not\s+in\b|is\b|in\b|and\b|or\b", site.file.data[start.end() : end]
    )
    return start.end(), start.end() + (length.end() if length else 0)


def comparison(site: Site) -> Iterator[Proposal]:
    """`<` for `<=` and so on."""
    if isinstance(site.node, ast.Compare):
        operands = [site.node.left, *site.node.comparators]
        for kind, (left, right) in zip(site.node.ops, pairwise(operands), strict=True):
            start, end = operator_span(site, left, right)
            for text, weight in COMPARISONS[type(kind)][1].items():
                if end > start:
                    yield start, end, text, weight


def arithmetic(site: Site) -> Iterator[Proposal]:
    """`+` for `-` and so on."""
    if isinstance(site.node, ast.BinOp) and type(site.node.op) in ARITHMETIC:
        start, end = operator_span(site, site.node.left, site.node.right)
        if isinstance(site.node.left, ast.Constant) and isinstance(site.node.left.value, str):
            return  # text: formatting and joining have no such neighbours
        for text, weight in ARITHMETIC[type(site.node.op)][1].items():
            yield start, end, text, weight


def grouping(site: Site) -> Iterator[Proposal]:
    """`a * (b + c)` for `a * b + c`, and back."""
    node = site.node
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.BinOp):
        start = site.file.span(node.left.right)[0]
        end = site.file.span(node.right)[1]
        if not site.file.data[: site.file.span(node)[1]].endswith(b")"):
            yield start, end, f"({site.file.data[start:end].decode()})", 0.3
    if isinstance(node, ast.BinOp) and isinstance(site.parent, ast.BinOp):
        start, end = site.file.span(node)
        data = site.file.data
        if data[start - 1 : start] == b"(" and data[end : end + 1] == b")":
            yield start - 1, end + 1, site.segment(), 0.3


def operand(site: Site) -> Iterator[Proposal]:
    """One operand of a sum, a product, a conjunction in place of the whole; both in the other order."""
    node = site.node
    if isinstance(node, ast.BinOp):
        left, right = site.segment(node.left), site.segment(node.right)
        constant = isinstance(node.right, ast.Constant) and isinstance(node.op, ast.Add | ast.Sub)
        yield site.replace(left, 0.7 if constant else 0.25, binds=tightness(node.left))
        yield site.replace(right, 0.2, binds=tightness(node.right))
        start, end = site.file.span(node.left)[0], site.file.span(node.right)[1]
        if not isinstance(node.op, ast.Mult | ast.BitAnd | ast.BitOr | ast.BitXor):
            middle = site.file.data[site.file.span(node.left)[1] : site.file.span(node.right)[0]].decode()
            same = tightness(node.left) == tightness(node.right) == ATOM
            yield start, end, f"{right}{middle}{left}" if same else f"({right}){middle}({left})", 0.5
    elif isinstance(node, ast.BoolOp):
        for gone in range(len(node.values)):
            kept = [value for number, value in enumerate(node.values) if number != gone]
            if len(kept) == 1:
                yield site.replace(site.segment(kept[0]), 0.45, binds=tightness(kept[0]))


def offset(site: Site) -> Iterator[Proposal]:
    """One more or one less for a bound, an index, an argument of range, a side of a comparison."""
    node, parent = site.node, site.parent
    if isinstance(node, ast.Constant | ast.Slice | ast.Tuple | ast.JoinedStr | ast.Compare | ast.BoolOp):
        return
    if isinstance(getattr(node, "ctx", None), ast.Store) or isinstance(
        node, ast.List | ast.Dict | ast.Lambda
    ):
        return
    if isinstance(parent, ast.Slice) or (isinstance(parent, ast.Subscript) and site.name == "slice"):
        weight = 0.6
    elif isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name) and site.name == "args":
        weight = 0.6 if parent.func.id == "range" else 0.15
    elif isinstance(parent, ast.Compare):
        weight = (
            0.4
            if all(isinstance(kind, ast.Lt | ast.LtE | ast.Gt | ast.GtE | ast.Eq) for kind in parent.ops)
            else 0.1
        )
    elif isinstance(parent, ast.Return | ast.Assign | ast.BinOp) and site.name in ("value", "left", "right"):
        weight = 0.15
    else:
        return
    text = site.segment() if tightness(node) >= SUM else f"({site.segment()})"
    yield site.replace(f"{text} + 1", weight, binds=SUM)
    yield site.replace(f"{text} - 1", weight, binds=SUM)


def bound(site: Site) -> Iterator[Proposal]:
    """Leave out one bound of a slice, or the first argument of range."""
    node = site.node
    if isinstance(node, ast.Slice):
        for part in (node.lower, node.upper, node.step):
            if part:
                yield *site.file.span(part), "", 0.25
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        if len(node.args) == 1:
            yield *site.file.span(node.args[0]), f"1, {site.segment(node.args[0])}", 0.4
        else:
            start, end = site.file.span(node.args[0])[0], site.file.span(node.args[1])[0]
            yield start, end, "", 0.4


def constant(site: Site) -> Iterator[Proposal]:
    """Off by one, sign, the other truth value, and the constants that the file has elsewhere."""
    node = site.node
    if not isinstance(node, ast.Constant) or isinstance(site.parent, ast.JoinedStr | ast.Expr):
        return
    value = node.value
    if isinstance(value, bool):
        yield site.replace(str(not value), 0.9)
        return
    if isinstance(value, int):
        for near, weight in (
            (value + 1, 0.8),
            (value - 1, 0.8),
            (0, 0.4),
            (1, 0.4),
            (-value, 0.4),
            (2, 0.25),
        ):
            yield site.replace(str(near), weight, binds=UNARY if near < 0 else ATOM)
        for far in (value * 10, value // 10, value * 2, value // 2):
            yield site.replace(str(far), 0.12, binds=UNARY if far < 0 else ATOM)
    elif isinstance(value, float):
        for number in (value + 1, value - 1, -value, value * 10, value / 10, 1 - value):
            yield site.replace(repr(round(number, 12)), 0.3, binds=UNARY if number < 0 else ATOM)
    elif isinstance(value, str):
        yield site.replace('""', 0.1)
    kinds: tuple[type, ...] = (int, float) if isinstance(value, int | float) else (type(value),)
    others = [
        (
            min(abs(line - node.lineno) for line in lines),
            repr(other) if not isinstance(other, str) else quoted(other),
        )
        for kind in kinds
        for other, lines in site.words.constants.get(kind, {}).items()
        if other != value
    ]
    for rank, (_, text) in enumerate(sorted(others)[:NEAREST_CONSTANTS]):
        yield site.replace(text, 0.3 - 0.02 * rank)
    if value is None:
        for text in ("0", "1", '""', "[]"):
            yield site.replace(text, 0.15)


def quoted(text: str) -> str:
    """A string constant with double quotes where it has none in it."""
    plain = '"' not in text and "\\" not in text and text.isprintable()
    return f'"{text}"' if plain else repr(text)


def logic(site: Site) -> Iterator[Proposal]:
    """`and` for `or`, and back."""
    node = site.node
    if isinstance(node, ast.BoolOp):
        for left, right in pairwise(node.values):
            start, end = operator_span(site, left, right)
            yield start, end, "and" if isinstance(node.op, ast.Or) else "or", 0.9


def negation(site: Site) -> Iterator[Proposal]:
    """A condition and its opposite; a number and its negative."""
    node, parent = site.node, site.parent
    if isinstance(node, ast.UnaryOp):
        inner = tightness(node.operand)
        weight = 0.9 if isinstance(node.op, ast.Not) else 0.5
        yield site.replace(site.segment(node.operand), weight, binds=inner)
        return
    opposite = f"not {site.segment()}" if tightness(node) > NOT else f"not ({site.segment()})"
    if not isinstance(node, ast.Compare):
        if site.name in CONDITION_FIELDS:
            yield site.replace(opposite, 0.7, binds=NOT)
        elif isinstance(parent, ast.BoolOp):
            yield site.replace(opposite, 0.4, binds=NOT)
        elif isinstance(parent, ast.Return) and isinstance(node, ast.BoolOp | NUMBER):
            yield site.replace(opposite, 0.2, binds=NOT)
    if isinstance(node, NUMBER) and site.name in NUMBER_FIELDS and not isinstance(parent, ast.Attribute):
        yield site.replace(f"-{site.segment()}", 0.2, binds=UNARY)


def exchange(site: Site) -> Iterator[Proposal]:
    """Two neighbouring arguments or elements in the other order; the two branches of a conditional."""
    node = site.node
    pairs: list[tuple[ast.expr, ast.expr, float]] = []
    if isinstance(node, ast.Call):
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        pairs = [(*pair, 0.7) for pair in pairwise(values)]
    elif isinstance(node, ast.Tuple | ast.List) and len(node.elts) <= 4:
        pairs = [(*pair, 0.4) for pair in pairwise(node.elts)]
    elif isinstance(node, ast.IfExp):
        pairs = [(node.body, node.orelse, 0.6)]
    elif isinstance(node, ast.DictComp):
        pairs = [(node.key, node.value, 0.4)]
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        pairs = [(node.left, node.comparators[0], 0.3)]
    for left, right, weight in pairs:
        start, end = site.file.span(left)[0], site.file.span(right)[1]
        middle = site.file.data[site.file.span(left)[1] : site.file.span(right)[0]].decode()
        if isinstance(left, ast.Starred) or isinstance(right, ast.Starred) or "(" in middle or ")" in middle:
            continue
        yield start, end, site.segment(right) + middle + site.segment(left), weight


def argument(site: Site) -> Iterator[Proposal]:
    """Leave out one argument of a call."""
    node = site.node
    if not isinstance(node, ast.Call):
        return
    parts: list[ast.expr | ast.keyword] = [*node.args, *node.keywords]
    for number, part in enumerate(parts):
        start, end = site.file.span(part)
        if number:
            start = site.file.span(parts[number - 1])[1]
        elif len(parts) > 1:
            end = site.file.span(parts[1])[0]
        between = (
            site.file.data[start : site.file.span(part)[0]] + site.file.data[site.file.span(part)[1] : end]
        )
        if b"(" not in between and b")" not in between:
            yield start, end, "", 0.35 if isinstance(part, ast.keyword) else 0.15


def empty(site: Site) -> Iterator[Proposal]:
    """Nothing, for a value that is given back: `None`."""
    if isinstance(site.parent, ast.Return) and not isinstance(site.node, ast.Constant):
        yield site.replace("None", 0.15)


EXPRESSION_OPERATORS = [
    comparison,
    arithmetic,
    grouping,
    operand,
    offset,
    bound,
    constant,
    logic,
    negation,
    exchange,
    argument,
    empty,
]

"""What an edit is, the place it is made at, and the list of all operators that propose edits.

The operators are those of mutation testing (Offutt et al., "An experimental determination of sufficient
mutant operators", TOSEM 1996). Python's own are those of Derezinska and Halas, 2014. They are used for repair
as in PraPR (Ghanbari, Benton and Zhang, ISSTA 2019), with the statement edits of GenProg (Le Goues et al.,
TSE 2012). A weight says how likely an edit of that kind is the repair, from 0 to 1. A one-token edit is tried
before a rewritten statement, as small patches are what developers write (Martinez and Monperrus, 2015).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kerai_client.solve.statements import SourceFile, Statement, Walked, own_expressions, walk
from kerai_client.solve.vocabulary import Vocabulary, local_names


@dataclass(frozen=True, slots=True)
class Mutation:
    """Replace the bytes `start` to `end` of a file by `text`."""

    operator: str
    start: int
    end: int
    text: str
    weight: float


Proposal = tuple[int, int, str, float]  # start, end, text, weight


@dataclass(slots=True)
class Place:
    """A statement with what can be used in it."""

    file: SourceFile
    words: Vocabulary
    statement: Statement
    locals: dict[str, None]


@dataclass(slots=True)
class Site(Place):
    """An expression in a statement."""

    node: ast.expr
    parent: ast.AST
    name: str  # of the parent's field

    def replace(self, text: str, weight: float, *, binds: int = 99) -> Proposal:
        """Put `text` in the expression's place; `binds` as in `tightness` of what the text is."""
        start, end = self.file.span(self.node)
        if binds < tightness_needed(self.parent, self.name) and not self._in_parentheses(start, end):
            text = f"({text})"
        return start, end, text, weight

    def _in_parentheses(self, start: int, end: int) -> bool:
        data = self.file.data
        return (
            data[:start].rstrip().endswith(b"(")
            and data[end:].lstrip().startswith(b")")
            and isinstance(self.parent, ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.Compare)
        )

    def segment(self, node: ast.expr | None = None) -> str:
        """The text of the expression, or of another."""
        return self.file.segment(node or self.node)


OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, ATOM = 1, 2, 3, 4, 5, 6, 7, 99


def tightness(node: ast.expr) -> int:
    """How tightly an expression binds its parts, after the table in Python's language reference 6.17."""
    if isinstance(node, ast.BoolOp):
        return OR if isinstance(node.op, ast.Or) else AND
    if isinstance(node, ast.UnaryOp):
        return NOT if isinstance(node.op, ast.Not) else UNARY
    if isinstance(node, ast.BinOp):
        return SUM if isinstance(node.op, ast.Add | ast.Sub) else PRODUCT
    if isinstance(node, ast.Compare):
        return COMPARE
    loose = isinstance(node, ast.IfExp | ast.Lambda | ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom)
    return 0 if loose else ATOM


def tightness_needed(parent: ast.AST, name: str) -> int:
    """How tightly the text in a field of `parent` must bind to stand there without parentheses."""
    if isinstance(parent, ast.BoolOp | ast.UnaryOp | ast.BinOp | ast.Compare):
        return tightness(parent) + 1
    if isinstance(parent, ast.Attribute | ast.Await | ast.Starred) or (name, type(parent)) in (
        ("value", ast.Subscript),
        ("func", ast.Call),
    ):
        return ATOM
    return AND if isinstance(parent, ast.IfExp | ast.comprehension | ast.FormattedValue) else 0


ExpressionOperator = Callable[[Site], Iterator[Proposal]]
StatementOperator = Callable[[Place], Iterator[Proposal]]


def propose(
    place: Place,
    expression_operators: Sequence[ExpressionOperator],
    statement_operators: Sequence[StatementOperator],
) -> list[Mutation]:
    """All edits of one statement, each once, in a fixed order."""
    found: dict[tuple[int, int, str], Mutation] = {}

    def add(operator: Callable[..., Iterator[Proposal]], proposals: Iterator[Proposal]) -> None:
        for start, end, text, weight in proposals:
            key = (start, end, text)
            if place.file.data[start:end].decode(errors="replace") == text:
                continue
            if key not in found or found[key].weight < weight:
                found[key] = Mutation(operator.__name__, start, end, text, weight)

    for root, parent, name in own_expressions(place.statement.node):
        for walked in walk(root, parent, name):
            site = site_of(place, walked)
            if site:
                for operator in expression_operators:
                    add(operator, operator(site))
    for change in statement_operators:
        add(change, change(place))
    return list(found.values())


def site_of(place: Place, walked: Walked) -> Site | None:
    """The place of an expression, or None when its position cannot be trusted."""
    if isinstance(getattr(walked.node, "ctx", None), ast.Del):
        return None
    if walked.in_string and not place.file.is_where_it_says(walked.node):
        return None
    return Site(
        place.file, place.words, place.statement, place.locals, walked.node, walked.parent, walked.name
    )


def place_of(file: SourceFile, words: Vocabulary, statement: Statement) -> Place:
    """A statement with what can be used in it."""
    return Place(file, words, statement, local_names(statement))

"""Operators that edit whole statements: delete, duplicate, move, copy from elsewhere, return."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from kerai_client.solve.expressions import ARITHMETIC
from kerai_client.solve.mutations import Place, Proposal
from kerai_client.solve.statements import is_docstring

SIMPLE = (
    ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr | ast.Return | ast.Raise | ast.Delete | ast.Assert
)
JUMPS = (ast.Break, ast.Continue, ast.Pass)
MOST_DONORS = 40  # statements of the file that are tried in one place


def deletion(place: Place) -> Iterator[Proposal]:
    """Without this statement."""
    node, block = place.statement.node, place.statement.block
    if (
        not isinstance(node, ast.stmt)
        or is_docstring(node)
        or isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Pass)
    ):
        return
    lines = place.file.whole_lines(node)
    if lines and len(block) > 1:
        yield *lines, "", 0.35
    else:
        yield *place.file.span(node), "pass", 0.35


def duplication(place: Place) -> Iterator[Proposal]:
    """This statement twice."""
    node = place.statement.node
    if isinstance(node, ast.AugAssign | ast.Assign | ast.Expr) and not is_docstring(node):
        lines = place.file.whole_lines(node)
        if lines:
            text = complete_lines(place, lines)
            yield *lines, text + text, 0.12


def complete_lines(place: Place, lines: tuple[int, int]) -> str:
    """The text of whole lines, with a line end also at the end of the file."""
    text = place.file.data[lines[0] : lines[1]].decode()
    return text if text.endswith(("\n", "\r")) else text + place.file.newline


def augmented(place: Place) -> Iterator[Proposal]:
    """Another operator in `a += b`, none in place of one, one in place of none."""
    node, data = place.statement.node, place.file.data
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        start = place.file.span(node.target)[1]
        start += len(data[start:]) - len(data[start:].lstrip())
        sign, others = ARITHMETIC[type(node.op)]
        end = start + len(sign) + 1
        for text, weight in others.items():
            yield start, end, f"{text}=", weight
        yield start, end, "=", 0.5
    elif (
        isinstance(node, ast.Assign) and len(node.targets) == 1 and not isinstance(node.targets[0], ast.Tuple)
    ):
        start = data.find(b"=", place.file.span(node.targets[0])[1])
        for text in ("+=", "-="):
            yield start, start + 1, text, 0.35


def jump(place: Place) -> Iterator[Proposal]:
    """`break` for `continue`, and so on."""
    node = place.statement.node
    if isinstance(node, JUMPS):
        for text in ("break", "continue", "pass", "return"):
            yield *place.file.span(node), text, 0.6


def missing_return(place: Place) -> Iterator[Proposal]:
    """Give back a value that is computed and lost, or the variable that a function has built."""
    statement = place.statement
    node, functions = statement.node, statement.functions
    if not functions:
        return
    if isinstance(node, ast.Expr) and not is_docstring(node):
        start, _ = place.file.span(node)
        yield start, start, "return ", 0.7
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        start, _ = place.file.span(node)
        yield start, place.file.span(node.value)[0], "return ", 0.3
    if (
        isinstance(node, ast.stmt)
        and node is functions[-1].body[-1]
        and not isinstance(node, ast.Return | ast.Raise)
    ):
        yield from last_return(place, node)
    if isinstance(node, ast.Return) and node.value:
        start, end = place.file.span(node)
        for rank, name in enumerate(place.locals):
            yield start, end, f"return {name}", max(0.1, 0.3 - 0.02 * rank)


def last_return(place: Place, node: ast.stmt) -> Iterator[Proposal]:
    """`return x` after the last statement of a function, for each variable that it has bound."""
    lines = place.file.whole_lines(node)
    if lines:
        text = complete_lines(place, lines)
        for name in place.locals:
            addition = f"{place.file.indentation(node)}return {name}{place.file.newline}"
            yield *lines, text + addition, 0.4


def order(place: Place) -> Iterator[Proposal]:
    """This statement after the one that follows it."""
    node, block = place.statement.node, place.statement.block
    if not isinstance(node, ast.stmt) or node not in block or block[-1] is node:
        return
    following = block[block.index(node) + 1]
    one, two = place.file.whole_lines(node), place.file.whole_lines(following)
    if one and two and not is_docstring(node):
        between = place.file.data[one[1] : two[0]].decode()
        yield one[0], two[1], complete_lines(place, two) + between + complete_lines(place, one), 0.25


def indentation(place: Place) -> Iterator[Proposal]:
    """The last statement of a block moved out of it, and the statement after a block moved into it."""
    node, block = place.statement.node, place.statement.block
    if not isinstance(node, ast.stmt):
        return
    last = inner_last(node)
    if last and last is not node:
        lines = place.file.whole_lines(last)
        if lines and last.end_lineno == node.end_lineno:
            text = complete_lines(place, lines)
            yield *lines, shifted(text, place.file.indentation(last), place.file.indentation(node)), 0.5
    if block[-1] is not node:
        following = block[block.index(node) + 1] if node in block else None
        lines = place.file.whole_lines(following) if following else None
        if following and lines and last:
            text = complete_lines(place, lines)
            yield *lines, shifted(text, place.file.indentation(following), place.file.indentation(last)), 0.4


def inner_last(node: ast.stmt) -> ast.stmt | None:
    """The last statement in a loop, condition or with statement, when it stands in its own block."""
    if isinstance(node, ast.For | ast.While | ast.If | ast.With | ast.AsyncFor | ast.AsyncWith):
        block = getattr(node, "orelse", None) or node.body
        first = block[0]
        if first.lineno > node.lineno and not (
            isinstance(node, ast.If) and isinstance(first, ast.If) and node.orelse
        ):
            return block[-1]
    return None


def shifted(text: str, old: str, new: str) -> str:
    """Lines with another indentation."""
    return "".join(
        new + line[len(old) :] if line.startswith(old) else line for line in text.splitlines(keepends=True)
    )


def donor(place: Place) -> Iterator[Proposal]:
    """A simple statement from elsewhere in the file, in this one's place, before it, or after it."""
    node, functions = place.statement.node, place.statement.functions
    if not isinstance(node, ast.stmt) or not functions or is_docstring(node):
        return
    lines = place.file.whole_lines(node)
    if not lines:
        return
    seen = set(place.locals) | set(place.words.module_names) | set(dir(builtins))
    texts: dict[str, float] = {}
    nearest = sorted(place.file.statements, key=lambda other: abs(other.node.lineno - node.lineno))
    for other in nearest:
        material = other.node
        if (
            not isinstance(material, SIMPLE)
            or is_docstring(material)
            or material is node
            or not other.functions
        ):
            continue
        if {
            part.id
            for part in ast.walk(material)
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
        } <= seen:
            texts.setdefault(place.file.segment(material), 1.0 if other.functions[0] is functions[0] else 0.7)
    indent, newline = place.file.indentation(node), place.file.newline
    whole = complete_lines(place, lines)
    for text, weight in list(texts.items())[:MOST_DONORS]:
        if isinstance(node, SIMPLE):
            yield *place.file.span(node), text, 0.14 * weight
        yield lines[0], lines[0], f"{indent}{text}{newline}", 0.13 * weight
        yield *lines, f"{whole}{indent}{text}{newline}", 0.1 * weight


STATEMENT_OPERATORS = [
    deletion,
    duplication,
    augmented,
    jump,
    missing_return,
    order,
    indentation,
    donor,
]

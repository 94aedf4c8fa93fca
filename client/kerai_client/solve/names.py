"""Operators that put one name in another's place: variables, attributes, methods, functions."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from kerai_client.solve.mutations import Proposal, Site, tightness
from kerai_client.solve.vocabulary import likeness

CONFUSED = [  # names that stand for neighbouring operations; each is tried for each other of its line
    ("min", "max"),
    ("any", "all"),
    ("sum", "len", "max", "min"),
    ("floor", "ceil", "trunc", "round"),
    ("int", "round", "float"),
    ("list", "tuple", "set", "sorted"),
    ("sorted", "reversed"),
    ("append", "extend", "add", "insert"),
    ("add", "discard", "remove", "update"),
    ("strip", "lstrip", "rstrip"),
    ("startswith", "endswith"),
    ("removeprefix", "removesuffix"),
    ("ljust", "rjust", "center", "zfill"),
    ("upper", "lower", "title", "capitalize", "casefold", "swapcase"),
    ("split", "rsplit"),
    ("partition", "rpartition"),
    ("find", "rfind", "index", "rindex"),
    ("isdigit", "isalpha", "isalnum", "isdecimal"),
    ("keys", "values", "items"),
    ("union", "intersection", "difference", "symmetric_difference"),
    ("issubset", "issuperset", "isdisjoint"),
    ("pop", "popleft"),
    ("append", "appendleft"),
    ("sort", "reverse"),
    ("bisect_left", "bisect_right"),
    ("insort_left", "insort_right"),
    (
        "ROUND_HALF_UP",
        "ROUND_HALF_EVEN",
        "ROUND_HALF_DOWN",
        "ROUND_DOWN",
        "ROUND_UP",
        "ROUND_FLOOR",
        "ROUND_CEILING",
    ),
    ("weekday", "isoweekday"),
    ("seconds", "total_seconds"),
    ("search", "match", "fullmatch"),
    ("get", "setdefault", "pop"),
    ("ValueError", "KeyError", "TypeError", "IndexError", "LookupError"),
]
NEIGHBOURS: dict[str, list[str]] = {}
for _group in CONFUSED:
    for _name in _group:
        NEIGHBOURS.setdefault(_name, []).extend(other for other in _group if other != _name)


def variable(site: Site) -> Iterator[Proposal]:
    """Another variable that can be seen from here, look-alikes first."""
    node = site.node
    if not isinstance(node, ast.Name) or is_called(site):
        return
    for rank, name in enumerate(site.locals):
        if name != node.id:
            yield site.replace(name, 0.3 + 0.25 * likeness(name, node.id) - 0.004 * min(rank, 25))
    if isinstance(node.ctx, ast.Store):
        return
    for name in site.words.module_names:
        if name not in site.locals and name != node.id and name[:1].isupper() == node.id[:1].isupper():
            yield site.replace(name, 0.1 + 0.25 * likeness(name, node.id))
    for name in NEIGHBOURS.get(node.id, []):
        yield site.replace(name, 0.4)
    if node.id in site.words.of_base.get("self", {}) and "self" in site.locals:
        yield site.replace(f"self.{node.id}", 0.5)
    for name in site.words.of_base.get(node.id, {}):
        yield site.replace(f"{node.id}.{name}", 0.12)


def function(site: Site) -> Iterator[Proposal]:
    """Another function in a call: one that is often mistaken for it, or one that the file calls."""
    node = site.node
    if not isinstance(node, ast.Name) or not is_called(site):
        return
    neighbours = NEIGHBOURS.get(node.id, [])
    for name in neighbours:
        if hasattr(builtins, name) or name in site.words.module_names:
            yield site.replace(name, 0.85)
    for name in site.words.called:
        if name != node.id and name not in neighbours:
            yield site.replace(name, 0.1 + 0.25 * likeness(name, node.id))


def attribute(site: Site) -> Iterator[Proposal]:
    """Another attribute or method among those of the file, those of the same object first."""
    node = site.node
    if not isinstance(node, ast.Attribute):
        return
    end = site.file.span(node)[1]
    start = end - len(node.attr.encode())
    known = site.words.methods if is_called(site) else site.words.attributes
    kin = site.words.kin.get(node.attr, {})
    neighbours = NEIGHBOURS.get(node.attr, [])
    for name in neighbours:
        yield start, end, name, 0.85 if is_called(site) else 0.6
    if is_called(site):
        for name in siblings(node.attr):
            yield start, end, name, 0.15
    for name in known:
        if name != node.attr and name not in neighbours:
            yield start, end, name, (0.45 if name in kin else 0.12) + 0.25 * likeness(name, node.attr)
    if isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in site.locals:
        yield site.replace(node.attr, 0.5)
    if not is_called(site) and isinstance(node.ctx, ast.Load):
        yield site.replace(site.segment(node.value), 0.1)


def siblings(method: str) -> list[str]:
    """Methods of the built-in containers that have this one."""
    found: dict[str, None] = {}
    for kind in (list, dict, set):
        if hasattr(kind, method):
            found.update((name, None) for name in vars(kind) if not name.startswith("_") and name != method)
    return list(found)


def wrapping(site: Site) -> Iterator[Proposal]:
    """A call around a value, or a value without the call around it."""
    node = site.node
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and len(node.args) >= 1:
            yield site.replace(site.segment(node.args[0]), 0.3, binds=tightness(node.args[0]))
        if isinstance(node.func, ast.Attribute):
            yield site.replace(site.segment(node.func.value), 0.25)
    if isinstance(getattr(node, "ctx", None), ast.Store) or isinstance(
        node, ast.Constant | ast.Slice | ast.Starred
    ):
        return
    if site.name not in ("value", "args", "iter", "left", "right", "comparators") or is_called(site):
        return
    if isinstance(site.parent, ast.Attribute | ast.Subscript | ast.Expr | ast.JoinedStr | ast.FormattedValue):
        return
    text = site.segment()
    for name in dict.fromkeys([*site.words.one_argument, "sorted", "list", "set", "abs", "len", "reversed"]):
        yield site.replace(f"{name}({text})", 0.12 if name in site.words.one_argument else 0.08)
    if isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
        for name in dict.fromkeys([*site.words.methods, "strip", "lower", "copy"]):
            yield site.replace(f"{text}.{name}()", 0.06)


def is_called(site: Site) -> bool:
    """Whether the expression is the function of a call."""
    return isinstance(site.parent, ast.Call) and site.name == "func"


NAME_OPERATORS = [variable, function, attribute, wrapping]

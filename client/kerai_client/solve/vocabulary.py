"""The names and constants that one file uses, as material for edits."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache

from kerai_client.solve.statements import FunctionNode, SourceFile, Statement, is_docstring

LONGEST_TEXT = 60  # characters of a string constant worth trying elsewhere


@dataclass(slots=True)
class Vocabulary:
    """What a file offers to put in another place. Everything is in the order of the text, so runs repeat."""

    module_names: dict[str, None] = field(default_factory=dict)  # bound by the module itself
    called: dict[str, None] = field(default_factory=dict)  # names that are called
    one_argument: dict[str, None] = field(default_factory=dict)  # names called with one argument
    methods: dict[str, None] = field(default_factory=dict)  # attributes that are called
    attributes: dict[str, None] = field(default_factory=dict)  # attributes that are not
    of_base: dict[str, dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict)
    )  # object -> its own
    kin: dict[str, dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict)
    )  # attributes of one object
    constants: dict[type, dict[object, list[int]]] = field(default_factory=lambda: defaultdict(dict))


def read_vocabulary(file: SourceFile) -> Vocabulary:
    """Collect the vocabulary of a file."""
    words = Vocabulary()
    words.module_names = bound_names(file.tree.body)
    docstrings = {
        id(node.value) for node in ast.walk(file.tree) if isinstance(node, ast.Expr) and is_docstring(node)
    }
    functions: set[int] = set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call):
            functions.add(id(node.func))
            if isinstance(node.func, ast.Name):
                words.called[node.func.id] = None
                if len(node.args) == 1 and not node.keywords:
                    words.one_argument[node.func.id] = None
        elif isinstance(node, ast.Attribute):
            (words.methods if id(node) in functions else words.attributes)[node.attr] = None
            words.of_base[ast.unparse(node.value)][node.attr] = None
        elif isinstance(node, ast.ClassDef):
            for name in class_fields(node):
                words.attributes[name] = None
                words.of_base["self"][name] = None
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            if isinstance(node.value, str) and len(node.value) > LONGEST_TEXT:
                continue
            words.constants[type(node.value)].setdefault(node.value, []).append(node.lineno)
    for together in words.of_base.values():
        for name in together:
            words.kin[name].update(together)
    return words


def bound_names(block: list[ast.stmt]) -> dict[str, None]:
    """Names that a block binds, not looking into functions and classes defined there."""
    names: dict[str, None] = {}
    waiting: list[ast.AST] = list(reversed(block))
    while waiting:
        node = waiting.pop()
        if isinstance(node, FunctionNode | ast.ClassDef):
            names[node.name] = None
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = None
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names[node.name] = None
        elif isinstance(node, ast.Lambda):
            continue
        waiting.extend(reversed(list(ast.iter_child_nodes(node))))
    return names


def class_fields(node: ast.ClassDef) -> list[str]:
    """Attributes that a class body declares: its variables and decorated functions."""
    methods = {part.name for part in node.body if isinstance(part, FunctionNode) and not part.decorator_list}
    return [name for name in bound_names(node.body) if name not in methods]


def parameters(function: FunctionNode) -> dict[str, None]:
    """Names of a function's parameters."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    listed += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    return {argument.arg: None for argument in listed}


def local_names(statement: Statement) -> dict[str, None]:
    """Parameters and variables of the functions around a statement, the innermost first."""
    names: dict[str, None] = {}
    for function in reversed(statement.functions):
        names |= parameters(function) | bound_names(function.body)
    return names


@lru_cache(maxsize=100_000)
def likeness(one: str, other: str) -> float:
    """How much two identifiers look alike, 0 to 1 (Ratcliff and Obershelp)."""
    return SequenceMatcher(None, one, other, autojunk=False).ratio()

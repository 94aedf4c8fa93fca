"""Which grammar reads which files. Adding a language is one line in :data:`GRAMMARS`."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from tree_sitter import Language, Parser


class Grammar(NamedTuple):
    """A tree-sitter grammar: the files it reads, and the package and function that hold it."""

    suffixes: tuple[str, ...]
    module: str
    function: str = "language"


GRAMMARS: dict[str, Grammar] = {
    "python": Grammar((".py", ".pyi", ".pyw"), "tree_sitter_python"),
    "javascript": Grammar((".js", ".jsx", ".mjs", ".cjs"), "tree_sitter_javascript"),
    "typescript": Grammar((".ts", ".mts", ".cts"), "tree_sitter_typescript", "language_typescript"),
    "tsx": Grammar((".tsx",), "tree_sitter_typescript", "language_tsx"),
    "rust": Grammar((".rs",), "tree_sitter_rust"),
    "go": Grammar((".go",), "tree_sitter_go"),
    "c": Grammar((".c", ".h"), "tree_sitter_c"),
    "java": Grammar((".java",), "tree_sitter_java"),
}

_BY_SUFFIX = {suffix: name for name, grammar in GRAMMARS.items() for suffix in grammar.suffixes}

# Nodes that list statements, members or variants between delimiters (or by indentation). The names are
# those that grammars share, so that a new grammar needs no list of its own.
BLOCK = re.compile(
    r"^(?!(async|unsafe|const|gen|try|class_static|record_pattern)_)"
    r"(.*_)?(block|body|compound_statement|declaration_list|variant_list|enumerator_list|spec_list"
    r"|enum_body_declarations)$"
)
# Nodes that hold their statements directly, after a label or a directive.
LABELLED = re.compile(
    r"^((.*_)?(case|case_statement|switch_default|statement_group)|preproc_(if|ifdef|else|elif|elifdef))$"
)


class Reader(NamedTuple):
    """A loaded grammar: its parser, and the numbers of the node kinds that hold statements."""

    parser: Parser
    holders: frozenset[int]


def language_of(name: str) -> str | None:
    """Return the language of a file by the suffix of its ``name``, None when no grammar reads it."""
    return _BY_SUFFIX.get(PurePosixPath(name).suffix.lower())


@cache
def reader(language: str) -> Reader | None:
    """Load the grammar of ``language``; None when there is none or its package is not installed."""
    grammar = GRAMMARS.get(language)
    if grammar is None:
        return None
    try:
        module = importlib.import_module(grammar.module)
    except ImportError:
        return None
    loaded = Language(getattr(module, grammar.function)())
    holders = set()
    for number in range(loaded.node_kind_count):
        kind = loaded.node_kind_for_id(number)
        if kind and loaded.node_kind_is_named(number) and (BLOCK.match(kind) or LABELLED.match(kind)):
            holders.add(number)
    return Reader(Parser(loaded), frozenset(holders))

"""Which parts of a syntax tree become nodes: the statements within a statement, and its own text.

Nothing here knows a language. The rules rest on the names that tree-sitter grammars share (``block``,
``class_body``, ``else_clause``, ``function_definition`` …), see also :mod:`.languages`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tree_sitter import Node

from kerai_client.source.syntax.languages import LABELLED

# What stands above the statement that it belongs to, as a sibling of it.
LEADING = re.compile(r"^(attribute_item|decorator)$")
# A part of a statement that is a container itself: it comes and goes, and moves, as one.
CLAUSE = re.compile(r".*(_clause|_arm|_rule|case|case_statement|switch_default|statement_group)$|preproc_el")
MEMBER = re.compile(r"^(method_definition|pair|enum_constant)$")
DEFINES = re.compile(
    r"definition|declaration|declarator|_item$|_spec(ifier)?$|assignment|pair$|method|class|function"
    r"|module|namespace|enum|constructor|record"
)
# Containers even when they stand on one line, because they have a name that others use.
NAMED = re.compile(
    r"(function|class|method|struct|enum|union|interface|trait|constructor|record|annotation_type)"
    r".*(definition|declaration|item|specifier)|^(impl_item|mod_item|internal_module|decorated_definition)$"
)
WRAPPER = re.compile(r"^(decorated_definition|export_statement|expression_statement|ambient_declaration)$")
_LABEL_FIELDS = frozenset({"name", "condition", "value"})
# Nodes within a block that only list its statements.
_LISTS = frozenset({"statement_list", "enum_body_declarations"})
# Tokens that belong to the statement before them.
_SEPARATORS = frozenset({",", ";"})
_MAX_NAME_BYTES = 200


@dataclass(slots=True)
class Core:
    """A part of a statement: a statement within it (``node``), or a stretch of its own tokens (None), which
    may follow a statement (``closing``) or hold a syntax error (``broken``)."""

    start: int
    end: int
    node: Node | None = None
    closing: bool = False
    broken: bool = False


class Parts(NamedTuple):
    """A statement taken apart: its cores in order, and the comments and attributes between them."""

    cores: list[Core]
    comments: list[Node]


def is_definition(node: Node) -> bool:
    """Whether a statement defines something with a name and a body."""
    return NAMED.search(node.type) is not None or (
        WRAPPER.match(node.type) is not None
        and any(NAMED.search(child.type) for child in node.named_children)
    )


def flatten(node: Node, kinds: frozenset[int], holds: Callable[[Node], bool], root: bool = False) -> Parts:
    """Take a statement apart.

    :param node: the statement (or, with ``root``, the file).
    :param kinds: the node kinds that hold statements, by number.
    :param holds: whether such a node lies within a node.
    """
    cores: list[Core] = []
    between: list[Node] = []
    glue: Core | None = None
    # Each entry is a node and what to do with it; children go on the stack in reverse order.
    stack: list[tuple[Node, str]] = []

    def expand(parent: Node, top: bool) -> None:
        stack.extend(reversed(_parts(parent, kinds, holds, top, root and top)))

    expand(node, True)
    while stack:
        part, role = stack.pop()
        if role == "between":
            between.append(part)
        elif role == "inside":
            expand(part, False)
        elif role == "statement":
            if part.end_byte > part.start_byte:
                cores.append(Core(part.start_byte, part.end_byte, part))
                glue = None
        elif part.end_byte > part.start_byte and (glue is not None or part.type not in _SEPARATORS):
            if glue is None:
                glue = Core(part.start_byte, part.end_byte, None, bool(cores))
                cores.append(glue)
            else:
                glue.end = part.end_byte
            glue.broken |= part.has_error
    return Parts(cores, between)


def _parts(
    parent: Node, kinds: frozenset[int], holds: Callable[[Node], bool], top: bool, root: bool
) -> list[tuple[Node, str]]:
    """Say of each child of ``parent`` whether it is a statement, a token, a comment, or to be looked into."""
    children = parent.children
    labelled = LABELLED.match(parent.type) is not None
    listing = root or parent.type in _LISTS
    block = listing or (parent.kind_id in kinds and not labelled)
    first_statement = _after_label(parent, children) if labelled else 0
    parts: list[tuple[Node, str]] = []
    last = len(children) - 1
    for index, child in enumerate(children):
        among = block or (labelled and index >= first_statement)
        if child.is_error:
            parts.append((child, "statement" if among else "token"))
        elif child.is_extra or "comment" in child.type or LEADING.match(child.type):
            parts.append((child, "between"))
        elif among:
            if child.is_named:
                parts.append((child, "inside" if child.type in _LISTS else "statement"))
            elif not listing and (labelled or index in (0, last)):
                parts.append((child, "token"))
        elif labelled or not holds(child):
            parts.append((child, "token"))
        elif CLAUSE.match(child.type) or MEMBER.match(child.type):
            parts.append((child, "statement"))
        else:
            parts.append((child, "inside"))
    return parts


def _after_label(parent: Node, children: list[Node]) -> int:
    """Return the index of the first statement of a node that begins with a label or a directive."""
    first = 1
    for index, child in enumerate(children):
        if child.type in (":", "->", "\n") and not child.is_named:
            first = index + 1
        elif parent.field_name_for_child(index) in _LABEL_FIELDS:
            first = max(first, index + 1)
    return first


def name_and_kind(
    node: Node, data: bytes, kinds: frozenset[int], holds: Callable[[Node], bool]
) -> tuple[str | None, str]:
    """Return the name that a container defines, if any, and its kind: that of what it wraps, or its own."""
    path = [node]
    while path[-1].kind_id not in kinds:
        inner = next(
            (child for child in path[-1].named_children if not child.is_error and holds(child)), None
        )
        if inner is None or len(path) > 8:
            break
        path.append(inner)
    kind = node.type
    if len(path) > 1 and WRAPPER.match(kind) and DEFINES.search(path[1].type):
        kind = path[1].type
    for part in path:
        if part.type.endswith("_statement") or not DEFINES.search(part.type):
            continue
        named = _name_node(part)
        if named is None:
            continue
        text = data[named.start_byte : named.end_byte]
        if part.type == "impl_item" and (trait := part.child_by_field_name("trait")) is not None:
            text = data[trait.start_byte : trait.end_byte] + b" for " + text
        if text and len(text) <= _MAX_NAME_BYTES and b"\n" not in text:
            return text.decode("utf-8"), kind
    return None, kind


def _name_node(node: Node) -> Node | None:
    for field in ("name", "declarator", "property", "key", "left"):
        named = node.child_by_field_name(field)
        if named is None:
            continue
        while (inner := named.child_by_field_name("declarator")) is not None:
            named = inner
        return named.child_by_field_name("name") or named
    return node.child_by_field_name("type") if node.type == "impl_item" else None

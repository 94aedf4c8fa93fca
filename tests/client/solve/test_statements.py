"""Statements, their lines and positions."""

from __future__ import annotations

import ast

import pytest

from kerai_client.solve.statements import NotPython, SourceFile


def own_lines(source: str) -> list[tuple[str, list[int]]]:
    file = SourceFile("example.py", source.encode())
    return [(type(statement.node).__name__, sorted(statement.lines)) for statement in file.statements]


def test_own_lines_leave_out_those_of_inner_statements() -> None:
    source = (
        "def f(\n    a,\n):\n"
        "    if (a and\n            a):\n        return [\n            1]\n    else:\n        pass\n"
        "    try:\n        a()\n    except (ValueError,\n            KeyError):\n        pass\n"
    )
    assert own_lines(source) == [
        ("FunctionDef", [1, 2, 3]),
        ("If", [4, 5]),
        ("Return", [6, 7]),
        ("Pass", [9]),
        ("Try", [10]),
        ("Expr", [11]),
        ("ExceptHandler", [12, 13]),
        ("Pass", [14]),
    ]


def test_decorators_and_match() -> None:
    match = "        match self:\n            case 1:\n                return 2\n"
    source = f"class A:\n    @property\n    def f(self):\n{match}"
    assert own_lines(source) == [
        ("ClassDef", [1]),
        ("FunctionDef", [3]),
        ("Match", [4]),
        ("Return", [6]),
    ]


def test_at_import() -> None:
    file = SourceFile("example.py", b"x = 1\nclass A:\n    y = 2\n    def f(self):\n        z = 3\n")
    found = {ast.unparse(s.node): s.at_import for s in file.statements if isinstance(s.node, ast.Assign)}
    assert found == {"x = 1": True, "y = 2": True, "z = 3": False}


@pytest.mark.parametrize(
    "data",
    [b"x = (", b"\xff\xfe", b"# coding: latin-1\nx = '\xe4'\n", b"x = 1\x00", b"\x80 = 1"],
    ids=["syntax", "utf-16", "latin-1", "nul", "not utf-8"],
)
def test_refuses_what_is_not_python_in_utf_8(data: bytes) -> None:
    with pytest.raises(NotPython, match="example"):
        SourceFile("example.py", data)


def test_segments_and_lines_of_offsets() -> None:
    file = SourceFile("example.py", "ä = 1\nß = ä + 2\n".encode())
    node = file.statements[1].node
    assert isinstance(node, ast.Assign)
    assert file.segment(node.value) == "ä + 2"
    start, end = file.span(node)
    assert (file.line_of(start), file.line_of(0), file.line_of(end)) == (2, 1, 2)
    assert file.edited(start, end, "pass") == "ä = 1\npass\n".encode()


def test_whole_lines() -> None:
    file = SourceFile("example.py", b"a = 1; b = 2\nc = 3  # why\nif c: d = 4\ne = 5")
    found = {
        ast.unparse(s.node): file.whole_lines(s.node)
        for s in file.statements
        if isinstance(s.node, ast.Assign)
    }
    assert found == {"a = 1": None, "b = 2": None, "c = 3": (13, 26), "d = 4": None, "e = 5": (38, 43)}

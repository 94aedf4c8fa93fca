"""Each operator's edits, as whole texts: what is proposed, and that nothing else of the file changes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from kerai_client.solve import expressions, names, rewriting
from kerai_client.solve.expressions import EXPRESSION_OPERATORS
from kerai_client.solve.mutations import Mutation, place_of, propose
from kerai_client.solve.names import NAME_OPERATORS
from kerai_client.solve.rewriting import STATEMENT_OPERATORS
from kerai_client.solve.statements import SourceFile
from kerai_client.solve.vocabulary import read_vocabulary

REPOSITORY = Path(__file__).parents[3]


def proposals(file: SourceFile) -> list[Mutation]:
    """Every edit of every statement of a file."""
    words = read_vocabulary(file)
    return [
        mutation
        for statement in file.statements
        for mutation in propose(
            place_of(file, words, statement), EXPRESSION_OPERATORS + NAME_OPERATORS, STATEMENT_OPERATORS
        )
    ]


def results(source: str, operator: str) -> set[str]:
    """The texts that one operator makes of a source."""
    file = SourceFile("example.py", source.encode())
    return {
        file.edited(mutation.start, mutation.end, mutation.text).decode()
        for mutation in proposals(file)
        if mutation.operator == operator
    }


def lines(source: str, operator: str) -> set[str]:
    """The same for a source of one line in a function: only that line, without its indentation."""
    found = results(f"def f(a, b, c):\n    {source}\n", operator)
    return {text.removeprefix("def f(a, b, c):\n    ").removesuffix("\n") for text in found}


@pytest.mark.parametrize(
    ("operator", "source", "wanted"),
    [
        ("comparison", "return a < b", {"return a <= b", "return a > b", "return a >= b", "return a != b"}),
        ("comparison", "return a < b <= c", {"return a <= b <= c", "return a < b < c"}),
        ("comparison", "return a is not None", {"return a is None"}),
        ("comparison", "return a not   in b", {"return a in b"}),
        ("comparison", "return (a) == (b)", {"return (a) != (b)"}),
        ("arithmetic", "return a + b", {"return a - b", "return a * b"}),
        ("arithmetic", "return (a) // (b)", {"return (a) / (b)", "return (a) % (b)"}),
        ("grouping", "return a + b * c", set()),
        ("grouping", "return a - b - c", {"return a - (b - c)"}),
        ("grouping", "return a * (b + c)", {"return a * b + c"}),
        ("operand", "return a + 1", {"return a", "return 1", "return 1 + a"}),
        ("operand", "return a - b", {"return b - a"}),
        ("operand", "return a and b", {"return a", "return b"}),
        ("operand", "return c * (a + b)", {"return c * (a)", "return c * (b)"}),
        ("offset", "return a[b]", {"return a[b + 1]", "return a[b - 1]"}),
        ("offset", "return a[b:c]", {"return a[b + 1:c]", "return a[b:c - 1]"}),
        ("offset", "return list(range(a))", {"return list(range(a + 1))", "return list(range(a - 1))"}),
        ("offset", "return a * b", {"return (a + 1) * b", "return a * (b - 1)"}),
        ("bound", "return a[1:b]", {"return a[:b]", "return a[1:]"}),
        ("bound", "return range(a)", {"return range(1, a)"}),
        ("bound", "return range(1, a)", {"return range(a)"}),
        ("constant", "return a + 1", {"return a + 2", "return a + 0", "return a + -1"}),
        ("constant", "return True", {"return False"}),
        ("constant", "return (a == 'x', 'y')", {"return (a == \"y\", 'y')", "return (a == 'x', \"x\")"}),
        ("logic", "return a and b or c", {"return a or b or c", "return a and b and c"}),
        ("negation", "return 1 if a else 2", {"return 1 if not a else 2"}),
        ("negation", "return 1 if not a else 2", {"return 1 if a else 2"}),
        ("negation", "return a and b", {"return not a and b", "return a and not b"}),
        ("negation", "return -a", {"return a"}),
        ("negation", "return a - b", {"return -a - b"}),
        ("exchange", "return f(a, b, c)", {"return f(b, a, c)", "return f(a, c, b)"}),
        ("exchange", "return a, b", {"return b, a"}),
        ("exchange", "return a if c else b", {"return b if c else a"}),
        ("argument", "return f(a, b, c=c)", {"return f(b, c=c)", "return f(a, c=c)", "return f(a, b)"}),
        ("empty", "return a", {"return None"}),
        ("variable", "return a", {"return b", "return c"}),
        ("function", "return min(a, b)", {"return max(a, b)"}),
        ("attribute", "return a.lower() + b.upper()", {"return a.upper() + b.upper()"}),
        ("attribute", "return a.start - b.end", {"return a.end - b.end", "return a.start - b.start"}),
        ("attribute", "a.sort()", {"a.reverse()"}),
        ("wrapping", "return a.strip()", {"return a"}),
        ("wrapping", "return f(a, b)", {"return a"}),
        ("wrapping", "return len(a) + b", {"return len(a) + len(b)", "return a + b"}),
        ("augmented", "a += b", {"a -= b", "a = b"}),
        ("augmented", "a //= b", {"a /= b"}),
        ("augmented", "a = b", {"a += b"}),
        ("missing_return", "a + b", {"return a + b"}),
        ("missing_return", "return a", {"return b"}),
        ("deletion", "a.clear()", {"pass"}),
    ],
)
def test_proposes(operator: str, source: str, wanted: set[str]) -> None:
    found = lines(source, operator)
    assert found >= wanted
    assert found == set() if not wanted else source not in found


def test_delete_duplicate_and_exchange_statements() -> None:
    source = "def f(a):\n    a.x()  # one\n    a.y(\n        1)\n    return a\n"
    assert "def f(a):\n    a.x()  # one\n    return a\n" in results(source, "deletion")
    assert "def f(a):\n    a.x()  # one\n    a.x()  # one\n    a.y(\n        1)\n    return a\n" in results(
        source, "duplication"
    )
    assert "def f(a):\n    a.y(\n        1)\n    a.x()  # one\n    return a\n" in results(source, "order")


def test_statement_from_elsewhere() -> None:
    source = "def f(a):\n    a.x()\n    return a\n\n\ndef g(a):\n    a.y()\n"
    found = results(source, "donor")
    assert "def f(a):\n    a.x()\n    a.y()\n    return a\n\n\ndef g(a):\n    a.y()\n" in found
    assert "def f(a):\n    a.y()\n    return a\n\n\ndef g(a):\n    a.y()\n" in found
    # a name that cannot be seen there makes a statement useless
    assert not any("z" in text for text in results("def f(a):\n    a.x()\n", "donor"))


def test_statement_into_and_out_of_a_block() -> None:
    inside = "def f(a):\n    for b in a:\n        b.x()\n        return b\n"
    outside = "def f(a):\n    for b in a:\n        b.x()\n    return b\n"
    assert outside in results(inside, "indentation")
    assert inside in results(outside, "indentation")


def test_missing_return_at_the_end() -> None:
    source = "def f(a):\n    b = []\n    b.append(a)"
    assert "def f(a):\n    b = []\n    b.append(a)\n    return b\n" in results(source, "missing_return")


def test_jump() -> None:
    source = "def f(a):\n    for b in a:\n        if b:\n            break\n"
    assert source.replace("break", "continue") in results(source, "jump")


def test_self_is_put_before_a_name_and_taken_away() -> None:
    source = "class A:\n    def f(self, size):\n        self.size = size\n        return size\n"
    assert source.replace("return size", "return self.size") in results(source, "variable")
    assert source.replace("= size", "= self.size") in results(source, "variable")
    other = "class A:\n    def f(self, size):\n        self.size = 1\n        return self.size\n"
    assert other.replace("return self.size", "return size") in results(other, "attribute")


def test_positions_are_bytes_of_utf_8() -> None:
    source = 'def größe(länge):\n    return "äöü€😀", länge < 5, länge\n'
    assert source.replace("<", "<=") in results(source, "comparison")
    assert source.replace("5", "6") in results(source, "constant")
    assert source.replace('"äöü€😀", länge < 5', 'länge < 5, "äöü€😀"') in results(source, "exchange")


def test_operators_on_several_lines_with_comments() -> None:
    source = (
        "def f(a, b):\n    return (\n        a  # < this\n        # >= that\n        <\n        b\n    )\n"
    )
    assert source.replace("        <\n", "        <=\n") in results(source, "comparison")
    source = "def f(a, b):\n    return a \\\n        and b\n"
    assert source.replace("and", "or") in results(source, "logic")


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("indent", ["    ", "\t"])
def test_line_ends_and_marks_stay(end: str, mark: str, indent: str) -> None:
    source = f"{mark}x = 'ü'; y = 1{end}def f(a):{end}{indent}a.x(){end}{indent}return a < 1{end}"
    assert source.replace("<", "<=") in results(source, "comparison")
    assert source.replace("y = 1", "y = 2") in results(source, "constant")
    assert source.replace(f"{indent}a.x(){end}", "") in results(source, "deletion")


def test_expressions_in_f_strings() -> None:
    source = "def f(a, b):\n    return f'ä{a}: {b + 1}'\n"
    assert source.replace("b + 1", "b - 1") in results(source, "arithmetic")
    assert source.replace("{a}", "{b}") in results(source, "variable")


def test_annotations_decorators_docstrings_and_imports_stay() -> None:
    source = 'import os\n\n\n@os.f(1)\ndef f(a: int) -> "str":\n    """Text."""\n'
    file = SourceFile("example.py", source.encode())
    # what may change is whether something is given back at the end
    assert {mutation.operator for mutation in proposals(file)} <= {"deletion", "missing_return"}
    assert not any(mutation.start < source.index("def") and mutation.end > 11 for mutation in proposals(file))


def test_default_values_are_edited() -> None:
    assert "def f(a, b=3):\n    return a\n" in results("def f(a, b=2):\n    return a\n", "constant")


@pytest.mark.parametrize(
    "path",
    sorted((REPOSITORY / "examples").rglob("shiftplan/*.py"))
    + [Path(m.__file__) for m in (expressions, names, rewriting)],
    ids=lambda path: path.name,
)
def test_edits_of_real_files_are_local_and_mostly_compile(path: Path) -> None:
    file = SourceFile(path.name, path.read_bytes())
    compiled = 0
    found = proposals(file)
    sample = found[:: len(found) // 300 + 1]
    for mutation in sample:
        edited = file.edited(mutation.start, mutation.end, mutation.text)
        assert edited != file.data
        assert edited.startswith(file.data[: mutation.start])
        assert edited.endswith(file.data[mutation.end :])
        try:
            ast.parse(edited)
            compiled += 1
        except SyntaxError:
            continue
    assert compiled >= 0.9 * len(sample)


def test_the_same_edits_in_the_same_order() -> None:
    path = REPOSITORY / "examples/shiftplan/shiftplan/interval.py"
    first, second = (proposals(SourceFile("interval.py", path.read_bytes())) for _ in range(2))
    assert first == second
    assert len(first) > 500

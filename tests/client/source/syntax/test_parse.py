"""Parsing: every byte in exactly one leaf, and the structure that people would draw."""

from __future__ import annotations

import sysconfig
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.laws import many
from tests.support.samples import SAMPLES

from kerai_client.source import GRAMMARS, FileState, parse_file
from kerai_client.source.syntax import parse as parse_module
from kerai_client.source.syntax.draft import Draft
from kerai_client.source.syntax.languages import BLOCK, reader
from kerai_client.source.syntax.parse import MAX_DEPTH, MAX_PARSE_BYTES, tiles
from kerai_client.source.tree.state import state_of


def outline(drafts: list[Draft]) -> list[object]:
    """Containers as (kind, name, children), leaves as their text."""
    return [
        draft.content if draft.content is not None else (draft.kind, draft.name, outline(draft.children))
        for draft in drafts
    ]


def containers(name: str) -> list[tuple[str, str | None]]:
    found = parse_file(name, FileState(SAMPLES[name].encode()))
    return [(draft.kind, draft.name) for top in found.children for draft in top.walk() if draft.children]


def parsed(text: str, language: str = "python") -> list[object]:
    draft = parse_file("x", FileState(text.encode()), language)
    assert tiles(draft.children, text)
    return outline(draft.children)


def test_python_statements_headers_and_comments() -> None:
    assert parsed(
        "# lead, apart\n\n"
        "import os  # clock\n\n"
        "# about f\n@dec\ndef f(x):  # header\n    # inner\n    if x:\n        return 1\n    else:\n"
        "        a = 1; b = 2\n\n    # the end\n\n\n"
        "class A:\n    x = 1\n    def g(self): return 1\n"
    ) == [
        "# lead, apart\n",
        "\nimport os  # clock\n",
        (
            "function_definition",
            "f",
            [
                "\n# about f\n@dec\ndef f(x):  # header\n",
                (
                    "if_statement",
                    None,
                    [
                        "    # inner\n    if x:\n",
                        "        return 1\n",
                        ("else_clause", None, ["    else:\n", "        a = 1; ", "b = 2\n"]),
                    ],
                ),
                "\n    # the end\n",
            ],
        ),
        (
            "class_definition",
            "A",
            [
                "\n\nclass A:\n",
                "    x = 1\n",
                ("function_definition", "g", ["    def g(self): ", "return 1\n"]),
            ],
        ),
    ]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "javascript",
            "const f = async (x) => {\n  a(); // one\n};\n",
            [("lexical_declaration", "f", ["const f = async (x) => {\n", "  a(); // one\n", "};\n"])],
        ),
        (
            "typescript",
            "export class A {\n  @I()\n  f(): void {\n    g();\n  }\n}\n",
            [
                (
                    "class_declaration",
                    "A",
                    [
                        "export class A {\n",
                        ("method_definition", "f", ["  @I()\n  f(): void {\n", "    g();\n", "  }\n"]),
                        "}\n",
                    ],
                )
            ],
        ),
        (
            "rust",
            "#[derive(Debug)]\nstruct S {\n    a: i32, // a\n}\n",
            [("struct_item", "S", ["#[derive(Debug)]\nstruct S {\n", "    a: i32, // a\n", "}\n"])],
        ),
        (
            "go",
            'import (\n\t"a"\n\t"b"\n)\n',
            [("import_declaration", None, ["import (\n", '\t"a"\n', '\t"b"\n', ")\n"])],
        ),
        (
            "c",
            "int f(int a) {\n  if (a) {\n    g();\n  } else {\n    h();\n  }\n  return 1; /* x\n  y */\n}\n",
            [
                (
                    "function_definition",
                    "f",
                    [
                        "int f(int a) {\n",
                        (
                            "if_statement",
                            None,
                            [
                                "  if (a) {\n",
                                "    g();\n",
                                "  } ",
                                ("else_clause", None, ["else {\n", "    h();\n", "  }\n"]),
                            ],
                        ),
                        "  return 1; /* x\n  y */\n",
                        "}\n",
                    ],
                )
            ],
        ),
        (
            "java",
            "class A {\n  @Override\n  void f() {\n"
            "    switch (a) {\n      case 1:\n        b();\n    }\n  }\n}\n",
            [
                (
                    "class_declaration",
                    "A",
                    [
                        "class A {\n",
                        (
                            "method_declaration",
                            "f",
                            [
                                "  @Override\n  void f() {\n",
                                (
                                    "switch_expression",
                                    None,
                                    [
                                        "    switch (a) {\n",
                                        (
                                            "switch_block_statement_group",
                                            None,
                                            ["      case 1:\n", "        b();\n"],
                                        ),
                                        "    }\n",
                                    ],
                                ),
                                "  }\n",
                            ],
                        ),
                        "}\n",
                    ],
                )
            ],
        ),
    ],
)
def test_other_languages(language: str, text: str, expected: list[object]) -> None:
    assert parsed(text, language) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "window.py",
            [("class_definition", "Window"), ("function_definition", "wait"), ("case_clause", None)],
        ),
        ("store.js", [("class_declaration", "Store"), ("method_definition", "get"), ("pair", "save")]),
        (
            "view.ts",
            [("interface_declaration", "Item"), ("internal_module", "Shapes"), ("enum_declaration", "Color")],
        ),
        ("button.tsx", [("function_declaration", "Button")]),
        (
            "counter.rs",
            [("impl_item", "Drop for Counter<T>"), ("function_item", "add"), ("mod_item", "tests")],
        ),
        (
            "queue.go",
            [("method_declaration", "Pop"), ("type_declaration", "Queue"), ("communication_case", None)],
        ),
        ("ring.h", [("function_definition", "slot"), ("type_definition", "ring_t"), ("preproc_if", None)]),
        (
            "Bank.java",
            [
                ("constructor_declaration", "Bank"),
                ("method_declaration", "close"),
                ("enum_declaration", "State"),
            ],
        ),
    ],
)
def test_definitions_have_names(name: str, expected: list[tuple[str, str | None]]) -> None:
    found = containers(name)
    assert [pair for pair in expected if pair not in found] == []


def test_every_grammar_is_installed_and_has_blocks() -> None:
    for language in GRAMMARS:
        loaded = reader(language)
        assert loaded is not None
        assert loaded.holders
    assert not BLOCK.match("async_block")


edge = st.sampled_from(
    [
        "\n",
        "\r\n",
        "\r",
        "\x0c",
        "\ufeff",
        "é",
        "\U0001f600",
        "\u2028",
        "{",
        "}",
        "(",
        '"',
        "'''",
        "/*",
        "*/",
        "#",
        "//",
    ]
)
texts = st.lists(st.sampled_from(sorted(SAMPLES)), max_size=2).flatmap(
    lambda chosen: st.lists(
        edge
        | st.sampled_from(
            [line for name in chosen for line in SAMPLES[name].splitlines(keepends=True)] or [""]
        )
    ).map("".join)
)


@many(2)
@given(st.text() | texts, st.sampled_from(sorted(GRAMMARS)))
def test_leaves_are_the_file_whatever_it_holds(text: str, language: str) -> None:
    draft = parse_file("x", FileState(text.encode("utf-8", "surrogatepass")), language)
    leaves = [leaf for top in draft.children for leaf in top.walk() if not leaf.children]
    assert "".join(leaf.content or "" for leaf in leaves) == draft.text
    assert all(leaf.content for leaf in leaves)
    for top in draft.children:
        for part in top.walk():
            assert part.content is None or draft.text[part.start : part.end] == part.content
            assert (part.content is None) == bool(part.children)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_come_back(data: bytes, executable: bool) -> None:
    state = FileState(data, executable)
    draft = parse_file("x.py", state)
    assert "\0" not in draft.text
    assert state_of(draft.text, draft.metadata) == state


@pytest.mark.parametrize(
    "text",
    [
        "a\r\nb\r\n",
        "a\rb",
        "\ufeffimport os\n",
        "x = 1",
        "\x0c\nclass A:\n\x0c    pass",
        "\n\n\n",
        "# only\n# this",
        " ",
    ],
)
def test_line_ends_marks_and_missing_newlines(text: str) -> None:
    for language in (*GRAMMARS, None):
        assert tiles(parse_file("x", FileState(text.encode()), language).children, text)


def test_unknown_languages_are_lines_and_binary_is_base64() -> None:
    assert outline(parse_file("x.unknown", FileState(b"a\r\nb\n\nc")).children) == ["a\r\n", "b\n", "\n", "c"]
    for data in (b"\xff\xfe", b"text with \0", "surrogate \udc80".encode("utf-8", "surrogatepass")):
        draft = parse_file("x.py", FileState(data))
        assert draft.metadata == {"encoding": "base64"}
        assert [child.kind for child in draft.children] == ["base64"]
        assert state_of(draft.text, draft.metadata).data == data
    assert parse_file("x.py", FileState(b"")).children == []


def test_a_huge_text_is_one_leaf() -> None:
    draft = parse_file("x.py", FileState(b"x = 1\n" * (MAX_PARSE_BYTES // 6 + 1)))
    assert [child.kind for child in draft.children] == ["text"]


def test_a_syntax_error_leaves_the_rest_its_structure() -> None:
    found = parsed("def f():\n    return 1\n\n\nx = = 3 3\n\n\nclass A:\n    y = 2\n")
    assert ("function_definition", "f", ["def f():\n", "    return 1\n"]) in found
    assert any(isinstance(part, tuple) and part[:2] == ("class_definition", "A") for part in found)


def test_nothing_but_errors_is_lines() -> None:
    assert parsed(")\n(\n]\n" * 3) == [")\n", "(\n", "]\n"] * 3


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "(" * 100_000),
        ("python", "x = " + "[" * 20_000 + "]" * 20_000),
        ("c", "int f() {\n" + "{\n" * 20_000 + "}\n" * 20_000 + "}\n"),
        ("javascript", "function f() {\n" * 2_000 + "}\n" * 2_000),
        ("javascript", "a" + ".then(function () {\n  x;\n})" * 2_000 + ";\n"),
        ("python", "if a:\n    b\n" + "elif c:\n    d\n" * 5_000),
    ],
)
def test_depth_is_bounded(language: str, text: str) -> None:
    draft = parse_file("x", FileState(text.encode()), language)
    assert tiles(draft.children, text)
    depth = 0
    level = draft.children
    while level:
        depth += 1
        level = [child for part in level for child in part.children]
    assert depth <= MAX_DEPTH + 2


def test_a_slow_parse_gives_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x = 1\n\n" + "# quadratic in tree-sitter-python\n\n" * 4_000
    monkeypatch.setattr(parse_module, "MAX_PARSE_SECONDS", 0.05)
    assert len(parsed(text)) == text.count("\n")
    monkeypatch.undo()
    assert parsed("x = 1\ny = 2\n") == ["x = 1\n", "y = 2\n"]


def test_the_whole_standard_library_byte_for_byte(capsys: pytest.CaptureFixture[str]) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts]
    states = [(path, FileState(path.read_bytes())) for path in paths]
    nodes = 0
    began = time.perf_counter()
    for path, state in states:
        draft = parse_file(path.name, state)
        assert state_of(draft.text, draft.metadata) == state
        leaves = [leaf for top in draft.children for leaf in top.walk()]
        assert "".join(leaf.content for leaf in leaves if leaf.content is not None) == draft.text, path
        nodes += 1 + len(leaves)
    seconds = time.perf_counter() - began
    with capsys.disabled():
        print(
            f"\nstandard library: {len(paths)} files, {nodes} nodes in {seconds:.1f} s: "
            f"{len(paths) / seconds:.0f} files/s, {nodes / seconds:.0f} nodes/s"
        )
    assert len(paths) > 100

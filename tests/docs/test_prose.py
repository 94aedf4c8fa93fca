"""Prose is plain: no sentence of more than 30 words, and none that begins with a riddle.

See :mod:`prose` for what counts as prose, and CONTRIBUTING.md for the rules.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs import prose

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("client", "docs", "extension", "scripts", "tests")


def files() -> list[Path]:
    """Return the files with prose in them: no generated ones, and not the examples, which show any style."""
    found = [
        file for place in PLACES for file in (ROOT / place).rglob("*") if "__pycache__" not in file.parts
    ]
    return [*ROOT.glob("*.md"), *(file for file in found if file.suffix in (".md", ".py", ".sql", ".psql"))]


def test_sentences_are_plain() -> None:
    hard = [
        sentence
        for file in sorted(files())
        if "data" not in file.relative_to(ROOT).parts  # packages that tests work on
        for sentence in prose.prose(file, file.relative_to(ROOT).as_posix())
        if sentence.is_hard
    ]
    assert not hard, "\n".join(map(str, hard))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One two. Three\nfour, e.g. five! Six?", ["One two", "Three four, e.g. five", "Six?"]),
        (
            "See [the page](x.md#a) and `a.b (c. D)`. Then https://a.b/c. D.",
            ["See the page and CODE", "Then URL D."],
        ),
        ("> A <code>b</code> c.", ["> A b c."]),
        ("Reads it. who: the reader. at: when.", ["Reads it", "who: the reader", "at: when."]),
    ],
)
def test_sentences(text: str, found: list[str]) -> None:
    assert list(prose.sentences(text)) == found


def test_of_markdown() -> None:
    text = (
        "# Title\n\nOne\ntwo.\n\n- item\n  goes on\n- next\n\n```sh\ncode code\n```\n\n"
        "| a | b |\n|---|---|\nLast.\n"
    )
    assert list(prose.of_markdown(text)) == [
        (3, "One\ntwo."),
        (6, "item\n  goes on"),
        (8, "next"),
        (16, "Last."),
    ]


def test_of_python() -> None:
    text = (
        '"""First.\n\nSecond::\n\n    code code\n\n:param x: what x is\n    and why.\n"""\n'
        "# one\n# two\n#\n# three\nx = 1  # four\n"
        'raise E(f"five six {x} seven eight nine ten", "select a, b from c where d = e")\n'
    )
    assert [" ".join(text.split()) for _, text in prose.of_python(text)] == [
        *("one two", "three", "four"),
        *("First.", "Second::", "what x is and why."),
        "five six CODE seven eight nine ten",
    ]


def test_of_sql() -> None:
    text = (
        "-- ==== banner ====\n-- one\n-- two\n\n-- select a from b where c = d;\n"
        "select 'it''s a text of seven words'\n 'joined to this', 'short'; -- three\n"
        "comment on table a is\n    'The table of all that there is.';\n"
    )
    assert [text for _, text in prose.of_sql(text)] == [
        *("banner ====\none\ntwo".replace(" ====", ""), "three"),
        "it's a text of seven wordsjoined to this",
        "The table of all that there is.",
    ]


@pytest.mark.parametrize(
    ("text", "is_hard"),
    [
        ("word " * 30, False),
        ("word " * 31, True),
        ("(Whoever comes first", True),
        ("What was said is said", True),
        ("who is not alone waits", True),
        ("Whom it serves", True),
        ("What wasps do", False),
        ("It serves whom it likes", False),
    ],
)
def test_what_is_hard(text: str, is_hard: bool) -> None:
    assert prose.Sentence("page.md:1", text).is_hard is is_hard

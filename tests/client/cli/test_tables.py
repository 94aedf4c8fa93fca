"""Tables: nothing of a value is lost, however narrow the terminal is and however many rows there are."""

from __future__ import annotations

import io
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerai_client.cli import output
from kerai_client.cli.tables import ASCII, length, table, wrap

HEADER = ["id", "name", "n"]
ROWS = [
    ["3f2a0000-0000-0000-0000-000000000001", "all tests in pkg/auth pass", "7"],
    ["3f2a0000-0000-0000-0000-000000000002", "日本語 ok", "1,500,000"],
]


def test_a_table_is_as_wide_as_its_values() -> None:
    assert list(table(HEADER, ROWS, right=[2])) == [
        "┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┓",
        "┃ id                                   ┃ name                       ┃ n         ┃",
        "┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━┩",
        "│ 3f2a0000-0000-0000-0000-000000000001 │ all tests in pkg/auth pass │         7 │",
        "│ 3f2a0000-0000-0000-0000-000000000002 │ 日本語 ok                  │ 1,500,000 │",
        "└──────────────────────────────────────┴────────────────────────────┴───────────┘",
    ]


def test_a_narrow_terminal_wraps_at_spaces() -> None:
    assert list(table(HEADER, ROWS, width=72, right=[2]))[3:6] == [
        "│ 3f2a0000-0000-0000-0000-000000000001 │ all tests in      │         7 │",
        "│                                      │ pkg/auth pass     │           │",
        "│ 3f2a0000-0000-0000-0000-000000000002 │ 日本語 ok         │ 1,500,000 │",
    ]


def test_a_narrower_one_lists_names_and_values() -> None:
    assert list(table(HEADER, ROWS[:1], width=44)) == [
        "-[ 1 ]-",
        "id   | 3f2a0000-0000-0000-0000-000000000001",
        "name | all tests in pkg/auth pass",
        "n    | 7",
    ]
    assert list(table(None, [["name", "all tests in pkg/auth pass"]], width=20)) == [
        "name | all tests in",
        "     | pkg/auth pass",
    ]


def test_a_frame_in_ascii() -> None:
    assert list(table(["a"], [["b"]], box=ASCII)) == ["+---+", "| a |", "+---+", "| b |", "+---+"]
    assert list(table(None, [["a", "b"]], box=ASCII)) == ["+---+---+", "| a | b |", "+---+---+"]


WORDS = st.text(st.sampled_from("ab  \tü日\u0301\n"), max_size=60)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=4), st.integers(1, 80))
def test_nothing_is_lost_at_any_width(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = list(table(["x", "y", "z"], rows, width=width))
    if lines[0].startswith("┏"):
        assert len({length(line) for line in lines}) == 1 and length(lines[0]) <= width

    def letters(text: str) -> list[str]:
        return sorted(letter for letter in text if letter in "abü日\u0301")

    assert letters("".join(lines)) == letters("".join("".join(row) for row in rows))


@given(st.text(st.sampled_from("ab ü日"), max_size=80), st.integers(2, 20))
def test_pieces_fit_and_are_all_there(line: str, width: int) -> None:
    pieces = list(wrap(line, width))
    assert all(length(piece) <= width for piece in pieces)
    assert "".join(pieces).replace(" ", "") == line.replace(" ", "")


def test_ten_thousand_rows_take_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": f"{n:036}", "name": f"node {n}", "n": n, "ok": True, "text": "x" * 40} for n in range(10_000)
    ]
    begin = time.process_time()
    output.emit(rows)
    assert time.process_time() - begin < 10
    assert capsys.readouterr().out.count("\n") == 10_004


def test_a_long_value_is_wrapped_in_linear_time() -> None:
    begin = time.process_time()
    assert sum(1 for _ in table(["a", "b"], [["x " * 500_000, "日" * 50_000]], width=80)) > 12_000
    assert time.process_time() - begin < 20


def test_what_an_encoding_has_not_is_written_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    output.emit([{"name": "ü"}], title="Ämter")
    assert written.getvalue().decode().splitlines() == [
        *(r"\xc4mter", "+------+", "| name |", "+------+", r"| \xfc |", "+------+"),
    ]

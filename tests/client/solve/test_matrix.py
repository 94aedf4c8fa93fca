"""Which tests run a statement, how suspicious that makes it, and which failures belong together."""

from __future__ import annotations

import ast
import math

import pytest

from kerai_client.solve.matrix import Located, Matrix, ochiai
from kerai_client.solve.statements import SourceFile

SOURCE = """\
LIMIT = 3
def small(x):
    if x < LIMIT:
        return "small"
    return "big"
def other(x, y=LIMIT):
    return x + y
def unused(x):
    return x
"""
LINES = {
    "m.py": {
        "": [1, 2, 6, 8],
        "t1": [3, 4],  # fails
        "t2": [3, 5],
        "t3": [3, 4, 7],
        "t4": [7],  # fails
        "collect t.py": [1],
    }
}


def matrix() -> Matrix:
    return Matrix([SourceFile("m.py", SOURCE.encode())], LINES, ["t1", "t4"], ["t2", "t3"])


def at(found: Matrix, line: int) -> Located:
    return next(located for located in found.located if located.statement.node.lineno == line)


@pytest.mark.parametrize(
    ("failing", "passing", "total", "result"),
    [(0, 5, 3, 0.0), (1, 0, 1, 1.0), (2, 2, 4, 0.5), (1, 3, 1, 0.5)],
)
def test_ochiai(failing: int, passing: int, total: int, result: float) -> None:
    assert ochiai(failing, passing, total) == pytest.approx(result)


def test_suspicion_by_hand() -> None:
    found = matrix()
    both = found.mask(["t1", "t4"])
    assert found.suspicion(at(found, 3), both) == pytest.approx(1 / math.sqrt(2 * 3))
    assert found.suspicion(at(found, 4), both) == pytest.approx(1 / math.sqrt(2 * 2))
    assert found.suspicion(at(found, 5), both) == 0
    assert found.suspicion(at(found, 7), both) == pytest.approx(1 / math.sqrt(2 * 2))
    assert found.suspicion(at(found, 9), both) == 0
    # one group of failures alone
    alone = found.mask(["t1"])
    assert found.suspicion(at(found, 4), alone) == pytest.approx(1 / math.sqrt(1 * 2))
    assert found.suspicion(at(found, 7), alone) == 0


def test_what_import_computes_belongs_to_those_who_use_it() -> None:
    found = matrix()
    assert isinstance(at(found, 1).statement.node, ast.Assign)
    assert found.names(at(found, 1).tests) == ["t1", "t2", "t3"]
    assert at(found, 1).at_import
    # a default value matters to those who run the body
    assert found.names(at(found, 6).tests) == ["t4", "t3"]
    assert not at(found, 3).at_import


def test_failures_are_grouped_by_what_they_point_at() -> None:
    assert matrix().groups() == [["t1"], ["t4"]]
    together = Matrix(
        [SourceFile("m.py", SOURCE.encode())],
        {"m.py": {"a": [3, 4], "b": [3, 5], "c": [7]}},
        ["a", "b", "c"],
        [],
    )
    assert together.groups() == [["a", "b"], ["c"]]


def test_a_failure_that_runs_no_source_has_no_group() -> None:
    assert Matrix([SourceFile("m.py", SOURCE.encode())], {}, ["t"], []).groups() == []


def test_a_function_that_import_runs() -> None:
    source = "def f():\n    return 1\nX = f()\n"
    found = Matrix([SourceFile("m.py", source.encode())], {"m.py": {"": [1, 2, 3], "t": [2]}}, ["t"], [])
    assert at(found, 2).at_import


def test_a_function_that_only_import_runs_belongs_to_the_users_of_its_result() -> None:
    source = "def f():\n    return 1\nX = f()\ndef g():\n    return X\ndef h():\n    return 2\n"
    lines = {"m.py": {"": [1, 2, 3, 4, 6], "uses": [5], "does not": [7]}}
    found = Matrix([SourceFile("m.py", source.encode())], lines, ["uses", "does not"], [])
    assert found.names(at(found, 2).tests) == ["uses"]

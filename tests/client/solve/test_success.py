"""What a success command, a scope and an agent's name mean to the solver."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from kerai_client.solve.mutate import Misuse, find_sources, nearest_existing, seed_for
from kerai_client.solve.success import read_success_command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for path in (
        "src/a.py",
        "src/b/c.py",
        "src/b/test_c.py",
        "tests/test_a.py",
        "tests/helper.py",
        "conftest.py",
        "setup.py",
        ".venv/lib/x.py",
        "src/__pycache__/a.py",
        "notes.txt",
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "tests", "options", "environment"),
    [
        ("python -m pytest -q", [], [], {}),
        ("pytest tests/test_a.py::test_x -x", ["tests/test_a.py::test_x"], [], {}),
        ("PYTHONPATH=src A='b c' python3 -m pytest tests", ["tests"], [], {"PYTHONPATH": "src", "A": "b c"}),
        (
            "pytest -k 'not slow' -n 4 --import-mode=importlib tests",
            ["tests"],
            ["-k", "not slow", "--import-mode=importlib"],
            {},
        ),
        ("pytest --tb short --maxfail=1 src", ["src"], [], {}),
        ("pytest nowhere", [], [], {}),
        ("make test", [], [], {}),
        ("cd src && pytest tests", [], [], {}),
        ("python -m unittest", [], [], {}),
        ("pytest 'unbalanced", [], [], {}),
        ("", [], [], {}),
    ],
)
def test_success_command(
    project: Path, command: str, tests: list[str], options: list[str], environment: dict[str, str]
) -> None:
    found = read_success_command(command, project)
    assert (found.tests, found.options, found.environment) == (tests, options, environment)


def test_interpreter_of_the_success_command(project: Path) -> None:
    assert read_success_command("pytest", project).python == sys.executable
    assert read_success_command("no-such-python -m pytest", project).python == sys.executable
    assert read_success_command(".venv/bin/python -m pytest", project).python == str(
        project / ".venv/bin/python"
    )
    assert read_success_command(f"{shlex.quote(sys.executable)} -m pytest", project).python == sys.executable


def test_sources_are_what_is_not_test(project: Path) -> None:
    assert find_sources(project, []) == ["src/a.py", "src/b/c.py"]
    assert find_sources(project, ["src/b"]) == ["src/b/c.py"]
    assert find_sources(project, ["src/a.py", "src"]) == ["src/a.py", "src/b/c.py"]


@pytest.mark.parametrize(
    ("chosen", "message"), [("..", "outside"), ("none", "no such"), ("tests", "no Python source")]
)
def test_sources_refused(project: Path, chosen: str, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        find_sources(project, [chosen])


def test_scope_inside_a_file(project: Path) -> None:
    assert nearest_existing(project, "src/a.py/function") == "src/a.py"
    assert nearest_existing(project, "src") == "src"
    assert nearest_existing(project, "gone/away") == "."


def test_seeds_of_numbered_agents_are_neighbours() -> None:
    assert seed_for("solver-4", 1) == seed_for("solver-3", 1) + 1
    assert seed_for("solver-3", 2) != seed_for("solver-3", 1)
    assert seed_for("ada", 1) == seed_for("ada", 1)
    assert seed_for("ada", 1) != seed_for("grace", 1)

"""What a task's success command says about how its tests are run."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

KEPT = {"-k", "-m", "-c", "-o", "--rootdir", "--confcutdir", "--import-mode", "--ignore", "--deselect"}
WITH_VALUE = KEPT | {
    "-p",
    "-n",
    "-W",
    "-r",
    "--tb",
    "--maxfail",
    "--cov",
    "--durations",
    "--junitxml",
    "--color",
}
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
SHELL = re.compile(r"[;&|<>`$()\n]")


@dataclass(slots=True)
class TestCommand:
    """A pytest call: its interpreter, the tests it names, options that select tests, variables set for it."""

    __test__ = False

    python: str = sys.executable
    tests: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def read_success_command(command: str, directory: Path) -> TestCommand:
    """Understand `[NAME=value …] python -m pytest …` and `pytest …`; anything else means plain pytest.

    Options that choose tests or configuration are kept, those on output and the order of work are not.
    """
    found = TestCommand()
    try:
        words = [] if SHELL.search(command) else shlex.split(command)
    except ValueError:
        words = []
    while words and (match := ASSIGNMENT.fullmatch(words[0])):
        found.environment[match[1]] = match[2]
        words.pop(0)
    if not words:
        return TestCommand()
    if Path(words[0]).name in ("pytest", "py.test"):
        arguments = words[1:]
    elif words[1:3] == ["-m", "pytest"]:
        arguments = words[3:]
        found.python = shutil.which(words[0]) or sys.executable
        if "/" in words[0]:
            found.python = str(directory / words[0])
    else:
        return TestCommand()
    _read_arguments(arguments, found, directory)
    return found


def _read_arguments(arguments: list[str], found: TestCommand, directory: Path) -> None:
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            if (directory / word.partition("::")[0]).exists():
                found.tests.append(word)
            continue
        name, equals, _ = word.partition("=")
        if name not in WITH_VALUE:
            continue
        value = [] if equals else waiting[:1]
        if not equals:
            del waiting[:1]
        if name in KEPT:
            found.options += [word, *value]

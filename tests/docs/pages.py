"""Read the fenced blocks of a Markdown page, and run them in a shell.

A fence's language says what becomes of its block:

- ``console``: lines ``$ command`` (continued by ``> `` lines) with the expected output below them. In
  that, ``…`` stands for anything within a line, a line ``…`` for any lines, and a blank for any blanks.
  A command with nothing below it only has to succeed.
- ``bash``: commands that all have to succeed.
- ``sql``: goes through psql into ``$KERAI_DSN`` and has to succeed.
- ``python``, ``javascript``, ``go``: a program, saved under the name in its first line (``# push.py``).
- anything else (``text``, ``mermaid``, ``json`` …) is only there to be read.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"^(?:#|//) ([\w.-]+)\n")
PROGRAMS = ("python", "javascript", "go")
# These install packages or run these very tests; the targets of the Makefile are tested by themselves.
NOT_RUN = re.compile(r"(make|sudo|apt-get|git clone)\b")
SECONDS = 180.0  # for one command, also on a machine that is busy
MARK = "\x01"


class PageError(AssertionError):
    """What a page says is not what happens."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and where in which page it stands."""

    language: str
    text: str
    place: str

    @property
    def is_run(self) -> bool:
        """Say whether the block is more than text to read."""
        first = self.text.removeprefix("$ ")
        return self.language in ("console", "bash", "sql", *PROGRAMS) and not NOT_RUN.match(first)


def blocks(page: Path, root: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    name = page.relative_to(root)
    return [
        Block(found[1], found[2], f"{name}:{text.count(chr(10), 0, found.start()) + 2}")
        for found in FENCE.finditer(text)
    ]


@dataclass(frozen=True)
class Step:
    """A command and the output that a page promises of it; None when it promises none."""

    command: str
    expected: str | None


def steps(block: Block) -> Iterator[Step]:
    """Yield the commands of a ``console`` block."""
    command: list[str] = []
    expected: list[str] = []
    for line in [*block.text.splitlines(), "$ "]:
        if line.startswith("$ "):
            if command:
                yield Step("\n".join(command), "\n".join(expected) if expected else None)
            command, expected = [line[2:]], []
        elif not command:
            raise PageError(f"{block.place}: a console block begins with `$ command`")
        elif line.startswith("> ") and not expected:
            command.append(line[2:])
        else:
            expected.append(line)


def matches(expected: str, output: str) -> bool:
    """Say whether an output is what a page promises, see the module's docstring."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".*".join(map(re.escape, _plain(line).split("…"))) + r"\n"
    shown = "".join(_plain(line) + "\n" for line in output.rstrip("\n").split("\n"))
    return re.fullmatch(pattern, shown) is not None


def _plain(line: str) -> str:
    """Return a line with its blanks told as one each: how wide a table is depends on what is in it."""
    return re.sub(r"[ \t]+", " ", line).rstrip()


class Shell:
    """One bash for a page, so that ``cd`` and ``export`` carry over from block to block."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code (of several the first that is not 0) and its output."""
        script = (
            f"page_failed=0; trap 'page_failed=$?' ERR\n{{ {command}\n}} < /dev/null\n"
            # A list joined by && that fails does not trap; as the last command it is seen here.
            "page_last=$?; trap - ERR; [ $page_failed != 0 ] || page_failed=$page_last\n"
            f"printf '{MARK}%s{MARK}' $page_failed\n"
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(script.encode())
        stdin.flush()
        output, deadline = b"", time.monotonic() + SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while output.count(MARK.encode()) < 2:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise PageError(f"not done after {SECONDS:.0f} s: {command}\n{output.decode()}")
                data = os.read(stdout.fileno(), 65536)
                if not data:
                    raise PageError(f"the shell has ended at: {command}\n{output.decode()}")
                output += data
        text, code, _ = output.decode().split(MARK)
        return int(code), text

    def close(self) -> None:
        """End the shell and what it has left running."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def run_block(block: Block, shell: Shell, directory: Path) -> None:
    """Do what a block says.

    :raises PageError: when a command fails, or its output is not the promised one.
    """
    if block.language in PROGRAMS:
        name = FILE_NAME.match(block.text)
        if name is None:
            raise PageError(f"{block.place}: the first line of a program names its file")
        (directory / name[1]).write_text(block.text, "utf-8")
    elif block.language == "sql":
        script = directory / "block.sql"
        script.write_text(block.text, "utf-8")
        _succeed(block, shell, f'psql -X -q -v ON_ERROR_STOP=1 -f "{script}" "$KERAI_DSN"')
    elif block.language == "bash":
        _succeed(block, shell, block.text)
    elif block.language == "console":
        for step in steps(block):
            if step.expected is None:
                _succeed(block, shell, step.command)
                continue
            code, output = shell.run(step.command)
            if not matches(step.expected, output):
                raise PageError(
                    f"{block.place}: $ {step.command}\n--- the page says\n{step.expected}\n"
                    f"--- it gives (exit code {code})\n{output}"
                )


def _succeed(block: Block, shell: Shell, command: str) -> None:
    code, output = shell.run(command)
    if code != 0:
        raise PageError(f"{block.place}: exit code {code} of\n{command}\n---\n{output}")

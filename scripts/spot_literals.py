#!/usr/bin/env python3
"""spot_literals.py FILE…: name the plain string literals that have a backslash in them.

What such a literal means depends on standard_conforming_strings, which a role or a database may have
off. The server parses a function's body under the settings of the session that calls it, and an install
script under those of the session that runs CREATE EXTENSION. Write E'\\n' for a character, and
$re$…$re$ for a pattern. A text in other dollar quotes is code, and is looked into too, unless PL/Python's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pglast import ast, parse_sql
from pglast.parser import scan

DOLLAR_QUOTE = re.compile(r"\$\w*\$")


def plain_literals(code: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """Return place and text of each literal whose meaning depends on standard_conforming_strings."""
    for token in scan(code):
        if token.name == "SCONST":
            text = code[token.start : token.end + 1]
            quote = DOLLAR_QUOTE.match(text)
            if quote is None and text.startswith("'") and "\\" in text:
                yield start + token.start, text
            elif quote is not None and quote[0] != "$re$":
                inner = text[quote.end() : -quote.end()]
                yield from plain_literals(inner, start + token.start + quote.end())


def is_python(statement: ast.Node) -> bool:
    """Say whether a statement makes a function of PL/Python."""
    return isinstance(statement, ast.CreateFunctionStmt) and any(
        option.defname == "language" and option.arg.sval.startswith("plpython")
        for option in statement.options or ()
    )


def findings(script: str) -> Iterator[str]:
    """Return ``line: literal`` for each plain literal with a backslash in a script."""
    # psql's commands are not SQL; PostgreSQL skips those lines too.
    lines = script.splitlines(keepends=True)
    text = "".join("\n" if line.startswith("\\") else line for line in lines)
    for statement in parse_sql(text):
        start = statement.stmt_location
        end = start + statement.stmt_len if statement.stmt_len else len(text)
        if not is_python(statement.stmt):
            for place, literal in plain_literals(text[start:end], start):
                line = text.count("\n", 0, place) + 1
                yield f"{line}: {literal}"


def main() -> int:
    """Look through the scripts named on the command line; return 1 when there is a finding."""
    found = [f"{file}:{line}" for file in sys.argv[1:] for line in findings(Path(file).read_text("utf-8"))]
    if found:
        print("\n".join(found), "\nwrite E'…' for a character, $re$…$re$ for a pattern", sep="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""spot_holes.py FILE…: let pgspot look for search_path and privilege holes in install scripts.

Two things of ours are beyond pgspot 0.9, which stops at them:

- functions whose body is SQL itself (BEGIN ATOMIC, RETURN). Their names are resolved when they are
  made and never again, so there is no search_path to abuse when they run: they are left out.
- PL/pgSQL bodies that write ``function_name.variable``: bodies are not looked into (--no-plpgsql). A
  body that runs under a pinned search_path, which pgspot does insist on, has nothing to hide from it.

A procedure that commits can have no settings. Its body is looked into: every name in it has its schema.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pglast import ast, parse_sql


def judged(script: str) -> tuple[str, str]:
    """Return a script without the functions whose body is SQL itself, and its procedures apart."""
    # psql's commands are not SQL; PostgreSQL skips those lines too.
    text = "".join(line for line in script.splitlines(keepends=True) if not line.startswith("\\"))
    kept: list[str] = []
    procedures: list[str] = []
    for statement in parse_sql(text):
        node = statement.stmt
        function = isinstance(node, ast.CreateFunctionStmt)
        if function and node.sql_body is not None:
            continue
        start = statement.stmt_location
        end = start + statement.stmt_len if statement.stmt_len else len(text)
        its_text = text[start:end].strip() + ";\n"
        if not (function and node.is_procedure):
            kept.append(its_text)
        if isinstance(node, ast.CreateSchemaStmt) or (function and node.is_procedure):
            procedures.append(its_text)
    return "".join(kept), "".join(procedures)


def main() -> int:
    """Run pgspot over the scripts named on the command line; return its exit code."""
    options = ["--no-plpgsql", "--ignore-lang=plpython3u"], ["--plpgsql", "--ignore=PS005"]
    for file in sys.argv[1:]:
        for part, its_options in zip(judged(Path(file).read_text("utf-8")), options, strict=True):
            run = subprocess.run(
                [sys.executable, "-m", "pgspot", *its_options],
                input=part,
                capture_output=True,
                text=True,
                check=False,
            )
            if run.returncode != 0:
                print(f"{file}:\n{run.stdout}{run.stderr}")
                return run.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())

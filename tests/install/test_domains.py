"""A domain of extension/sql names nothing that a domain above it defines: each is read after those below it.

What a literal holds is not looked at: hints name what a user can call, and a peer's queries are texts here.
No file and no function is long.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SQL = ROOT / "extension" / "sql"
SCHEMAS = r"(?:kerai|kerai_sync|kerai_private)"
DEFINITION = re.compile(
    r"^\s*(?:execute format\(')?create (?:or replace )?(?:unlogged )?"
    rf"(?:function|procedure|view|table|type|sequence|domain) ({SCHEMAS}\.\w+)",
    re.MULTILINE,
)
OBJECT = re.compile(r"^create (?:or replace )?(?:function|procedure|view|trigger) ([\w.]+)", re.MULTILINE)
# A routine, up to the semicolon after its body: a string in dollars, an SQL block, or a statement.
ROUTINE = re.compile(
    r"^create (?:or replace )?(?:function|procedure) ([\w.]+)"
    r".*?(?:^as (\$\w*\$).*?\2|^begin atomic\n.*?^end|^return\b[^;]*);$",
    re.MULTILINE | re.DOTALL,
)
COMMENT_OR_LITERAL = re.compile(r"--[^\n]*|'(?:[^']|'')*'")

# Who names what that stands above it, and why.
ALLOWED = {
    # A push asks its author's swarm which writer takes a draft, and whether the task takes the operations.
    # It does so only where there is a draft or a task.
    ("kerai_private.lock_for_merge", "kerai_private.writer_of"),
    ("kerai_private.lock_for_merge", "kerai_private.writers_of"),
    ("kerai_private.lock_for_merge", "kerai_private.lock_budgets"),
    ("kerai_private.find_unsure", "kerai_private.find_outside_task"),
    ("kerai_private.receive", "kerai_private.writer_of"),
    ("kerai_private.receive", "kerai_private.lock_budgets"),
    ("kerai_private.receive_locked", "kerai_private.check_task"),
    # The result with which a task succeeds pays for it in the same transaction.
    ("kerai_private.converge", "kerai.reward_schedule"),
    ("kerai_private.converge", "kerai_private.post_mint"),
    # A sponsor's wallet must be here.
    ("kerai.create_task", "kerai.balance"),
}

LONGEST = 100  # lines of a function
LONG: dict[str, str] = {}  # a name -> why it is one function and no steps


def code_of(file: Path) -> str:
    """Return a file's text without its comments and literals."""
    return COMMENT_OR_LITERAL.sub("''", file.read_text("utf-8"))


def definitions() -> dict[str, str]:
    """Return each name that is defined, and the folder of the lowest domain that defines it."""
    found: dict[str, str] = {}
    for file in sorted(SQL.glob("*/*.sql")):
        for name in DEFINITION.findall(file.read_text("utf-8")):
            found.setdefault(name, file.parent.name)
    return found


def names_above() -> Iterator[tuple[str, str]]:
    """Yield each object, or file of tables, with each name of a domain above its own that it uses."""
    defined = definitions()
    for file in sorted(SQL.glob("*/*.sql")):
        code = code_of(file)
        starts = [(match.start(), match[1]) for match in OBJECT.finditer(code)]
        for match in re.finditer(rf"\b{SCHEMAS}\.\w+", code):
            if defined.get(match[0], "") > file.parent.name:
                before = [name for start, name in starts if start <= match.start()]
                yield (before[-1] if before else file.parent.name, match[0])


def test_no_domain_names_what_stands_above_it() -> None:
    assert set(names_above()) == ALLOWED


def test_a_domain_has_its_tables_to_itself() -> None:
    """No file alters or indexes a table of another domain, or fills one but the settings."""
    change = re.compile(
        rf"^(?:alter table|create index \w+ on|insert into|create trigger [^;]*? on) ({SCHEMAS}\.\w+)",
        re.MULTILINE,
    )
    defined = definitions()
    changed = {
        (file.parent.name, name)
        for file in SQL.glob("*/tables*.sql")
        for name in change.findall(code_of(file))
        if defined[name] != file.parent.name and name != "kerai_private.default_settings"
    }
    assert changed == set()


def test_the_code_that_is_looked_at_is_all_of_it() -> None:
    """A quote that is not closed would hide what follows."""
    for file in SQL.glob("*/*.sql"):
        assert OBJECT.findall(code_of(file)) == OBJECT.findall(file.read_text("utf-8")), file


def test_no_sql_file_is_long() -> None:
    """A file that needs a table of contents is two files."""
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in SQL.rglob("*.sql")}
    assert len(lengths) > 50
    assert {str(path): length for path, length in lengths.items() if length > 350} == {}


def functions() -> Iterator[tuple[str, int]]:
    """Yield each function of the project, in SQL and in Python, with the number of its lines."""
    for file in sorted(SQL.rglob("*.sql")):
        for match in ROUTINE.finditer(file.read_text("utf-8")):
            yield match[1], match[0].count("\n") + 1
    for folder in ("extension/python", "client", "scripts"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix == ".py" or (file.parent.name == "scripts" and is_python(file)):
                for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        name = f"{file.relative_to(ROOT).as_posix()}:{node.name}"
                        yield name, (node.end_lineno or 0) - node.lineno + 1


def is_python(file: Path) -> bool:
    """Say whether a script is one of Python's."""
    return file.is_file() and "python" in file.read_text("utf-8").partition("\n")[0]


def test_no_function_is_long() -> None:
    """A function that does not fit on two screens is several steps, each with a name."""
    long = {name for name, lines in functions() if lines > LONGEST}
    assert long == set(LONG)


def test_the_functions_that_are_measured_are_all_of_them() -> None:
    """One whose end is not found would be taken for a part of another."""
    text = "\n".join(file.read_text("utf-8") for file in sorted(SQL.rglob("*.sql")))
    made = re.findall(r"^create (?:or replace )?(?:function|procedure) ([\w.]+)", text, re.MULTILINE)
    measured = [name for name, _ in functions()]
    assert sorted(name for name in measured if ":" not in name) == sorted(made)
    assert "extension/python/kerai/moves.py:decide_moves" in measured
    assert any(name.startswith("scripts/release:") for name in measured)

"""A domain of extension/sql names nothing that a domain above it defines: each is read after those below it.

What a literal holds is not looked at: hints name what a user can call, and a peer's queries are texts here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

SQL = Path(__file__).resolve().parents[2] / "extension" / "sql"
SCHEMAS = r"(?:kerai|kerai_sync|kerai_private)"
DEFINITION = re.compile(
    r"^\s*(?:execute format\(')?create (?:or replace )?(?:unlogged )?"
    rf"(?:function|procedure|view|table|type|sequence|domain) ({SCHEMAS}\.\w+)",
    re.MULTILINE,
)
OBJECT = re.compile(r"^create (?:or replace )?(?:function|procedure|view|trigger) ([\w.]+)", re.MULTILINE)
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

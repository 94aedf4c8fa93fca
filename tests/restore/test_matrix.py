"""Every way of pg_dump's documentation restores the same instance, or docs/backup.md names it as unfit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.merge.observe import digest, scalar
from tests.restore.conftest import Restorer, Way, assert_same, ok
from tests.settings.odd import connect as connect_to

WAYS = [
    Way(form="plain"),
    Way(form="tar"),
    Way("--jobs=2", "--jobs=2", form="directory"),
    Way("--jobs=4 --load-via-partition-root", "--jobs=4", form="directory"),
    Way("--compress=0", "--jobs=3 --no-owner --no-privileges"),
    Way("", "--single-transaction --use-set-session-authorization"),
    Way("--inserts", form="plain"),
    Way("--column-inserts --on-conflict-do-nothing --quote-all-identifiers", form="plain"),
    Way("--rows-per-insert=7 --disable-dollar-quoting --load-via-partition-root", "--jobs=2"),
    Way("--serializable-deferrable --enable-row-security --no-comments --no-tablespaces", form="plain"),
    Way("--encoding=LATIN1 --no-toast-compression", "--jobs=2"),
    Way("--encoding=SQL_ASCII --lock-wait-timeout=10s --no-sync --strict-names", form="tar"),
    Way("--schema=kerai --extension=kerai --extension=ltree --extension=dblink --extension=plpython3u"),
    Way("--exclude-schema=public --exclude-table=public.* --role={user}", "--role={user}"),
    Way("--data-only", into_fresh=True),
    Way("--section=data", "--jobs=2", into_fresh=True),
    Way("--data-only --disable-triggers", form="plain", into_fresh=True),
    Way("", "--data-only --disable-triggers --jobs=2", into_fresh=True),
    Way("--data-only --inserts --load-via-partition-root", form="plain", into_fresh=True),
    Way("--clean --if-exists", form="plain", into_fresh=True),
    Way("--no-blobs", "--clean --jobs=2 --no-data-for-failed-tables", into_fresh=True),
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_row_is_restored(way: Way, full: Any, restorer: Restorer) -> None:
    assert_same(full.dsn, restorer.restore(full.dsn, way))


def test_section_by_section(full: Any, restorer: Restorer) -> None:
    file, target = restorer.dump(full.dsn, Way()), restorer.database()
    for section in ("pre-data", "data", "post-data"):
        ok("pg_restore", f"--section={section}", "--jobs=2", "--dbname", target, file)
    assert_same(full.dsn, target)


def test_a_snapshot_that_another_session_has(full: Any, restorer: Restorer) -> None:
    with connect_to(full.dsn) as session, session.transaction():
        session.execute("set transaction isolation level repeatable read")
        snapshot = scalar(session, "select pg_export_snapshot()")
        assert_same(full.dsn, restorer.restore(full.dsn, Way(f"--snapshot={snapshot}")))


def test_a_template(full: Any, restorer: Restorer) -> None:
    assert_same(full.dsn, restorer.database(full.name))


@pytest.mark.parametrize(
    "options",
    ["--extra-float-digits=0", "--exclude-table-data=kerai.nodes", "--exclude-table-data=kerai.edges"],
)
def test_what_is_rounded_or_left_out_is_found_and_made_anew(
    full: Any, restorer: Restorer, options: str
) -> None:
    with connect_to(full.dsn) as original, connect_to(restorer.restore(full.dsn, Way(options))) as restored:
        assert restored.execute("select * from kerai.verify()").fetchall() != []
        restored.execute("select kerai.rebuild()")
        assert digest(restored) == digest(original)
        assert restored.execute("select * from kerai.verify()").fetchall() == []


@pytest.mark.parametrize("command", ["pg_dump", "pg_restore", "pg_dumpall"])
def test_every_option_is_in_the_docs(command: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "backup.md").read_text("utf-8")
    options = set(re.findall(r"--[a-z][-a-z]+", ok(command, "--help")))
    assert {option for option in options if f"{option}`" not in page.replace("=", "`")} == set()

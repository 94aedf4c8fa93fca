"""docs/glossary.md has every word of the domain that a public name of the extension is made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

GLOSSARY = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"
ENTRY = re.compile(r"^- ((?:\*\*[\w ]+\*\*(?:, )?)+)[\w ]*(?:\(([^)]*)\))?[\w ]*:", re.MULTILINE)
# Words that mean in a name what they mean anywhere in English, or in SQL.
PLAIN_TEXT = """
a acting action active add added after agreed amount application applied applies as ask at b before begin
below best by bytes capabilities changed changes checked code columns command compare complete compute
condition config connection connections contains content cost count create created deep depth description
detail detected diff difference direction dropped duration elsewhere enabled end event events expire
expires failed failures file files finished first from give hang have highest hint id idle ids in inside
is join joined kept label language last link list lost lowest max mean meaning min mine minute missing
model more ms name named new next not note number of old open output p page parent pass passed passes per
percent placed problem progress public query rank rate reason reasoning received record reference remove
report row rows schedule second seconds seen set settings since size skipped source spent spread started
status stayed stop stopped subject success superuser tail take taken target theirs time times to total
type unique unschedule until up value values version want what work
"""
PLAIN = frozenset(PLAIN_TEXT.split())
NAMES = """
    select p.proname as name from pg_proc p where p.pronamespace = 'kerai'::regnamespace
    union
    select unnest(p.proargnames) from pg_proc p where p.pronamespace = 'kerai'::regnamespace
    union
    select c.relname from pg_class c
    where c.relnamespace = 'kerai'::regnamespace and c.relkind in ('r', 'v', 'p', 'c')
      and not c.relispartition
    union
    select a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'kerai'::regnamespace and c.relkind in ('r', 'v', 'p', 'c')
      and not c.relispartition
      and a.attnum > 0 and not a.attisdropped
"""


def entries() -> list[set[str]]:
    """Return the words that each entry explains: its heads, and their forms in names."""
    found = []
    for heads, forms in ENTRY.findall(GLOSSARY.read_text("utf-8")):
        words = {word for head in re.findall(r"\*\*(.+?)\*\*", heads) for word in (head, *head.split())}
        found.append(
            words | {part for form in re.findall(r"`(\w+)`", forms) for part in (form, *form.split("_"))}
        )
    return found


def test_every_entry_is_read_and_explained_once() -> None:
    lines = [line for line in GLOSSARY.read_text("utf-8").splitlines() if line.startswith("- ")]
    assert len(entries()) == len(lines), [line for line in lines if not ENTRY.match(line)]
    heads = re.findall(r"^- \*\*(.+?)\*\*", GLOSSARY.read_text("utf-8"), re.MULTILINE)
    assert sorted(heads) == sorted(set(heads))


def test_the_glossary_has_every_word_of_the_domain(connect: Any) -> None:
    explained = set().union(*entries())
    assert not explained & PLAIN, f"plain English, or of the domain? {explained & PLAIN}"
    names = [row["name"] for row in connect().execute(NAMES)]
    assert "push_batched" in names
    missing: dict[str, list[str]] = {}
    for name in names:
        for word in filter(None, name.split("_")):
            if word not in explained | PLAIN:
                missing.setdefault(word, []).append(name)
    assert not missing, f"no entry in docs/glossary.md, and not plain English: {missing}"

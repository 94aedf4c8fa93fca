"""Version vectors of a million entries: compare, merge, and what is missing. The other vector is an equal
one, one in which half of the entries are further, or one in which a third is further and a third less far. It
is also one of other authors, and one of a single entry. Against Python: json.loads of both, the same over
dicts, json.dumps of a merged one; the texts are in memory, no transfer is counted. The sides take turns,
medians are compared, and the ratio is the worst of the five.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import psycopg
from report import Row

from kerai_client.server.private import PrivateServer

ENTRIES = 1_000_000
ROUNDS = 3
OTHERS = ("same", "half", "third", "disjoint", "one")
AIMS = {"compare": 1.0, "merge": 0.7, "missing": 1.0}
Vector = dict[str, int]

MADE = """
insert into vectors
select v.name, jsonb_object_agg(v.word || '-' || lpad(n::text, 7, '0') || '.' || left(md5(n::text), 16),
    n %% 1000 + 2 + case v.name when 'half' then n %% 2 when 'third' then n %% 3 - 1 else 0 end)
from (values ('one', 'agent', %(entries)s / 2), ('same', 'agent', 1), ('whole', 'agent', 1),
    ('half', 'agent', 1), ('third', 'agent', 1), ('disjoint', 'other', 1)) as v (name, word, first)
cross join lateral generate_series(v.first, case v.name when 'one' then v.first else %(entries)s end) as n
group by v.name
"""

# In the session's memory, so that it is not measured how long it takes to fetch a vector from a table.
TIMED = """
create function pg_temp.seconds(call text, other text) returns double precision
language plpgsql as $$
declare
    whole constant jsonb := (select v.vector || '{}' from vectors as v where v.name = 'whole');
    beside constant jsonb := (select v.vector || '{}' from vectors as v where v.name = other);
    began constant timestamptz := clock_timestamp();
begin
    execute call using whole, beside;
    return extract(epoch from clock_timestamp() - began);
end
$$
"""

CALLS = {
    "compare": "select kerai.vector_compare($1, $2)",
    "merge": "select kerai.vector_merge($1, $2)",
    "missing": "select count(*) from kerai.vector_missing($1, $2)",
}


def compare(a: Vector, b: Vector) -> str:
    """Return how a relates to b."""
    more = any(seq > b.get(author, 0) for author, seq in a.items())
    less = any(seq > a.get(author, 0) for author, seq in b.items())
    return {(False, False): "equal", (False, True): "before", (True, False): "after"}.get(
        (more, less), "concurrent"
    )


def merge(a: Vector, b: Vector) -> str:
    """Return the pointwise maximum, as JSON."""
    merged = dict(a)
    merged.update((author, seq) for author, seq in b.items() if seq > a.get(author, 0))
    return json.dumps(merged)


def missing(a: Vector, b: Vector) -> list[tuple[str, int, int]]:
    """Return the ranges that b has and a has not."""
    return sorted((author, a.get(author, 0) + 1, seq) for author, seq in b.items() if seq > a.get(author, 0))


IN_PYTHON: dict[str, Callable[[Vector, Vector], Any]] = {
    "compare": compare,
    "merge": merge,
    "missing": missing,
}


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratios of the times."""
    rows = []
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create table vectors (name text primary key, vector jsonb not null)")
        connection.execute(MADE, {"entries": ENTRIES})
        connection.execute(TIMED)
        texts = dict(connection.execute("select name, vector::text from vectors").fetchall())
        for name, call in CALLS.items():
            seconds = {other: measure(connection, texts, name, call, other) for other in OTHERS}
            rows.append(
                Row(
                    f"{name} of vectors of {ENTRIES:,} entries",
                    "\n".join(f"{other} {ours:.2f} s" for other, (ours, _) in seconds.items()),
                    "\n".join(f"{outside:.2f} s" for _, outside in seconds.values()),
                    min(outside / ours for ours, outside in seconds.values()),
                    AIMS[name],
                )
            )
        connection.execute("drop table vectors")
    return rows


def measure(
    connection: psycopg.Connection[Any], texts: dict[str, str], name: str, call: str, other: str
) -> tuple[float, float]:
    """Return the median seconds of kerai and of Python."""
    ours, outside = [], []
    for _ in range(ROUNDS):
        row = connection.execute("select pg_temp.seconds(%s, %s)", [call, other]).fetchone()
        assert row is not None
        ours.append(row[0])
        started = time.perf_counter()
        IN_PYTHON[name](json.loads(texts["whole"]), json.loads(texts[other]))
        outside.append(time.perf_counter() - started)
    return median(ours), median(outside)

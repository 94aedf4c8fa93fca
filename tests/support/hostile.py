"""What hostile members submit, and how long it keeps somebody else from pushing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from psycopg import Connection, sql
from tests.merge.live import insert
from tests.merge.members import Member, status
from tests.merge.observe import scalar

# A hostile submission may delay another author's push by so much.
MOST_SECONDS = 2.0

FAIL = """
create sequence if not exists public.tries;
grant usage on sequence public.tries to public;
create function public.{name}() returns trigger language plpgsql as $$
begin
    perform nextval('public.tries');
    raise exception using errcode = {code}, message = 'poison', detail = 'of one changeset';
end
$$;
create trigger {name} before insert on kerai.changesets
    for each row when (new.message = {code}) execute function public.{name}();
"""


def poison(connection: Connection[Any], code: str) -> None:
    """Let a changeset whose message is an SQLSTATE raise it when it is merged; ``public.tries`` counts."""
    connection.execute(sql.SQL(FAIL).format(name=sql.Identifier(f"fail_{code.lower()}"), code=code))


def tries(connection: Connection[Any]) -> int:
    """Return how often poison has been tried."""
    return int(scalar(connection, "select coalesce(pg_sequence_last_value('public.tries'::regclass), 0)"))


def push_in_time(victim: Member) -> None:
    """Push one good changeset together with what waits: it is merged, and is not delayed for long."""
    document = victim.own(insert(str(uuid4())))
    started = time.monotonic()
    assert status(victim.push_batched(document)) == "merged"
    assert time.monotonic() - started < MOST_SECONDS


@contextmanager
def calls(connection: Connection[Any]) -> Iterator[dict[str, int]]:
    """Count how often the session calls each of kerai's private functions: a measure that no load changes."""
    connection.execute("set track_functions = 'all'")
    counted: dict[str, int] = {}
    before = _counts(connection)
    yield counted
    counted |= {name: count - before.get(name, 0) for name, count in _counts(connection).items()}


def _counts(connection: Connection[Any]) -> dict[str, int]:
    connection.execute("select pg_stat_force_next_flush()")
    rows = connection.execute(
        "select funcname, sum(calls)::int as calls from pg_stat_user_functions "
        "where schemaname = 'kerai_private' group by funcname"
    )
    return {row["funcname"]: row["calls"] for row in rows}

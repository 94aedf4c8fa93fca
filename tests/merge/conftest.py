"""What the tests of the merge share: how many worlds, and an instance that is empty again after each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import Connection
from tests.merge.worlds import Instance
from tests.settings.odd import connect


@pytest.fixture(scope="module")
def instance(module_database: Any) -> Iterator[Instance]:
    """Return a context manager: an empty instance, whose content is gone afterwards."""
    with connect(module_database.dsn) as connection:
        uses = 0

        @contextmanager
        def empty() -> Iterator[Connection[Any]]:
            nonlocal uses
            uses += 1
            # Evidence outlives the transaction, and a forked author is frozen.
            connection.execute("delete from kerai.forks")
            # Numbers of pushes that were rolled back are looked at by those with one snapshot.
            connection.execute("select setval('kerai.changesets_arrival_seq', 1, false)")
            if uses % 25 == 0:
                connection.execute(
                    "vacuum kerai.nodes, kerai.operations, kerai.changesets, kerai_private.moves"
                )
            with connection.transaction(force_rollback=True):
                yield connection

        yield empty

"""A dump that is restored is the same instance: state, log, money, limits, sequences, future."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from tests.merge.live import LiveAuthor, logged, update
from tests.merge.model import fold
from tests.merge.observe import assert_state, digest, scalar
from tests.restore.conftest import Restorer, Way, everything, hosted_push

SCRATCH = {
    "tree_lock",
    "submissions",
    "push_outcomes",
    "served_scopes",
    "served_nodes",
    "repeated_inserts",
    "repeats_noted",
    # Full in a partial instance only: see tests/instances/test_scopes.py.
    "partial_scope",
    "scope_nodes",
    "backfilled_changesets",
}
PLAIN = Way(form="plain")


def test_the_instance_that_is_dumped_has_rows_everywhere(full: Any, connect: Any) -> None:
    """A table without rows shows nothing about dumps."""
    empty = {name for name, rows in everything(connect(full.dsn)).items() if not rows}
    partitions = {
        name
        for name in empty
        if re.fullmatch(r"kerai\.(operations|test_results|failed_operations)_p\d+", name)
    }
    assert empty - partitions <= {f"kerai_private.{name}" for name in SCRATCH}


def test_a_dump_of_a_restored_instance_restores_the_same(full: Any, restorer: Restorer, connect: Any) -> None:
    original = connect(full.dsn)
    first = restorer.restore(full.dsn, Way())
    second = restorer.restore(first, PLAIN)
    for dsn in (first, second):
        connection = connect(dsn)
        assert everything(connection) == everything(original)
        assert digest(connection) == digest(original)
        assert_state(connection, fold(logged(connection)))


def test_a_restored_instance_goes_on(full: Any, restorer: Restorer, connect: Any) -> None:
    connection = connect(restorer.restore(full.dsn, PLAIN))
    arrival = scalar(connection, "select max(arrival) from kerai.changesets")
    hosted_push(connection)
    author = LiveAuthor(connection, "author-3")
    node = scalar(connection, "select id::text from kerai.nodes where metadata ? 'k' limit 1")
    assert author.push(update(node, content="after"), guard=node) == "merged"
    assert scalar(connection, "select max(arrival) from kerai.changesets") > arrival
    assert_state(connection, fold(logged(connection)))
    assert scalar(connection, "select (kerai.register_agent('shell', 'human')).name") == "shell"
    assert scalar(connection, "select kerai_private.setting('max_changeset_ops')") == 123456


def test_no_setting_is_lost_or_doubled(full: Any, restorer: Restorer, connect: Any) -> None:
    """Defaults come with the extension, and what an operator has changed with the dump."""
    connection = connect(restorer.restore(full.dsn, PLAIN))
    names = "select name from kerai.settings order by name"
    assert connection.execute(names).fetchall() == connect(full.dsn).execute(names).fetchall()


def test_without_its_key_file_a_hosted_agent_is_told_so(full: Any, restorer: Restorer, connect: Any) -> None:
    connection = connect(restorer.restore(full.dsn, PLAIN))
    before = digest(connection)
    connection.execute(
        "update kerai.agents set public_key = set_byte(public_key, 0, get_byte(public_key, 0) # 1)"
    )
    with pytest.raises(psycopg.Error) as refused:
        hosted_push(connection)
    assert refused.value.sqlstate == "KR011"
    assert "key of this instance is not on this server" in str(refused.value.diag.message_primary)
    assert "key file: kerai/" in str(refused.value.diag.message_detail)
    assert "copy the key file" in str(refused.value.diag.message_hint)
    assert digest(connection) == before

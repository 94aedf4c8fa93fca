"""The file of the instance's key, and transactions that make it and are rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.merge.observe import scalar


def test_a_first_use_that_is_rolled_back_leaves_one_file(make_database: Any, connect: Any) -> None:
    with make_database(template=None) as fresh:
        admin = connect(fresh.dsn)
        folder = Path(scalar(admin, "select current_setting('data_directory')")) / "kerai"
        before = set(folder.glob("*"))
        keys = set()
        for call in ("kerai.instance_key()", "(kerai.register_agent('a', 'llm')).public_key"):
            for _ in range(3):
                with admin.transaction(force_rollback=True):
                    keys.add(scalar(admin, f"select {call}"))
        key = scalar(admin, "select kerai.instance_key()")
        assert keys == {key} and len(set(folder.glob("*")) - before) == 1
        # Another instance in the same database is another one.
        admin.execute("drop extension kerai; create extension kerai")
        assert scalar(admin, "select kerai.instance_key()") != key


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_first_use_that_does_not_see_another_says_so(make_database: Any, connect: Any, level: str) -> None:
    with make_database(template=None) as fresh:
        first, second = connect(fresh.dsn), connect(fresh.dsn)
        for call in ("select kerai.instance_key()", "select kerai.register_agent('a', 'llm')"):
            second.execute(f"begin isolation level {level}")
            second.execute("select")
            key = scalar(first, "select kerai.instance_key()")
            with pytest.raises(psycopg.errors.SerializationFailure):
                second.execute(call)
            second.execute("rollback")
            second.execute(call)
            assert scalar(second, "select kerai.instance_key()") == key
            first.execute("delete from kerai_private.instance; delete from kerai.agents")

"""kerai.checkout() in SQL and the client's layout give the same files the same paths, whatever the names."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from tests.support.laws import many

from kerai_client.source import Tree, snapshot_of

NAMES = (
    *("a", "b", "a~2", "a~3", ".", "..", ".git", ".kerai", "x/y", "%2E", "", None),
    *("n" * 250, "n" * 256, "ü" * 130, "d" * 245),
)
# Each node: below which earlier one (-1: none), of which kind, of which name.
TREES = st.lists(
    st.tuples(st.integers(-1, 8), st.sampled_from(["directory", "package", "file"]), st.sampled_from(NAMES)),
    max_size=40,
)


def operations(tree: list[tuple[int, str, str | None]]) -> list[dict[str, Any]]:
    """Return the inserts of a tree; what would lie below a file lies at the top."""
    ids = [str(UUID(int=(7 * n) % 97 + 1)) for n in range(len(tree))]
    return [
        {
            "op": "node_insert",
            "node": ids[n],
            "parent": ids[below] if 0 <= below < n and tree[below][1] != "file" else None,
            "position": f"{(n * 5) % 11:02}",
            "kind": kind,
            "name": name,
            "content": f"{n}" if kind == "file" else None,
        }
        for n, (below, kind, name) in enumerate(tree)
    ]


@given(tree=TREES)
@many()
def test_sql_and_client_agree_on_paths(tree: list[tuple[int, str, str | None]], connect: Any) -> None:
    connection: Connection[Any] = connect()
    with connection.transaction(force_rollback=True):
        connection.execute("select kerai.register_agent('ann', 'human')")
        if tree:
            connection.execute("select kerai.push_ops(%s::json)", [json.dumps(operations(tree))])
        rows = connection.execute("select * from kerai.tree()").fetchall()
        expected = {path: file.data.decode() for path, file in snapshot_of(Tree.from_rows(rows)).items()}
        found = connection.execute("select path, source from kerai.checkout()").fetchall()
        assert {row["path"]: row["source"] for row in found} == expected
        assert len(found) == len(expected)
    connection.close()

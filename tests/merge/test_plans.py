"""What a push reads depends on what it brings, not on what the session made its plans for."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection
from tests.merge.live import insert, update
from tests.merge.members import Member, launch
from tests.merge.observe import scalar
from tests.settings.odd import connect as connect_to

from kerai import changeset

READ = """
    select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_user_tables
    where schemaname in ('kerai', 'kerai_private') and relname in (
        'nodes', 'moves', 'changesets', 'edges', 'agents', 'swarm_members', 'authors', 'writers')"""


@pytest.fixture
def connection(make_database: Any) -> Any:
    with make_database() as database:
        with psycopg.connect(database.dsn, autocommit=True) as administrator:
            administrator.execute("vacuum analyze")  # an empty table is now known to be empty
        with connect_to(database.dsn) as opened:
            opened.execute("select kerai.register_agent('ann', 'human')")
            yield opened


def push(connection: Connection[Any], operations: list[dict[str, Any]]) -> None:
    connection.execute("select kerai.push_ops(%s::json)", [json.dumps(operations)])


def test_a_push_reads_by_index_what_it_names(connection: Connection[Any]) -> None:
    chance = Random(1)
    nodes = [str(UUID(int=chance.getrandbits(128))) for _ in range(4000)]

    def some(start: int, stop: int) -> list[dict[str, Any]]:
        known = nodes[: start or 1]
        changed = chance.sample(nodes[:stop], min(4, stop))
        return [
            *(insert(node, chance.choice(known) if start else None, name="n") for node in nodes[start:stop]),
            *(update(node, content="c") for node in changed),
            {"op": "node_move", "node": nodes[stop - 1], "parent": nodes[0], "position": "b"},
            {"op": "edge_insert", "source": nodes[stop - 1], "target": nodes[0], "relation": "calls"},
        ]

    read = []
    for start, stop in ((0, 5), (5, 10), (10, 1000), (1000, 2500), (2500, 3990), (3990, 4000)):
        with connection.transaction():
            push(connection, some(start, stop))
            read.append(scalar(connection, READ))
    # The counters go on from one transaction to the next.
    assert read[-1] - read[-2] < 500, read


def test_usual_operations_are_tested_all_together(connection: Connection[Any]) -> None:
    """Not each by a function call of its own, which takes ten times as long."""
    root, node = str(uuid4()), str(uuid4())
    usual = [
        insert(root, None, name="n", language="python"),
        insert(node, root, content="c"),
        update(node, content=None),
        {"op": "node_move", "node": node, "parent": None, "position": "b"},
        {"op": "node_move", "node": node, "parent": root, "position": "b"},
    ]
    connection.execute("set track_functions = 'pl'")
    calls = """
        select coalesce(sum(calls), 0)::int from pg_stat_xact_user_functions
        where funcname = 'operation_problem'"""
    with connection.transaction():
        push(connection, usual)
        assert scalar(connection, calls) == 0
        push(connection, [{"op": "node_delete", "node": node}])
        assert scalar(connection, calls) > 0  # it does count


@pytest.mark.parametrize("grouped", [False, True])
def test_a_batch_reads_by_index_what_it_names(connection: Connection[Any], grouped: bool) -> None:
    task, swarm = launch(connection, grouped=grouped)
    crew = [Member(connection, f"member-{n}") for n in range(100)]
    for each in crew:
        each.join(swarm)
    connection.execute("analyze")  # plans are made for this many agents
    read = []
    for start, stop in ((0, 2), (2, 4), (4, 50), (50, 98), (98, 100)):
        tickets = []
        for each in crew[start:stop]:
            top = str(UUID(int=Random(each.author).getrandbits(128)))
            changes = [insert(top), *(insert(str(uuid4()), top) for _ in range(8)), update(top, content="c")]
            if grouped:
                tickets.append(each.submit(each.draft(swarm, *changes, seen={}, task=task)))
            else:
                tickets.append(each.submit(changeset.build(each.author, 1, 1, changes, base={}, task=task)))
        with connection.transaction():
            assert each.answer(tickets[-1])["status"] == "merged"
            read.append(scalar(connection, READ))
    assert scalar(connection, "select count(*) from kerai.nodes") == 100 * 9
    assert scalar(connection, "select count(distinct received_at) from kerai.changesets") == 5
    assert read[-1] - read[-2] < 60, read


def test_settling_passes_over_what_was_submitted_before(connection: Connection[Any]) -> None:
    _, swarm = launch(connection)
    crew = [Member(connection, f"member-{n}") for n in range(3)]
    for each in crew:
        each.join(swarm)
    for _ in range(3):
        tickets = [each.submit(each.draft(swarm, insert(str(uuid4())), seen={})) for each in crew]
        assert each.answer(tickets[-1])["status"] == "merged"
    connection.execute("select pg_stat_force_next_flush()")
    # A scan of the table would read all that was deleted and is not yet vacuumed.
    scans = "select seq_scan from pg_stat_user_tables where relname = 'submissions'"
    assert scalar(connection, scans) == 0


def test_a_nodes_moves_are_read_and_no_others(connection: Connection[Any]) -> None:
    nodes = [uuid4() for _ in range(60)]
    push(connection, [insert(str(node)) for node in nodes])
    fill = """
        insert into kerai_private.moves (stamp, node_id, position)
        select kerai_private.stamp(1000 + n, 'x'), (%s::uuid[])[1 + n %% 4], 'a'
        from generate_series(1, 8000) as n"""
    connection.execute(fill, [nodes])
    connection.execute("analyze kerai_private.moves")  # a few nodes have all the moves
    connection.execute("update kerai.nodes set placed_stamp = kerai_private.stamp(10000, 'x')")
    moved = b"".join(each.bytes for each in nodes[4:-1])
    parents = b"".join(each.bytes for each in nodes[5:])
    with connection.transaction():
        before = scalar(connection, READ)
        connection.execute(
            "select kerai_private.decide_moves(kerai_private.stamp(9999, 'x'), %s, %s, %s)",
            [moved, parents, "-" * len(nodes[5:])],
        )
        assert scalar(connection, READ) - before < 500

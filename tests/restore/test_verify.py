"""kerai.verify() finds what a restore, or a superuser, has lost: names of rows, balances and sequences."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import Connection
from tests.merge.observe import scalar
from tests.settings.odd import connect as connect_to

REFERENCES = (
    "select what, relation::text, referring, target::text, target_key from kerai_private.named_rows()"
)
# What the full instance has no row of: see below.
ELSEWHERE = {
    ("kerai_private.backfilled_changesets", "changeset_id"),
    ("kerai_private.partial_scope", "peer"),
    ("kerai.ledger", "from_wallet"),
}


@pytest.fixture(scope="module")
def copy(full: Any, make_database: Any) -> Any:
    """A copy of the full instance, whose rows may be taken away without a word."""
    with make_database(full.name) as database, connect_to(database.dsn) as connection:
        connection.execute("set session_replication_role = 'replica'")
        yield connection


def found(connection: Connection[Any], query: str) -> list[tuple[str, ...]]:
    """Say what verify() finds after a statement, which is then taken back."""
    with connection.transaction(force_rollback=True):
        assert connection.execute(query).rowcount != 0, query
        rows = connection.execute("select what, subject, problem from kerai.verify(false)").fetchall()
    return [tuple(row.values()) for row in rows]


def test_each_name_of_a_row_that_is_gone_is_found(copy: Connection[Any]) -> None:
    for row in copy.execute(REFERENCES).fetchall():
        what, relation, referring, target, key = row.values()
        if (relation, referring) in ELSEWHERE:
            continue
        lost = (
            f"delete from {target} where {key} = "
            f"(select {referring} from {relation} where {referring} is not null limit 1)"
        )
        problems = [(each[0], each[2]) for each in found(copy, lost)]
        assert any(
            each[0] == what and each[1].startswith(f"{referring} is ") and each[1].endswith(target)
            for each in problems
        ), (lost, problems)


@pytest.mark.parametrize(
    "row",
    [
        "kerai_private.backfilled_changesets values ('x')",
        "kerai_private.partial_scope (scope, peer) values (gen_random_uuid(), 'p2')",
        "kerai.ledger (kind, from_wallet, amount) values ('burn', gen_random_uuid(), 1)",
    ],
)
def test_names_that_are_rare_are_judged_too(copy: Connection[Any], row: str) -> None:
    assert any("there is no such row in" in problem for _, _, problem in found(copy, f"insert into {row}"))


MONEY = {
    "update kerai.wallets set balance = balance + 1 where balance > 0": ("wallet", "balance is "),
    "delete from kerai.ledger where id = (select max(id) from kerai.ledger)": ("mint", "amount is "),
    "update kerai.mints set amount = amount + 1": ("mint", "amount is "),
    "delete from kerai.convergences": ("mint", "pays the convergence of task "),
    "delete from kerai.mints": ("convergence", "reward is "),
    "update kerai.tasks set status = 'succeeded' where status = 'running'": (
        "task",
        "its convergence is not here",
    ),
    "delete from kerai_private.writers": ("swarm", "writer is 'none', should be 'one'"),
    "alter sequence kerai.changesets_arrival_seq restart": ("sequence", "a row of kerai.changesets has "),
    "alter sequence kerai.ledger_id_seq restart": ("sequence", "stands at 0, and a row of kerai.ledger has "),
}


@pytest.mark.parametrize("damage", MONEY)
def test_what_does_not_add_up_is_found(copy: Connection[Any], damage: str) -> None:
    kind, text = MONEY[damage]
    problems = found(copy, damage)
    assert any(what == kind and text in problem for what, _, problem in problems), problems


def test_the_author_of_a_stub_is_looked_up(copy: Connection[Any]) -> None:
    lost = "delete from kerai_private.authors as a using kerai.changesets as c where c.author = a.author"
    problems = found(copy, lost + " and c.document is null")
    (stub,) = copy.execute(
        "select encode(id, 'hex') as id from kerai.changesets where document is null"
    ).fetchall()
    (problem,) = (problem for _, subject, problem in problems if subject == stub["id"])
    assert problem.startswith("the key of its author author-1.")


def test_a_weight_is_compared_to_its_last_digit(copy: Connection[Any]) -> None:
    """Also where a database shows floats shorter than they are."""
    with copy.transaction(force_rollback=True):
        copy.execute("set local extra_float_digits = -10")
        copy.execute("update kerai.associations set weight = weight + 1e-15")
        rows = copy.execute("select what, problem from kerai.verify()").fetchall()
    assert [row["what"] for row in rows] == ["association"], rows


def test_a_damaged_account_does_not_keep_history_from_being_dropped(copy: Connection[Any]) -> None:
    """compact() asks for what it drops, not for money."""
    with copy.transaction(force_rollback=True):
        copy.execute("update kerai.wallets set balance = balance + 1 where kind = 'agent'")
        copy.execute("select kerai.compact(now())")


def test_who_writes_looks_up_what_it_names(connect: Any) -> None:
    """What foreign keys would refuse, the functions do: with a code, a detail and a hint."""
    connection = connect()
    calls = {
        "select kerai.create_task('d', 'true', sponsor_wallet => gen_random_uuid())": "no such wallet",
        "select kerai.create_task('d', 'true', gen_random_uuid())": "no such node",
        "select kerai.launch_swarm(gen_random_uuid())": "no such task",
        "select kerai.join_swarm(gen_random_uuid(), (kerai.register_agent('a', 'llm')).id)": "no such swarm",
        "select kerai.record_test_result(gen_random_uuid(), gen_random_uuid(), '{}', true)": "no such agent",
        "select kerai_sync.end_contact('nobody', '{}', '{}', '{}', 'x', '[]')": "no such peer",
    }
    for call, message in calls.items():
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(call)
        assert (refused.value.sqlstate, refused.value.diag.message_primary) == ("KR006", message)
    connection.execute("select kerai.add_peer('p', 'dbname=x')")
    refusal = '[{"direction": "pull", "changeset_id": "00", "code": "KR004"}]'
    connection.execute("select kerai_sync.end_contact('p', '{}', '{}', '{}', 'lost', %s)", [refusal])
    connection.execute("select kerai.remove_peer('p')")
    assert scalar(connection, "select count(*) from kerai.refusals") == 0
    assert connection.execute("select * from kerai.verify()").fetchall() == []

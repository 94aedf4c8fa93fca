"""Many sessions at once: one success is paid once, nobody deadlocks, no budget and no swarm overflows."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from nacl.signing import SigningKey
from tests.settings.odd import connect as connect_to

from kerai import changeset
from kerai_client.db.connection import Connection

AGENTS = 12
REWARD = 1_000_000_000
Work = Callable[[Connection], Any]


class Agent:
    """An agent that signs its own changesets."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.key = SigningKey.generate()
        row = connection.execute(
            "select * from kerai.register_agent(%s, 'tool', %s)", [name, bytes(self.key.verify_key)]
        ).fetchone()
        assert row is not None
        self.id: UUID = row["id"]
        self.wallet: UUID = row["wallet_id"]
        self.author: str = row["author"]

    def push(self, connection: Connection, ops: Sequence[Any], task: UUID | None = None) -> None:
        """Push operations on the state as it is now, and demand that they are merged."""
        n = one(connection, "select * from kerai.next_changeset(%s)", self.author)
        document = changeset.build(
            self.author,
            n["seq"],
            n["lamport"],
            ops,
            prev=n["prev"],
            base=n["base"],
            task=str(task) if task else None,
        )
        pushed = one(
            connection,
            "select (p).status from kerai.push_ops(%s::json, %s) as p",
            document,
            changeset.sign(document, self.key),
        )
        assert pushed["status"] == "merged"


def one(connection: Connection, query: str, *arguments: Any) -> dict[str, Any]:
    """Return the only row of a query."""
    rows = connection.execute(query, arguments).fetchall()  # type: ignore[arg-type]
    assert len(rows) == 1
    return rows[0]


def all_at_once(dsn: str, works: Sequence[Work]) -> Counter[str]:
    """Run each piece of work in a session of its own, started together; count 'ok' and the SQLSTATEs."""
    together = threading.Barrier(len(works))
    with ExitStack() as stack:
        sessions = [stack.enter_context(connect_to(dsn)) for _ in works]

        def run(work: Work, session: Connection) -> str:
            together.wait(timeout=60)
            try:
                work(session)
            except psycopg.Error as error:
                return error.sqlstate or str(error)
            return "ok"

        with ThreadPoolExecutor(len(works)) as pool:
            return Counter(pool.map(run, works, sessions))


def insert(
    parent: UUID | None, node: UUID, kind: str = "statement", name: str | None = None
) -> dict[str, Any]:
    """Return the operation that inserts a node."""
    return {
        "op": "node_insert",
        "node": str(node),
        "parent": str(parent) if parent else None,
        "position": str(node),
        "kind": kind,
        "name": name,
    }


class World:
    """A tree with the directories src and docs, and twelve agents."""

    def __init__(self, dsn: str, connection: Connection) -> None:
        self.dsn = dsn
        self.connection = connection
        self.agents = [Agent(connection, f"agent-{number}") for number in range(AGENTS)]
        self.root, self.src, self.docs = uuid4(), uuid4(), uuid4()
        self.agents[0].push(
            connection,
            [
                insert(None, self.root, "directory"),
                insert(self.root, self.src, "directory", "src"),
                insert(self.root, self.docs, "directory", "docs"),
            ],
        )

    def task(self, scope: UUID | None = None, budget_nkoi: int | None = None) -> UUID:
        """Make a task and return its id."""
        row = one(
            self.connection,
            "select * from kerai.create_task('repair', 'pytest', %s, budget_nkoi => %s)",
            scope,
            budget_nkoi,
        )
        made: UUID = row["id"]
        return made

    def swarm(self, task: UUID, max_agents: int = 100) -> UUID:
        """Launch a swarm and return its id."""
        row = one(self.connection, "select * from kerai.launch_swarm(%s, max_agents => %s)", task, max_agents)
        made: UUID = row["id"]
        return made


@pytest.fixture
def world(database: Any, connect: Any) -> World:
    return World(database.dsn, connect())


def report(agent: Agent, task: UUID, vector: str, passed: bool = True, cost: int = 0) -> Work:
    """Return the work of reporting one result."""
    return lambda session: session.execute(
        "select kerai.record_test_result(%s, %s, %s::jsonb, %s, null, 1, %s)",
        [task, agent.id, vector, passed, cost],
    )


@pytest.mark.read_committed
def test_a_task_that_many_report_at_once_is_paid_once(world: World) -> None:
    task = world.task(scope=world.src)
    swarm = world.swarm(task)
    for number, agent in enumerate(world.agents):
        one(world.connection, "select kerai.join_swarm(%s, %s)", swarm, agent.id)
        agent.push(world.connection, [insert(world.src, uuid4()) for _ in range(number + 1)], task)
    vector = json.dumps(one(world.connection, "select kerai.version_vector() as v")["v"])

    def push_elsewhere(agent: Agent) -> Work:
        def work(session: Connection) -> None:
            for _ in range(5):
                agent.push(session, [insert(world.docs, uuid4()) for _ in range(20)])

        return work

    outcome = all_at_once(
        world.dsn,
        [report(agent, task, vector, cost=3) for agent in world.agents]
        + [push_elsewhere(agent) for agent in world.agents[:6]],
    )

    assert outcome == {"ok": AGENTS + 6}
    results = "select count(*) as n from kerai.test_results where passed and task_id = %s"
    assert one(world.connection, results, task)["n"] == AGENTS
    assert (
        one(world.connection, "select status from kerai.tasks where id = %s", task)["status"] == "succeeded"
    )
    assert (
        one(world.connection, "select status from kerai.swarms where id = %s", swarm)["status"] == "converged"
    )
    mint = one(world.connection, "select * from kerai.mints")
    assert (mint["task_id"], mint["amount"]) == (task, REWARD)
    supply = one(world.connection, "select * from kerai.supply()")
    assert supply["minted"] == supply["circulating"] == supply["balances"] == REWARD
    reporter = one(world.connection, "select agent_id from kerai.convergences")["agent_id"]
    balances = {
        agent.id: one(world.connection, "select kerai.balance(%s) as b", agent.wallet)["b"]
        for agent in world.agents
    }
    total = sum(range(1, AGENTS + 1))
    shares = {agent.id: REWARD * (number + 1) // total for number, agent in enumerate(world.agents)}
    shares[reporter] += REWARD - sum(shares.values())
    assert balances == shares


@pytest.mark.read_committed
def test_tasks_that_share_their_agents_converge_side_by_side(world: World) -> None:
    tasks = [world.task() for _ in range(6)]
    for task in tasks:
        for agent in world.agents:
            agent.push(world.connection, [insert(world.src, uuid4())], task)
    vector = json.dumps(one(world.connection, "select kerai.version_vector() as v")["v"])

    outcome = all_at_once(
        world.dsn,
        [
            report(agent, task, vector)
            for number, task in enumerate(tasks)
            for agent in world.agents[number::6]
        ],
    )

    assert outcome == {"ok": AGENTS}
    supply = one(world.connection, "select * from kerai.supply()")
    assert supply["minted"] == supply["balances"] == len(tasks) * REWARD
    paid = one(world.connection, "select sum(amount)::bigint as n, count(*) as c from kerai.ledger")
    assert (paid["n"], paid["c"]) == (len(tasks) * REWARD, len(tasks) * AGENTS)


@pytest.mark.read_committed
def test_a_swarm_never_takes_more_agents_than_it_has_room_for(world: World) -> None:
    swarm = world.swarm(world.task(), max_agents=5)

    def join(agent: Agent) -> Work:
        return lambda session: session.execute("select kerai.join_swarm(%s, %s)", [swarm, agent.id])

    outcome = all_at_once(world.dsn, [join(agent) for agent in world.agents] * 2)

    members = one(world.connection, "select count(*) as n from kerai.swarm_members")["n"]
    assert members == 5
    assert outcome == {"ok": 10, "KR011": 2 * AGENTS - 10}


@pytest.mark.read_committed
def test_a_budget_is_spent_to_the_last_and_not_beyond(world: World) -> None:
    task = world.task(budget_nkoi=70)

    outcome = all_at_once(
        world.dsn, [report(agent, task, "{}", False, cost=10) for agent in world.agents for _ in range(2)]
    )

    assert outcome == {"ok": 7, "KR008": 2 * AGENTS - 7}
    assert one(world.connection, "select spent_nkoi from kerai.tasks")["spent_nkoi"] == 70
    assert one(world.connection, "select count(*) as n from kerai.test_results")["n"] == 7


@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.read_committed
def test_stopping_launching_and_converging_race_to_one_end(world: World, attempt: int) -> None:
    task = world.task()
    swarms = [world.swarm(task) for _ in range(4)]
    vector = json.dumps(one(world.connection, "select kerai.version_vector() as v")["v"])

    def stop(swarm: UUID) -> Work:
        return lambda session: session.execute("select kerai.stop_swarm(%s)", [swarm])

    def launch(session: Connection) -> None:
        session.execute("select kerai.launch_swarm(%s)", [task])

    def join(swarm: UUID, agent: Agent) -> Work:
        return lambda session: session.execute("select kerai.join_swarm(%s, %s)", [swarm, agent.id])

    outcome = all_at_once(
        world.dsn,
        [stop(swarm) for swarm in swarms]
        + [report(agent, task, vector) for agent in world.agents[:4]]
        + [launch, launch]
        + [join(swarm, agent) for swarm, agent in zip(swarms, world.agents[4:8], strict=True)],
    )

    assert set(outcome) <= {"ok", "KR011"}, f"attempt {attempt}"
    assert one(world.connection, "select status from kerai.tasks")["status"] == "succeeded"
    left = one(world.connection, "select count(*) as n from kerai.swarms where status = 'running'")
    assert left["n"] == 0
    assert one(world.connection, "select count(*) as n from kerai.mints")["n"] == 1

"""Swarms that group their members: changes enter under the swarm's author id, all else is the member's."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from kerai_client.agent import session as sessions
from kerai_client.agent.session import WHOLE_STATE, Session
from kerai_client.agent.state import Vector, read_state, read_vector
from kerai_client.db.connection import Connection, Database
from kerai_client.harness.local_agents import LocalAgents
from kerai_client.repo.importing import import_directory
from kerai_client.source import ROOT_ID, new_id

Rows = Callable[..., Any]


class Beds(NamedTuple):
    """A database with the files a and b in it, and a task with a swarm for two members."""

    way: Database
    task: UUID
    swarm: UUID
    first: Session
    second: Session
    files: dict[str, str]
    base: Vector


def ask(way: Database, query: str, *parameters: object) -> list[Any]:
    """Return the rows of a query; of a single column its values."""

    def read(connection: Connection) -> list[Any]:
        rows = connection.execute(query, parameters).fetchall()  # type: ignore[call-overload]
        return [next(iter(row.values())) if len(row) == 1 else row for row in rows]

    return way.run(read)


def file(name: str, parent: str = str(ROOT_ID)) -> dict[str, Any]:
    """A new file as an operation."""
    place = {"parent": parent, "position": "a0", "kind": "file", "name": name}
    return {"op": "node_insert", "node": str(new_id()), **place}


def change(node: str, content: str) -> dict[str, Any]:
    """An update as an operation."""
    return {"op": "node_update", "node": node, "set": {"content": content}}


@pytest.fixture
def beds(database: Any) -> Iterator[Beds]:
    """One writer, two members, two files."""
    with ExitStack() as stack:
        way = stack.enter_context(Database(database.dsn))
        first, second, gardener = (
            stack.enter_context(Session(way, name)) for name in ("first", "second", "gardener")
        )
        root = {**file("", ""), "parent": None, "node": str(ROOT_ID), "kind": "directory", "name": None}
        made = {name: file(name) for name in "ab"}
        base = gardener.push([root, *made.values()], {}).vector
        (task,) = ask(way, "select id from kerai.create_task('green', 'true')")
        (swarm,) = ask(way, "select id from kerai.launch_swarm(%s, 'beds', 9, true)", task)
        for member in (first, second):
            ask(way, "select agent_id from kerai.join_swarm(%s, %s)", swarm, member.agent_id)
        yield Beds(way, task, swarm, first, second, {name: op["node"] for name, op in made.items()}, base)


def writer_of(vector: Vector) -> str:
    """Return the one author of a vector that is a writer."""
    (writer,) = (author for author in vector if author.startswith("beds-"))
    return writer


# -- vectors ---------------------------------------------------------------------------------------


def test_a_vector_has_the_writer_and_not_the_members(beds: Beds) -> None:
    one = beds.first.push([change(beds.files["a"], "1")], beds.base, swarm=beds.swarm, guard=WHOLE_STATE)
    writer = writer_of(one.vector)
    assert one.vector == {**beds.base, writer: 1} == read_vector(beds.way)
    two = [change(beds.files["a"], "2"), change(beds.files["b"], "2")]
    assert beds.second.push(two, one.vector, swarm=beds.swarm, guard=WHOLE_STATE).vector == {
        **beds.base,
        writer: 3,
    }
    assert {beds.first.author, beds.second.author}.isdisjoint(read_vector(beds.way))


def test_other_members_make_a_push_stale_and_the_own_work_does_not(beds: Beds) -> None:
    a, b = beds.files["a"], beds.files["b"]
    rest = {"swarm": beds.swarm}
    assert beds.first.push([change(a, "1")], beds.base, **rest).status == "merged"
    # another member has touched a, and the writer's sequence is the same
    for guard in (UUID(a), ROOT_ID, WHOLE_STATE):
        late = beds.second.push([change(a, "2")], beds.base, guard=guard, **rest)
        assert (late.status, late.vector) == ("stale", beds.base)
    # what is his own he has seen
    for guard in (UUID(a), ROOT_ID, WHOLE_STATE):
        assert beds.first.push([change(a, str(guard))], beds.base, guard=guard, **rest).status == "merged"
    assert beds.second.push([change(b, "2")], beds.base, guard=UUID(b), **rest).status == "merged"


def test_the_vector_of_a_push_names_all_that_it_needs(beds: Beds) -> None:
    """A writer's entry covers what other members pushed before; what that was made from is covered too."""
    a, b = beds.files["a"], beds.files["b"]
    with Session(beds.way, "loner") as loner:
        theirs = loner.push([file("c", a)], beds.base).vector
    node = ask(beds.way, "select id::text from kerai.nodes where name = 'c'")[0]
    beds.second.push([change(node, "in c")], theirs, swarm=beds.swarm)
    mine = beds.first.push([change(b, "in b")], beds.base, swarm=beds.swarm, guard=UUID(b)).vector
    assert mine == {**beds.base, loner.author: 1, writer_of(mine): 2}
    assert {node.content for node in read_state(beds.way, mine).tree.subtree(ROOT_ID)} >= {"in b", "in c"}


def test_several_drafts_are_merged_whole_or_not_at_all(beds: Beds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "paged", lambda ops: ([op] for op in ops))
    folder = file("folder")
    ops = [{**folder, "kind": "directory"}, file("in it", folder["node"]), change(beds.files["a"], "1")]
    pushed = beds.first.push(ops, beds.base, swarm=beds.swarm, guard=WHOLE_STATE)
    assert (pushed.changesets, pushed.vector) == (3, {**beds.base, writer_of(pushed.vector): 3})
    assert beds.second.push(ops[::-1], beds.base, swarm=beds.swarm, guard=ROOT_ID).status == "stale"
    wrong = [change(beds.files["a"], "2"), change(str(new_id()), "2")]
    with pytest.raises(psycopg.Error, match="no such node"):
        beds.second.push(wrong, pushed.vector, swarm=beds.swarm, whole=True)
    assert read_vector(beds.way) == pushed.vector


def test_a_draft_that_is_sent_again_is_merged_once(beds: Beds) -> None:
    about = {"base": beds.base, "guard": str(WHOLE_STATE), "task": None, "message": ""}
    pages = list(beds.first._drafts([change(beds.files["a"], "1")], beds.swarm, **about))
    merged = beds.first._send(beds.way.connection(), pages)
    beds.second.push([change(beds.files["a"], "2")], beds.base, swarm=beds.swarm)
    assert merged is not None and beds.first._send(beds.way.connection(), pages) == merged
    assert read_vector(beds.way)[writer_of(read_vector(beds.way))] == 2


def test_who_is_no_member_pushes_no_drafts(beds: Beds) -> None:
    with (
        Session(beds.way, "stranger") as stranger,
        pytest.raises(psycopg.Error, match="not a member") as refusal,
    ):
        stranger.push([change(beds.files["a"], "1")], beds.base, swarm=beds.swarm)
    assert refusal.value.sqlstate == "KR013"


# -- views -------------------------------------------------------------------------------------------


def test_views_show_the_members(beds: Beds, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAI_DSN", beds.way.dsn)
    about = {"swarm": beds.swarm, "task": beds.task}
    mine = beds.first.push([change(beds.files["a"], "1"), change(beds.files["b"], "1")], beds.base, **about)
    both = beds.second.push([change(beds.files["a"], "2")], mine.vector, message="better", **about)
    report = "select id from kerai.record_test_result(%s, %s, %s, %s, '1 failed')"
    for member, vector, passed in ((beds.first, mine.vector, False), (beds.second, both.vector, True)):
        ask(beds.way, report, beds.task, member.agent_id, Jsonb(vector), passed)

    work = {("first", 1, 2), ("second", 1, 1)}
    assert {
        (r["agent"], r["pushed"], r["operations"]) for r in rows("swarm", "leaderboard", "--task", "green")
    } == work
    status = rows("swarm", "status", "beds")
    assert (status["agents"], status["operations"]) == (2, 3)
    assert {(r["agent"], r["pushed"], r["operations"]) for r in status["members"]} == work
    assert {r["path"]: r["authors"] for r in rows("swarm", "hotspots")} == {"a": 3, "b": 2}
    pushed = [r for r in rows("swarm", "trace", "--agent", "second") if r["event"] == "pushed"]
    assert [(r["operations"], r["message"]) for r in pushed] == [(1, "better")]
    lineage = ask(
        beds.way, "select agent, passed from kerai.lineage(%s) where task_id is not null", beds.files["a"]
    )
    assert [(r["agent"], r["passed"]) for r in lineage] == [("first", True), ("second", True)]

    assert [r["author"] for r in rows("log", "--author", "second")] == [beds.second.author]
    # paid by what is left of each member's work: the first's change of a is gone
    paid = {share["name"]: share["operations"] for share in rows("task", "show", "green")["shares"]}
    assert paid == {"first": 1, "second": 1}


# -- agents at work ----------------------------------------------------------------------------------

CHECK = """
import sys
from pathlib import Path

left = sum("bug" in file.read_text() for file in Path("beds").iterdir())
print(f"{left} failed, {4 - left} passed in 0.01s")
sys.exit(left > 0)
"""
COMMAND = f"{shlex.quote(sys.executable)} check.py"
SOLVER = "sed -i s/bug/flower/ beds/${KERAI_AGENT##*-}.txt"


@pytest.mark.parametrize("scope", [None, "beds"])
def test_grouped_and_ungrouped_agents_work_side_by_side(
    database: Any, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str | None
) -> None:
    """Four bugs, and each agent repairs the one that is named after it."""
    monkeypatch.setenv("KERAI_DSN", database.dsn)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path / "garden"
    (folder / "beds").mkdir(parents=True)
    for name in "abcd":
        (folder / "beds" / f"{name}.txt").write_text(f"a bug in {name}\n")
    (folder / "check.py").write_text(CHECK)

    with Database(database.dsn) as way:
        with Session(way, "importer", "human") as session:
            import_directory(session, folder)
        task = rows(
            *("task", "create", "no bugs", "--success-command", COMMAND),
            *(() if scope is None else ("--scope", scope)),
        )["id"]
        grouped = rows("swarm", "launch", "--task", task, "--name", "many", "--grouped")
        single = rows("swarm", "launch", "--task", task, "--name", "single")
        assert (grouped["grouped"], single["grouped"]) == (True, False)
        members = ["member-a", "member-b", "member-c"]
        with (
            LocalAgents(database.dsn, UUID(grouped["id"]), members, solver=SOLVER) as many,
            LocalAgents(database.dsn, UUID(single["id"]), ["loner-d"], solver=SOLVER) as one,
        ):
            for local_agents in (many, one):
                for name, process in local_agents.processes.items():
                    assert process.wait(60) == 0, local_agents.log(name)
                    assert "1 merged" in local_agents.log(name)

        board = rows("swarm", "leaderboard", "--task", task)
        assert {(row["agent"], row["pushed"]) for row in board} == {
            (name, 1) for name in [*members, "loner-d"]
        }
        assert {row["rewards_nkoi"] for row in board} == {250_000_000}
        steps = ask(way, "select message from kerai.changesets where task_id = %s order by arrival", task)
        assert steps == [f"{left} failing -> {left - 1} failing" for left in (4, 3, 2, 1)]
        # every result of a merged state is about exactly that state
        tested = ask(way, "select version_vector from kerai.test_results where passed")
        vector = read_vector(way)
        assert vector in tested
        names = {author.rpartition(".")[0] for author in vector}
        writer = f"many-{grouped['id'][:8]}"
        assert {"importer", "loner-d"} < names <= {"importer", "loner-d", writer, f"{writer}/2"}

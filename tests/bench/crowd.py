"""64 agents of one swarm, a session each, push changesets of 10 operations (75 % insert, 25 % update, each in
a file of its own) at the same time. Against one session that pushes changesets of 1,000, and against one of
the agents alone: half the rate of the one, and five times that of the other where that is less.

pgbench is the client: next to nothing beside the server on the same processors. The documents, signed, wait
in a table, as text, from which every push takes its own: all that this adds for the server is one look-up by
index. An agent pushes with kerai.submit and, in another transaction, kerai.settle; alone and in large
changesets with kerai.push_ops, which is faster for one. New sessions first push a few changesets, so that
plans and interpreter are warm, and wait for each other; the time is from their common start to the last
commit. The three take turns; medians.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from report import Row
from support import Author, new_database, push

from kerai_client.postgres import program
from kerai_client.server import PrivateServer

AGENTS = 64
ROUNDS = 3
WARM_UP = 6  # plpgsql settles on its plans after five calls
LONGEST_WARM_UP = 120  # seconds
STATEMENTS = 25  # a function

TABLE = """
create schema bench;
create table bench.documents (
    agent int, n int, document text not null, signature bytea not null, public_key bytea not null,
    primary key (agent, n)
);
"""
START = r"""
\set agent :first + :client_id
\set n :n + 1
\if :n = :start
select pg_advisory_xact_lock_shared(1);
\endif
"""
ONE_CALL = """
select (kerai.push_ops(d.document::json, d.signature, d.public_key)).status
from bench.documents as d where d.agent = :agent and d.n = :n;
"""
TWO_CALLS = r"""
select kerai.submit(d.document::json, d.signature, d.public_key) as ticket
from bench.documents as d where d.agent = :agent and d.n = :n \gset
select status from kerai.settle(:ticket);
"""


@dataclass
class Side:
    """Agents that push at the same time: which ones, how often in a round, how much at once, and how."""

    first: int
    agents: int
    pushes: int
    operations: int
    script: str

    @property
    def pushed(self) -> int:
        """How many operations are measured in a round."""
        return self.agents * self.pushes * self.operations


def edits(file: str, random: Random) -> Iterator[dict[str, Any]]:
    """Yield what an agent does to a file of its own: three inserts, then an update of a statement."""
    function, statements = file, list[str]()
    for number in range(1_000_000):
        if number % 4 == 3 and statements:
            content = f"    total = combine(total, weight={random.random():.6f})\n"
            yield {"op": "node_update", "node": random.choice(statements), "set": {"content": content}}
            continue
        node = str(uuid.UUID(int=random.getrandbits(128), version=4))
        insert = {"op": "node_insert", "node": node, "position": f"a{number:06d}"}
        if number % STATEMENTS == 0:
            function = node
            yield insert | {"parent": file, "kind": "function_definition", "name": f"function_{number}"}
        else:
            statements.append(node)
            content = f"    total = combine(total, values[{number}], weight={random.random():.6f})\n"
            yield insert | {"parent": function, "kind": "expression_statement", "content": content}


def prepare(dsn: str, sides: list[Side]) -> None:
    """Make a swarm and its agents, and sign all that they will push."""
    files = [str(uuid.uuid4()) for _ in range(AGENTS + 2)]
    setup = Author("setup")
    with psycopg.connect(dsn, autocommit=True) as connection:
        inserts = [
            {
                "op": "node_insert",
                "node": file,
                "parent": None,
                "position": f"a{i}",
                "kind": "file",
                "name": f"{i}.py",
            }
            for i, file in enumerate(files)
        ]
        push(connection, setup.document(inserts))
        (task,) = connection.execute("select id from kerai.create_task('bench', 'true')").fetchone() or ()
        (swarm,) = connection.execute("select id from kerai.launch_swarm(%s)", [task]).fetchone() or ()
        connection.execute(TABLE)
        for side in sides:
            for agent in range(side.first, side.first + side.agents):
                author = Author(f"agent-{agent}", setup.vector, setup.lamport)
                connection.execute(
                    "select kerai.join_swarm(%s, a.id) from kerai.register_agent(%s, 'llm', %s) as a",
                    [swarm, f"agent-{agent}", author.public_key],
                )
                work = edits(files[agent], Random(agent))
                with connection.cursor().copy("copy bench.documents from stdin") as copy:
                    for n in range(1, (WARM_UP + side.pushes) * ROUNDS + 1):
                        operations = list(islice(work, side.operations))
                        copy.write_row((agent, n, *author.document(operations, task=str(task))))
        connection.execute("vacuum analyze")


def measure(dsn: str, side: Side, number: int) -> float:
    """Let one side push its documents of a round; return the seconds."""
    place = conninfo_to_dict(dsn)
    done = number * (WARM_UP + side.pushes)
    with (
        tempfile.TemporaryDirectory(prefix="kerai-bench-") as folder,
        psycopg.connect(dsn, autocommit=True) as gate,
    ):
        script = Path(folder) / "script.sql"
        script.write_text(START + side.script)
        command = [program("pgbench"), "--no-vacuum", "--protocol=prepared", f"--file={script}", "--log"]
        command += [
            f"--log-prefix={folder}/log",
            f"--client={side.agents}",
            f"--transactions={WARM_UP + side.pushes}",
        ]
        command += [f"--host={place['host']}", f"--port={place['port']}", f"--username={place['user']}"]
        command += [
            f"--define={name}={value}"
            for name, value in (("first", side.first), ("n", done), ("start", done + WARM_UP + 1))
        ]
        gate.execute("select pg_advisory_lock(1)")
        before = gate.execute("select count(*) from kerai.changesets").fetchone() or ()
        with subprocess.Popen(
            [*command, place["dbname"]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as pgbench:
            waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            deadline = time.monotonic() + LONGEST_WARM_UP
            while gate.execute(waiting).fetchone() != (side.agents,):
                if pgbench.poll() is not None or time.monotonic() > deadline:
                    pgbench.kill()
                    break
                time.sleep(0.02)
            started = time.time()
            gate.execute("select pg_advisory_unlock(1)")
            output = pgbench.communicate()[0].decode()
        after = gate.execute("select count(*) from kerai.changesets").fetchone() or ()
        if pgbench.returncode or after[0] - before[0] != side.agents * (WARM_UP + side.pushes):
            raise RuntimeError(f"not everything was merged: {output}")
        # The last two fields of a line: when the push was done, in seconds and microseconds.
        lines = [line.split() for log in Path(folder).glob("log.*") for line in log.read_text().splitlines()]
        return max(int(line[4]) + int(line[5]) / 1e6 for line in lines) - started


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratio of the rates in operations a second."""
    dsn = new_database(server, "crowd")
    with psycopg.connect(dsn, autocommit=True) as connection:
        # Until the engine has them.
        found = connection.execute("select to_regproc('kerai.submit')").fetchone()
        script = ONE_CALL if found == (None,) else TWO_CALLS
    crowd = Side(0, AGENTS, 20, 10, script)
    alone = Side(AGENTS, 1, 200, 10, ONE_CALL)
    large = Side(AGENTS + 1, 1, 12, 1_000, ONE_CALL)
    sides = [crowd, alone, large]
    prepare(dsn, sides)
    seconds = [[measure(dsn, side, number) for side in sides] for number in range(ROUNDS)]
    rates = [side.pushed / median(each) for side, each in zip(sides, zip(*seconds, strict=True), strict=True)]
    return [
        Row(
            f"{AGENTS} agents push changesets of 10 operations, against one session with 1,000 at once "
            f"(one agent alone: {rates[1]:,.0f} op/s)",
            f"{rates[0]:,.0f} op/s",
            f"{rates[2]:,.0f} op/s",
            rates[0] / rates[2],
            min(0.5, 5 * rates[1] / rates[2]),
        )
    ]

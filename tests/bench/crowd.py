"""64 agents of one swarm, a session each, push changesets of 10 operations (75 % insert, 25 % update, each in
a directory of its own) at the same time. The outside is one session that pushes changesets of 1,000, and one
of the agents alone. The aim is half the rate of the first, or five times that of the second where that is
less. Once in a swarm whose members write under their own names, and once in one that groups them.

pgbench is the client: next to nothing beside the server on the same processors. The documents, signed, wait
in a table, as text, from which every push takes its own: all that this adds for the server is one look-up by
index. An agent pushes with kerai.push_batched; alone and in large changesets with kerai.push_ops, which is
faster for one. New sessions first push a few changesets, so that plans and interpreter are warm, and wait for
each other. Merges count from their common start until the first of them has nothing left to push, since after
that there are fewer than 64. Each agent has 80 changesets. All take turns; medians.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median

import psycopg
from psycopg.conninfo import conninfo_to_dict
from report import Row
from support import Author, Codebase, new_database

from kerai_client.server.postgres import program
from kerai_client.server.private import PrivateServer

AGENTS = 64
ROUNDS = 3
WARM_UP = 6  # plpgsql settles on its plans after five calls
LONGEST_WARM_UP = 120  # seconds

TABLE = """
create schema bench;
create table bench.documents (
    agent int, n int, document text not null, signature bytea not null, public_key bytea not null,
    primary key (agent, n)
);
create procedure bench.push_batched(agent int, n int)
language plpgsql
as $$
declare
    own bench.documents;
    result kerai.push_result;
begin
    select d.* into own
    from bench.documents as d where d.agent = push_batched.agent and d.n = push_batched.n;
    call kerai.push_batched(own.document::json, own.signature, own.public_key,
        null, result.changeset_id, result.status, result.applied, result.first_seq, result.last_seq);
end
$$;
"""
LAUNCH = "select id::text from kerai.launch_swarm(%s, grouped => %s)"
JOIN = "select kerai.join_swarm(%s, a.id) from kerai.register_agent(%s, 'llm', %s) as a"
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
TOGETHER = """
call bench.push_batched(:agent, :n);
"""


@dataclass
class Side:
    """Agents that push at the same time: which ones, how often in a round, how much at once, and how."""

    first: int
    agents: int
    pushes: int
    operations: int
    script: str
    grouped: bool = False


def prepare(dsn: str, sides: list[Side]) -> None:
    """Make a swarm and its agents, and sign all that they will push."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        (task,) = (
            connection.execute("select id::text from kerai.create_task('bench', 'true')").fetchone() or ()
        )
        connection.execute(TABLE)
        for side in sides:
            (swarm,) = connection.execute(LAUNCH, [task, side.grouped]).fetchone() or ()
            for agent in range(side.first, side.first + side.agents):
                author, code = Author(f"agent-{agent}"), Codebase(Random(agent))
                connection.execute(JOIN, [swarm, f"agent-{agent}", author.public_key])
                with connection.cursor().copy("copy bench.documents from stdin") as copy:
                    for n in range(1, (WARM_UP + side.pushes) * ROUNDS + 1):
                        # Ten is no multiple of four.
                        inserts = (side.operations * 3 + n % 2 * 2) // 4
                        operations = code.edit(inserts, side.operations - inserts)
                        if side.grouped:
                            document = author.draft(swarm, operations, task)
                        else:
                            document = author.document(operations, task)
                        copy.write_row((agent, n, *document))
        connection.execute("vacuum analyze")


def measure(dsn: str, side: Side, number: int) -> float:
    """Let one side push its documents of a round; return how many operations a second."""
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
            waiting = (
                "select count(*) from pg_locks "
                "where (locktype, classid, objid) = ('advisory', 0, 1) and not granted"
            )
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
            raise RuntimeError("\n".join(["not everything was merged:", *output.splitlines()[:20]]))
        # A line a push: the client, its how manieth, and in the last two fields when it was done.
        lines = [line.split() for log in Path(folder).glob("log.*") for line in log.read_text().splitlines()]
    pushes = [(int(line[1]), int(line[4]) + int(line[5]) / 1e6) for line in lines]
    end = min(done for place, done in pushes if place == WARM_UP + side.pushes)
    counted = sum(place > WARM_UP and done <= end for place, done in pushes)
    return counted * side.operations / (end - started)


def run(server: PrivateServer) -> list[Row]:
    """Measure, and return the ratio of the rates in operations a second."""
    dsn = new_database(server, "crowd")
    crowd = Side(0, AGENTS, 80, 10, TOGETHER)
    grouped = replace(crowd, first=AGENTS, grouped=True)
    alone = Side(2 * AGENTS, 1, 200, 10, ONE_CALL)
    large = Side(2 * AGENTS + 1, 1, 12, 1_000, ONE_CALL)
    sides = [crowd, grouped, alone, large]
    prepare(dsn, sides)
    rounds = [[measure(dsn, side, number) for side in sides] for number in range(ROUNDS)]
    *crowds, one, best = map(median, zip(*rounds, strict=True))
    return [
        Row(
            f"{AGENTS} agents{how} push changesets of 10 operations, against one session with 1,000 at once "
            f"(one agent alone: {one:,.0f} op/s)",
            f"{rate:,.0f} op/s",
            f"{best:,.0f} op/s",
            rate / best,
            min(0.5, 5 * one / best),
        )
        for how, rate in zip(("", ", grouped,"), crowds, strict=True)
    ]

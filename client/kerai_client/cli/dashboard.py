"""What a swarm is doing, for people: a live table on a terminal, a line a change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from kerai_client.cli.output import console, emit, format_nkoi, table_lines, width
from kerai_client.cli.tables import wrap
from kerai_client.db.connection import Connection, Database, queries
from kerai_client.errors import printable

REFRESH_SECONDS = 0.5
MOST_ROWS = 24

Row = dict[str, Any]


def swarm_rows(database: Database, swarm: UUID) -> tuple[Row, list[Row]]:
    """Return the status of a swarm, and of each of its agents."""

    def read(connection: Connection) -> tuple[Row, list[Row]]:
        status = connection.execute(queries()["swarm_status"], {"swarm": swarm}).fetchone()
        assert status is not None
        return status, connection.execute(queries()["swarm_agents"], {"swarm": swarm}).fetchall()

    return database.run(read)


def headline(status: Row) -> str:
    """Return the state of a swarm in one line."""
    failing = status["failing_tests"]
    left = "not tested yet" if failing is None else f"{failing} failing tests left"
    return printable(
        f"{status['name']}: {status['status']}, {left}; "
        f"{status['agents']} agents ({status['active']} active), "
        f"{status['attempts']} attempts, {status['operations']} operations merged, "
        f"{format_nkoi(status['rewards_nkoi'] or 0)} nKoi"
    )


def agents_table(status: Row, agents: list[Row]) -> list[str]:
    """Return the table of a swarm's agents, the busiest first when they are too many."""
    columns = ["agent", "status", "attempts", "merged", "operations", "failing", "rewards (nKoi)"]
    rows = []
    shown = agents
    if len(agents) > MOST_ROWS:
        shown = sorted(agents, key=lambda row: (-row["pushed"], -row["attempts"]))[:MOST_ROWS]
    for row in shown:
        failing = "" if row["failing_tests"] is None else str(row["failing_tests"])
        numbers = [row["attempts"], row["pushed"], row["operations"]]
        cells = [
            row["agent"],
            row["status"],
            *map(str, numbers),
            failing,
            format_nkoi(row["rewards_nkoi"] or 0),
        ]
        rows.append([printable(cell) for cell in cells])
    title = headline(status)
    lines = [*wrap(title, width() or len(title)), *table_lines(columns, rows, range(2, len(columns)))]
    if len(shown) < len(agents):
        lines.append(f"and {len(agents) - len(shown)} more")
    return lines


def follow(database: Database, swarm: UUID, go_on: Callable[[], bool]) -> Row:
    """Show a swarm until it is no longer running, or ``go_on`` says no; return its last status."""
    screen = console(stderr=False)
    if screen.is_terminal:
        from rich.live import Live  # noqa: PLC0415 -- as above
        from rich.text import Text  # noqa: PLC0415

        def shown() -> Text:
            return Text("\n".join(agents_table(status, agents)), no_wrap=True, overflow="ignore")

        status, agents = swarm_rows(database, swarm)
        with Live(shown(), console=screen, auto_refresh=False) as live:
            while status["status"] == "running" and go_on():
                time.sleep(REFRESH_SECONDS)
                status, agents = swarm_rows(database, swarm)
                live.update(shown(), refresh=True)
        return status
    last = ""
    while True:
        status, _ = swarm_rows(database, swarm)
        line = headline(status)
        if line != last:
            screen.print(line, markup=False)
            last = line
        if status["status"] != "running" or not go_on():
            return status
        time.sleep(2 * REFRESH_SECONDS)


def show_leaderboard(database: Database, task: UUID, json: bool = False) -> None:
    """Print who has done what for a task."""
    rows = database.run(
        lambda connection: connection.execute(queries()["swarm_leaderboard"], {"task": task}).fetchall()
    )
    columns = [
        "rank",
        "agent",
        "attempts",
        "passes",
        "failures",
        "pass_rate",
        "pushed",
        "operations",
        "rewards_nkoi",
    ]
    emit(rows, columns, "Leaderboard", json, {"rewards_nkoi": format_nkoi})


def economics_lines(row: Row) -> list[str]:
    """Return the economics of a task as lines to read."""
    budget, spent = row["budget_nkoi"], row["spent_nkoi"]
    share = "" if row["spent_percent"] is None else f" ({row['spent_percent']:.1f}%)"
    events = row["convergence_events"]
    return [
        f"Total budget: {'none' if budget is None else f'{budget:,} nKoi'}",
        f"Spent: {spent:,} nKoi{share}",
        f"Agents: {row['agents']} ({row['active']} active, {row['idle']} idle)",
        f"Rewards minted: {row['rewards_minted']:,} nKoi ({events} convergence event{'s' * (events != 1)})",
    ]

"""What an agent says to its swarm, and hears from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.types.json import Json, Jsonb

from kerai_client.db.connection import Connection, Database, queries
from kerai_client.errors import KeraiError
from kerai_client.harness.bookkeeping import Stopped
from kerai_client.harness.results import Outcome, read

T = TypeVar("T")

# Long enough for a server that recovers from a crash.
PATIENCE_SECONDS = 300.0
MAX_REASON = 1000
TOO_LARGE = "KR005"
END_CODES = ("KR008", "KR011")  # a budget is used up; the swarm or the task is over


class PatientDatabase(Database):
    """A database that an agent goes on with when the server is gone for a while, or until it has to stop."""

    def __init__(
        self, dsn: str, *, interrupted: Callable[[], None], on_disconnect: Callable[[str], None]
    ) -> None:
        """:param interrupted: called between tries; raises when the agent has to stop.
        :param on_disconnect: called once with the reason when the connection is lost.
        """
        super().__init__(dsn, seconds=PATIENCE_SECONDS)
        self._interrupted, self._on_disconnect = interrupted, on_disconnect

    def run(
        self,
        operation: Callable[[Connection], T],
        *,
        on_retry: Callable[[psycopg.Error, float], None] | None = None,
    ) -> T:
        tries = 0

        def between(error: psycopg.Error, delay: float) -> None:
            nonlocal tries
            tries += 1
            if tries == 1 and (error.sqlstate is None or not error.sqlstate.startswith("40")):
                self._on_disconnect(f"the connection is lost, trying again: {str(error).splitlines()[0]}")
            self._interrupted()
            if on_retry is not None:
                on_retry(error, delay)

        return super().run(operation, on_retry=between)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a swarm is for; ``grouped``: whether its members push drafts."""

    swarm: UUID
    swarm_name: str
    task: UUID
    description: str
    success_command: str
    scope: UUID | None
    grouped: bool


@dataclass(frozen=True, slots=True)
class Tested:
    """What is reported of one run of the success command.

    ``failing``: how many tests failed, None when that is not known. ``cost`` is in nKoi.
    """

    vector: Mapping[str, int]
    failing: int | None
    output: str
    milliseconds: int
    cost: int


class Membership:
    """One agent in one swarm."""

    def __init__(self, database: Database, swarm: UUID, agent: UUID) -> None:
        self._database = database
        self.agent = agent
        row = self._row(swarm)
        self.assignment = Assignment(
            swarm,
            row["name"],
            row["task_id"],
            row["description"],
            row["success_command"],
            row["scope_node_id"],
            row["grouped"],
        )

    def join(self) -> None:
        """Join, or show that this agent is still alive."""
        self._call("join_swarm", swarm=self.assignment.swarm, agent=self.agent)

    def over(self) -> str | None:
        """Return why there is nothing left to do, None when there is."""
        row = self._row(self.assignment.swarm)
        if row["task_status"] == "succeeded":
            return "the task has succeeded"
        if row["task_status"] == "failed":
            return "the task has failed"
        if row["status"] != "running":
            return (
                f"the swarm has {row['status']}" if row["status"] == "converged" else "the swarm was stopped"
            )
        return None

    def attempts(self) -> int:
        """Return how many results this agent has reported before, in an earlier life too."""
        row = self._call("attempts_of", task=self.assignment.task, agent=self.agent)
        attempts: int = row["attempts"] if row else 0
        return attempts

    def result_at(self, vector: Mapping[str, int]) -> tuple[Outcome, str] | None:
        """Return what somebody has reported of exactly this state, None when nobody has."""
        row = self._call("result_at", task=self.assignment.task, vector=Jsonb(dict(vector)))
        if row is None:
            return None
        return read(row["output"], 0 if row["passed"] else 1), row["output"]

    def report(self, tested: Tested, passed: bool) -> None:
        """Report the result of a state that is merged.

        :raises psycopg.Error: when it is refused; then that is reported in its place.
        """
        try:
            self._result(tested, passed, pushed=True)
        except psycopg.Error as error:
            if error.sqlstate not in END_CODES:
                raise
            reason = f"the result was refused ({error.sqlstate}): {error.diag.message_primary}"
            self.report_failure(tested, ops=(), reason=reason, refused=True)
            raise

    def report_failure(
        self, tested: Tested, *, ops: Sequence[Mapping[str, Any]], reason: str, refused: bool = False
    ) -> None:
        """Report an attempt that is not pushed: its result, and its operations for study.

        :param tested: its vector is the state that the attempt started from.
        :param refused: the server has refused it. The report is then taken also when the budget is used up.
        :raises Stopped: when it is.
        """
        try:
            self._call(
                "record_failed_attempt",
                task=self.assignment.task,
                agent=self.agent,
                base=Jsonb(dict(tested.vector)),
                ops=Json(list(ops)),
                reason=reason[:MAX_REASON],
                output=tested.output,
                failing=tested.failing,
            )
        except psycopg.Error as error:
            if error.sqlstate != TOO_LARGE:  # what cannot be studied is still an attempt that failed
                raise
        if not refused:
            try:
                self._result(tested, passed=False, pushed=False)
            except psycopg.Error as error:
                if error.sqlstate not in END_CODES:
                    raise
                self._refused(tested, reason)
                raise
        else:
            self._refused(tested, reason)
            # The report of a refusal is always taken: it is for the agent to end with the budget.
            if self._row(self.assignment.swarm)["is_spent"]:
                raise Stopped("the task's money is used up")

    def _result(self, tested: Tested, passed: bool, pushed: bool) -> None:
        self._call("record_test_result", passed=passed, pushed=pushed, **self._parameters(tested))

    def _refused(self, tested: Tested, reason: str) -> None:
        explained = replace(tested, output=f"{reason}\n{tested.output}")
        self._call("record_refused_attempt", **self._parameters(explained))

    def _parameters(self, tested: Tested) -> dict[str, object]:
        return {
            "task": self.assignment.task,
            "agent": self.agent,
            "vector": Jsonb(dict(tested.vector)),
            "output": tested.output,
            "duration_ms": tested.milliseconds,
            "compute_cost": tested.cost,
            "failing": tested.failing,
        }

    def _row(self, swarm: UUID) -> dict[str, Any]:
        row = self._call("swarm", swarm=swarm)
        if row is None:
            raise KeraiError(f"there is no swarm {swarm}", hint="`kerai swarm status` shows what there is")
        return row

    def _call(self, query: str, **parameters: object) -> dict[str, Any] | None:
        return self._database.run(
            lambda connection: connection.execute(queries()[query], parameters).fetchone()
        )

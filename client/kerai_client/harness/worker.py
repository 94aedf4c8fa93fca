"""An agent at work: read the state, let the solver change it, test, push what got better, again.

Whatever is pushed has been tested exactly as it is merged. The tests run on a fresh working tree that holds
the state and the operations, nothing else. The push is guarded by the scope, or without one by the whole
state: nothing else at all may have been merged meanwhile. When somebody else was faster, the push is stale;
then the agent's operations are put onto the new state and tested there again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from kerai_client.agent.session import WHOLE_STATE, Session
from kerai_client.agent.state import State, Vector, read_state, read_vector
from kerai_client.errors import KeraiError
from kerai_client.harness.bookkeeping import Candidate, Counters, Limits, Stopped, StopRequest
from kerai_client.harness.coordination import END_CODES, Membership, Tested
from kerai_client.harness.process import Finished
from kerai_client.harness.results import Outcome, judge, tail
from kerai_client.harness.workbench import WATCH_SECONDS, Workbench
from kerai_client.harness.workspace import Workspace
from kerai_client.repo.rebase import rebase
from kerai_client.source import (
    Snapshot,
    SourceError,
    Tree,
    apply_operations,
    diff,
    outside_scope,
    read_directory,
    snapshot_of,
)

MERGE_TRIES = 25
TEST_TURN, MERGE_TURN = 0, 1
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
SHARED_RESULT_SECONDS = 1.5  # a state's author reports its result at once; waiting beats testing it again
# What tools leave in a working tree; nobody means to keep it.
LEFTOVERS = ("__pycache__/", ".pytest_cache/", ".mypy_cache/", ".coverage", "*.py[cod]", ".kerai/")
NOT_STARTED = (126, 127)  # how a shell says that there is no such program
DEPENDENCY_MISSING = "KR004"  # a restored or crashed server may know less than it has told before
RETRY_SECONDS = 1.0
BUSY = "KR009"  # other pushes are in the way
# The server does not take these operations, now or ever: too large, about what is not there, out of scope.
REFUSED = ("KR005", "KR006", "KR007")
OUTPUT_HINT_BYTES = 2_000


class _Refused(Exception):
    """The server does not take a candidate; the message says why."""

    def __init__(self, candidate: Candidate, message: str) -> None:
        super().__init__(message)
        self.candidate = candidate


@dataclass
class Worker:
    """One agent at work for one swarm.

    :param solver: the command that changes the working tree, for ``/bin/sh``.
    :param on_event: called with each event: its name, and what belongs to it.
    """

    session: Session
    membership: Membership
    solver: str
    limits: Limits
    stop: StopRequest
    on_event: Callable[[str, dict[str, Any]], None]
    counters: Counters = field(default_factory=Counters)
    _results: dict[str, tuple[Outcome, str]] = field(default_factory=dict)
    _fruitless: int = 0
    _next_look: float = 0.0

    def work(self) -> str:
        """Work until there is nothing left to do, and return why."""
        with Workspace(self.session.name) as workspace:
            self._workspace = workspace
            self._bench = Workbench(
                workspace, self.membership.assignment, self.limits, self.session.name, self._watch
            )
            if self.stop.parent is None:
                workspace.reserve(self.session.name)
            try:
                self.membership.join()
                self._first_attempt = self.membership.attempts() + 1
                while True:
                    self._step_or_wait()
            except Stopped as stopped:
                return str(stopped)
            except psycopg.Error as error:
                if error.sqlstate not in END_CODES:
                    raise
                return str(error.diag.message_primary)

    def _step_or_wait(self) -> None:
        try:
            self._step()
        except psycopg.Error as error:
            if error.sqlstate == DEPENDENCY_MISSING:
                self.on_event("rewound", {"message": str(error.diag.message_primary)})
                self._results = {}
            elif error.sqlstate == BUSY:
                self.on_event("waiting", {"message": str(error.diag.message_primary)})
            else:
                raise
            time.sleep(RETRY_SECONDS)

    def _step(self) -> None:
        self._check()
        if self.limits.attempts is not None and self.counters.attempts >= self.limits.attempts:
            raise Stopped(f"{self.counters.attempts} attempts made")
        state = self._state()
        outcome, output = self._result_of(state)
        if outcome.passed:
            # Green, and yet not over: something outside of this state has come meanwhile.
            self._pause(state)
            return
        edits = self._attempt(state, output)
        if edits is not None and self._merge(state, edits):
            self._fruitless = 0
        else:
            self._fruitless += 1
            self._pause(state)

    # -- the state and its result ---------------------------------------------------------------

    def _state(self) -> State:
        return read_state(self.session.database)

    def _result_of(self, state: State) -> tuple[Outcome, str]:
        """Return what the tests say of a state: what is known, or else by running them."""
        key = _key(state.vector)
        if key not in self._results:
            # One of this machine's agents tests a state, the others wait for what it reports.
            with self._turn(TEST_TURN):
                known = self._shared_result(state.vector) or self._own_result(state)
            self._results = {key: known}
        return self._results[key]

    def _own_result(self, state: State) -> tuple[Outcome, str]:
        outcome, output, milliseconds = self._test(snapshot_of(state.tree))
        self.on_event("tested", {"failing": outcome.failed, "summary": outcome.summary})
        self.membership.report(
            self._tested(state.vector, outcome.failing_count, tail(output, outcome), milliseconds),
            outcome.passed,
        )
        return outcome, output

    def _shared_result(self, vector: Vector) -> tuple[Outcome, str] | None:
        until = time.monotonic() + random.uniform(0.0, SHARED_RESULT_SECONDS)
        while True:
            known = self.membership.result_at(vector)
            if known is not None or time.monotonic() > until:
                # Passing is worth a look of one's own: the report may have come too early to count.
                return None if known is not None and known[0].passed else known
            self._check()
            time.sleep(0.1)

    def _scope_in(self, tree: Tree) -> str:
        """Return the path of what may be changed, ``.`` for all."""
        scope = self.membership.assignment.scope
        return "." if scope is None else tree.path_of(scope) or "."

    # -- one attempt ----------------------------------------------------------------------------

    def _attempt(self, state: State, output: str) -> list[dict[str, Any]] | None:
        """Let the solver change a working tree; return the operations that it comes to, None for none."""
        self.counters.attempts += 1
        number = self._first_attempt + self.counters.attempts - 1
        before = snapshot_of(state.tree)
        finished = self._bench.solve(self.solver, before, number, self._scope_in(state.tree), output)
        self._check()
        if finished.exit_code in NOT_STARTED and not finished.timed_out:
            raise KeraiError(
                "the solver could not be started",
                detail=finished.output.strip()[-OUTPUT_HINT_BYTES:],
                hint="--solver takes a command line for /bin/sh; it runs in the working tree",
            )
        try:
            self._workspace.require_tree()
            after, problems = read_directory(self._workspace.tree, exclude=LEFTOVERS, tracked=before.keys())
        except OSError as error:
            self._give_up(state, f"what the solver has left cannot be read: {error}", finished)
            return None
        unread = {problem.path for problem in problems} - after.keys()
        for problem in problems:
            self.on_event("problem", {"attempt": number, "message": str(problem)})
        scope = self.membership.assignment.scope
        if scope is not None:
            outside = outside_scope(state.tree, after, scope=scope, unread=unread)
            if outside:
                self.on_event("outside", {"attempt": number, "paths": outside})
        try:
            ops = diff(state.tree, after, author=self.session.author, scope=scope, unread=unread)
        except SourceError as error:
            self._give_up(state, str(error), finished)
            return None
        if not ops:
            self.on_event("idle", {"attempt": number, "solver_exit": finished.exit_code})
            return None
        return ops

    def _merge(self, state: State, ops: Sequence[Mapping[str, Any]]) -> bool:
        """Merge operations when they make the state better; return whether they are merged."""
        try:
            return self._test_and_push(state, ops)
        except _Refused as refusal:
            self._discard(refusal.candidate, str(refusal), refused=True)
            return False

    def _test_and_push(self, state: State, ops: Sequence[Mapping[str, Any]]) -> bool:
        candidate = self._improvement(state, ops)
        if candidate is None or self._push(candidate):
            return candidate is not None
        # Each merge makes all other candidates stale. If all of them were tested again at once, all but
        # one would have used the processors for nothing: the agents of one machine take turns.
        with self._turn(MERGE_TURN):
            for _ in range(MERGE_TRIES):
                self.counters.stale += 1
                self.on_event("stale", {"operations": len(candidate.ops)})
                again = self._improvement(candidate.state, candidate.ops)
                if again is None or self._push(again):
                    return again is not None
                candidate = again
        self._discard(candidate, f"stale {MERGE_TRIES} times", refused=True)
        return False

    def _improvement(self, state: State, ops: Sequence[Mapping[str, Any]]) -> Candidate | None:
        """Put operations onto the present state and test them; return them when they make it better."""
        self._check()
        if read_vector(self.session.database) != state.vector:
            newer = self._state()
            ops = rebase(state.tree, newer.tree, ops)
            state = newer
        if not ops:
            self.on_event("overtaken", {})
            return None
        tree = apply_operations(state.tree, [dict(op) for op in ops])
        outcome, output, milliseconds = self._test(snapshot_of(tree))
        candidate = Candidate(state, ops, outcome, output, milliseconds)
        reason = self._why_not_better(candidate)
        if reason is None:
            return candidate
        self._discard(candidate, reason)
        return None

    def _why_not_better(self, candidate: Candidate) -> str | None:
        """Return why a candidate is no progress, None when it is."""
        before, _ = self._result_of(candidate.state)
        if candidate.outcome.better_than(before):
            return None
        if candidate.outcome.broken:
            return f"the tests do not run: {candidate.outcome.summary}"
        return f"no better: {before.summary} before, {candidate.outcome.summary} after"

    def _push(self, candidate: Candidate) -> bool:
        before, _ = self._result_of(candidate.state)
        message = f"{_failing(before)} -> {_failing(candidate.outcome)}"
        assignment = self.membership.assignment
        try:
            pushed = self.session.push(
                candidate.ops,
                candidate.state.vector,
                guard=assignment.scope or WHOLE_STATE,
                task=assignment.task,
                swarm=assignment.swarm if assignment.grouped else None,
                message=message,
            )
        except psycopg.Error as error:
            reason = f"refused ({error.sqlstate}): {error.diag.message_primary}"
            if error.sqlstate in REFUSED:
                raise _Refused(candidate, reason) from error
            if error.sqlstate in END_CODES:
                self._discard(candidate, reason, refused=True)
            raise
        if pushed.status == "stale":
            return False
        # As far as the guard reaches exactly what was tested: the state as it was read, and these operations.
        vector = pushed.vector
        output = tail(candidate.output, candidate.outcome)
        self._results = {_key(vector): (candidate.outcome, output)}
        self.counters.merged += 1
        self.on_event(
            "merged",
            {"operations": pushed.operations, "failing": candidate.outcome.failed, "message": message},
        )
        tested = self._tested(vector, candidate.outcome.failing_count, output, candidate.milliseconds)
        self.membership.report(tested, candidate.outcome.passed)
        return True

    def _discard(self, candidate: Candidate, reason: str, *, refused: bool = False) -> None:
        self.counters.failed += 1
        self.on_event("failed", {"reason": reason})
        tested = self._tested(
            candidate.state.vector,
            candidate.outcome.failing_count,
            tail(candidate.output, candidate.outcome, limit=32 * 1024),
            candidate.milliseconds,
        )
        self.membership.report_failure(tested, ops=candidate.ops, reason=reason, refused=refused)

    def _give_up(self, state: State, reason: str, finished: Finished) -> None:
        """Report an attempt that came to no operations that could be tested."""
        self.counters.failed += 1
        self.on_event("failed", {"reason": reason})
        output = finished.output[-OUTPUT_HINT_BYTES:]
        tested = self._tested(state.vector, None, output, finished.milliseconds)
        self.membership.report_failure(tested, ops=(), reason=reason, refused=True)

    def _tested(self, vector: Vector, failing: int | None, output: str, milliseconds: int) -> Tested:
        """Return what is to be reported, with the cost of all work since the last report."""
        return Tested(vector, failing, output, milliseconds, self._bench.cost())

    # -- running things -------------------------------------------------------------------------

    def _test(self, snapshot: Snapshot) -> tuple[Outcome, str, int]:
        """Run the success command on exactly these files."""
        finished = self._bench.test(snapshot)
        self._check()
        return judge(finished), finished.output, finished.milliseconds

    def _turn(self, kind: int) -> AbstractContextManager[None]:
        """Wait for this task's turn of a kind among the agents of this machine, of all its swarms."""
        return self._workspace.turn(self.membership.assignment.task.int * 2 + kind, self._wait)

    def _wait(self) -> None:
        """Look out for the end now and then while waiting."""
        self.stop.check()
        if time.monotonic() > self._next_look:
            self._check()
            self._next_look = time.monotonic() + WATCH_SECONDS

    def _watch(self) -> str | None:
        """Return why what runs now is to be ended."""
        return self.stop.reason() or self.membership.over()

    def _check(self) -> None:
        """:raises Stopped: when the swarm is over, or this agent was asked to stop."""
        self.stop.check()
        reason = self.membership.over()
        if reason is not None:
            raise Stopped(reason)

    def _pause(self, state: State) -> None:
        """Wait until the state changes, but no longer than grows with the attempts that came to nothing."""
        longest = min(SHORTEST_PAUSE * 2 ** min(self._fruitless, 10), LONGEST_PAUSE)
        until = time.monotonic() + random.uniform(longest / 2, longest)
        while time.monotonic() < until:
            self._check()
            if read_vector(self.session.database) != state.vector:
                return
            time.sleep(min(random.uniform(0.2, 0.6), max(until - time.monotonic(), 0.01)))


def _failing(outcome: Outcome) -> str:
    if outcome.failed is None or outcome.broken:
        return outcome.summary
    return f"{outcome.failed} failing"


def _key(vector: Vector) -> str:
    return repr(sorted(vector.items()))

"""What a run of the success command says of a state, and which of two states is better."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from kerai.results import ANSI, failing_in, find_runs, runs_line, total
from kerai.runs import Run
from kerai_client.harness.process import Finished

OUTPUT_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of the success command.

    ``passed`` is the command's own word: it exited with 0. ``failed`` and ``succeeded`` are None when
    the runner does not say. ``broken``: the tests could not be run as a whole (a syntax error, a build
    that failed, a time limit), so the counts compare with nothing.
    ``ran``: how many tests came to a verdict; without errors before or after a test.
    ``runs``: each run of a test runner; the numbers are their sums.
    ``failing_count``: what a report of this run carries: 0 when it passed, None when that is not known. It is
    told of outcomes that compare with nothing, too.
    """

    passed: bool
    runner: str | None = None
    failed: int | None = None
    succeeded: int | None = None
    failing: frozenset[str] = frozenset()
    broken: bool = False
    summary: str = ""
    ran: int | None = None
    runs: tuple[Run, ...] = ()
    failing_count: int | None = None

    def better_than(self, other: Outcome) -> bool:
        """Say whether a state with this outcome is to be preferred to one with the other.

        The command passes now; or fewer tests fail. Tests that are gone or skipped are no progress: as
        many as before must come to a verdict, and more must succeed. Without counts, passing alone is
        better.
        """
        if other.passed or (self.broken and not self.passed):
            return False
        if self.passed:
            return self._keeps_the_tests_of(other)
        if self.failed is None:
            return False
        if other.broken or other.failed is None:
            return _known(self) > 0 and _known(self) >= _known(other)
        return self._as_far_as(other)._more_pass_than(other)

    def _more_pass_than(self, other: Outcome) -> bool:
        mine, theirs = self.failed or 0, other.failed or 0
        if self.succeeded is None or other.succeeded is None:
            return (
                mine < theirs
                and _known(self) >= _known(other)
                and not (other.runs and _labels(other) - _labels(self))
            )
        if self.succeeded == other.succeeded:
            # A test fails in one place less: a subtest is repaired, or an error after the test.
            return mine < theirs and self.ran is not None and other.ran is not None and self.ran >= other.ran
        # A runner that stops at the first failure says "1 failed" until the last one is repaired.
        return self.succeeded > other.succeeded and mine <= theirs

    def _keeps_the_tests_of(self, other: Outcome) -> bool:
        """Say whether a passing run has tested what the failing one has."""
        if self.ran is None or other.ran is None:
            # `go test` without -v tells the packages, not the tests that passed.
            return not self.runs or not _labels(other) - _labels(self)
        if self.ran >= other.ran:
            return True
        # `pytest || pytest`: the second run was about the same tests, and is not needed any more.
        first, again = other.runs[: len(self.runs)], other.runs[len(self.runs) :]
        if not first or not again:
            return False
        failed = frozenset(_bare(name) for run in first for name in run.failing)
        return self.ran >= sum(run.ran or 0 for run in first) and all(
            run.failing and {_bare(name) for name in run.failing} <= failed for run in again
        )

    def _as_far_as(self, other: Outcome) -> Outcome:
        """Return this outcome without the runs that the other command did not come to.

        `pytest a && pytest b`, `cargo test`: what follows a failing run starts only when that is repaired.
        """
        count = len(other.runs)
        if len(self.runs) <= count or not count or not other.runs[-1].failed:
            return self
        if [(run.runner, run.label) for run in self.runs[:count]] != [
            (run.runner, run.label) for run in other.runs
        ]:
            return self
        return _outcome(self.runs[:count], passed=False)


def judge(finished: Finished) -> Outcome:
    """Return the outcome of a run of a success command."""
    outcome = read(finished.output, finished.exit_code)
    if finished.timed_out or finished.stopped:
        why = "out of time" if finished.timed_out else finished.stopped
        return Outcome(
            False,
            outcome.runner,
            broken=True,
            summary=f"{why} after {finished.seconds:.1f} s",
            failing_count=failing_in(outcome.runs, finished.output),
        )
    return outcome


def read(output: str, exit_code: int) -> Outcome:
    """Return the outcome that an output and an exit code tell of; for an unknown runner the code alone."""
    passed = exit_code == 0
    runs = tuple(find_runs(output))
    count = 0 if passed else failing_in(runs, output)
    if not runs:
        return Outcome(passed, summary="passed" if passed else f"exit code {exit_code}", failing_count=count)
    return replace(_outcome(runs, passed), failing_count=count)


def tail(output: str, outcome: Outcome, limit: int = OUTPUT_TAIL_BYTES) -> str:
    """Return the end of an output in at most ``limit`` bytes of UTF-8.

    When the same numbers cannot be read from it, its last line tells them.
    """
    text = ANSI.sub("", output).rstrip()
    data = text.encode()
    if len(data) <= limit:
        return text
    # A character that was cut in two is dropped.
    shown = data[-limit:].decode(errors="ignore")
    if not outcome.runs or _numbers(find_runs(shown)) == _numbers(outcome.runs):
        return shown
    last = f"\n{runs_line(outcome.runs)}"
    if len(last.encode()) > limit // 2:
        last = f"\n{runs_line([total(outcome.runs)])}"
    return data[-(limit - len(last.encode())) :].decode(errors="ignore") + last


def _outcome(runs: tuple[Run, ...], passed: bool) -> Outcome:
    sums = total(runs)
    # A run without a single test is one of those that could not be run, when it was all.
    broken = sums.broken or (sums.failed == 0 and sums.passed == 0)
    return Outcome(
        passed,
        sums.runner,
        sums.failed,
        sums.passed,
        sums.failing,
        broken and not passed,
        sums.summary,
        sums.ran,
        runs,
    )


def _numbers(runs: list[Run] | tuple[Run, ...]) -> list[tuple[str, int, int | None, int | None, bool]]:
    return [(run.runner, run.failed, run.passed, run.ran, run.broken) for run in runs]


def _known(outcome: Outcome) -> int:
    """Return how many tests are known to succeed."""
    if outcome.runs:
        return sum(run.passed or 0 for run in outcome.runs)
    return outcome.succeeded or 0


def _labels(outcome: Outcome) -> Counter[tuple[str, str]]:
    return Counter((run.runner, run.label) for run in outcome.runs)


def _bare(name: str) -> str:
    return name.partition(" (run ")[0]

"""Read what test runners printed: how many tests failed and passed in each run, and which ones failed.

Agents compare two states by this, and count the failing tests that they report. The server counts those of a
report without a count. A command may
start several runners, or one several times: its result is the sum of all runs. ``runners.RUNNERS`` is the
table of what is recognised.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kerai.pytest_runs import pytest_runs
from kerai.runners import RUNNERS, Closing
from kerai.runs import Run
from kerai.tap_runs import tap_runs

MOST_RUNS_IN_LINE = 200
RUNS_LINE_PREFIX = "kerai read: "
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def find_runs(output: str) -> list[Run]:
    """Return the runs of test runners that an output tells of, in their order.

    Names of failing tests are qualified by what was tested, or else by the number of the run, so that tests
    of the same name in two runs stay two.
    """
    text = ANSI.sub("", output).replace("\r\n", "\n")
    cut = _runs_in_last_line(text)
    if cut is not None:
        return cut
    found: list[tuple[int, str, Run]] = []
    hidden: list[tuple[frozenset[str], list[int], list[int]]] = []
    for name, runner in RUNNERS.items():
        matches = list(runner.closing.finditer(text))
        begins, ends = [], []
        for place, match in enumerate(matches):
            begin = matches[place - 1].end() if place else 0
            end = matches[place + 1].start() if place + 1 < len(matches) else len(text)
            run = runner.read(Closing(match, text[begin : match.start()], text[match.end() : end]))
            if run is not None:
                found.append((match.start(), name, replace(run, runner=name)))
                starts = list(runner.start.finditer(text, begin, match.start())) if runner.start else []
                if starts:
                    begins.append(starts[-1].start())
                    ends.append(match.end())
        hidden.append((runner.inside, begins, ends))
    found += [(place, "pytest", run) for place, run in pytest_runs(text)]
    found += [(place, "tap", run) for place, run in tap_runs(text)]
    found.sort(key=lambda one: one[0])
    return _qualified(run for place, name, run in found if not _is_inside(place, name, hidden))


def _is_inside(place: int, name: str, hidden: Iterable[tuple[frozenset[str], list[int], list[int]]]) -> bool:
    for inside, begins, ends in hidden:
        before = bisect_right(begins, place) - 1
        if name in inside and before >= 0 and place < ends[before]:
            return True
    return False


def count_failing(output: str) -> int | None:
    """Return how many tests a failed command counted as failing, None when that is not known."""
    return failing_in(find_runs(output), output)


def failing_in(runs: Sequence[Run], output: str) -> int | None:
    """Return the same of runs that were found in the output already."""
    if any(run.broken for run in runs):
        return None
    failed = sum(run.failed for run in runs) if runs else _other(output)
    return failed if failed and failed < 2**31 else None


def runs_line(runs: Sequence[Run]) -> str:
    """Return a line from which :func:`find_runs` reads the same runs, but for the names of failing tests."""
    if len(runs) > MOST_RUNS_IN_LINE:
        runs = [
            total(run for run in runs if run.runner == name)
            for name in dict.fromkeys(run.runner for run in runs)
        ]
    rows = [
        [run.runner, run.failed, run.passed, run.ran, run.label, run.broken, run.summary[:200]]
        for run in runs
    ]
    return RUNS_LINE_PREFIX + json.dumps(rows, ensure_ascii=False)


def total(runs: Iterable[Run]) -> Run:
    """Return the sum of runs; a number that one of them does not know is not known."""
    runs = list(runs)
    passed = [run.passed for run in runs]
    ran = [run.ran for run in runs]
    names = ", ".join(dict.fromkeys(run.runner for run in runs))
    return Run(
        names,
        sum(run.failed for run in runs),
        None if None in passed else sum(number or 0 for number in passed),
        None if None in ran else sum(number or 0 for number in ran),
        frozenset(name for run in runs for name in run.failing),
        broken=any(run.broken for run in runs),
        summary=runs[0].summary if len(runs) == 1 else _sentence(runs),
    )


def _sentence(runs: Sequence[Run]) -> str:
    failed, known = sum(run.failed for run in runs), [run.passed for run in runs if run.passed is not None]
    passed = f", {sum(known)} passed" if known else ""
    broken = [run.summary for run in runs if run.broken]
    return f"{failed} failed{passed} in {len(runs)} runs" + (f"; {broken[0]}" if broken else "")


def _qualified(runs: Iterable[Run]) -> list[Run]:
    seen: set[str] = set()
    qualified = []
    for number, run in enumerate(runs, 1):
        names = {name if name not in seen else f"{name} (run {number})" for name in run.failing}
        seen |= names
        qualified.append(replace(run, failing=frozenset(names)))
    return qualified


def _runs_in_last_line(text: str) -> list[Run] | None:
    """Return the runs in the last line, see :func:`runs_line`; None when it has none."""
    last = text.rstrip().rpartition("\n")[2]
    if not last.startswith(RUNS_LINE_PREFIX):
        return None
    try:
        return [_run(*row) for row in json.loads(last.removeprefix(RUNS_LINE_PREFIX))] or None
    except (ValueError, TypeError):
        return None


def _run(*row: object) -> Run:
    """Return the run that :func:`runs_line` has made a row of.

    :raises ValueError: when it is no such row.
    """
    match row:
        case (
            str(runner),
            int(failed),
            int() | None as passed,
            int() | None as ran,
            str(label),
            broken,
            str(summary),
        ):
            if all(number is None or 0 <= number < 2**31 for number in (failed, passed, ran)):
                return Run(runner, failed, passed, ran, label=label, broken=bool(broken), summary=summary)
    raise ValueError(row)


UNITTEST_END = re.compile(r"^FAILED \(([^\n)]{1,300})\)[ \t\r]*$", re.MULTILINE)
OTHER = re.compile(r"^(?:[^\n]{0,500}?[^\d\n])?(\d{1,6}) (?:tests? )?fail(?:ed|ures?)\b", re.MULTILINE)


def _other(text: str) -> int | None:
    """Return what other runners say much alike in the end: 2 tests failed out of 10."""
    text = ANSI.sub("", text)[-32768:]
    if ends := UNITTEST_END.findall(text):
        return sum(
            int(number)
            for words, number in re.findall(r"([a-z][a-z ]*)=(\d{1,6})", ends[-1])
            if words.strip() in ("failures", "errors", "unexpected successes")
        )
    found = OTHER.findall(text)
    return int(found[-1]) if found else None

"""Read what a test runner printed: how many tests passed and failed, and which ones failed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kerai_client.harness.process import Finished

OUTPUT_TAIL_BYTES = 64 * 1024
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of the success command.

    ``passed`` is the command's own word: it exited with 0. ``failed`` and ``succeeded`` are None when
    the runner does not say. ``broken``: the tests could not be run as a whole (a syntax error, a build
    that failed, a time limit), so the counts compare with nothing.
    ``ran``: how many tests came to a verdict; without errors before or after a test.
    """

    passed: bool
    runner: str | None = None
    failed: int | None = None
    succeeded: int | None = None
    failing: frozenset[str] = frozenset()
    broken: bool = False
    summary: str = ""
    ran: int | None = None

    def better_than(self, other: Outcome) -> bool:
        """Say whether a state with this outcome is to be preferred to one with the other.

        The command passes now; or fewer tests fail. Tests that are gone or skipped are no progress: as
        many as before must come to a verdict, and more must succeed. Without counts, passing alone is
        better.
        """
        if other.passed or (self.broken and not self.passed):
            return False
        if self.passed:
            return other.broken or self.ran is None or other.ran is None or self.ran >= other.ran
        if self.failed is None:
            return False
        if other.broken or other.failed is None:
            return bool(self.succeeded)
        if self.succeeded is None or other.succeeded is None:
            return self.failed < other.failed
        # A runner that stops at the first failure says "1 failed" until the last one is repaired.
        return self.succeeded > other.succeeded and self.failed <= other.failed


@dataclass(slots=True)
class Counts:
    """What a parser found in an output."""

    failed: int
    succeeded: int | None
    failing: set[str]
    summary: str
    broken: bool = False
    errors: int = 0


def judge(finished: Finished) -> Outcome:
    """Return the outcome of a run of a success command."""
    outcome = read(finished.output, finished.exit_code)
    if finished.timed_out or finished.stopped:
        why = "out of time" if finished.timed_out else finished.stopped
        return Outcome(
            False, outcome.runner, None, None, frozenset(), True, f"{why} after {finished.seconds:.1f} s"
        )
    return outcome


def read(output: str, exit_code: int) -> Outcome:
    """Return the outcome that an output and an exit code tell of; for an unknown runner the code alone."""
    text = ANSI.sub("", output).replace("\r\n", "\n")
    passed = exit_code == 0
    for runner, parse in PARSERS.items():
        counts = parse(text)
        if counts is not None:
            return Outcome(
                passed,
                runner,
                counts.failed,
                counts.succeeded,
                frozenset(counts.failing),
                counts.broken and not passed,
                counts.summary,
                None if counts.succeeded is None else counts.succeeded + counts.failed - counts.errors,
            )
    return Outcome(passed, summary="passed" if passed else f"exit code {exit_code}")


def tail(output: str, outcome: Outcome, limit: int = OUTPUT_TAIL_BYTES) -> str:
    """Return the end of an output in at most ``limit`` bytes of UTF-8, its last line the runner's summary."""
    text = ANSI.sub("", output).rstrip()
    last = (
        f"\n{outcome.summary}" if outcome.summary and not text.rstrip("= ").endswith(outcome.summary) else ""
    )
    data = text.encode()
    room = limit - len(last.encode())
    if len(data) > room:
        data = data[-room:]
        # A character that was cut in two is dropped.
        return data.decode(errors="ignore") + last
    return text + last


def _number(text: str, words: str) -> int:
    """Return the number before one of the words, summed over all of its places, 0 when there is none."""
    return sum(int(found) for found in re.findall(rf"(\d+) (?:{words})\b", text))


PYTEST_SUMMARY = re.compile(
    r"^=*[ ]?((?:no tests ran|\d+ (?:failed|passed|skipped|deselected|xfailed|xpassed|errors?|warnings?))"
    r"(?:, \d+ \w+)* in \d[\d.]*s.*?)=*$",
    re.MULTILINE,
)
PYTEST_FAILING = re.compile(r"^(?:FAILED|ERROR) (\S+?(?:\[.*\])?)(?: - .*)?$", re.MULTILINE)
PYTEST_INTERRUPTED = re.compile(
    r"^!+ (?:Interrupted: \d+ errors? during collection|_pytest\.outcomes\.Exit)", re.MULTILINE
)


def _pytest(text: str) -> Counts | None:
    found = PYTEST_SUMMARY.findall(text)
    if not found:
        return None
    summary = found[-1].strip()
    failed = _number(summary, "failed|errors?")
    succeeded = _number(summary, "passed|xfailed")
    broken = bool(PYTEST_INTERRUPTED.search(text)) or (failed == 0 and succeeded == 0)
    errors = _number(summary, "errors?")
    return Counts(failed, succeeded, set(PYTEST_FAILING.findall(text)), summary, broken, errors)


UNITTEST_RAN = re.compile(r"^Ran (\d+) tests? in [\d.]+s$", re.MULTILINE)
UNITTEST_END = re.compile(r"^(OK|FAILED|NO TESTS RAN)(?: \((.*)\))?$", re.MULTILINE)
UNITTEST_FAILING = re.compile(r"^(?:FAIL|ERROR): (.+)$", re.MULTILINE)


def _unittest(text: str) -> Counts | None:
    ran, end = UNITTEST_RAN.findall(text), UNITTEST_END.findall(text)
    if not ran or not end:
        return None
    numbers = {key: int(value) for key, value in re.findall(r"([a-z ]+)=(\d+)", end[-1][1])}
    numbers = {key.strip(): value for key, value in numbers.items()}
    failed = sum(numbers.get(key, 0) for key in ("failures", "errors", "unexpected successes"))
    succeeded = int(ran[-1]) - failed - numbers.get("skipped", 0)
    summary = f"{end[-1][0]} ({end[-1][1]})" if end[-1][1] else end[-1][0]
    return Counts(failed, max(succeeded, 0), set(UNITTEST_FAILING.findall(text)), summary, int(ran[-1]) == 0)


CARGO_RESULT = re.compile(r"^test result: (?:ok|FAILED)\. .*$", re.MULTILINE)
CARGO_FAILING = re.compile(r"^test (.+) \.\.\. FAILED$", re.MULTILINE)
CARGO_ERROR = re.compile(r"^error(?:\[E\d+\])?: (?!test failed|\d+ targets? failed).*$", re.MULTILINE)


def _cargo(text: str) -> Counts | None:
    results = CARGO_RESULT.findall(text)
    if not results:
        could_not = re.search(r"^error: could not compile .*$", text, re.MULTILINE)
        return Counts(0, 0, set(), could_not[0], broken=True) if could_not else None
    line = "\n".join(results)
    failed, succeeded = _number(line, "failed"), _number(line, "passed")
    return Counts(
        failed, succeeded, set(CARGO_FAILING.findall(text)), results[-1], bool(CARGO_ERROR.search(text))
    )


GO_PACKAGE = re.compile(r"^(ok|FAIL)\s+(\S+)\s+(?:\d[\d.]*s|\(cached\)|\[.*\]).*$", re.MULTILINE)
GO_TEST = re.compile(r"^--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)


def _go(text: str) -> Counts | None:
    packages = list(GO_PACKAGE.finditer(text))
    if not packages:
        return None
    tests = GO_TEST.findall(text)
    failing = {name for verdict, name in tests if verdict == "FAIL"}
    # A panic ends its package: the tests after it are not run, and not counted.
    broken = any(package[1] == "FAIL" and "[" in package[0] for package in packages) or bool(
        re.search(r"^(?:panic: |fatal error: |FAIL\t.*\[build failed\])", text, re.MULTILINE)
    )
    verbose = re.search(r"^=== RUN ", text, re.MULTILINE)
    succeeded = sum(verdict == "PASS" for verdict, _ in tests) if verbose else None
    return Counts(len(failing), succeeded, failing, packages[-1][0].strip(), broken)


JEST_SUMMARY = re.compile(r"^Tests:\s+(.*\d+ total)$", re.MULTILINE)
VITEST_SUMMARY = re.compile(r"^\s*Tests\s+(\d+ .*\(\d+\))$", re.MULTILINE)
JEST_FAILING = re.compile(r"^\s+● (.+ \u203a .+|(?!Test suite failed)\S.*)$", re.MULTILINE)


def _jest(text: str) -> Counts | None:
    found = JEST_SUMMARY.findall(text) or VITEST_SUMMARY.findall(text)
    if not found:
        return None
    summary = found[-1]
    failing = {name.strip() for name in JEST_FAILING.findall(text)}
    failed, succeeded = _number(summary, "failed"), _number(summary, "passed")
    return Counts(failed, succeeded, failing, summary, failed == 0 and succeeded == 0)


def _mocha(text: str) -> Counts | None:
    passing = re.search(r"^  (\d+) passing \(.*\)$", text, re.MULTILINE)
    if not passing:
        return None
    failing = re.search(r"^  (\d+) failing$", text, re.MULTILINE)
    failed = int(failing[1]) if failing else 0
    return Counts(failed, int(passing[1]), set(), f"{passing[1]} passing, {failed} failing", False)


TAP_LINE = re.compile(r"^(not ok|ok)\b(?:[ ]+\d+)?(?:[ ]+-)?[ ]*(.*?)(?:[ ]+#[ ]*(\w+).*)?$", re.MULTILINE)
TAP_PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)


def _tap(text: str) -> Counts | None:
    plan = TAP_PLAN.search(text)
    if not plan:
        return None
    failing, failed, succeeded = set(), 0, 0
    lines = TAP_LINE.findall(text)
    for verdict, name, directive in lines:
        if directive.lower() in ("todo", "skip"):
            continue
        if verdict == "ok":
            succeeded += 1
        else:
            failed += 1
            failing.add(name)
    # Planned tests that never ran have failed.
    missing = max(int(plan[1]) - len(lines), 0)
    broken = bool(re.search(r"^Bail out!", text, re.MULTILINE)) or not lines
    summary = f"{succeeded} passed, {failed + missing} failed"
    return Counts(failed + missing, succeeded, failing, summary, broken)


PARSERS: dict[str, Callable[[str], Counts | None]] = {
    "pytest": _pytest,
    "unittest": _unittest,
    "cargo": _cargo,
    "go": _go,
    "jest": _jest,
    "mocha": _mocha,
    "tap": _tap,
}

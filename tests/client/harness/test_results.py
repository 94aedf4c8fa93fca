"""What test runners print is understood, and compared."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from kerai.results import count_failing
from kerai_client.harness.process import Finished, clean_environment, run
from kerai_client.harness.results import Outcome, judge, read, tail

PYTEST = """\
=========================== short test summary info ============================
FAILED tests/test_a.py::test_p[a b] - AssertionError: assert 'a b' == 'q'
FAILED tests/test_a.py::test_p[c - d] - AssertionError: assert 'c - d'...
ERROR tests/test_b.py::test_q
2 failed, 5 passed, 1 skipped, 3 warnings, 1 error in 0.47s
"""
PYTEST_FAILING = {
    "tests/test_a.py::test_p[a b]",
    "tests/test_a.py::test_p[c - d]",
    "tests/test_b.py::test_q",
}
COLLECTION = """\
ERROR tests/test_b.py
!!!!!!!!!!!!!!!!!!!! Interrupted: 1 error during collection !!!!!!!!!!!!!!!!!!!!
1 error in 0.11s
"""
UNITTEST = """\
======================================================================
FAIL: test_a (test_u.T.test_a)
----------------------------------------------------------------------
Ran 4 tests in 0.001s

FAILED (failures=1, errors=1, skipped=1)
"""
CARGO = """\
running 3 tests
test auth::valid ... ok
test auth::expired ... FAILED
test auth::other ... ok
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
error: test failed, to rerun pass `--lib`
running 1 test
test doc ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
"""
CARGO_BUILD = """\
error[E0425]: cannot find value `x` in this scope
error: could not compile `auth` (lib test) due to 1 previous error
"""
GO = """\
--- FAIL: TestAdd (0.00s)
    add_test.go:7: wrong
    --- FAIL: TestAdd/sub (0.00s)
FAIL
FAIL\texample.com/add\t0.002s
ok  \texample.com/sub\t0.001s
FAIL
"""
GO_BUILD = """\
# example.com/add
./add.go:3:1: syntax error
FAIL\texample.com/add [build failed]
FAIL
"""
GO_PANIC = """\
--- FAIL: TestAdd (0.00s)
panic: boom [recovered]
FAIL\texample.com/add\t0.002s
"""
JEST = """\
  ● adds \u203a two numbers

    expect(received).toBe(expected)

Test Suites: 1 failed, 1 passed, 2 total
Tests:       1 failed, 2 skipped, 5 passed, 8 total
"""
VITEST = """\
 Test Files  1 failed (1)
      Tests  1 failed | 5 passed (6)
"""
MOCHA = """\
  5 passing (3ms)
  1 failing
"""
TAP = """\
TAP version 13
ok 1 - one
not ok 2 - two
    not ok 1 - nested, which does not count twice
ok 3 - three # SKIP not here
not ok 4 - four # TODO later
1..5
"""


@pytest.mark.parametrize(
    ("output", "runner", "failed", "succeeded", "failing"),
    [
        (
            PYTEST,
            "pytest",
            3,
            5,
            PYTEST_FAILING,
        ),
        ("\x1b[31m===== \x1b[1m1 failed\x1b[0m, 2 passed in 0.1s =====\x1b[0m\n", "pytest", 1, 2, set()),
        (UNITTEST, "unittest", 2, 1, {"test_a (test_u.T.test_a)"}),
        (CARGO, "cargo", 1, 3, {"auth::expired"}),
        (GO, "go", 1, None, {"example.com/add.TestAdd"}),
        # Each run counts: those of one runner, and those of several.
        (
            PYTEST + COLLECTION.replace("Interrupted", "") + GO,
            "pytest, go",
            5,
            None,
            {*PYTEST_FAILING, "tests/test_b.py", "example.com/add.TestAdd"},
        ),
        (f"{PYTEST}{UNITTEST}", "pytest, unittest", 5, 6, {*PYTEST_FAILING, "test_a (test_u.T.test_a)"}),
        (JEST, "jest", 1, 5, {"adds \u203a two numbers"}),
        (VITEST, "jest", 1, 5, set()),
        (MOCHA, "mocha", 1, 5, set()),
        (TAP, "tap", 2, 1, {"two"}),
        ("make: *** [all] Error 2\n", None, None, None, set()),
    ],
)
def test_runners_are_understood(
    output: str, runner: str | None, failed: int | None, succeeded: int | None, failing: set[str]
) -> None:
    outcome = read(output, 1)
    assert not outcome.passed and not outcome.broken
    assert (outcome.runner, outcome.failed, outcome.succeeded) == (runner, failed, succeeded)
    assert outcome.failing == failing


@pytest.mark.parametrize("output", [COLLECTION, "no tests ran in 0.01s\n", CARGO_BUILD, GO_BUILD, GO_PANIC])
def test_tests_that_cannot_run_are_no_result(output: str) -> None:
    outcome = read(output, 1)
    assert outcome.broken
    assert not outcome.better_than(Outcome(False, "x", 100, 0))


def test_real_runners_are_understood(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import unittest\nclass T(unittest.TestCase):\n"
        "    def test_a(self): self.assertEqual(1, 2)\n    def test_b(self): pass\n"
    )
    for command, runner in (
        ("-m pytest -q -p no:cacheprovider", "pytest"),
        ("-m pytest -p no:cacheprovider --color=yes", "pytest"),
        ("-m unittest", "unittest"),
    ):
        finished = run(
            f"{shlex.quote(sys.executable)} {command}", tmp_path, environment=clean_environment(), seconds=60
        )
        outcome = judge(finished)
        assert (outcome.runner, outcome.failed, outcome.succeeded) == (runner, 1, 1), finished.output
        assert len(outcome.failing) == 1


@pytest.mark.parametrize(
    ("output", "code", "count"),
    [
        ("2 failed, 5 passed in 0.1s\n", 1, 2),
        ("2 failed, 5 passed in 0.1s\n", 0, 0),
        ("0 failed, 5 passed in 0.1s\n", 1, None),
        ("Oh no: 3 tests failed\n", 1, 3),
        (COLLECTION, 1, None),
        ("make: *** [all] Error 2\n", 1, None),
    ],
)
def test_a_report_carries_what_the_server_would_count(output: str, code: int, count: int | None) -> None:
    assert read(output, code).failing_count == count
    assert code == 0 or count_failing(output) == count


def test_a_run_out_of_time_still_has_its_count() -> None:
    finished = Finished(0, "2 failed, 5 passed in 0.1s\nwaiting\n", 9.0, timed_out=True, stopped=None)
    assert (judge(finished).broken, judge(finished).failing_count) == (True, 2)


def counted(failed: int, succeeded: int | None, passed: bool = False) -> Outcome:
    """An outcome with numbers."""
    ran = None if succeeded is None else failed + succeeded
    return Outcome(passed, "pytest", failed, succeeded, ran=ran)


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        (counted(2, 8), counted(3, 7), True),
        (counted(3, 7), counted(3, 7), False),
        (counted(0, 10, passed=True), counted(3, 7), True),
        # A failing test that is gone or skipped is not repaired.
        (counted(2, 7), counted(3, 7), False),
        (counted(0, 6, passed=True), counted(3, 7), False),
        (counted(0, 9, passed=True), counted(3, 7), False),
        # Two repaired, one broken.
        (counted(2, 8), counted(4, 7), True),
        # A runner that stops at the first failure.
        (counted(1, 9), counted(1, 7), True),
        (counted(2, None), counted(3, None), True),
        (Outcome(True), Outcome(False), True),
        (Outcome(False), Outcome(False), False),
        (counted(5, 5), Outcome(False, broken=True), True),
        (Outcome(True), counted(0, 5, passed=True), False),
    ],
)
def test_better_means_more_passing_tests(new: Outcome, old: Outcome, better: bool) -> None:
    assert new.better_than(old) is better


FIRST = "FAILED a.py::x\n1 failed, 9 passed in 0.1s\n"
GREEN = "10 passed in 0.1s\n"
SECOND = "FAILED b.py::y\n2 failed, 8 passed in 0.1s\n"
ADD = "--- FAIL: TestAdd (0.00s)\nFAIL\tx/add\t0.1s\n"
SUB = "--- FAIL: TestAdd (0.00s)\nFAIL\tx/sub\t0.1s\n"
LIBRARY = "     Running unittests src/lib.rs (target/debug/deps/l-0123456789abcdef)\n"
PROGRAM = "     Running unittests src/main.rs (target/debug/deps/m-0123456789abcdef)\n"
ONE_FAILS = "test a ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n"
NONE_FAILS = "test result: ok. 2 passed; 0 failed; 0 ignored\n"
SUBTESTS = "{}FAILED t.py::a - contains {} failed subtests\n{} failed, 3 passed in 0.06s\n"


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        # A regression in the first of two runs.
        (read(SECOND + GREEN, 1), read(GREEN + FIRST, 1), False),
        (read(FIRST + FIRST, 1), read(FIRST + SECOND, 1), True),
        (read(GREEN + SECOND, 1), read(FIRST + SECOND, 1), True),
        # `pytest a && pytest b`: the second run starts only when the first is green.
        (read(GREEN + SECOND, 1), read(FIRST, 1), True),
        (read(FIRST + SECOND, 1), read(FIRST, 1), False),
        (read(FIRST, 1), read(GREEN + FIRST, 1), False),
        (read(LIBRARY + NONE_FAILS + PROGRAM + ONE_FAILS, 1), read(LIBRARY + ONE_FAILS, 1), True),
        # `pytest || pytest`: a second run of the same is not needed any more.
        (read(GREEN, 0), read(FIRST + FIRST, 1), True),
        (read(GREEN, 0), read(FIRST + SECOND, 1), False),
        (read(GREEN, 0), read(FIRST + GREEN, 1), False),
        (read("7 passed in 0.1s\n", 0), read(FIRST + FIRST, 1), False),
        # Two packages with a failing test of one name.
        (read(ADD, 1), read(ADD + SUB, 1), False),
        (read(f"{ADD}ok  \tx/sub\t0.1s\n", 1), read(ADD + SUB, 1), True),
        (read("ok  \tx/add\t0.1s\nok  \tx/sub\t0.1s\n", 0), read(ADD + SUB, 1), True),
        # A package whose tests are gone.
        (read("ok  \tx/add\t0.1s\n?   \tx/sub\t[no test files]\n", 0), read(ADD + SUB, 1), False),
        (read(f"{ADD}{GREEN}", 1), read(f"{ADD}{SUB}{GREEN}", 1), False),
        # One of two failing subtests is repaired, and then the other.
        (
            read(SUBTESTS.format("SUBFAILED(i=1) t.py::a - x\n", 1, 2), 1),
            read(SUBTESTS.format("SUBFAILED(i=1) t.py::a - x\nSUBFAILED(i=2) t.py::a - x\n", 2, 3), 1),
            True,
        ),
        (
            read("4 passed, 6 subtests passed in 0.1s\n", 0),
            read(SUBTESTS.format("SUBFAILED(i=1) t.py::a - x\n", 1, 2), 1),
            True,
        ),
        (
            read("3 passed, 6 subtests passed in 0.1s\n", 0),
            read(SUBTESTS.format("SUBFAILED(i=1) t.py::a - x\n", 1, 2), 1),
            False,
        ),
        # An expected failure that succeeds.
        (read("9 passed, 1 xpassed in 0.1s\n", 0), read("1 failed, 8 passed, 1 xfailed in 0.1s\n", 1), True),
        # The first run could not start; what passed in the second must go on passing.
        (read(FIRST + GREEN, 1), read(COLLECTION + GREEN, 1), True),
        (read(FIRST + "9 failed, 1 passed in 0.1s\n", 1), read(COLLECTION + "20 passed in 0.1s\n", 1), False),
    ],
)
def test_better_is_judged_over_all_runs(new: Outcome, old: Outcome, better: bool) -> None:
    assert new.better_than(old) is better


def test_the_tail_tells_the_same_numbers() -> None:
    text = "é" * 100_000 + "\n2 failed, 1 passed in 0.1s\nmake: Error 1\n"
    shown = tail(text, read(text, 1), limit=1000)
    assert shown.endswith("2 failed, 1 passed in 0.1s\nmake: Error 1")
    assert 990 < len(shown.encode()) <= 1000
    assert tail(PYTEST, read(PYTEST, 1)) == PYTEST.strip()


@pytest.mark.parametrize("limit", [700, 1000, 65536])
def test_runs_that_are_cut_off_are_told_at_the_end(limit: int) -> None:
    text = FIRST + ADD + "é" * 50_000 + "\n" + SECOND + GO + UNITTEST
    outcome = read(text, 1)
    shown = tail(text, outcome, limit=limit)
    assert len(shown.encode()) <= limit
    again = read(shown, 1)
    assert (again.runner, again.failed, again.succeeded) == (outcome.runner, outcome.failed, None)
    assert tail(shown, again, limit=limit) == shown

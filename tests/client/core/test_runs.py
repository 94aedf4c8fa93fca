"""What test runners print, as they print it: one row a form of output."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from kerai.results import RUNS_LINE_PREFIX, count_failing, find_runs, runs_line, total


@dataclass(frozen=True)
class Printed:
    """An output, and what is to be read from it: a tuple (runner, failed, passed, ran) a run."""

    output: str
    runs: list[tuple[str, int, int | None, int | None]]
    failing: frozenset[str] = frozenset()


PYTEST_7 = """\
=================================== FAILURES ===================================
/p/test_it.py:3: assert 0
=========================== short test summary info ============================
FAILED p/test_it.py::test_bad - assert 0
FAILED p/test_it.py::test_xps
[custom] (i=2) SUBFAIL p/test_it.py::test_subs - assert 2 != 2
(i=1) SUBFAIL p/test_it.py::T::test_u - AssertionError: 1 == 1
FAILED p/test_it.py::T::test_us - Failed: Unexpected success
5 failed, 5 passed, 1 skipped, 1 deselected, 2 xfailed, 1 xpassed, 8 subtests passed, 5 rerun in 0.13s
"""
PYTEST_9 = """\
=================================== FAILURES ===================================
contains 1 failed subtest
=========================== short test summary info ============================
SUBFAILED[custom] (i=2) p/test_it.py::test_subs - assert 2 != 2
FAILED p/test_it.py::test_subs - contains 1 failed subtest
2 failed, 2 passed, 5 subtests passed in 0.06s
"""
PYTEST_ERRORS = """\
==================================== ERRORS ====================================
_________________________ ERROR at setup of test_setup _________________________
E   ValueError
______________________ ERROR at teardown of test_teardown ______________________
E   ValueError
=========================== short test summary info ============================
ERROR p/test_it.py::test_setup - ValueError
ERROR p/test_it.py::test_teardown - ValueError
================== 3 passed, 2 warnings, 2 errors in 75.10s (0:01:15) ==================
"""
PYTEST_INSIDE = """\
=================================== FAILURES ===================================
___________________________________ test_bad ___________________________________
E   assert 0
----------------------------- Captured stdout call -----------------------------
=================================== FAILURES ===================================
__________________________________ test_inner __________________________________
=========================== short test summary info ============================
FAILED test_inner.py::test_inner - assert 0
1 failed, 8 passed in 0.01s
=== 7 failed, 1 passed in 0.01s ===
__________________________________ test_other __________________________________
E   assert 0
----------------------------- Captured stdout call -----------------------------
4 passed in 0.01s
=========================== short test summary info ============================
FAILED p/test_it.py::test_bad - assert 0
FAILED p/test_it.py::test_other - assert 0
2 failed, 3 passed in 0.17s
"""
UNITTEST = """\
xEx.sFu
======================================================================
ERROR: setUpClass (test_u.S)
----------------------------------------------------------------------
ValueError
======================================================================
FAIL: test_u (test_u.T.test_u) (i=1)
----------------------------------------------------------------------
======================================================================
FAIL: test_u (test_u.T.test_u) [message] (i=2)
----------------------------------------------------------------------
AssertionError: 1 == 1
======================================================================
UNEXPECTED SUCCESS: test_us (test_u.T.test_us)
----------------------------------------------------------------------
Ran 6 tests in 0.001s

FAILED (failures=2, errors=1, skipped=1, expected failures=2, unexpected successes=1)
"""
UNITTEST_TWICE = """\
======================================================================
FAIL: test_a (test_u.T.test_a)
----------------------------------------------------------------------
Ran 4 tests in 0.001s

FAILED (failures=1, expected failures=1)
..
----------------------------------------------------------------------
Ran 2 tests in 0.001s

OK (expected failures=1)
"""
CARGO = """\
     Running unittests src/lib.rs (target/debug/deps/cr-21a6ba1b4c9cf2c6)

running 4 tests
test b ... FAILED
test m::i ... ignored
test a ... ok

test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.19s

error: test failed, to rerun pass `--lib`
     Running tests/it2.rs (target/debug/deps/it2-ac31dbf215199685)

running 1 test
test b ... FAILED
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.27s

error: test failed, to rerun pass `--test it2`
   Doc-tests cr

running 1 test
test src/lib.rs - (line 1) ... FAILED
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.27s

all doctests ran in 0.92s; merged doctests compilation took 0.64s
error: doctest failed, to rerun pass `--doc`
error: 3 targets failed:
    `--lib`
"""
NEXTEST = """\
------------
 Nextest run ID 1f79aa0d-4ec8-4a5c-aa83-5e8dc2f36573 with nextest profile: default
    Starting 4 tests across 2 binaries (1 test skipped)
        PASS [   0.005s] cr a
        FAIL [   0.004s] cr b
  stdout ───
running 1 test
test b ... FAILED
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s

     TIMEOUT [  60.004s] cr::it slow
------------
     Summary [  60.123s] 4 tests run: 2 passed (1 leaky), 1 failed, 1 timed out, 1 skipped
        FAIL [   0.004s] cr b
     TIMEOUT [  60.004s] cr::it slow
error: test run failed
"""
GO = """\
--- FAIL: TestAdd (0.00s)
    add_test.go:7: wrong
    --- FAIL: TestAdd/sub (0.00s)
FAIL
FAIL\texample.com/add\t0.002s
?   \texample.com/cmd\t[no test files]
--- FAIL: TestAdd (0.00s)
FAIL
FAIL\texample.com/sub\t0.001s
ok  \texample.com/mul\t(cached)
FAIL
"""
GO_VERBOSE = """\
=== RUN   TestAdd
    add_test.go:7: wrong
--- FAIL: TestAdd (0.00s)
=== RUN   TestZero
--- PASS: TestZero (0.00s)
FAIL
FAIL\texample.com/add\t0.002s
=== RUN   TestAdd
=== RUN   TestAdd/sub
    --- PASS: TestAdd/sub (0.00s)
--- PASS: TestAdd (0.00s)
PASS
coverage: 50.0% of statements
ok  \texample.com/sub\t0.001s\tcoverage: 50.0% of statements
testing: warning: no tests to run
PASS
ok  \texample.com/none\t0.001s [no tests to run]
FAIL
"""
GO_EXIT = "FAIL\texample.com/add\t0.002s\nFAIL\n"
JEST = """\
FAIL jt/c.test.js
  ● s \u203a bad

    expect(received).toBe(expected) // Object.is equality

FAIL jt/a.test.js
  ● s \u203a bad

FAIL jt/b.test.js
  ● Test suite failed to run

    Must use import to load ES Module

Test Suites: 3 failed, 3 total
Tests:       2 failed, 2 skipped, 2 todo, 2 passed, 8 total
Snapshots:   0 total
"""
VITEST = """\
\x1b[31m⎯⎯⎯⎯⎯⎯\x1b[39m\x1b[1m\x1b[41m Failed Suites 1 \x1b[49m
\x1b[41m\x1b[1m FAIL \x1b[22m\x1b[49m b.test.js\x1b[2m [ b.test.js ]\x1b[22m
\x1b[41m\x1b[1m FAIL \x1b[22m\x1b[49m a.test.js\x1b[2m > \x1b[22ms\x1b[2m > \x1b[22mbad
\x1b[2m Test Files \x1b[22m \x1b[1m\x1b[31m2 failed\x1b[39m\x1b[22m\x1b[90m (2)\x1b[39m
\x1b[2m      Tests \x1b[22m \x1b[1m\x1b[31m1 failed\x1b[39m | 1 passed | 1 todo\x1b[90m (4)\x1b[39m
"""
NODE_SPEC = """\
✖ bad (1.089437ms)
\u2139 tests 6
\u2139 suites 1
\u2139 pass 2
\u2139 fail 2
\u2139 cancelled 0
\u2139 skipped 1
\u2139 todo 1
\u2139 duration_ms 283.174568

✖ failing tests:

test at a.test.js:3:20
✖ bad (1.089437ms)
  AssertionError [ERR_ASSERTION]: 1 == 2

test at a.test.js:3:88
✖ td (0.27619ms) # TODO

test at a.test.js:4:19
✖ in (0.253225ms)
"""
NODE_TAP = """\
TAP version 13
# Subtest: ok
ok 1 - ok
not ok 2 - bad
not ok 3 - td # TODO
ok 4 - sk # SKIP
    not ok 1 - in
    1..2
not ok 5 - s
1..5
# tests 6
# suites 1
# pass 2
# fail 2
# cancelled 0
# skipped 1
# todo 1
# duration_ms 61.957119
"""
TAPE = "TAP version 13\n# x\nok 1 fine\nnot ok 2 eq\n  ---\n  ...\n\n1..2\n# tests 2\n# pass  1\n# fail  1\n"
MOCHA = """\
  s
    ✔ ok
    1) bad2
      2) bad

  1 passing (4ms)
  1 pending
  2 failing

  1) s
       bad2:
     Error: the number 1 was thrown, throw an Error :)
      at process.processImmediate (node:internal/timers:483:21)

  2) s
       deep
         bad:
     Error: x
"""
PROVE = """\
a.t ..
1..3
ok 1
not ok 2 - two
not ok 3 # TODO x
Failed 1/3 subtests
b.t ..
1..3
ok 1
not ok 2 - two
ok 3 # skip not here
"""
TAP_AFTER = "ok 1 - one\nnot ok 2 - two\n1..3\nok 1 - one\n1..1\n"
MAVEN = """\
[INFO] Running com.app.AppTest
[ERROR] Tests run: 2, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.1 s <<< FAILURE! -- in com.app.A
[ERROR] com.app.AppTest.adds -- Time elapsed: 0.050 s <<< FAILURE!
[INFO] Running com.app.OtherTest
[INFO] Tests run: 1, Failures: 0, Errors: 0, Skipped: 0, Time elapsed: 0.1 s -- in com.app.OtherTest
[INFO] Results:
[ERROR] Failures:
[ERROR]   AppTest.adds:16 expected: <1> but was: <2>
[ERROR] Tests run: 3, Failures: 1, Errors: 0, Skipped: 0
[INFO] Results:
[WARNING] Tests run: 4, Failures: 0, Errors: 1, Skipped: 1
"""
CTEST = """\
Test project /b
    Start 1: good
1/3 Test #1: good .............................   Passed    0.01 sec
    Start 2: bad
2/3 Test #2: bad ..............................***Failed    0.01 sec
3 failed, 2 passed in 0.1s

33% tests passed, 2 tests failed out of 3

Total Test time (real) =   0.02 sec

The following tests FAILED:
\t  2 - bad (Failed)
\t  3 - none (Not Run)
"""
RSPEC = """\
Finished in 0.00058 seconds (files took 0.17068 seconds to load)
4 examples, 1 failure, 1 pending, 1 error occurred outside of examples

Failed examples:

rspec ./spec/a_spec.rb:4 # A adds
"""

PRINTED = {
    "pytest 7 with pytest-subtests": Printed(
        PYTEST_7,
        [("pytest", 5, 8, 11)],
        frozenset(
            {
                "p/test_it.py::test_bad",
                "p/test_it.py::test_xps",
                "p/test_it.py::test_subs [custom] (i=2)",
                "p/test_it.py::T::test_u (i=1)",
                "p/test_it.py::T::test_us",
            }
        ),
    ),
    "pytest 9 with subtests": Printed(
        PYTEST_9,
        [("pytest", 2, 2, 3)],
        frozenset({"p/test_it.py::test_subs", "p/test_it.py::test_subs [custom] (i=2)"}),
    ),
    "pytest 9, all green": Printed("3 passed, 6 subtests passed in 0.07s\n", [("pytest", 0, 3, 3)]),
    "pytest with errors around tests": Printed(
        PYTEST_ERRORS,
        [("pytest", 2, 3, 4)],
        frozenset({"p/test_it.py::test_setup", "p/test_it.py::test_teardown"}),
    ),
    "pytest that tests a test runner": Printed(
        PYTEST_INSIDE,
        [("pytest", 2, 3, 5)],
        frozenset({"p/test_it.py::test_bad", "p/test_it.py::test_other", "test_inner.py::test_inner"}),
    ),
    "pytest twice": Printed(
        "FAILED t.py::a - assert 0\n1 failed, 4 passed in 0.1s\nFAILED t.py::a - x\n2 failed in 0.1s\n",
        [("pytest", 1, 4, 5), ("pytest", 2, 0, 2)],
        frozenset({"t.py::a", "t.py::a (run 2)"}),
    ),
    "pytest, nothing selected": Printed("13 deselected in 0.02s\n", [("pytest", 0, 0, 0)]),
    "pytest, words of a plugin": Printed("1 failed, 2 snapshots in 1.00s\n", [("pytest", 1, 0, 1)]),
    "unittest": Printed(
        UNITTEST,
        [("unittest", 4, 3, 5)],
        frozenset(
            {
                "setUpClass (test_u.S)",
                "test_u (test_u.T.test_u) (i=1)",
                "test_u (test_u.T.test_u) [message] (i=2)",
                "test_us (test_u.T.test_us)",
            }
        ),
    ),
    "unittest twice": Printed(
        UNITTEST_TWICE,
        [("unittest", 1, 3, 4), ("unittest", 0, 2, 2)],
        frozenset({"test_a (test_u.T.test_a)"}),
    ),
    "cargo": Printed(
        CARGO,
        [("cargo", 2, 1, 3), ("cargo", 1, 0, 1), ("cargo", 1, 0, 1)],
        frozenset({"cr src/lib.rs: b", "it2 tests/it2.rs: b", "cr (doc): src/lib.rs - (line 1)"}),
    ),
    "nextest": Printed(NEXTEST, [("nextest", 2, 2, 4)], frozenset({"cr b", "cr::it slow"})),
    "go": Printed(
        GO,
        [("go", 1, None, None), ("go", 1, None, None), ("go", 0, None, None)],
        frozenset({"example.com/add.TestAdd", "example.com/sub.TestAdd"}),
    ),
    "go -v": Printed(
        GO_VERBOSE,
        [("go", 1, 1, 2), ("go", 0, 1, 1), ("go", 0, 0, 0)],
        frozenset({"example.com/add.TestAdd"}),
    ),
    "go, a package that exits": Printed(GO_EXIT, [("go", 1, None, None)], frozenset({"example.com/add"})),
    "jest": Printed(
        JEST,
        [("jest", 3, 2, 4)],
        frozenset({"jt/c.test.js: s \u203a bad", "jt/a.test.js: s \u203a bad", "jt/b.test.js"}),
    ),
    "vitest": Printed(
        VITEST, [("jest", 2, 1, 2)], frozenset({"b.test.js [ b.test.js ]", "a.test.js > s > bad"})
    ),
    "node, spec": Printed(
        NODE_SPEC, [("node", 2, 2, 4)], frozenset({"a.test.js:3:20: bad", "a.test.js:4:19: in"})
    ),
    "node, TAP": Printed(NODE_TAP, [("node", 2, 2, 4)], frozenset({"bad", "s"})),
    "tape": Printed(TAPE, [("node", 1, 1, 2)], frozenset({"eq"})),
    "mocha": Printed(MOCHA, [("mocha", 2, 1, 3)], frozenset({"s bad2", "s deep bad"})),
    "TAP, two plans before": Printed(
        PROVE, [("tap", 1, 1, 2), ("tap", 1, 1, 2)], frozenset({"two", "two (run 2)"})
    ),
    "TAP, two plans after": Printed(TAP_AFTER, [("tap", 2, 1, 3), ("tap", 0, 1, 1)], frozenset({"two"})),
    "maven": Printed(MAVEN, [("maven", 1, 2, 3), ("maven", 1, 2, 3)], frozenset({"com.app.AppTest.adds"})),
    "ctest, which shows what its tests print": Printed(
        CTEST, [("ctest", 2, 1, 3)], frozenset({"bad", "none"})
    ),
    "ctest without a failure": Printed("100% tests passed out of 4\n", [("ctest", 0, 4, 4)]),
    "rspec": Printed(RSPEC, [("rspec", 2, 2, 3)], frozenset({"./spec/a_spec.rb:4"})),
    "several runners": Printed(
        "2 failed, 3 passed in 0.1s\n" + GO_VERBOSE + MOCHA + UNITTEST_TWICE,
        [
            ("pytest", 2, 3, 5),
            *(("go", 1, 1, 2), ("go", 0, 1, 1), ("go", 0, 0, 0)),
            ("mocha", 2, 1, 3),
            *(("unittest", 1, 3, 4), ("unittest", 0, 2, 2)),
        ],
        frozenset(
            {"example.com/add.TestAdd", "s bad2", "s deep bad", "test_a (test_u.T.test_a)"},
        ),
    ),
    "no runner": Printed("make: *** [all] Error 2\nok\nFAILED\nTests: none\n", []),
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_runners_print_is_understood(name: str) -> None:
    printed = PRINTED[name]
    runs = find_runs(printed.output)
    assert [(run.runner, run.failed, run.passed, run.ran) for run in runs] == printed.runs
    assert frozenset[str]().union(*(run.failing for run in runs)) == printed.failing
    assert not any(run.broken for run in runs)
    failed = sum(failed for _, failed, _, _ in printed.runs)
    assert count_failing(printed.output) == (failed or None)


@pytest.mark.parametrize("name", PRINTED)
def test_carriage_returns_change_nothing(name: str) -> None:
    output = PRINTED[name].output
    assert find_runs(output.replace("\n", "\r\n")) == find_runs(output)


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ("!!! Interrupted: 1 error during collection !!!\n=== 1 error in 0.10s ===\n", ""),
        ("ERROR: file or directory not found: nosuch.py\n\nno tests ran in 0.01s\n", ""),
        ("ok  \tx/a\t0.1s\nFAIL\tx/b [build failed]\nFAIL\n", "x/b"),
        ("--- FAIL: TestA (0.00s)\npanic: boom [recovered]\nFAIL\tx/b\t0.002s\n", "x/b"),
        (f"{CARGO}error: could not compile `b` (lib test) due to 1 previous error\n", ""),
        (
            "     Running tests/it.rs (target/debug/deps/it-c402cc767e4d8483)\n\nrunning 2 tests\n"
            "error: test failed, to rerun pass `--test it`\n\nCaused by:\n"
            "  process didn't exit successfully: `/cr/it` (exit status: 3)\n",
            "it tests/it.rs",
        ),
        ("[ERROR] COMPILATION ERROR : \n[ERROR] A.java:[3,1] ';' expected\n", ""),
        ("1..3\nok 1\nBail out! no database\n", ""),
        ("0 examples, 0 failures, 1 error occurred outside of examples\n", ""),
    ],
)
def test_tests_that_cannot_run_are_told_from_failing_ones(output: str, label: str) -> None:
    broken = [run for run in find_runs(output) if run.broken]
    assert [run.label for run in broken] == [label] and broken[0].runner
    assert count_failing(output) is None


@pytest.mark.parametrize("name", [name for name in PRINTED if PRINTED[name].runs])
def test_numbers_can_be_told_in_a_line(name: str) -> None:
    runs = find_runs(PRINTED[name].output)
    line = runs_line(runs)
    again = find_runs(f"2 failed in 0.1s\n{line}\n")
    assert "\n" not in line
    assert [(r.runner, r.failed, r.passed, r.ran, r.label) for r in again] == [
        (r.runner, r.failed, r.passed, r.ran, r.label) for r in runs
    ]
    assert find_runs(f"{line}\n2 failed in 0.1s\n")[0].failed == 2, "only the last line tells"


@pytest.mark.parametrize(
    "line",
    ["", "[", "7", "[[]]", '[["go", "x", 1, 1, "", false, ""]]', "[1, 2]", '[["go", -1, 1, 1, "", 0, ""]]'],
)
def test_a_line_that_tells_nothing_is_read_as_any_other(line: str) -> None:
    assert [run.runner for run in find_runs(f"2 failed in 0.1s\n{RUNS_LINE_PREFIX}{line}")] == ["pytest"]


def test_many_runs_are_told_by_runner() -> None:
    runs = find_runs("".join(f"ok  \tx/{n}\t0.1s\n" for n in range(300)) + "1 failed, 2 passed in 0.1s\n")
    again = find_runs(runs_line(runs))
    assert [(run.runner, run.failed, run.passed) for run in again] == [("go", 0, None), ("pytest", 1, 2)]
    assert total(again).summary == "1 failed, 2 passed in 2 runs"


@pytest.mark.parametrize(
    "part",
    [
        "=" * 50,
        "1 failed, ",
        "_ ",
        "FAILED [",
        "SUBFAIL SUBFAIL ",
        "\x1b[",
        "  1) a\n       b\n",
        "ok 1..1\n",
        "1..1\n",
        "   Running a (",
        "--- FAIL: TestA\n",
        "=" * 30 + "\nFAIL: a (b)\n",
        "FAIL a\n  ● b \u203a c\n",
        "1 failed\n",
        "1 failed in 0.1s\n",
        "TAP version 13\n# tests 1\n# pass 1\n",
        "\n",
        " ",
        "9",
    ],
)
def test_the_time_is_linear_in_a_hostile_output(part: str) -> None:
    def seconds(length: int) -> float:
        output = (part * (length // len(part) + 1))[:length] + "\n1 failed in 0.1s\n"
        begin = time.process_time()
        count_failing(output)
        return time.process_time() - begin

    # Quadratic would be 64 times as long.
    assert seconds(400_000) < 30 * max(seconds(50_000), 0.002)

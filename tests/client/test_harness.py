"""The harness without a server: processes, results of test runners, workspaces, rebasing."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerai_client.harness import process
from kerai_client.harness.process import BoundedOutput, clean_environment, run
from kerai_client.harness.results import Outcome, judge, read, tail
from kerai_client.harness.workspace import Workspace, remove
from kerai_client.repo.rebase import rebase
from kerai_client.source import FileState, Tree, apply_operations, diff, snapshot_of

ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def _little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)


def alive(pid: int) -> bool:
    """Say whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Wait for a condition; say whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# -- processes -----------------------------------------------------------------------------------


def test_a_command_tells_its_exit_code_and_output(tmp_path: Path) -> None:
    finished = run("echo out; echo err >&2; pwd; exit 3", tmp_path, environment=ENVIRONMENT, seconds=30)
    assert (finished.exit_code, finished.timed_out, finished.stopped) == (3, False, None)
    assert finished.output == f"out\nerr\n{tmp_path}\n"


def test_it_reads_nothing_and_sees_only_its_environment(tmp_path: Path) -> None:
    finished = run("cat; env", tmp_path, environment=ENVIRONMENT | {"KERAI_TASK": "t"}, seconds=30)
    names = {line.partition("=")[0] for line in finished.output.splitlines()}
    assert (
        {"PATH", "KERAI_TASK"} <= names <= {"PATH", "KERAI_TASK", "PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
    )


def test_a_signal_is_told_as_a_shell_does(tmp_path: Path) -> None:
    assert run("kill -9 $$", tmp_path, environment=ENVIRONMENT, seconds=30).exit_code == 137
    assert run(["no-such-program"], tmp_path, environment=ENVIRONMENT, seconds=30).exit_code == 127


@pytest.mark.parametrize(
    "started",
    [
        "sleep 600",
        "sh -c 'trap \"\" TERM; sleep 600; sleep 600'",
        "setsid sh -c 'trap \"\" TERM; while :; do sleep 600; done'",
        "sh -c 'setsid setsid sleep 600 &'",
    ],
)
def test_a_time_limit_ends_everything_that_was_started(tmp_path: Path, started: str) -> None:
    pids = tmp_path / "pids"
    command = f"({started}) & echo $! > {pids}; trap '' TERM; sleep 600 & echo $! >> {pids}; wait; wait"
    began = time.monotonic()
    finished = run(command, tmp_path, environment=ENVIRONMENT, seconds=0.5)
    assert finished.timed_out
    assert time.monotonic() - began < 15
    assert not any(alive(int(pid)) for pid in pids.read_text().split())
    assert judge(finished).broken


def test_what_a_command_leaves_running_is_ended(tmp_path: Path) -> None:
    finished = run("sleep 600 & echo $!", tmp_path, environment=ENVIRONMENT, seconds=30)
    assert finished.exit_code == 0
    assert not alive(int(finished.output))


def test_the_one_who_watches_ends_it(tmp_path: Path) -> None:
    finished = run(
        "sleep 600", tmp_path, environment=ENVIRONMENT, seconds=60, watch=lambda: "enough", watch_seconds=0.1
    )
    assert (finished.stopped, finished.timed_out) == ("enough", False)
    assert finished.exit_code == 128 + signal.SIGTERM


def test_a_watch_that_fails_ends_it_too(tmp_path: Path) -> None:
    def fail() -> str | None:
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        run(
            f"echo $$ > {tmp_path}/pid; sleep 600",
            tmp_path,
            environment=ENVIRONMENT,
            seconds=60,
            watch=fail,
            watch_seconds=0.5,
        )
    assert not alive(int((tmp_path / "pid").read_text()))


def test_an_agent_that_is_killed_takes_its_solver_along(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from kerai_client.harness.process import run\n"
        f"run('echo $$ > pid; setsid sleep 600 & echo $! >> pid; wait', Path({str(tmp_path)!r}), "
        f"environment={ENVIRONMENT!r}, seconds=600)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as agent:
        file = tmp_path / "pid"
        assert until(lambda: file.exists() and len(file.read_text().split()) == 2)
        pids = [int(pid) for pid in file.read_text().split()]
        assert all(alive(pid) for pid in pids)
        agent.kill()
    assert until(lambda: not any(alive(pid) for pid in pids))


def test_endless_output_fills_nothing(tmp_path: Path) -> None:
    finished = run("yes", tmp_path, environment=ENVIRONMENT, seconds=0.7)
    assert finished.timed_out
    assert finished.output.startswith("y\ny\n")
    assert "bytes left out" in finished.output
    assert len(finished.output) < 2_000_000


def test_bounded_output_keeps_both_ends() -> None:
    output = BoundedOutput(head=4, tail=4)
    for part in (b"ab", b"cdef", b"", b"ghijklmnop\0\xff"):
        output.add(part)
    assert output.text() == "abcd\n[… 10 bytes left out …]\nop\ufffd\ufffd"


# -- results -------------------------------------------------------------------------------------

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


# -- rebasing ------------------------------------------------------------------------------------

BEFORE = "def one():\n    return 1\n\n\ndef two():\n    return 2\n\n\ndef three():\n    return 3\n"


def tree_of(text: str, tree: Tree | None = None) -> Tree:
    """Return the tree of one file, made from an earlier tree when there is one."""
    return apply_operations(tree or Tree(), edit(tree or Tree(), text))


def edit(tree: Tree, text: str) -> list[dict[str, Any]]:
    """Return the operations that make the file hold a text."""
    return diff(tree, {"a.py": FileState(text.encode(), False, False)}, author="x.0123456789abcdef")


def rebased(mine: str, theirs: str) -> str:
    """Return the file after somebody else's edit and what is left of mine."""
    old = tree_of(BEFORE)
    new = tree_of(theirs, old)
    ops = rebase(old, new, edit(old, mine))
    return snapshot_of(apply_operations(new, ops))["a.py"].data.decode()


def test_edits_of_different_statements_are_both_kept() -> None:
    mine, theirs = BEFORE.replace("return 1", "return 10"), BEFORE.replace("return 2", "return 20")
    assert rebased(mine, theirs) == mine.replace("return 2", "return 20")
    longer = mine.replace("return 10", "x = 10\n    return x")
    assert rebased(longer, theirs) == longer.replace("return 2", "return 20")


def test_what_was_merged_first_stands() -> None:
    mine, theirs = BEFORE.replace("return 1", "return 10"), BEFORE.replace("return 1", "return 11")
    assert rebased(mine, theirs) == theirs
    assert rebased(theirs, theirs) == theirs


def test_what_others_work_in_is_not_deleted() -> None:
    without_two = BEFORE.replace("def two():\n    return 2\n\n\n", "")
    theirs = BEFORE.replace("return 2", "return 20")
    assert "return 20" in rebased(without_two, theirs)
    assert "def two" not in rebased(without_two, BEFORE.replace("return 3", "return 30"))


def test_edits_of_what_is_gone_are_dropped() -> None:
    without_two = BEFORE.replace("def two():\n    return 2\n\n\n", "")
    mine = BEFORE.replace("return 2", "y = 2\n    return y").replace("return 3", "return 30")
    assert rebased(mine, without_two) == without_two.replace("return 3", "return 30")
    old = tree_of(BEFORE)
    assert rebase(old, Tree(), edit(old, mine)) == []


# -- environment and workspace -------------------------------------------------------------------


def test_no_way_to_the_database_leaks() -> None:
    environment = clean_environment(
        {
            "KERAI_DSN": "postgresql://secret",
            "KERAI_KEYS": "/keys",
            "PGPASSWORD": "secret",
            "PGHOST": "h",
            "HOME": "/h",
            "PATH": "/usr/bin",
        }
    )
    assert "secret" not in repr(environment)
    assert environment.keys() == {"HOME", "PATH", "PYTHONDONTWRITEBYTECODE", "NO_COLOR"}
    assert environment["PATH"].split(":") == ["/usr/bin", str(Path(sys.executable).parent)]


def test_a_workspace_is_gone_afterwards(tmp_path: Path) -> None:
    with Workspace("solver-1", tmp_path) as workspace:
        workspace.clear()
        locked = workspace.tree / "read-only"
        locked.mkdir()
        (locked / "file").write_text("x")
        locked.chmod(0o500)
        assert workspace.path.stat().st_mode & 0o077 == 0
    assert not workspace.path.exists()
    with pytest.raises(ZeroDivisionError), Workspace("solver-1", tmp_path) as workspace:
        raise ZeroDivisionError
    assert not workspace.path.exists()


def test_the_folder_of_a_killed_agent_is_removed_by_the_next(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from kerai_client.harness.workspace import Workspace\n"
        "with Workspace('killed', Path(sys.argv[1])) as workspace:\n"
        "    workspace.clear(); print(workspace.path, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        folder = Path(agent.stdout.readline().strip())
        with Workspace("other", tmp_path):
            assert folder.is_dir()  # its owner lives
        agent.kill()
    assert folder.is_dir()
    with Workspace("other", tmp_path) as workspace:
        assert not folder.exists()
        assert workspace.path.is_dir()


def test_agents_of_one_machine_take_turns(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from kerai_client.harness.workspace import Workspace\n"
        "with Workspace('other', Path(sys.argv[1])) as workspace, workspace.turn(2**64 + 7, lambda: None):\n"
        "    print('mine', flush=True); time.sleep(600)"
    )
    with (
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as other,
        Workspace("solver-1", tmp_path) as workspace,
    ):
        assert other.stdout is not None and other.stdout.readline() == "mine\n"
        with workspace.turn(8, lambda: pytest.fail("another turn is not taken")):
            pass
        waited: list[int] = []

        def waiting() -> None:
            waited.append(1)
            if len(waited) == 3:
                other.kill()

        with workspace.turn(2**64 + 7, waiting):
            assert len(waited) >= 3


def test_a_folder_that_somebody_else_made_is_not_used(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"kerai-agents-{os.getuid()}").symlink_to(elsewhere)
    with Workspace("solver-1", tmp_path) as workspace:
        assert elsewhere not in workspace.path.resolve().parents
    remove(workspace.path.parent)

"""`kerai solve mutate` on whole projects: what it repairs, and what it leaves alone."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.laws import LONG

REPOSITORY = Path(__file__).parents[3]
# -P: what is in the working directory is not to be taken for modules of ours
KERAI = [sys.executable, "-P", "-m", "kerai_client", "solve", "mutate"]
GOOD = "def small(x):\n    return x < 10\n"
BAD = GOOD.replace("<", "<=")
TESTS = (
    "from pack.code import small\n\n\ndef test_nine():\n    assert small(9)\n\n\n"
    "def test_ten():\n    assert not small(10)\n"
)
Files = dict[str, bytes]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """An environment in which the solver's own temporary files can be looked at."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KERAI_", "PYTEST"))}
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return kept | {"TMPDIR": str(tmp_path / "tmp"), **more}


def write_project(directory: Path, **files: str) -> Path:
    """A package `pack` with a test; names have `__` for `/`."""
    texts = {"pack__code": BAD, "test_code": TESTS, "pack____init__": ""} | files
    for name, text in texts.items():
        path = directory / (name.replace("pack__", "pack/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def content(directory: Path) -> Files:
    """Everything in a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def run(directory: Path, *options: str, **variables: str) -> tuple[int, dict[str, Any], str]:
    """Call the command; its exit code, what it prints as JSON, and its messages."""
    done = subprocess.run(
        [*KERAI, "--json", *options],
        cwd=directory,
        env=environment(directory.parent, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # nothing is left, neither of its scratch copy nor in the working directory
    assert list((directory.parent / "tmp").iterdir()) == []
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "project"


def test_repairs_one_bug_and_touches_nothing_else(directory: Path) -> None:
    before = content(write_project(directory))
    code, result, _ = run(directory)
    assert code == 0
    assert content(directory) == before | {"pack/code.py": GOOD.encode()}
    assert (result["failing_before"], result["failing_after"]) == (1, 0)
    assert result["fixes"][0]["mended"] == ["test_code.py::test_ten"]
    assert "-    return x <= 10\n+    return x < 10\n" in result["fixes"][0]["diff"]


def test_nothing_to_repair(directory: Path) -> None:
    before = content(write_project(directory, pack__code=GOOD))
    code, result, _ = run(directory)
    assert (code, result["candidates"]) == (1, 0)
    assert content(directory) == before


def test_nothing_found(directory: Path) -> None:
    tests = (
        "from pack.code import small\n\n\ndef test_it():\n    assert small(1) == 'the colour of the night'\n"
    )
    before = content(write_project(directory, test_code=tests))
    code, result, _ = run(directory)
    assert (code, result["fixes"]) == (1, [])
    assert result["candidates"] > 10
    assert content(directory) == before


def test_does_not_break_what_passes(directory: Path) -> None:
    """The only edits that mend the one test break the other."""
    tests = TESTS + "\n\ndef test_ten_again():\n    assert small(10)\n"
    before = content(write_project(directory, test_code=tests))
    code, _, _ = run(directory)
    assert code == 1
    assert content(directory) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "nowhere"], "no such file"),
        (["--tests", "nowhere"], "no such file"),
        (["--time-limit", "0"], "0"),
    ],
)
def test_misuse(directory: Path, options: list[str], message: str) -> None:
    write_project(directory)
    code, _, errors = run(directory, *options)
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors


def test_no_python_is_misuse(directory: Path) -> None:
    directory.mkdir()
    code, _, errors = run(directory)
    assert code == 2
    assert "no Python source" in errors


def test_pytest_that_does_not_start_is_misuse(directory: Path) -> None:
    write_project(directory, conftest="raise RuntimeError('no luck')\n")
    code, _, errors = run(directory)
    assert code == 2
    assert "no luck" in errors


def test_same_seed_same_change(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "tests/data/twelve_bugs", directory)
    shutil.copytree(directory, tmp_path / "second")
    results = [run(place, "--seed", "11")[1] for place in (directory, tmp_path / "second")]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    assert content(directory) == content(tmp_path / "second")


def test_numbered_agents_begin_at_different_bugs(directory: Path) -> None:
    original = REPOSITORY / "tests/data/twelve_bugs"
    changed = set()
    for number in (1, 2, 3):
        shutil.copytree(original, directory)
        code, result, _ = run(directory, KERAI_AGENT=f"solver-{number}", KERAI_ATTEMPT="1")
        assert code == 0
        changed.add((result["fixes"][0]["path"], result["fixes"][0]["line"]))
        shutil.rmtree(directory)
    assert len(changed) == 3


def test_scope_and_success_command_come_from_the_harness(directory: Path) -> None:
    elsewhere = "from pack.more import one\n\n\ndef test_one():\n    assert one() == 1\n"
    write_project(directory, pack__more="def one():\n    return 2\n", test_more=elsewhere)
    variables = {"KERAI_SUCCESS_COMMAND": "python -m pytest -q test_more.py test_code.py"}
    assert run(directory, KERAI_SCOPE="pack/more.py", **variables)[0] == 0
    assert (directory / "pack/more.py").read_text() == "def one():\n    return 1\n"
    assert (directory / "pack/code.py").read_text() == BAD
    # what is left is outside the scope
    assert run(directory, KERAI_SCOPE="pack/more.py", **variables)[0] == 1


@pytest.mark.parametrize("search", ["src", "{directory}/src"])
def test_search_path_of_the_success_command(directory: Path, search: str) -> None:
    """It leads into the copy that the tests run in, not to the files as they were."""
    write_project(directory / "src").joinpath("test_code.py").rename(directory / "test_code.py")
    command = f"PYTHONPATH={search.format(directory=directory)} python -m pytest -x"
    assert run(directory, KERAI_SUCCESS_COMMAND=command)[0] == 0
    assert (directory / "src/pack/code.py").read_text() == GOOD


@pytest.mark.parametrize("name", ["click", "kerai_client", "coverage_of_sources", "session"])
def test_a_project_with_the_name_of_something_of_ours(directory: Path, name: str) -> None:
    write_project(directory, test_code=TESTS.replace("pack", name))
    (directory / "pack").rename(directory / name)
    assert run(directory)[0] == 0
    assert (directory / name / "code.py").read_text() == GOOD


def test_several_repairs_in_one_call(directory: Path) -> None:
    elsewhere = "from pack.more import one\n\n\ndef test_one():\n    assert one() == 1\n"
    write_project(directory, pack__more="def one():\n    return 2\n", test_more=elsewhere)
    code, result, _ = run(directory, "--max-fixes", "5")
    assert (code, len(result["fixes"]), result["failing_after"]) == (0, 2, 0)


def test_code_that_runs_at_import(directory: Path) -> None:
    """A constant, a default value, a table built by a function when the module is imported."""
    code = (
        "LIMIT = 11\n\n\ndef table():\n    return {'a': 2}\n\n\nTABLE = table()\n\n\n"
        "def small(x, limit=LIMIT):\n    return x < limit\n\n\ndef look(name, default=3):\n"
        "    return TABLE.get(name, default)\n"
    )
    tests = (
        TESTS.replace("import small", "import look, small")
        + "\n\ndef test_look():\n    assert look('a') == 1\n"
        + "\n\ndef test_default():\n    assert look('b') == 4\n"
    )
    write_project(directory, pack__code=code, test_code=tests)
    status, result, _ = run(directory, "--max-fixes", "3")
    assert (status, result["failing_after"]) == (0, 0)


def test_module_that_cannot_be_imported(directory: Path) -> None:
    write_project(
        directory,
        pack__code="WORDS = 'a b'.splt()\n\n\n" + GOOD + "\n\ndef other():\n    return ''.split()\n",
    )
    code, result, _ = run(directory)
    assert (code, result["failing_before"], result["failing_after"]) == (0, 1, 0)
    assert "WORDS = 'a b'.split()" in (directory / "pack/code.py").read_text()


def test_the_fix_must_survive_everything_imported_anew(directory: Path) -> None:
    """What a live function hides (it ran at import) the whole suite shows."""
    code = "def width():\n    return 3\n\n\nROW = 'x' * 4\n\n\ndef row():\n    return ROW\n"
    tests = (
        "from pack.code import ROW, row, width\n\n\ndef test_width():\n    assert width() == len(ROW)\n\n\n"
        "def test_row():\n    assert row() == 'xxxx'\n"
    )
    write_project(directory, pack__code=code, test_code=tests)
    assert run(directory)[0] == 0
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=directory,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    "nuisance",
    [
        "while True:\n        pass",
        "import time\n    time.sleep(1000)",
        "import os\n    os._exit(3)",
        "import os\n    os.kill(os.getpid(), 11)",
        "import os\n    os.fork()\n    assert False",
        "print('spam' * 10_000_000)\n    assert False",
        "x = []\n    while True:\n        x.append(' ' * 10_000_000)",
        "import subprocess\n    subprocess.Popen(['sleep', '12345'])\n    assert False",
        "import sys\n    sys.exit(0)",
    ],
    ids=["loop", "sleep", "exit", "crash", "fork", "spam", "memory", "daemon", "sys.exit"],
)
def test_other_tests_that_misbehave(directory: Path, nuisance: str) -> None:
    write_project(directory, test_nuisance=f"def test_it():\n    {nuisance}\n")
    code, result, _ = run(directory, "--time-limit", "20")
    assert code == 0
    assert (directory / "pack/code.py").read_text() == GOOD
    assert "test_code.py::test_ten" in result["fixes"][0]["mended"]


def test_candidates_that_hang(directory: Path) -> None:
    """Every other edit of this function never ends; the repair is found all the same."""
    loop = "    while n > 0:\n        n = n // 10\n        count += 2\n"
    code = f"def digits(n):\n    count = 0\n{loop}    return count\n"
    tests = (
        "from pack.code import digits\n\n\ndef test_digits():\n"
        "    assert [digits(n) for n in (0, 7, 42, 100)] == [0, 1, 2, 3]\n"
    )
    write_project(directory, pack__code=code, test_code=tests)
    code_, _, _ = run(directory, "--seed", "3")
    assert code_ == 0
    assert (directory / "pack/code.py").read_text() == code.replace("+= 2", "+= 1")


def test_stale_bytecode_does_not_hide_a_change(directory: Path) -> None:
    """A repair of the same size, within the second: Python would take cached bytecode for the old text."""
    code = "def one():\n    return 2\n"
    tests = (
        "import subprocess\nimport sys\n\nfrom pack.code import one\n\n\n"
        "def test_one():\n    assert one() == 1\n\n\n"
        "def test_in_a_process():\n"
        "    out = subprocess.run([sys.executable, '-c', 'import pack.code; print(pack.code.one())'],\n"
        "                         capture_output=True, text=True).stdout\n"
        "    assert out.strip() == str(one())\n"
    )
    write_project(directory, pack__code=code, test_code=tests)
    assert run(directory)[0] == 0
    assert (directory / "pack/code.py").read_text() == "def one():\n    return 1\n"


def test_a_flaky_test_is_not_repaired(directory: Path) -> None:
    """It fails when its marker file is missing, and makes one: later runs pass without any edit."""
    flaky = (
        "from pathlib import Path\n\nfrom pack.code import small\n\n\n"
        "def test_flaky():\n    marker = Path('marker')\n"
        "    there = marker.exists()\n    marker.write_text('')\n    assert there and small(1)\n"
    )
    before = content(write_project(directory, pack__code=GOOD, test_flaky=flaky))
    assert run(directory)[0] == 1
    assert content(directory) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle_it_leaves_nothing(directory: Path, number: int) -> None:
    code = "def f(x):\n    while x:\n        pass\n    return 1\n"
    tests = "from pack.code import f\n\n\ndef test_f():\n    assert f(1) == 'something that no edit makes'\n"
    before = content(write_project(directory, pack__code=code, test_code=tests))
    solver = subprocess.Popen(KERAI, cwd=directory, env=environment(directory.parent))
    temporary = directory.parent / "tmp"
    try:
        wait_until(lambda: any(temporary.glob("kerai-solve-*/project/pack/code.py")))
        time.sleep(1.5)
    finally:
        os.kill(solver.pid, number)
        solver.wait(20)
    wait_until(lambda: not any(temporary.iterdir()))
    assert content(directory) == before
    wait_until(lambda: not processes_in(temporary))


def test_what_a_killed_solver_has_left_is_removed_by_the_next(directory: Path) -> None:
    temporary = directory.parent / "tmp"
    write_project(directory)
    for name in ("kerai-solve-left", "kerai-solve-held", "kerai-solve-new", "other"):
        (temporary / name / "project").mkdir(parents=True)
        if name != "kerai-solve-new":
            os.utime(temporary / name, (1, 1))
    held = os.open(temporary / "kerai-solve-held", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        subprocess.run(
            KERAI, cwd=directory, env=environment(directory.parent), check=True, capture_output=True
        )
        assert sorted(path.name for path in temporary.iterdir()) == [
            "kerai-solve-held",
            "kerai-solve-new",
            "other",
        ]
    finally:
        os.close(held)


def wait_until(holds: Any, seconds: float = 20.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_in(directory: Path) -> list[str]:
    """Processes whose temporary directory is below this one: the test server and all that it forked."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={directory}/kerai-solve-".encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("package", "most", "fixes"),
    [("examples/shiftplan", 12, 1 if LONG else 3), ("tests/data/twelve_bugs", 4, 5 if LONG else 8)],
)
def test_repeated_calls_turn_a_package_green(directory: Path, package: str, most: int, fixes: int) -> None:
    shutil.copytree(REPOSITORY / package, directory)
    tests = {name: data for name, data in content(directory).items() if name.startswith("tests/")}
    failing = []
    for seed in range(1, most + 1):
        code, result, _ = run(directory, "--seed", str(seed), "--max-fixes", str(fixes))
        assert code == 0
        failing.append(result["failing_after"])
        if not failing[-1]:
            break
    assert failing == sorted(failing, reverse=True)
    assert failing[-1] == 0
    assert {name: data for name, data in content(directory).items() if name.startswith("tests/")} == tests
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=directory,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0


def test_the_example_is_broken_as_it_should_be() -> None:
    """At least six failing tests for at least four modules, and no comment that gives a bug away."""
    directory = REPOSITORY / "examples/shiftplan"
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no"],
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
    )
    failed = [line.split("::")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) >= 6
    assert len(set(failed)) >= 4
    assert not any("bug" in path.read_text().lower() for path in directory.rglob("shiftplan/*.py"))

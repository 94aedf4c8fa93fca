"""What a command leaves behind: nothing that runs, and its output within bounds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.processes import alive, until

from kerai_client.harness import process
from kerai_client.harness.process import BoundedOutput, run
from kerai_client.harness.results import judge

ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def _little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)


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

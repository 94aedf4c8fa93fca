"""Agents that a launch has started: how they are named, and that they end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import alive, until
from tests.support.sample import Run

from kerai_client.harness.bookkeeping import Stopped, StopRequest
from kerai_client.harness.workspace import Workspace

pytestmark = pytest.mark.usefixtures("here")

KERAI = [sys.executable, "-m", "kerai_client"]
PATIENCE = 120.0  # seconds


@contextmanager
def launched(folder: Path, agents: int, *words: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A launch whose agents all run their solver: its process, and the ids of all processes below it."""
    folder.mkdir()
    solver = f"touch {folder}/$KERAI_AGENT; sleep 600"
    command = [*KERAI, "swarm", "launch", "--task", "all green", "--success-command", "false", *words]
    with subprocess.Popen(
        [*command, "--solver", solver, "--start", str(agents)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert until(
                lambda: process.poll() is not None or len(list(folder.iterdir())) == agents, PATIENCE
            )
            assert process.poll() is None, process.communicate()
            below, ahead = [], [process.pid]
            while ahead:
                pid = ahead.pop()
                below.append(pid)
                ahead += [
                    int(c)
                    for f in Path(f"/proc/{pid}/task").glob("*/children")
                    for c in f.read_text().split()
                ]
            yield process, below[1:]
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
)
def test_agents_end_with_their_launch(
    rows: Callable[..., Any], package: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    rows("import", package)
    with launched(tmp_path / "at-work", 2) as (process, below):
        assert len(below) >= 6, "two agents, two supervisors, two solvers"
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in errors
    if number != signal.SIGKILL:
        assert "error: interrupted: solver-1, solver-2 ended, the swarm stays open" in errors
        assert not any(alive(pid) for pid in below)
    assert until(lambda: not any(alive(pid) for pid in below), PATIENCE)
    assert rows("swarm", "status")[0]["status"] == "running"


def test_two_launches_of_one_user_name_their_agents_apart(
    ok: Run, rows: Callable[..., Any], package: Path, tmp_path: Path
) -> None:
    ok("import", package)
    with launched(tmp_path / "first", 2), launched(tmp_path / "second", 1):
        members = {
            row["agent"]
            for one in rows("swarm", "status")
            for row in rows("swarm", "status", one["swarm_id"])["members"]
        }
    assert members == {"solver-1", "solver-2", "solver-3"}


def test_a_name_is_free_when_its_process_has_ended(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from kerai_client.harness.workspace import Workspace\n"
        "with Workspace('launch', Path(sys.argv[1])) as workspace:\n"
        "    print(workspace.reserve('solver-1'), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with Workspace("launch", tmp_path) as workspace:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "True\n"
            assert not workspace.reserve("solver-1") and workspace.reserve("solver-2")
            other.kill()
        assert workspace.reserve("solver-1")


def test_an_agent_notices_that_its_launch_is_gone() -> None:
    StopRequest(os.getppid()).check()
    with pytest.raises(Stopped, match="the launch that started this agent is gone"):
        StopRequest(os.getpid()).check()


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with (stop := StopRequest()).listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.reason() is None
    finally:
        signal.signal(signal.SIGHUP, before)

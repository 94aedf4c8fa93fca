"""An agent's folder, and the environment of what runs there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerai_client.harness.process import clean_environment
from kerai_client.harness.workspace import Workspace, remove


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

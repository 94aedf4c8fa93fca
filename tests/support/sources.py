"""A copy of the project's sources, for tests that change them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE = shutil.ignore_patterns(
    *(".git", ".venv", ".kerai", "build", "__pycache__", "*.egg-info", ".coverage", ".hypothesis", ".*_cache")
)


def copy_sources(folder: Path) -> Path:
    """Copy everything but what is made from the sources, as they are now, and return where it is."""
    return Path(shutil.copytree(ROOT, folder / "kerai", symlinks=True, ignore=MADE))


def git(folder: Path, *arguments: str) -> str:
    """Run git there as somebody who has no settings of his own, and return its output."""
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")
    command = ("git", *who, "-c", "core.hooksPath=/dev/null", *arguments)
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def commit_all(folder: Path, message: str) -> None:
    """Make a repository of a folder, on main, if it is none, and commit what is in it."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "config", "user.name", "Tester")
        git(folder, "config", "user.email", "tester@example.org")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)

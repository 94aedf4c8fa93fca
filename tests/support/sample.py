"""What the tests of the commands work on: a package with one failing test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]

PACKAGE = {
    "pkg/__init__.py": "",
    "pkg/auth/token.py": "LIFE = 3\n\n\ndef valid(age):\n    return age < LIFE\n",
    "pkg/other.py": "def twice(x):\n    return x + x\n",
    "tests/test_token.py": "from pkg.auth.token import valid\n\n\ndef test_valid():\n    assert valid(3)\n",
    "run.sh": "#!/bin/sh\necho hi\n",
}


def make(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def files_below(folder: Path) -> dict[str, str]:
    """Return the files by their paths: all of them, for a checkout adds none of its own."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

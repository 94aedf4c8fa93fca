"""The versions that the project is developed and tested with: bounded, locked, with their hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD, DEV = PROJECT["optional-dependencies"]["build"], PROJECT["optional-dependencies"]["dev"]
LOCKS = {
    "client.txt": [*PROJECT["dependencies"], *BUILD],
    "dev.txt": [*PROJECT["dependencies"], *BUILD, *DEV],
}


def locked(name: str) -> dict[str, Version]:
    """Return name -> version of a lock, after checking that each has a hash."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements" / name).read_text().strip()):
        head = re.match(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", entry)
        assert head is not None, entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
        found[canonicalize_name(head[1])] = Version(head[2])
    return found


@pytest.mark.parametrize("text", [text for text in LOCKS["dev.txt"] if text != "kerai[build]"])
def test_a_next_major_version_is_not_taken_unseen(text: str) -> None:
    assert any(bound.operator in ("<", "<=", "==", "~=") for bound in Requirement(text).specifier), text


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_fits_what_the_project_asks_for(name: str) -> None:
    versions = locked(name)
    for requirement in map(Requirement, LOCKS[name]):
        if requirement.name != "kerai":
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    assert locked("client.txt").items() <= locked("dev.txt").items()

"""What `make install` leaves behind, in a folder of its own (DESTDIR) and on this machine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from kerai import __version__

ROOT = Path(__file__).resolve().parents[2]
PARTS = ["Makefile", "kerai.control", "pyproject.toml", "scripts", "extension"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources in a folder with spaces and a quote in its name."""
    folder = tmp_path / "it's a copy"
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, folder)
    return folder


def pg_config(option: str) -> str:
    command = [os.environ.get("PG_CONFIG") or "pg_config", option]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def installed(target: Path) -> dict[str, int]:
    """Return path -> mode of the files below an installation."""
    return {
        f"/{file.relative_to(target)}": stat.S_IMODE(file.stat().st_mode)
        for file in target.rglob("*")
        if file.is_file()
    }


def test_install_into_a_folder(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "package root"
    done = make(copy, "install", f"DESTDIR={target}")
    assert done.returncode == 0, done.stderr
    files = installed(target)
    shared = f"{pg_config('--sharedir')}/extension"
    package = f"{pg_config('--pkglibdir')}/kerai/{__version__}/kerai"
    assert f"{shared}/kerai.control" in files
    assert f"{shared}/kerai--{__version__}.sql" in files
    sources = (ROOT / "extension" / "python" / "kerai").rglob("*.py")
    names = {f"{package}/{file.relative_to(ROOT / 'extension' / 'python' / 'kerai')}" for file in sources}
    assert names <= set(files)
    assert set(files.values()) == {0o644}
    folders = [folder for folder in target.rglob("*") if folder.is_dir()]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o755}
    script = (target / shared[1:] / f"kerai--{__version__}.sql").read_text()
    assert f"{pg_config('--pkglibdir')}/kerai/{__version__}" in script
    assert "@python_path@" not in script

    assert "current" in make(copy, "install", f"DESTDIR={target}").stdout
    module = copy / "extension" / "python" / "kerai" / "extra.py"
    module.write_text("")
    assert "installed" in make(copy, "install", f"DESTDIR={target}").stdout
    assert f"{package}/extra.py" in installed(target)
    module.unlink()
    make(copy, "install", f"DESTDIR={target}")
    assert installed(target) == files

    assert make(copy, "uninstall", f"DESTDIR={target}").returncode == 0
    assert installed(target) == {}
    assert not (target / pg_config("--pkglibdir")[1:] / "kerai").exists()


def test_the_build_follows_its_sources(copy: Path) -> None:
    script = copy / "build" / f"kerai--{__version__}.sql"
    assert make(copy, "build").returncode == 0
    before = script.stat().st_mtime_ns
    assert make(copy, "build").returncode == 0
    assert script.stat().st_mtime_ns == before
    head = copy / "extension" / "sql" / "head.sql"
    head.write_text(head.read_text() + "-- a change\n")
    assert make(copy, "build").returncode == 0
    assert "-- a change" in script.read_text()


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("PG_CONFIG=/no/such/pg_config", "PostgreSQL's server is not installed"),
        ("SERVER_PYTHON=/bin/false", "cannot import nacl"),
    ],
)
def test_what_is_missing_is_named(copy: Path, argument: str, told: str) -> None:
    done = make(copy, "install", argument)
    assert done.returncode != 0
    assert told in done.stderr
    assert "apt install" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_package_is_roots() -> None:
    package = Path(pg_config("--pkglibdir"), "kerai", __version__)
    for path in [package.parent, package, *package.rglob("*")]:
        status = path.stat()
        assert status.st_uid == 0, path
        assert not status.st_mode & 0o022, path

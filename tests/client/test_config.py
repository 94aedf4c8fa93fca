"""Where the client finds its database, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from kerai_client.config import config_home, load_config
from kerai_client.errors import KeraiError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own; the user's config file is in ``config/kerai`` below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".kerai").mkdir()
    config_home().mkdir(parents=True)
    return tmp_path


def write(home: Path, text: str, *, user: bool = False) -> None:
    folder = config_home() if user else home / ".kerai"
    (folder / "config.toml").write_text(text)


def test_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config().dsn is None
    write(home, 'dsn = "user file"', user=True)
    assert load_config().dsn == "user file"
    write(home, 'dsn = "project file"')
    assert load_config().dsn == "project file"
    monkeypatch.setenv("KERAI_DSN", "environment")
    assert load_config().dsn == "environment"
    assert load_config(dsn="option").dsn == "option"
    assert load_config(dsn="option", directory="x").dsn == "option"
    assert load_config(directory="x").dsn is None


def test_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config().directory == home / ".kerai"
    monkeypatch.setenv("KERAI_DIR", "from environment")
    assert load_config().directory == home / "from environment"
    assert load_config(directory="from option").directory == home / "from option"


def test_solvers_of_both_files(home: Path) -> None:
    write(home, '[solvers]\na = "user a"\nb = "user b"\n', user=True)
    write(home, '[solvers]\nb = "project b"\n')
    assert load_config().solvers == {"a": "user a", "b": "project b"}


def test_config_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert config_home({"XDG_CONFIG_HOME": "/xdg"}) == Path("/xdg/kerai")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_home({}) == config_home({"XDG_CONFIG_HOME": "relative"}) == tmp_path / ".config" / "kerai"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dsn = ", "cannot read"),
        ('dns = "typo"', "unknown settings"),
        ("dsn = 5432", "is not a text"),
        ("[solvers]\nmodel = 1", "must give each model a command"),
        ('solvers = "mutate"', "must give each model a command"),
    ],
)
def test_a_wrong_file_is_named(home: Path, text: str, told: str) -> None:
    write(home, text)
    with pytest.raises(KeraiError, match=told) as caught:
        load_config()
    assert str(home / ".kerai" / "config.toml") in caught.value.message


def test_a_home_that_nobody_has(home: Path) -> None:
    with pytest.raises(KeraiError, match="home directory"):
        load_config(directory="~no-such-user-here/kerai")


def test_without_a_server_the_hint_says_what_to_do(home: Path) -> None:
    with pytest.raises(KeraiError, match="does not exist") as caught:
        load_config().database()
    assert caught.value.hint is not None
    assert "kerai up" in caught.value.hint


def test_the_private_server_of_the_directory(server: object, home: Path) -> None:
    directory = server.directory  # type: ignore[attr-defined]
    assert load_config(directory=str(directory)).database() == server.dsn  # type: ignore[attr-defined]

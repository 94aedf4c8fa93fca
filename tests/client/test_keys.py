"""Keys are this user's alone, and an agent keeps his."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kerai_client import keys
from kerai_client.errors import KeraiError


def test_a_key_is_made_once(tmp_path: Path) -> None:
    made = keys.load_or_create("solver-1")
    file = tmp_path / "keys" / "solver-1.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert keys.load_or_create("solver-1") == keys.load("solver-1") == made
    assert keys.load_or_create("solver-2") != made
    assert sorted(path.name for path in file.parent.iterdir()) == ["solver-1.key", "solver-2.key"]


def test_many_at_once_get_one_key() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(bytes, pool.map(keys.load_or_create, ["same"] * 32)))) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_use_is_refused(mode: int) -> None:
    keys.load_or_create("open")
    keys.key_file("open").chmod(mode)
    with pytest.raises(KeraiError, match="by others") as caught:
        keys.load("open")
    assert caught.value.hint is not None
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/etc/passwd", ".hidden", "nul\0", "a\nb", " a", "x" * 201]
)
def test_a_name_cannot_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(KeraiError, match="cannot name a key"):
        keys.load_or_create(name)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("content", ["", "not hex", "00" * 31, "00" * 33, "\xff"])
def test_a_file_that_is_no_key(content: str) -> None:
    keys.load_or_create("broken")
    keys.key_file("broken").write_text(content)
    with pytest.raises(KeraiError, match="does not hold a key"):
        keys.load_or_create("broken")


def test_no_key() -> None:
    with pytest.raises(KeraiError, match="there is no key") as caught:
        keys.load("nobody")
    assert caught.value.hint == "kerai agent register --name nobody --kind human"


def test_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KERAI_KEYS")
    assert keys.keys_directory() == tmp_path / "config" / "kerai" / "keys"

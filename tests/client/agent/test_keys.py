"""Keys are this user's alone, and an agent keeps his."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kerai_client.agent import keys
from kerai_client.agent.lock import LastPush, agent_lock, note_last_push, require_last_push
from kerai_client.errors import KeraiError

HERE = keys.instance_id(b"one instance")
THERE = keys.instance_id(b"another")


def test_a_key_is_made_once(tmp_path: Path) -> None:
    made = keys.load_or_create("solver-1", HERE)
    file = tmp_path / "keys" / HERE / "solver-1.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert keys.load_or_create("solver-1", HERE) == keys.load("solver-1", HERE) == made
    assert stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700
    assert keys.load_or_create("solver-2", HERE) != made
    assert sorted(path.name for path in file.parent.iterdir()) == ["solver-1.key", "solver-2.key"]


def test_many_at_once_get_one_key() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(bytes, pool.map(keys.load_or_create, ["same"] * 32, [HERE] * 32)))) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_use_is_refused(mode: int) -> None:
    keys.load_or_create("open", HERE)
    keys.key_file("open", HERE).chmod(mode)
    with pytest.raises(KeraiError, match="by others") as caught:
        keys.load("open", HERE)
    assert caught.value.hint is not None
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/etc/passwd", ".hidden", "nul\0", "a\nb", " a", "x" * 201]
)
def test_a_name_cannot_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(KeraiError, match="cannot name a key"):
        keys.load_or_create(name, HERE)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("content", ["", "not hex", "00" * 31, "00" * 33, "\xff"])
def test_a_file_that_is_no_key(content: str) -> None:
    keys.load_or_create("broken", HERE)
    keys.key_file("broken", HERE).write_text(content)
    with pytest.raises(KeraiError, match="does not hold a key"):
        keys.load_or_create("broken", HERE)


def test_no_key() -> None:
    with pytest.raises(KeraiError, match="there is no key") as caught:
        keys.load("nobody", HERE)
    assert caught.value.hint == "kerai agent register --name nobody --kind human"


def test_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KERAI_KEYS")
    assert keys.keys_directory() == tmp_path / "config" / "kerai" / "keys"


def test_each_database_has_a_key_of_its_own() -> None:
    assert keys.load_or_create("ann", HERE) != keys.load_or_create("ann", THERE)


def test_a_key_from_before_goes_to_the_first_database_that_knows_it(tmp_path: Path) -> None:
    made = keys.load_or_create("ann", HERE)
    unbound = tmp_path / "keys/ann.key"
    keys.key_file("ann", HERE).rename(unbound)
    other = bytes(keys.load_or_create("ben", HERE).verify_key)
    with pytest.raises(KeraiError, match="another key than yours"):
        keys.load_registered("ann", HERE, other)
    known = bytes(made.verify_key)
    assert keys.load_registered("ann", THERE, known) == made == keys.load("ann", THERE)
    assert not unbound.exists()
    with pytest.raises(KeraiError) as refused:
        keys.load_registered("ann", HERE, known)
    assert refused.value.code == "KR002"
    assert str(keys.key_file("ann", THERE)) in (refused.value.detail or "")
    assert "--agent" in (refused.value.hint or "")


def test_a_lock_is_of_one_database() -> None:
    with agent_lock("ann", HERE), agent_lock("ann", THERE):
        told: list[str] = []
        with pytest.raises(KeraiError) as refused, agent_lock("ann", HERE, patience=0.3, waiting=told.append):
            pass
    assert told == [f"waiting for process {os.getpid()}, which works as agent 'ann'"]
    assert f"process {os.getpid()} holds" in (refused.value.detail or "")
    assert "when it has ended" in (refused.value.hint or "")


def test_a_database_that_lacks_the_last_push_is_no_place_to_sign() -> None:
    keys.load_or_create("ann", HERE)
    require_last_push("ann", HERE, "ann.1", 1, None)
    note_last_push("ann", HERE, LastPush("ann.1", 20, "b" * 64))
    note_last_push("ann", HERE, LastPush("ann.1", 7, "a" * 64))
    require_last_push("ann", HERE, "ann.1", 8, "a" * 64)
    require_last_push("ann", HERE, "ann.1", 12, "c" * 64)
    require_last_push("ann", HERE, "ann.2", 1, None)  # another key by now
    for seq, prev in ((8, "c" * 64), (7, "c" * 64), (1, None)):
        with pytest.raises(KeraiError, match="does not have all that agent 'ann' has pushed") as refused:
            require_last_push("ann", HERE, "ann.1", seq, prev)
    note = keys.key_file("ann", HERE).with_suffix(".pushed")
    assert f"remove {note}" in (refused.value.hint or "")
    note.write_text('{"torn')
    require_last_push("ann", HERE, "ann.1", 1, None)

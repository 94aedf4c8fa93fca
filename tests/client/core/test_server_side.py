"""What PL/Python calls, without a server: the instance's key, signatures and the sealing of drafts."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from kerai import changeset, server
from kerai.pace import PACE_BYTES


def test_an_instance_key_is_a_private_file(tmp_path: Path) -> None:
    public_key = server.create_instance_key(str(tmp_path), "1")
    (file,) = (tmp_path / "kerai").iterdir()
    assert file.name == changeset.author_id("", public_key).removeprefix(".") + ".key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert public_key not in file.read_bytes()


def test_two_databases_of_a_server_have_two_keys(tmp_path: Path) -> None:
    keys = {server.create_instance_key(str(tmp_path), str(n)) for n in range(3)}
    assert len(keys) == len(list((tmp_path / "kerai").iterdir())) == 3


def test_a_key_that_was_made_in_vain_is_found_again(tmp_path: Path) -> None:
    other = server.create_instance_key(str(tmp_path), "1")
    made = server.create_instance_key(str(tmp_path), "11")
    # What a crash has left, and files of others.
    (tmp_path / "kerai" / "half.key").write_text("ab")
    (tmp_path / "kerai" / "copy.key").write_text("00" * 32 + "\n11\n")
    (tmp_path / "kerai" / "bytes.key").write_bytes(bytes(range(256)))
    assert server.create_instance_key(str(tmp_path), "11") == made != other
    assert server.create_instance_key(str(tmp_path), "1") == other
    signature = server.sign_as_instance("text", str(tmp_path), made)
    assert changeset.verify("text", signature, made)


def test_an_instance_signs_what_it_verifies(tmp_path: Path) -> None:
    public_key = server.create_instance_key(str(tmp_path), "1")
    signature = server.sign_as_instance("é", str(tmp_path), public_key)
    assert signature is not None
    assert changeset.verify("é", signature, public_key)


def test_without_the_file_there_is_no_signature(tmp_path: Path) -> None:
    assert server.sign_as_instance("text", str(tmp_path), bytes(32)) is None


def test_a_file_with_another_key_is_not_used(tmp_path: Path) -> None:
    first, second = (server.create_instance_key(str(tmp_path), str(n)) for n in range(2))
    names = [changeset.author_id("", key).removeprefix(".") + ".key" for key in (first, second)]
    (tmp_path / "kerai" / names[0]).rename(tmp_path / "kerai" / names[1])
    with pytest.raises(ValueError, match=r"does not hold the key that it is named after"):
        server.sign_as_instance("text", str(tmp_path), second)


def drafts(*texts: tuple[str, int, int]) -> list[tuple[int, str, int, int, str, bytes, bytes]]:
    """Return drafts of (writer, highest clock seen, operations), as the server hands them over."""
    member = SigningKey(bytes(32))
    made = []
    for place, (writer, seen, count) in enumerate(texts, start=7):
        text = changeset.draft("ann.0", "s", [{"op": str(n)} for n in range(count)], message=f"{place}")
        made.append(
            (place, writer, seen, count, text, bytes(member.verify_key), changeset.sign(text, member))
        )
    return made


def test_sealed_drafts_follow_on_each_other_writer_by_writer(tmp_path: Path) -> None:
    key = server.create_instance_key(str(tmp_path), "1")
    heads = {"a": (4, 9, b"\1" * 32), "b": (0, 0, None)}
    given_drafts = drafts(("a", 0, 2), ("b", 3, 1), ("a", 20, 3), ("a", 7, 1), ("b", 0, 1))
    sealed = server.seal_drafts(heads, key, str(tmp_path), given_drafts)
    assert [(place, seq, lamport) for place, _, _, seq, lamport, _, _ in sealed] == [
        (7, 5, 10),
        (8, 1, 4),
        (9, 7, 21),
        (10, 10, 24),
        (11, 2, 5),
    ]
    ids = [name for _, _, name, *_ in sealed]
    assert [prev for *_, prev, _ in sealed] == [b"\1" * 32, None, ids[0], ids[2], ids[1]]
    for (_, writer, _, _, text, member_key, _), envelope in zip(given_drafts, sealed, strict=True):
        _, document, name, seq, lamport, prev, signature = envelope
        assert name.hex() == changeset.changeset_id(document)
        assert changeset.verify(document, signature, key)
        whole = json.loads(document)
        assert whole["draft"] == json.loads(text)
        assert text in document
        assert changeset.verify(text, bytes.fromhex(whole["member_signature"]), member_key)
        assert (whole["author"], whole["seq"], whole["lamport"]) == (writer, seq, lamport)
        assert whole["prev"] == (prev.hex() if prev else None)
    assert heads == {"a": (4, 9, b"\1" * 32), "b": (0, 0, None)}


def test_without_the_file_no_draft_is_sealed(tmp_path: Path) -> None:
    assert server.seal_drafts({"a": (0, 0, None)}, bytes(32), str(tmp_path), drafts(("a", 0, 1))) == []


def test_what_a_pause_raises_ends_the_work() -> None:
    def cancel() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        server.verify_all(["x" * PACE_BYTES] * 3, [None] * 3, [None] * 3, cancel)


def test_signatures_are_verified_one_by_one() -> None:
    key = SigningKey(bytes(32))
    signature, public_key = changeset.sign("text", key), bytes(key.verify_key)
    given_texts = ["text", "other", None, "text"]
    given_signatures = [signature, signature, signature, None]
    assert server.verify_all(given_texts, given_signatures, [public_key] * 4) == [True, False, False, False]

"""The bytes of a changeset, without a server."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kerai import changeset

KEY = SigningKey(bytes(32))
PUBLIC = bytes(KEY.verify_key)


def test_an_author_id_is_the_name_and_the_fingerprint_of_the_key() -> None:
    # RFC 8032's secret key of 32 zeros; the fingerprint was computed by sha256sum.
    assert PUBLIC.hex() == "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
    assert changeset.author_id("ann", PUBLIC) == "ann.139e3940e64b5491"


@pytest.mark.parametrize("key", [b"", PUBLIC[:31], PUBLIC + b"\0"])
def test_an_author_id_needs_a_whole_key(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        changeset.author_id("ann", key)


def test_the_text_of_a_changeset() -> None:
    document = changeset.build(
        "ann.139e3940e64b5491",
        1,
        1,
        [{"op": "node_delete", "node": "é"}],
        base={"bob": 2},
        message='"\n',
    )
    assert document == (
        '{"v":1,"author":"ann.139e3940e64b5491","seq":1,"lamport":1,"prev":null,"base":{"bob":2},"guard":null,'
        '"task":null,"message":"\\"\\n","ops":[{"op":"node_delete","node":"é"}]}'
    )
    assert changeset.changeset_id(document) == hashlib.sha256(document.encode("utf-8")).hexdigest()


def test_what_is_signed_is_the_prefix_and_the_text() -> None:
    assert changeset.signed_bytes("é") == b"kerai-changeset-v1\n\xc3\xa9"
    assert changeset.sign("é", KEY) == KEY.sign(b"kerai-changeset-v1\n\xc3\xa9").signature


@given(st.text(), st.integers(0, 511), st.integers(0, 2**32))
def test_a_signature_verifies_until_a_bit_of_it_changes(text: str, bit: int, place: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    signature = changeset.sign(text, KEY)
    assert changeset.verify(text, signature, PUBLIC)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not changeset.verify(text, bytes(flipped), PUBLIC)
    at = place % (len(text) + 1)
    assert not changeset.verify(text[:at] + "x" + text[at:], signature, PUBLIC)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_malformed_signature_does_not_verify(signature: bytes) -> None:
    assert not changeset.verify("text", signature, PUBLIC)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), b"\xff" * 32, PUBLIC + b"\0"])
def test_a_malformed_key_verifies_nothing(key: bytes) -> None:
    assert not changeset.verify("text", changeset.sign("text", KEY), key)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.none())), TEXT)
def test_a_document_reads_back_as_what_was_written(
    ops: list[dict[str, str | int | None]], message: str
) -> None:
    document = changeset.build(
        "ann.139e3940e64b5491", 3, 9, ops, prev="0" * 64, message=message, guard="g", task="t"
    )
    assert json.loads(document) == {
        "v": 1,
        "author": "ann.139e3940e64b5491",
        "seq": 3,
        "lamport": 9,
        "prev": "0" * 64,
        "base": {},
        "guard": "g",
        "task": "t",
        "message": message,
        "ops": ops,
    }


def test_the_text_of_a_draft() -> None:
    assert changeset.draft("ann.139e3940e64b5491", "s", [{"op": "é"}], base={"bob": 2}, message='"') == (
        '{"v":1,"author":"ann.139e3940e64b5491","swarm":"s","base":{"bob":2},"guard":null,"task":null,'
        '"message":"\\"","ops":[{"op":"é"}]}'
    )


def test_the_text_of_a_changeset_that_holds_a_draft() -> None:
    # Spaces and the order of keys are the member's own: they were signed.
    sealed = changeset.wrap(
        "crew.1", 3, 9, '{"b": 1, "a":"é"}', member_key=PUBLIC, member_signature=bytes(64), prev=None
    )
    assert sealed == (
        '{"v":1,"author":"crew.1","seq":3,"lamport":9,"prev":null,"draft":{"b": 1, "a":"é"},'
        f'"member_key":"{PUBLIC.hex()}","member_signature":"{"0" * 128}"}}'
    )


@given(TEXT, TEXT, st.sampled_from([None, 1]))
def test_a_draft_inside_a_changeset_is_the_same_text(writer: str, message: str, indent: int | None) -> None:
    draft = json.dumps(json.loads(changeset.draft("ann.1", "s", [], message=message)), indent=indent)
    sealed = changeset.wrap(
        writer, 1, 1, draft, member_key=PUBLIC, member_signature=changeset.sign(draft, KEY), prev="0" * 64
    )
    whole = json.loads(sealed)
    assert (whole["author"], whole["prev"], whole["draft"]) == (writer, "0" * 64, json.loads(draft))
    start = sealed.rindex(draft)
    assert changeset.verify(
        sealed[start : start + len(draft)], bytes.fromhex(whole["member_signature"]), PUBLIC
    )

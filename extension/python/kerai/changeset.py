"""The bytes of a changeset: how one is written, named, signed and verified.

A changeset is one JSON document. Its id is the SHA-256 of the document's UTF-8 text, and its
signature is Ed25519 (RFC 8032) over :data:`SIGNING_PREFIX` followed by that same text, exactly as
it is sent. Nothing is ever re-serialised: what was signed is what is stored and passed on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

FORMAT_VERSION = 1
SIGNING_PREFIX = b"kerai-changeset-v1\n"
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Operation = Mapping[str, Any]
Vector = Mapping[str, int]


def author_id(name: str, public_key: bytes) -> str:
    """Return the author id of an agent: ``<name>.<first 16 hex digits of sha256(public key)>``.

    The id is self-certifying: whoever knows the key can check it, so two instances that have never
    met cannot give the same id to different keys.

    :param name: the agent's name.
    :param public_key: its Ed25519 public key, 32 bytes.
    :raises ValueError: when the key is not 32 bytes long.
    """
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}")
    return f"{name}.{hashlib.sha256(public_key).hexdigest()[:16]}"


def build(
    author: str,
    seq: int,
    lamport: int,
    ops: Sequence[Operation],
    *,
    prev: str | None = None,
    base: Vector | None = None,
    guard: str | None = None,
    task: str | None = None,
    message: str = "",
) -> str:
    """Return the text of a changeset: the exact characters to sign and to send.

    :param author: the author id, see :func:`author_id`.
    :param seq: the author's sequence number of the first operation, from 1, without gaps.
    :param lamport: the Lamport timestamp of the first operation: 1 + the highest one among the
        operations that ``base`` and the author's previous changeset name, 1 when there are none.
    :param ops: the operations, in order.
    :param prev: the id (64 hex digits) of the author's previous changeset, None for the first.
    :param base: the version vector that the author had seen.
    :param guard: the id of the subtree that must not have changed since ``base``.
    :param task: the id of the task that the change works on.
    :param message: why the change was made.
    """
    document = {
        "v": FORMAT_VERSION,
        "author": author,
        "seq": seq,
        "lamport": lamport,
        "prev": prev,
        "base": dict(base or {}),
        "guard": guard,
        "task": task,
        "message": message,
        "ops": list(ops),
    }
    return _to_json(document)


def draft(
    member: str,
    swarm: str,
    ops: Sequence[Operation],
    *,
    base: Vector | None = None,
    guard: str | None = None,
    task: str | None = None,
    message: str = "",
) -> str:
    """Return the text of a draft: what a member of a swarm that groups its members signs and sends.

    It has no place in a sequence: the swarm's instance gives it one, and keeps this text inside the
    changeset. A draft is merged once; the same text again is a duplicate.

    :param member: the member's author id.
    :param swarm: the id of the swarm.
    :param base: the version vector that the member had seen.

    The other parameters are those of :func:`build`.
    """
    document = {
        "v": FORMAT_VERSION,
        "author": member,
        "swarm": swarm,
        "base": dict(base or {}),
        "guard": guard,
        "task": task,
        "message": message,
        "ops": list(ops),
    }
    return _to_json(document)


def wrap(
    author: str,
    seq: int,
    lamport: int,
    draft_text: str,
    *,
    member_key: bytes,
    member_signature: bytes,
    prev: str | None,
) -> str:
    """Return the text of the changeset that holds a draft, for the swarm's instance to sign.

    :param author: the author id of the swarm's writer.
    :param draft_text: the draft's exact text, see :func:`draft`.
    :param member_key: the member's public key, 32 bytes.
    :param member_signature: the member's signature of the draft's text, 64 bytes.

    The other parameters are those of :func:`build`.
    """
    document = {"v": FORMAT_VERSION, "author": author, "seq": seq, "lamport": lamport, "prev": prev}
    keys = {"member_key": member_key.hex(), "member_signature": member_signature.hex()}
    return f'{_to_json(document)[:-1]},"draft":{draft_text},{_to_json(keys)[1:]}'


def changeset_id(document: str) -> str:
    """Return the id of a changeset: the SHA-256 of its UTF-8 text, as 64 hex digits."""
    return hashlib.sha256(document.encode()).hexdigest()


def signed_bytes(document: str) -> bytes:
    """Return the bytes that are signed: :data:`SIGNING_PREFIX` and the document's UTF-8 text."""
    return SIGNING_PREFIX + document.encode()


def sign(document: str, key: SigningKey) -> bytes:
    """Return the Ed25519 signature of a changeset, 64 bytes."""
    return bytes(key.sign(signed_bytes(document)).signature)


def verify(document: str | None, signature: bytes | None, public_key: bytes | None) -> bool:
    """Say whether a signature of a changeset verifies. What is missing or malformed does not."""
    if document is None or signature is None or public_key is None:
        return False
    if len(signature) != SIGNATURE_BYTES or len(public_key) != PUBLIC_KEY_BYTES:
        return False
    try:
        VerifyKey(public_key).verify(signed_bytes(document), signature)
    except BadSignatureError:
        return False
    return True

"""What PL/Python calls inside the server: Ed25519 keys and signatures.

Nothing here imports ``plpy``: every value comes in as an argument, so that all of it can be tested
without a server. No secret outlives the call that needs it. For ``pause`` see :mod:`kerai.pace`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from nacl.signing import SigningKey

from kerai import changeset
from kerai.pace import PACE_BYTES, Pause, no_pause

KEY_FOLDER = "kerai"

Envelope = tuple[int, str, bytes, int, int, bytes | None, bytes]


def _key_file(data_directory: str, public_key: bytes) -> Path:
    return Path(data_directory) / KEY_FOLDER / f"{hashlib.sha256(public_key).hexdigest()[:16]}.key"


def create_instance_key(data_directory: str, instance: str) -> bytes:
    """Make an Ed25519 key for a new instance and keep it in a 0600 file in the data directory.

    The file is named after the key's fingerprint. So a database restored on the same server finds its key
    again, and two databases on one server never share one by accident. Its second line says which instance it
    was made for: a transaction that makes it may be rolled back, and the file stays. The next one finds it
    there.

    :param data_directory: the server's data directory.
    :param instance: tells the instance from all others of this server, in one line. The caller lets
        nobody else make a key for it meanwhile.
    :returns: the public key, 32 bytes.
    :raises OSError: when the file cannot be written.
    """
    folder = Path(data_directory) / KEY_FOLDER
    if (made := _key_made_for(folder, instance)) is not None:
        return made
    key = SigningKey.generate()
    public_key = bytes(key.verify_key)
    path = _key_file(data_directory, public_key)
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{bytes(key).hex()}\n{instance}\n")
        file.flush()
        os.fsync(file.fileno())
    # The file's name too: a table is about to say that the key is there.
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    return public_key


def _key_made_for(folder: Path, instance: str) -> bytes | None:
    """Return the public key of the file that was made for an instance; None when there is none."""
    for path in folder.glob("*.key"):
        first, *rest = path.read_bytes().split(b"\n")
        if rest[:1] == [instance.encode()]:
            public_key = bytes(SigningKey(bytes.fromhex(first.decode())).verify_key)
            # Under another name it is a copy, or not whole.
            if path == _key_file(str(folder.parent), public_key):
                return public_key
    return None


def _read_instance_key(data_directory: str, public_key: bytes) -> SigningKey | None:
    path = _key_file(data_directory, public_key)
    try:
        key = SigningKey(bytes.fromhex(path.read_text(encoding="ascii").partition("\n")[0]))
    except FileNotFoundError:
        return None
    if bytes(key.verify_key) != public_key:
        raise ValueError(f"{path.name} does not hold the key that it is named after")
    return key


def sign_as_instance(document: str, data_directory: str, public_key: bytes) -> bytes | None:
    """Sign a changeset with the instance's key.

    :param document: the exact text of the changeset.
    :param data_directory: the server's data directory.
    :param public_key: the instance's public key, 32 bytes.
    :returns: the signature, 64 bytes; None when the key's file is not in this data directory.
    :raises ValueError: when the file does not hold the key that it is named after.
    """
    key = _read_instance_key(data_directory, public_key)
    return None if key is None else changeset.sign(document, key)


def seal_drafts(
    heads: Mapping[str, tuple[int, int, bytes | None]],
    public_key: bytes,
    data_directory: str,
    drafts: Iterable[tuple[int, str, int, int, str, bytes, bytes]],
    pause: Pause = no_pause,
) -> list[Envelope]:
    """Write and sign the changesets of drafts: each follows on the one before it of the same author.

    :param heads: of each author (a writer of a swarm): sequence number, Lamport timestamp and id of the last
        changeset.
    :param public_key: the instance's public key, 32 bytes; the writers are its own.
    :param data_directory: the server's data directory.
    :param drafts: of each draft: its place in the batch, the author that it is merged under, the highest
        Lamport timestamp that its base names. Then how many operations it has, its exact text, the member's
        public key and signature.
    :param pause: see :mod:`kerai.pace`.
    :returns: of each draft: place, document, id, sequence number and Lamport timestamp of its first
        operation, id of the author's previous changeset, signature. Nothing when the key's file is not here.
    :raises ValueError: when the file does not hold the key that it is named after.
    """
    key = _read_instance_key(data_directory, public_key)
    if key is None:
        return []
    last = dict(heads)
    envelopes: list[Envelope] = []
    unpaused = 0
    for place, author, seen, count, text, member_key, member_signature in drafts:
        if (unpaused := unpaused + len(text)) > PACE_BYTES:
            pause()
            unpaused = 0
        seq, lamport, prev = last[author]
        lamport = max(lamport, seen)
        document = changeset.wrap(
            author,
            seq + 1,
            lamport + 1,
            text,
            member_key=member_key,
            member_signature=member_signature,
            prev=prev.hex() if prev else None,
        )
        name = bytes.fromhex(changeset.changeset_id(document))
        envelopes.append((place, document, name, seq + 1, lamport + 1, prev, changeset.sign(document, key)))
        last[author] = (seq + count, lamport + count, name)
    return envelopes


def verify_all(
    documents: Iterable[str | None],
    signatures: Iterable[bytes | None],
    public_keys: Iterable[bytes | None],
    pause: Pause = no_pause,
) -> list[bool]:
    """Say of each text whether its signature verifies; what is missing or malformed does not.

    :param pause: see :mod:`kerai.pace`.
    """
    verified, unpaused = [], 0
    for document, signature, public_key in zip(documents, signatures, public_keys, strict=True):
        if (unpaused := unpaused + len(document or "")) > PACE_BYTES:
            pause()
            unpaused = 0
        verified.append(changeset.verify(document, signature, public_key))
    return verified

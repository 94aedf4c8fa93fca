"""Ed25519 keys of this user's agents: one 0600 file each, and never sent anywhere.

A key signs for one database. Two databases do not know each other's latest changesets. One key at both would
sign two changesets with the same sequence number: a fork, for which the author is frozen on both.
So keys lie in a folder for each database, which its instance key names: copies and restored dumps keep it.
"""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from nacl.signing import SigningKey

from kerai_client.config import config_home
from kerai_client.errors import KeraiError

SEED_BYTES = 32
LONGEST_NAME = 200


def keys_directory() -> Path:
    """Return the folder of the keys: ``KERAI_KEYS``, else ``~/.config/kerai/keys``."""
    override = os.environ.get("KERAI_KEYS")
    return Path(override).expanduser() if override else config_home() / "keys"


def make_folder(folder: Path) -> None:
    """Make a database's folder among the keys; nobody else can enter it, nor the one that it lies in."""
    for place in (folder.parent, folder):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)


def instance_id(instance_key: bytes) -> str:
    """Return what names a database among this user's keys: the first 16 hex digits of its key's sha256."""
    return hashlib.sha256(instance_key).hexdigest()[:16]


def check_name(name: str) -> None:
    """Check that an agent's name can name a file.

    :raises KeraiError: when the name would lead out of the folder or be hidden in it, or is none that the
        server takes.
    """
    if (
        not name
        or name.startswith(".")
        or "/" in name
        or not name.isprintable()
        or name != name.strip()
        or len(name.encode()) > LONGEST_NAME
    ):
        raise KeraiError(
            f"{name!r} cannot name a key",
            hint=f"a name has 1 to {LONGEST_NAME} printable characters, no slash, "
            "no dot in front and no space around",
        )


def key_file(name: str, instance: str) -> Path:
    """Return the file of an agent's key for a database.

    :raises KeraiError: as :func:`check_name`.
    """
    check_name(name)
    return keys_directory() / instance / f"{name}.key"


def load_or_create(name: str, instance: str) -> SigningKey:
    """Return an agent's signing key for a database, made now when there is none yet.

    :raises KeraiError: as :func:`load` and :func:`key_file`.
    """
    file = key_file(name, instance)
    if not file.exists():
        _create(file)
    return load(name, instance)


def load_registered(name: str, instance: str, public_key: bytes) -> SigningKey:
    """Return the signing key of an agent that a database knows.

    A key from before keys were bound lies in no database's folder. The first database that knows the agent
    by it gets it.

    :raises KeraiError: as :func:`load`, and when this user does not have the key for this database.
    """
    file, unbound = key_file(name, instance), keys_directory() / f"{name}.key"
    if not file.exists() and unbound.exists() and bytes(_load(name, unbound).verify_key) == public_key:
        make_folder(file.parent)
        with suppress(FileNotFoundError):  # another process was faster
            unbound.rename(file)
    if file.exists() and bytes((key := load(name, instance)).verify_key) == public_key:
        return key
    elsewhere = _bound_elsewhere(name, file, public_key)
    raise KeraiError(
        f"agent {name!r} is registered here with another key than yours",
        detail=f"registered: {public_key.hex()}, looked for in {file}{elsewhere}",
        hint="sign as another agent: --agent NAME",
        code="KR002",
    )


def _bound_elsewhere(name: str, file: Path, public_key: bytes) -> str:
    for other in sorted(keys_directory().glob(f"*/{glob.escape(name)}.key")):
        with suppress(KeraiError):
            if other != file and bytes(_load(name, other).verify_key) == public_key:
                return f"; {other} is this key, but it signs for another database, and at both it would fork"
    return ""


def load(name: str, instance: str) -> SigningKey:
    """Return an agent's signing key for a database.

    :raises KeraiError: when there is none, when others may read it, or when it is not a key.
    """
    return _load(name, key_file(name, instance))


def _load(name: str, file: Path) -> SigningKey:
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(4 * SEED_BYTES)
    except FileNotFoundError:
        raise KeraiError(
            f"there is no key of {name!r}",
            detail=str(file),
            hint=f"kerai agent register --name {name} --kind human",
        ) from None
    except OSError as error:
        raise KeraiError(f"cannot read the key of {name!r}", detail=str(error)) from error
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise KeraiError(
            f"the key of {name!r} can be used by others",
            detail=f"{file} has mode {stat.S_IMODE(mode):04o}",
            hint=f"chmod 600 '{file}', and think of a new key if others use this machine",
        )
    try:
        seed = bytes.fromhex(content.decode("ascii").strip())
        return SigningKey(seed)
    except ValueError:
        raise KeraiError(
            f"{file} does not hold a key", hint=f"it should be {2 * SEED_BYTES} hex digits"
        ) from None


def _create(file: Path) -> None:
    """Write a new key beside its place and link it there: whole or not at all, and never over another."""
    make_folder(file.parent)
    temporary = file.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_bytes(SEED_BYTES).hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, file)
        except FileExistsError:
            return  # another process was faster; its key is the key
    finally:
        temporary.unlink()

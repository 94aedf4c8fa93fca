"""Ed25519 keys of this user's agents: one 0600 file each, and never sent anywhere."""

from __future__ import annotations

import os
import secrets
import stat
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


def key_file(name: str) -> Path:
    """Return the file of an agent's key.

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
    return keys_directory() / f"{name}.key"


def load_or_create(name: str) -> SigningKey:
    """Return an agent's signing key, made now when there is none yet.

    :raises KeraiError: as :func:`load` and :func:`key_file`.
    """
    file = key_file(name)
    if not file.exists():
        _create(file)
    return load(name)


def load(name: str) -> SigningKey:
    """Return an agent's signing key.

    :raises KeraiError: when there is none, when others may read it, or when it is not a key.
    """
    file = key_file(name)
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
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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

"""Files as a directory has them, and the text and metadata that the tree stores for them."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import dataclass
from typing import Any

MAX_JSON_BYTES = 6 << 20
"""A text that is larger as JSON, where a control character takes six bytes, is stored as base64. It may be
one leaf, a leaf travels in one changeset, and a server takes 8 MiB. A file of 4 MiB is small enough so."""


@dataclass(slots=True)
class FileState:
    """One file of a working tree: its bytes (a symlink's target), whether it may be executed, whether it
    is a symlink."""

    data: bytes
    executable: bool = False
    symlink: bool = False


Snapshot = dict[str, FileState]


def text_of(state: FileState) -> tuple[str, dict[str, Any]]:
    """Return the text that is stored for a file, and the metadata that turns it back into the file.

    UTF-8 is stored as it is; what is not UTF-8, or holds NUL (which PostgreSQL text cannot), or is too large
    as JSON, as base64.
    """
    metadata: dict[str, Any] = {}
    if state.executable:
        metadata["executable"] = True
    if state.symlink:
        metadata["symlink"] = True
    try:
        text = state.data.decode("utf-8")
        if b"\0" not in state.data and _fits(text):
            return text, metadata
    except UnicodeDecodeError:
        pass
    metadata["encoding"] = "base64"
    return base64.b64encode(state.data).decode("ascii"), metadata


def _fits(text: str) -> bool:
    if 6 * len(text) <= MAX_JSON_BYTES:  # no character takes more
        return True
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8")) <= MAX_JSON_BYTES


def state_of(text: str, metadata: dict[str, Any]) -> FileState:
    """Return the file that a stored text and its metadata stand for: the inverse of :func:`text_of`.

    Text that claims to be base64 and is not (two merged rewrites of a binary file) is kept as it is.
    Whether a symlink may be one where it stands is for :func:`.settled` to say.
    """
    data = text.encode("utf-8", "surrogatepass")
    if metadata.get("encoding") == "base64":
        with contextlib.suppress(ValueError):
            data = base64.b64decode(data, validate=True)
    return FileState(data, metadata.get("executable") is True, metadata.get("symlink") is True)

"""Text diffs of files, in the format that ``git apply`` takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NO_NEWLINE = "\\ No newline at end of file\n"


@dataclass(frozen=True, slots=True)
class Side:
    """A file before or after: its path, its text (base64 when the metadata says so), its node's metadata."""

    path: str
    source: str
    metadata: Mapping[str, Any]

    @property
    def mode(self) -> str:
        """The mode that git gives such a file."""
        if self.metadata.get("symlink") is True:
            return "120000"
        return "100755" if self.metadata.get("executable") is True else "100644"

    @property
    def is_binary(self) -> bool:
        return self.metadata.get("encoding") == "base64"


def patch(old: Side | None, new: Side | None) -> str:
    """Return the patch that makes one file of another; ``''`` when a patch can show no difference.

    :param old: the file before, None when it was not there.
    :param new: the file after, None when it is gone.
    """
    some = new or old
    assert some is not None
    before, after = old or some, new or some
    head = [f"diff --git {_name('a/', before.path)} {_name('b/', after.path)}\n"]
    if old is None:
        head.append(f"new file mode {after.mode}\n")
    elif new is None:
        head.append(f"deleted file mode {before.mode}\n")
    else:
        if before.mode != after.mode:
            head += [f"old mode {before.mode}\n", f"new mode {after.mode}\n"]
        if before.path != after.path:
            head += [f"rename from {_name('', before.path)}\n", f"rename to {_name('', after.path)}\n"]
    body = list(_body(old, new, before, after))
    if old is not None and new is not None and len(head) == 1 and not body:
        return ""
    return "".join(head + body)


def _body(old: Side | None, new: Side | None, before: Side, after: Side) -> Iterator[str]:
    names = (
        "/dev/null" if old is None else _name("a/", before.path),
        "/dev/null" if new is None else _name("b/", after.path),
    )
    if before.is_binary or after.is_binary:
        if old is None or new is None or old.source != new.source:
            yield f"Binary files {names[0]} and {names[1]} differ\n"
        return
    lines = difflib.unified_diff(
        _lines("" if old is None else old.source), _lines("" if new is None else new.source), *names
    )
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}"


def _lines(text: str) -> list[str]:
    """Return the lines with their ends; only a newline ends one."""
    lines = [f"{line}\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, last] if last else lines


def _name(prefix: str, path: str) -> str:
    """Return a path as git writes it: in quotes when it has characters that need them."""
    name = prefix + path
    if all(character >= " " and character not in '"\\\x7f' for character in name):
        return name
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    quoted = (escapes.get(c) or (c if " " <= c != "\x7f" else f"\\{ord(c):03o}") for c in name)
    return f'"{"".join(quoted)}"'

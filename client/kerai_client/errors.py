"""The failures that a user is told about in words: no traceback, exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# C0 and C1 controls but for tab and newline. On a terminal they move the cursor, set its title, and worse.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}


@contextmanager
def path_in_errors(path: Path | str) -> Iterator[None]:
    """Name the file in an OSError that names none, as that of a write to a full disk does."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def reason_of(error: Exception) -> str:
    """Return an error in words, without the number that an OSError begins with."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    words = error.strerror.lower()
    return words if error.filename is None else f"{words}: {error.filename}"


def printable(text: str) -> str:
    """Return a text for a terminal: control characters as escapes, for it may be anybody's."""
    return text.translate(CONTROLS)


class KeraiError(Exception):
    """An expected failure: what was wrong, and where there is more to say, the detail and what to do.

    :param message: one line that says what was wrong.
    :param detail: the offending values.
    :param hint: what to do about it.
    :param code: the SQLSTATE, when the server or its rules refused.
    """

    def __init__(
        self, message: str, *, detail: str | None = None, hint: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.code = code

    def lines(self) -> list[str]:
        """Return the lines to print: ``error KR007: …``, ``detail: …``, ``hint: …``."""
        lines = [f"error {self.code}: {self.message}" if self.code else f"error: {self.message}"]
        if self.detail:
            lines.append(f"detail: {self.detail}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return [printable(line) for line in lines]

"""One run of a test runner, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a test runner.

    :param runner: its name in ``RUNNERS``.
    :param failed: failing tests, with errors outside of tests and failing subtests.
    :param passed: passing tests, expected failures included; None when the runner does not say.
    :param ran: how many tests came to a verdict, errors outside of tests and subtests left out; None like
        ``passed``.
    :param failing: the names of failing tests, as far as they are told.
    :param label: the package or test binary that was tested, when the runner says.
    :param broken: the tests could not be run as a whole, so the counts compare with nothing.
    :param summary: the closing line.
    """

    runner: str
    failed: int = 0
    passed: int | None = 0
    ran: int | None = 0
    failing: frozenset[str] = frozenset()
    label: str = ""
    broken: bool = False
    summary: str = ""

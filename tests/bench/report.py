"""What a benchmark reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    :param what: the thing that is measured.
    :param kerai: kerai's figure, with its unit.
    :param outside: the figure of what it is compared with.
    :param ratio: how they compare; 1 is as fast as the outside, more is faster.
    :param aim: the least ratio that is good enough, None where there is none.
    """

    what: str
    kerai: str
    outside: str
    ratio: float
    aim: float | None = None

    @property
    def missed(self) -> bool:
        return self.aim is not None and self.ratio < self.aim

"""Types of command line options."""

from __future__ import annotations

import math
import re
from typing import Any

import click

UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
# What PostgreSQL's integer and bigint hold.
LARGEST_COUNT = 2**31 - 1
LARGEST_AMOUNT = 2**63 - 1
LONGEST = LARGEST_COUNT  # 68 years
PART = re.compile(r"(\d+(?:\.\d+)?)([dhms]?)")


class Duration(click.ParamType[float]):
    """A time span: ``90``, ``90s``, ``15m``, ``1h``, ``1h30m``. The value is in seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = value.strip().lower()
        parts = PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{value!r} is not a time span; write 90s, 15m, 1h or 1h30m", param, ctx)
        seconds = sum(float(number) * UNITS[unit or "s"] for number, unit in parts)
        if seconds <= 0:
            self.fail("a time span is longer than nothing", param, ctx)
        if seconds > LONGEST:
            self.fail(f"{value!r} is too long; the longest time span is {LONGEST}s", param, ctx)
        return seconds


class Weight(click.FloatRange):
    """A weight from -1 to 1."""

    name = "weight"

    def __init__(self) -> None:
        super().__init__(-1, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        weight: float = super().convert(value, param, ctx)
        if math.isnan(weight):
            self.fail(f"{value!r} is not a number from -1 to 1", param, ctx)
        return weight


DURATION = Duration()
WEIGHT = Weight()
COUNT = click.IntRange(1, LARGEST_COUNT)
AMOUNT = click.IntRange(1, LARGEST_AMOUNT)

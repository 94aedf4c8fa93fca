"""Times of day and durations as whole minutes."""

import re

MINUTES_PER_DAY = 24 * 60
TIME = re.compile(r"(\d{1,2}):(\d{2})")


def parse_time(text):
    """Minutes since midnight of a time such as ``"07:45"``; ``"24:00"`` is the end of the day.

    Raises ValueError for anything else.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a time of day: {text!r}")
    hours, minutes = int(match[1]), int(match[2])
    total = hours * 60 + minutes
    if minutes >= 60 or total > MINUTES_PER_DAY:
        raise ValueError(f"not a time of day: {text!r}")
    return total


def format_time(minutes):
    """The time of day of a number of minutes since midnight, past midnight starting again at ``00:00``."""
    hours, rest = divmod(minutes % MINUTES_PER_DAY, 60)
    return f"{hours:02d}:{rest:02d}"


def format_duration(minutes):
    """A duration in words: ``"7 h 30 min"``, ``"45 min"``, ``"8 h"``."""
    sign = "-" if minutes < 0 else ""
    hours, rest = divmod(abs(minutes), 60)
    parts = []
    if hours:
        parts.append(f"{hours} h")
    if rest and not hours:
        parts.append(f"{rest} min")
    return sign + " ".join(parts)


def round_to(minutes, step):
    """Minutes rounded to the nearest multiple of ``step``, halves up."""
    if step <= 0:
        raise ValueError("step must be positive")
    return (minutes + step // 2) // step * step

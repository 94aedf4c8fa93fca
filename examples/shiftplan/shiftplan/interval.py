"""Half-open intervals of minutes, and sets of them."""

from dataclasses import dataclass

from shiftplan.clock import MINUTES_PER_DAY, format_time, parse_time


@dataclass(frozen=True, order=True)
class Interval:
    """The minutes from ``start`` up to, not including, ``end``."""

    start: int
    end: int

    def __post_init__(self):
        if self.end <= self.start:
            raise ValueError(f"interval ends before it starts: {self.start} to {self.end}")

    def __len__(self):
        return self.end - self.start

    def __str__(self):
        return f"{format_time(self.start)}-{format_time(self.end)}"

    def __contains__(self, minute):
        return self.start <= minute < self.end

    def overlaps(self, other):
        """Whether the two share at least one minute; touching ends do not count."""
        return self.start < other.end and other.start < self.end

    def intersection(self, other):
        """The shared part, or None."""
        if not self.overlaps(other):
            return None
        return Interval(max(self.start, other.start), min(self.end, other.end))

    @classmethod
    def parse(cls, text):
        """Read ``"08:00-16:30"``; an end that is not after the start is on the next day."""
        first, dash, second = text.partition("-")
        if not dash:
            raise ValueError(f"not an interval: {text!r}")
        start, end = parse_time(first), parse_time(second)
        if end <= start:
            end += MINUTES_PER_DAY
        return cls(start, end)


def merge(intervals):
    """The same minutes as a sorted list of intervals that neither overlap nor touch."""
    merged = []
    for interval in sorted(intervals):
        if merged and interval.start < merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return merged


def subtract(interval, taken):
    """What is left of an interval when the intervals in ``taken`` are cut out, sorted."""
    left = []
    start = interval.start
    for cut in merge(taken):
        if not cut.overlaps(interval):
            continue
        if cut.start > start:
            left.append(Interval(start, cut.start))
        start = cut.start
    if start < interval.end:
        left.append(Interval(start, interval.end))
    return left


def covered(intervals):
    """Number of minutes in at least one of the intervals."""
    return sum(len(interval) for interval in merge(intervals))

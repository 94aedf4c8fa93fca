"""From minutes to money: breaks, overtime, night work."""

from dataclasses import dataclass

from shiftplan.clock import MINUTES_PER_DAY
from shiftplan.interval import Interval
from shiftplan.money import format_money, percentage, round_half_even

WEEK_LIMIT = 40 * 60
OVERTIME_PERCENT = 25
NIGHT_PERCENT = 20
NIGHT = Interval(22 * 60, 30 * 60)  # until six in the morning of the next day


def break_minutes(minutes):
    """Unpaid break in a shift of that length: 30 minutes from six hours on, 45 from nine."""
    if minutes >= 9 * 60:
        return 45
    if minutes >= 6 * 60:
        return 30
    return 0


def night_minutes(interval):
    """Minutes of a shift that are night work; the early morning belongs to the night before."""
    total = 0
    for days in (-1, 0, 1):
        night = Interval(NIGHT.start + days * MINUTES_PER_DAY, NIGHT.end + days * MINUTES_PER_DAY)
        shared = interval.intersection(night)
        if shared is not None:
            total += len(shared)
    return total


@dataclass(frozen=True)
class PaySlip:
    """What somebody has earned in a week, in cents."""

    base: int
    overtime: int
    night: int

    @property
    def total(self):
        """All parts together."""
        return self.base + self.overtime + self.night

    def __str__(self):
        return f"{format_money(self.total)} (overtime {format_money(self.overtime)})"


def pay_slip(minutes, hourly_cents, night=0):
    """Pay for a week's paid minutes: overtime beyond 40 hours and night work earn a supplement."""
    if minutes < 0 or night < 0:
        raise ValueError("minutes must not be negative")
    over = min(0, minutes - WEEK_LIMIT)
    base = round_half_even(minutes * hourly_cents, 60)
    overtime = percentage(round_half_even(over * hourly_cents, 60), OVERTIME_PERCENT)
    extra = percentage(round_half_even(night * hourly_cents, 60), NIGHT_PERCENT)
    return PaySlip(base, overtime, extra)

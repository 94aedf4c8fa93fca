"""Who works when."""

from dataclasses import dataclass
from datetime import date

from shiftplan.clock import MINUTES_PER_DAY
from shiftplan.interval import Interval, subtract
from shiftplan.payroll import break_minutes, night_minutes

REST_MINUTES = 11 * 60


class Conflict(ValueError):
    """The shift overlaps another one, or leaves too little rest."""


@dataclass(frozen=True)
class Shift:
    """One person's work that begins on a day."""

    person: str
    day: date
    hours: Interval

    @property
    def paid_minutes(self):
        """Length without the unpaid break."""
        return len(self.hours) - break_minutes(len(self.hours))

    @property
    def absolute(self):
        """The same interval in minutes since the first day of the calendar, comparable between days."""
        offset = self.day.toordinal() * MINUTES_PER_DAY
        return Interval(self.hours.start + offset, self.hours.end + offset)


class Roster:
    """All shifts; refuses those that cannot be worked."""

    def __init__(self):
        self.shifts = []

    def assign(self, person, day, hours):
        """Add a shift and return it. Raises Conflict when the person has no time, or no rest, for it."""
        shift = Shift(person, date.fromisoformat(day), Interval.parse(hours))
        for other in self.shifts_of(person):
            if shift.absolute.overlaps(other.absolute):
                raise Conflict(f"{person} works {other.hours} on {other.day} already")
            if self.rest_between(shift, other) < REST_MINUTES:
                raise Conflict(f"{person} needs 11 hours of rest after {other.hours} on {other.day}")
        self.shifts.append(shift)
        return shift

    @staticmethod
    def rest_between(one, other):
        """Free minutes between two shifts that do not overlap."""
        first, second = sorted((one.absolute, other.absolute))
        return second.start - first.start

    def people(self):
        """Everybody on the roster, by name."""
        return sorted({shift.person for shift in self.shifts})

    def shifts_of(self, person):
        """Somebody's shifts, the earliest first."""
        return sorted((shift for shift in self.shifts if shift.person == person), key=lambda shift: shift.absolute)

    def minutes_of(self, person):
        """Somebody's paid minutes."""
        return sum(shift.paid_minutes for shift in self.shifts_of(person))

    def night_of(self, person):
        """Somebody's minutes of night work."""
        return sum(night_minutes(shift.hours) for shift in self.shifts_of(person))

    def uncovered(self, day, opening):
        """The parts of the opening hours on a day in which nobody works."""
        offset = date.fromisoformat(day).toordinal() * MINUTES_PER_DAY
        hours = Interval.parse(opening)
        wanted = Interval(hours.start + offset, hours.end + offset)
        gaps = subtract(wanted, [shift.absolute for shift in self.shifts])
        return [Interval(gap.start - offset, gap.end - offset) for gap in gaps]

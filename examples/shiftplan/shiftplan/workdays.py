"""Days on which people work: weekends and public holidays taken out."""

from datetime import date, timedelta

FIXED_HOLIDAYS = {(1, 1): "New Year", (5, 1): "Labour Day", (12, 25): "Christmas", (12, 26): "Boxing Day"}
EASTER_HOLIDAYS = {-2: "Good Friday", 1: "Easter Monday", 39: "Ascension", 50: "Whit Monday"}


def easter(year):
    """Easter Sunday in the Gregorian calendar (the anonymous algorithm printed in Nature, 1876)."""
    golden = year % 19
    century, year_of_century = divmod(year, 100)
    leap_centuries, century_rest = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    moon = (19 * golden + century - leap_centuries - correction + 15) % 30
    leaps, rest = divmod(year_of_century, 4)
    weekday = (32 + 2 * century_rest + 2 * leaps - moon - rest) % 7
    shift = (golden + 11 * moon + 22 * weekday) // 451
    month, day = divmod(moon + weekday - 7 * shift + 114, 31)
    return date(year, month, day + 1)


def holiday_name(day):
    """The public holiday that a day is, or None."""
    fixed = FIXED_HOLIDAYS.get((day.month, day.day))
    return fixed or EASTER_HOLIDAYS.get((day - easter(day.year)).days)


def is_workday(day):
    """Whether a day is neither at a weekend nor a holiday."""
    return day.weekday() < 5 and holiday_name(day) is None


def add_workdays(day, count):
    """The day that is ``count`` workdays later, or earlier when negative."""
    step = timedelta(days=1 if count > 0 else -1)
    left = abs(count)
    while left:
        day += step
        if is_workday(day):
            left -= 1
    return day


def workdays_between(first, last):
    """Number of workdays from ``first`` to ``last``, both included; 0 when ``last`` is earlier."""
    days = (last - first).days
    return sum(is_workday(first + timedelta(days=number)) for number in range(days))


def week_of(day):
    """The seven days, from Monday, of the week that a day is in."""
    monday = day - timedelta(days=day.weekday())
    return [monday + timedelta(days=number) for number in range(7)]

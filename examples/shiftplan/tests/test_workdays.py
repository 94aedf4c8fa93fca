from datetime import date

import pytest
from shiftplan.workdays import add_workdays, easter, holiday_name, is_workday, week_of, workdays_between


@pytest.mark.parametrize(
    "day", [date(1961, 4, 2), date(2000, 4, 23), date(2008, 3, 23), date(2024, 3, 31), date(2025, 4, 20), date(2038, 4, 25)]
)
def test_easter(day):
    assert easter(day.year) == day


def test_holidays():
    assert holiday_name(date(2024, 12, 25)) == "Christmas"
    assert holiday_name(date(2024, 3, 29)) == "Good Friday"
    assert holiday_name(date(2024, 5, 9)) == "Ascension"
    assert holiday_name(date(2024, 3, 4)) is None


def test_is_workday():
    assert is_workday(date(2024, 3, 1))
    assert not is_workday(date(2024, 3, 2))
    assert not is_workday(date(2024, 4, 1))


def test_add_workdays_over_easter():
    assert add_workdays(date(2024, 3, 28), 1) == date(2024, 4, 2)
    assert add_workdays(date(2024, 4, 2), -1) == date(2024, 3, 28)


def test_add_no_workdays():
    assert add_workdays(date(2024, 3, 30), 0) == date(2024, 3, 30)


def test_workdays_between():
    assert workdays_between(date(2024, 3, 4), date(2024, 3, 8)) == 5
    assert workdays_between(date(2024, 3, 25), date(2024, 4, 5)) == 8
    assert workdays_between(date(2024, 3, 8), date(2024, 3, 4)) == 0


def test_one_workday():
    assert workdays_between(date(2024, 3, 4), date(2024, 3, 4)) == 1
    assert workdays_between(date(2024, 3, 9), date(2024, 3, 9)) == 0


def test_week_of():
    week = week_of(date(2024, 3, 7))
    assert week[0] == date(2024, 3, 4)
    assert week[-1] == date(2024, 3, 10)

import pytest
from shiftplan import Conflict, Roster
from shiftplan.interval import Interval


@pytest.fixture
def roster():
    roster = Roster()
    roster.assign("Grace", "2024-03-04", "14:00-22:30")
    roster.assign("Ada", "2024-03-04", "06:00-12:00")
    roster.assign("Ada", "2024-03-05", "22:00-07:00")
    return roster


def test_people(roster):
    assert roster.people() == ["Ada", "Grace"]


def test_shifts_are_in_order(roster):
    roster.assign("Ada", "2024-03-02", "08:00-12:00")
    assert [shift.day.day for shift in roster.shifts_of("Ada")] == [2, 4, 5]


def test_minutes(roster):
    assert roster.minutes_of("Ada") == (360 - 30) + (540 - 45)
    assert roster.minutes_of("nobody") == 0


def test_night(roster):
    assert roster.night_of("Ada") == 480
    assert roster.night_of("Grace") == 30


def test_rest_between(roster):
    first, second = roster.shifts_of("Ada")
    assert roster.rest_between(first, second) == 34 * 60
    assert roster.rest_between(second, first) == 34 * 60


def test_overlap_is_a_conflict(roster):
    with pytest.raises(Conflict, match="already"):
        roster.assign("Ada", "2024-03-06", "06:00-10:00")
    assert len(roster.shifts) == 3


def test_rest_before_the_next_shift(roster):
    with pytest.raises(Conflict, match="rest"):
        roster.assign("Grace", "2024-03-05", "09:00-12:00")
    roster.assign("Grace", "2024-03-05", "09:30-12:00")


def test_rest_before_an_earlier_shift(roster):
    with pytest.raises(Conflict, match="rest"):
        roster.assign("Grace", "2024-03-04", "02:00-04:00")


def test_others_may_work_at_the_same_time(roster):
    roster.assign("Linus", "2024-03-04", "06:00-12:00")
    assert roster.people() == ["Ada", "Grace", "Linus"]


def test_uncovered(roster):
    assert roster.uncovered("2024-03-04", "07:00-20:00") == [Interval(12 * 60, 14 * 60)]
    assert roster.uncovered("2024-03-06", "06:00-08:00") == [Interval(7 * 60, 8 * 60)]

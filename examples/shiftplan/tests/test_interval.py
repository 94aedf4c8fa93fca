import pytest
from shiftplan.interval import Interval, covered, merge, subtract


def test_refuses_an_end_before_the_start():
    with pytest.raises(ValueError, match="before it starts"):
        Interval(10, 10)


def test_parse():
    assert Interval.parse("08:00-16:30") == Interval(480, 990)
    assert Interval.parse("22:00-06:00") == Interval(1320, 1800)
    with pytest.raises(ValueError):
        Interval.parse("08:00")


def test_text_and_length():
    interval = Interval.parse("22:00-06:00")
    assert str(interval) == "22:00-06:00"
    assert len(interval) == 480


def test_contains():
    assert 10 in Interval(10, 20)
    assert 20 not in Interval(10, 20)


def test_overlaps():
    assert Interval(0, 10).overlaps(Interval(9, 12))
    assert Interval(0, 10).overlaps(Interval(2, 3))
    assert not Interval(0, 10).overlaps(Interval(10, 12))
    assert not Interval(10, 12).overlaps(Interval(0, 10))


def test_intersection():
    assert Interval(0, 10).intersection(Interval(5, 20)) == Interval(5, 10)
    assert Interval(0, 10).intersection(Interval(2, 4)) == Interval(2, 4)
    assert Interval(0, 10).intersection(Interval(10, 20)) is None


def test_merge_joins_what_touches():
    assert merge([Interval(5, 8), Interval(0, 3), Interval(3, 4)]) == [Interval(0, 4), Interval(5, 8)]


def test_merge_keeps_the_longer_end():
    assert merge([Interval(0, 10), Interval(2, 4), Interval(3, 12)]) == [Interval(0, 12)]


def test_subtract():
    assert subtract(Interval(0, 10), [Interval(2, 4), Interval(6, 7)]) == [
        Interval(0, 2),
        Interval(4, 6),
        Interval(7, 10),
    ]


def test_subtract_at_the_edges():
    assert subtract(Interval(5, 10), [Interval(0, 6), Interval(9, 20)]) == [Interval(6, 9)]
    assert subtract(Interval(5, 10), [Interval(0, 20)]) == []
    assert subtract(Interval(5, 10), [Interval(20, 30)]) == [Interval(5, 10)]


def test_subtract_cuts_that_touch_each_other():
    assert subtract(Interval(0, 10), [Interval(4, 6), Interval(2, 4)]) == [Interval(0, 2), Interval(6, 10)]
    assert subtract(Interval(0, 10), [Interval(0, 4), Interval(3, 10)]) == []


def test_covered():
    assert covered([Interval(0, 10), Interval(5, 15), Interval(20, 21)]) == 16

import pytest
from shiftplan.interval import Interval
from shiftplan.payroll import PaySlip, break_minutes, night_minutes, pay_slip


@pytest.mark.parametrize(("minutes", "pause"), [(0, 0), (359, 0), (360, 30), (539, 30), (540, 45), (700, 45)])
def test_break_minutes(minutes, pause):
    assert break_minutes(minutes) == pause


@pytest.mark.parametrize(
    ("hours", "night"), [("08:00-16:00", 0), ("22:00-06:00", 480), ("20:00-00:30", 150), ("04:30-12:00", 90)]
)
def test_night_minutes(hours, night):
    assert night_minutes(Interval.parse(hours)) == night


def test_pay_without_overtime():
    assert pay_slip(40 * 60, 2000) == PaySlip(80_000, 0, 0)


def test_pay_with_overtime():
    slip = pay_slip(42 * 60, 2000)
    assert slip == PaySlip(84_000, 1_000, 0)
    assert slip.total == 85_000
    assert pay_slip(60 * 60, 1000).overtime == 5_000


def test_pay_at_night():
    assert pay_slip(8 * 60, 1500, night=120) == PaySlip(12_000, 0, 600)


def test_pay_slip_text():
    assert str(PaySlip(84_000, 1_000, 500)) == "855.00 EUR (overtime 10.00 EUR)"


def test_pay_refuses_negative_minutes():
    with pytest.raises(ValueError):
        pay_slip(-1, 2000)
    with pytest.raises(ValueError):
        pay_slip(60, 2000, night=-1)

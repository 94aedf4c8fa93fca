import pytest
from shiftplan.clock import format_duration, format_time, parse_time, round_to


@pytest.mark.parametrize(("text", "minutes"), [("00:00", 0), ("7:45", 465), (" 23:59 ", 1439), ("24:00", 1440)])
def test_parse_time(text, minutes):
    assert parse_time(text) == minutes


@pytest.mark.parametrize("text", ["", "8", "25:00", "24:01", "12:60", "-1:00", "12:00:00"])
def test_parse_time_refuses(text):
    with pytest.raises(ValueError, match="not a time of day"):
        parse_time(text)


def test_format_time():
    assert format_time(465) == "07:45"
    assert format_time(1440 + 30) == "00:30"


@pytest.mark.parametrize(
    ("minutes", "text"), [(450, "7 h 30 min"), (45, "45 min"), (480, "8 h"), (0, "0 min"), (-90, "-1 h 30 min")]
)
def test_format_duration(minutes, text):
    assert format_duration(minutes) == text


def test_round_to():
    assert [round_to(minutes, 15) for minutes in (0, 7, 8, 22, 23)] == [0, 0, 15, 15, 30]
    assert round_to(45, 30) == 60
    with pytest.raises(ValueError):
        round_to(10, 0)

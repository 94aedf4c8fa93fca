import pytest
from stockroom.labels import abbreviate, check_digit, is_valid, label


@pytest.mark.parametrize(
    ("digits", "check"), [("400638133393", 1), ("590123412345", 7), ("978030640615", 7), ("000000000000", 0)]
)
def test_check_digit(digits, check):
    assert check_digit(digits) == check


@pytest.mark.parametrize("digits", ["", "123", "40063813339x"])
def test_check_digit_refuses(digits):
    with pytest.raises(ValueError):
        check_digit(digits)


def test_is_valid():
    assert is_valid("0000000000000")
    assert not is_valid("0000000000001")
    assert not is_valid("123")
    assert not is_valid("000000000000x")


def test_abbreviate():
    assert abbreviate("garden hose reel") == "GHR"
    assert abbreviate("tap") == "T"
    assert abbreviate("big red garden hose") == "BRG"
    assert abbreviate("one two three four five six") == "OTT"


def test_label():
    assert label("garden hose reel", 4711, width=12) == ["garden hose", "reel", "        4711"]


def test_label_is_wide_enough():
    assert [len(line) for line in label("tap", 5, width=6)] == [3, 6]

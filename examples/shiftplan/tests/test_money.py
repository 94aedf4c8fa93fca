import pytest
from shiftplan.money import allocate, format_money, percentage, round_half_even


@pytest.mark.parametrize(
    ("numerator", "denominator", "result"), [(7, 2, 4), (5, 2, 2), (9, 4, 2), (11, 4, 3), (-5, 2, -2), (6, 3, 2)]
)
def test_round_half_even(numerator, denominator, result):
    assert round_half_even(numerator, denominator) == result


def test_percentage():
    assert percentage(999, 25) == 250
    assert percentage(10_00, 7) == 70


def test_allocate():
    assert allocate(100, [1, 1, 1]) == [34, 33, 33]
    assert allocate(100, [1, 1, 2]) == [25, 25, 50]
    assert allocate(5, [3, 7]) == [2, 3]


def test_allocate_gives_the_rest_to_the_largest_remainder():
    assert allocate(10, [1, 2]) == [3, 7]
    assert allocate(10, [2, 1]) == [7, 3]
    assert allocate(100, [9, 5, 7, 2]) == [39, 22, 30, 9]
    assert allocate(100, [5, 9, 7, 2]) == [22, 39, 30, 9]
    assert allocate(50, [1, 4, 2]) == [7, 29, 14]


def test_allocate_adds_up():
    for cents in (0, 1, 99, 1001):
        assert sum(allocate(cents, [5, 3, 3, 1])) == cents


def test_allocate_refuses():
    with pytest.raises(ValueError):
        allocate(100, [0, 0])
    with pytest.raises(ValueError):
        allocate(100, [3, -1])


def test_format_money():
    assert format_money(123450) == "1,234.50 EUR"
    assert format_money(-5) == "-0.05 EUR"
    assert format_money(200, "USD") == "2.00 USD"

import pytest
from stockroom.demand import bestsellers, median, moving_average, reorder_quantity


def test_moving_average():
    assert moving_average([1, 2, 3, 4], 2) == [1.5, 2.5, 3.5]
    assert moving_average([1, 2, 6], 3) == [3.0]


def test_moving_average_of_one():
    assert moving_average([5, 7], 1) == [5, 7]


def test_moving_average_of_too_few():
    assert moving_average([1, 2], 3) == []
    with pytest.raises(ValueError):
        moving_average([1], 0)


@pytest.mark.parametrize(
    ("values", "result"),
    [
        ([3], 3),
        ([5, 1, 9], 5),
        ([4, 2], 3),
        ([1, 2, 10, 20], 6),
        ([5, 4, 3, 2, 1], 3),
        ([6, 5, 4, 3, 2, 1], 3.5),
    ],
)
def test_median(values, result):
    assert median(values) == result


def test_bestsellers():
    sales = ["tap", "hose", "reel", "hose", "tap", "hose", "bolt"]
    assert bestsellers(sales, 2) == ["hose", "tap"]
    assert bestsellers(sales, 9) == ["hose", "tap", "bolt", "reel"]
    assert bestsellers([], 3) == []


@pytest.mark.parametrize(
    ("on_hand", "daily", "days", "pack", "order"),
    [(100, 5, 10, 12, 0), (50, 5, 10, 12, 0), (49, 5, 10, 12, 12), (0, 5, 10, 12, 60), (26, 5, 10, 12, 24)],
)
def test_reorder(on_hand, daily, days, pack, order):
    assert reorder_quantity(on_hand, daily, days, pack) == order

import pytest
from stockroom.prices import cheapest, discount_percent, line_total, net_of


@pytest.mark.parametrize(
    ("quantity", "percent"), [(0, 0), (9, 0), (10, 5), (49, 5), (50, 10), (99, 10), (100, 15), (500, 15)]
)
def test_discount(quantity, percent):
    assert discount_percent(quantity) == percent


@pytest.mark.parametrize(
    ("unit", "quantity", "total"),
    [(100, 1, 100), (200, 5, 1000), (250, 20, 4750), (33, 60, 1782), (7, 10, 67)],
)
def test_line_total(unit, quantity, total):
    assert line_total(unit, quantity) == total


@pytest.mark.parametrize(
    ("gross", "tax", "net"), [(1190, 19, 1000), (107, 7, 100), (500, 0, 500), (999, 19, 839)]
)
def test_net(gross, tax, net):
    assert net_of(gross, tax) == net


def test_cheapest():
    assert cheapest({"acme": 500, "bolt": 450, "core": 470}) == "bolt"
    assert cheapest({"zinc": 300, "iron": 300}) == "iron"
    assert cheapest({"one": 1}) == "one"


def test_cheapest_of_none():
    assert cheapest({}) is None

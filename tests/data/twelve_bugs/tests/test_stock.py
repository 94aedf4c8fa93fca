import pytest
from stockroom.stock import OutOfStock, Stock


@pytest.fixture
def stock():
    stock = Stock()
    stock.receive("hose", 10)
    stock.receive("reel", 2)
    return stock


def test_receive_adds_up(stock):
    assert stock.receive("hose", 5) == 15
    assert stock.receive("new", 1) == 1


def test_receive_refuses_nothing(stock):
    with pytest.raises(ValueError):
        stock.receive("hose", 0)


def test_available(stock):
    assert stock.available("hose") == 10
    assert stock.available("unknown") == 0


def test_reserve_all_there_is(stock):
    stock.reserve("reel", 2)
    assert stock.reserved == {"reel": 2}
    with pytest.raises(OutOfStock):
        stock.reserve("reel", 1)


def test_reserved_pieces_are_not_available(stock):
    stock.reserve("hose", 4)
    assert stock.available("hose") == 6
    with pytest.raises(OutOfStock):
        stock.reserve("hose", 7)


def test_ship(stock):
    stock.reserve("hose", 4)
    stock.ship("hose", 3)
    assert stock.on_hand["hose"] == 7
    assert stock.reserved["hose"] == 1


def test_ship_the_last(stock):
    stock.reserve("reel", 2)
    stock.ship("reel", 2)
    assert stock.on_hand == {"hose": 10}
    assert "reel" not in stock.reserved


def test_ship_needs_a_reservation(stock):
    with pytest.raises(OutOfStock):
        stock.ship("hose", 1)


def test_shortages(stock):
    assert stock.shortages({"hose": 12, "reel": 2, "tap": 1}) == {"hose": 2, "tap": 1}


def test_no_shortages(stock):
    assert stock.shortages({"hose": 10}) == {}
    assert stock.shortages({"reel": 1}) == {}

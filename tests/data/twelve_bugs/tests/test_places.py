import pytest
from stockroom.places import distance, free_shelves, parse_place, walking_order


def test_parse():
    assert parse_place("B-07-2") == ("B", 7, 2)
    with pytest.raises(ValueError):
        parse_place("B-07")


def test_walk_in_one_aisle():
    assert walking_order(["A-03-1", "A-01-2", "A-01-1"]) == ["A-01-1", "A-01-2", "A-03-1"]


def test_walk_turns_round():
    places = ["A-02-1", "B-05-1", "B-01-1", "A-04-1", "C-01-1", "C-02-1"]
    assert walking_order(places) == ["A-02-1", "A-04-1", "B-05-1", "B-01-1", "C-01-1", "C-02-1"]


def test_distance():
    assert distance("A-01-1", "A-01-3") == 0
    assert distance("A-01-1", "A-05-1") == 4
    assert distance("C-02-1", "A-05-1") == 23


def test_distance_is_the_same_both_ways():
    assert distance("A-09-1", "B-02-1") == distance("B-02-1", "A-09-1") == 17


def test_free_shelves():
    assert free_shelves(["A-01-1", "A-02-2"], 2, 2) == [(1, 2), (2, 1)]
    assert free_shelves([], 1, 3) == [(1, 1), (1, 2), (1, 3)]
    assert free_shelves(["A-01-1"], 1, 1) == []

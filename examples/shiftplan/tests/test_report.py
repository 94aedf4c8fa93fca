from shiftplan import Roster, roster_table
from shiftplan.report import shorten, table


def test_table():
    assert table([("a", 5), ("bbb", 12)], ("name", "n"), right=(1,)) == "name   n\n----  --\na      5\nbbb   12"


def test_table_without_rows():
    assert table([], ("one", "two")) == "one  two\n---  ---"


def test_shorten():
    assert shorten("Hopper", 6) == "Hopper"
    assert shorten("Hopper", 5) == "Hopp…"
    assert shorten("Ada Lovelace", 5) == "Ada…"


def test_shorten_leaves_no_space_before_the_ellipsis():
    assert shorten("one two three", 8) == "one two…"
    assert shorten("one two three", 9) == "one two…"


def test_roster_table():
    roster = Roster()
    roster.assign("Grace Brewster Hopper", "2024-03-05", "09:00-10:15")
    roster.assign("Ada", "2024-05-01", "08:00-16:00")
    roster.assign("Linus", "2024-03-05", "07:00-10:00")
    assert roster_table(roster).splitlines() == [
        "day         hours        person              paid  holiday",
        "----------  -----------  ------------  ----------  ----------",
        "2024-03-05  07:00-10:00  Linus                3 h",
        "2024-03-05  09:00-10:15  Grace Brews…  1 h 15 min",
        "2024-05-01  08:00-16:00  Ada           7 h 30 min  Labour Day",
    ]

"""Where things lie: places such as ``"B-07-2"`` (aisle, bay, shelf)."""


def parse_place(text):
    """Aisle, bay and shelf of a place."""
    aisle, bay, shelf = text.split("-")
    return aisle, int(bay), int(shelf)


def walking_order(places):
    """Places in the order of a walk: every second aisle is walked backwards."""
    aisles = {}
    for place in places:
        aisles.setdefault(parse_place(place)[0], []).append(place)
    route = []
    for number, aisle in enumerate(sorted(aisles)):
        stops = sorted(aisles[aisle], key=lambda place: parse_place(place)[1:])
        if number % 2 == 1:
            stops.sort()
        route.extend(stops)
    return route


def distance(one, other):
    """Steps between two places: ten between aisles, one between bays."""
    first, second = parse_place(one), parse_place(other)
    aisles = abs(ord(first[0]) - ord(second[0]))
    bays = abs(first[1] - second[1])
    return 10 * aisles + bays


def free_shelves(taken, bays, shelves):
    """Bay and shelf of everything free in an aisle; both are counted from 1."""
    used = {parse_place(place)[1:] for place in taken}
    grid = [(bay, shelf) for bay in range(1, bays) for shelf in range(1, shelves + 1)]
    return [spot for spot in grid if spot not in used]

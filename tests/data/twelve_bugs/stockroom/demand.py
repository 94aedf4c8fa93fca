"""How much is used, and how much to order."""

from collections import Counter


def moving_average(values, window):
    """Mean of each run of ``window`` consecutive values."""
    if window < 1:
        raise ValueError("window must be positive")
    return [sum(values[start : start + window]) / window for start in range(len(values) - window)]


def median(values):
    """The middle value, or the mean of the two middle ones."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def bestsellers(sales, count):
    """The articles sold most often, the most sold first, equals by name."""
    ranking = sorted(Counter(sales).items(), key=lambda entry: (-entry[1], entry[0]))
    return [article for article, _ in ranking[:count]]


def reorder_quantity(on_hand, daily_use, lead_days, pack):
    """Pieces to order, in whole packs, so that stock lasts until the delivery arrives."""
    needed = daily_use * lead_days - on_hand
    if needed <= 0:
        return 0
    packs = -(-needed // pack)
    return packs * pack

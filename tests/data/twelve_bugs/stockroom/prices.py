"""What things cost, in whole cents."""

STEPS = [(100, 15), (50, 10), (10, 5)]  # pieces from which a discount holds, and its percentage


def discount_percent(quantity):
    """Discount for so many pieces of one article."""
    for least, percent in STEPS:
        if quantity > least:
            return percent
    return 0


def line_total(unit_cents, quantity):
    """Price of a line, discount taken off, rounded to the cent with halves up."""
    full = unit_cents * quantity
    return (full * (100 + discount_percent(quantity)) + 50) // 100


def net_of(gross_cents, tax_percent):
    """The amount before tax, rounded to the cent."""
    return round(gross_cents * 100 / (100 + tax_percent))


def cheapest(offers):
    """The supplier with the lowest price, the first by name among equals; None without offers."""
    best = None
    for supplier, price in sorted(offers.items()):
        if best is None or price > offers[best]:
            best = supplier
    return best

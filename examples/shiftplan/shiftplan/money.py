"""Amounts in whole cents; nothing is lost by rounding."""


def round_half_even(numerator, denominator):
    """The quotient of two integers as the nearest integer, halves to the even one."""
    quotient, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1):
        quotient += 1
    return quotient


def percentage(cents, percent):
    """So many percent of an amount, in cents."""
    return round_half_even(cents * percent, 100)


def allocate(cents, shares):
    """Split an amount in the ratio of ``shares`` so that the parts add up to it exactly.

    Left-over cents go to the largest remainders, among equals to the earliest share.
    """
    whole = sum(shares)
    if whole <= 0 or min(shares) < 0:
        raise ValueError("shares must not be negative, and one must be positive")
    parts = [cents * share // whole for share in shares]
    remainders = [cents * share % whole for share in shares]
    ranking = sorted(range(len(shares)), key=lambda number: (-remainders[number], number))
    for number in ranking[: cents + sum(parts)]:
        parts[number] += 1
    return parts


def format_money(cents, currency="EUR"):
    """An amount as ``"1,234.50 EUR"``."""
    sign = "-" if cents < 0 else ""
    units, rest = divmod(abs(cents), 100)
    return f"{sign}{units:,}.{rest:02d} {currency}"

"""Article numbers and the text on labels."""

import textwrap


def check_digit(digits):
    """Last digit of an EAN-13 number, from its first twelve digits."""
    if len(digits) != 12 or not digits.isdigit():
        raise ValueError(f"twelve digits, please: {digits!r}")
    total = 0
    for position, digit in enumerate(digits):
        weight = 1 if position % 2 else 3
        total += weight * int(digit)
    return (10 - total % 10) % 10


def is_valid(number):
    """Whether a 13-digit number ends in its check digit."""
    return len(number) == 13 and number.isdigit() and int(number[12]) == check_digit(number[:12])


def abbreviate(words):
    """Up to three capital letters for a name: ``"garden hose reel"`` gives ``"GHR"``."""
    letters = [word[0].upper() for word in words.split()]
    return "".join(letters[:2])


def label(name, number, width=20):
    """Lines of a label: the name wrapped, then the number flush right."""
    lines = textwrap.wrap(name, width)
    lines.append(str(number).rjust(width))
    return lines

"""Plain text tables."""

from shiftplan.clock import format_duration
from shiftplan.workdays import holiday_name

GAP = "  "


def table(rows, headings, right=()):
    """Rows of cells as text with aligned columns; columns numbered in ``right`` are flush right."""
    cells = [[str(cell) for cell in row] for row in [headings, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append(GAP.join(padded).rstrip())
    lines.insert(1, GAP.join("-" * width for width in widths))
    return "\n".join(lines)


def shorten(text, width):
    """Text of at most ``width`` characters, with an ellipsis where something is cut off."""
    if len(text) <= width:
        return text
    return text[:width].rstrip() + "…"


def roster_table(roster, name_width=12):
    """One line a shift, by day and time, with the paid time and the holiday if there is one."""
    rows = []
    for shift in sorted(roster.shifts, key=lambda shift: (shift.absolute, shift.person)):
        rows.append(
            (
                shift.day.isoformat(),
                shift.hours,
                shorten(shift.person, name_width),
                format_duration(shift.paid_minutes),
                holiday_name(shift.day) or "",
            )
        )
    return table(rows, ("day", "hours", "person", "paid", "holiday"), right=(3,))

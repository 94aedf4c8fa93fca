"""Plan work shifts, count hours, pay them, print the roster."""

from shiftplan.payroll import PaySlip, pay_slip
from shiftplan.report import roster_table
from shiftplan.roster import Conflict, Roster, Shift

__all__ = ["Conflict", "PaySlip", "Roster", "Shift", "pay_slip", "roster_table"]

"""Numbers for tables: as many digits as their standard error makes meaningful."""

from __future__ import annotations

import math

ERROR_DIGITS = 2
"""Significant digits shown of a standard error; its value is rounded to the same place."""

PLAIN_DIGITS = 4
"""Significant digits of a value whose error is not known, or zero."""

MOST_DECIMALS = 6
LARGEST = 1e6


def rounded(value: float, error: float | None, signed: bool = False) -> str:
    """The value, rounded to the second significant digit of its error: 24.3127 with an error of 0.058 is "24.313".

    Values that would need more than six decimals, or are a million and more, are written with an exponent.
    """
    scale, digits = (error, ERROR_DIGITS) if error else (value, PLAIN_DIGITS)
    sign = "+" if signed else ""
    if scale == 0:
        return f"{value:{sign}z.0f}"
    decimals = digits - 1 - _exponent(scale, digits)
    if decimals > MOST_DECIMALS or abs(value) >= LARGEST:
        return f"{value:{sign}.3g}"
    return f"{round(value, decimals):{sign}z.{max(decimals, 0)}f}"


def with_error(value: float, error: float | None, signed: bool = False) -> str:
    """The value and its standard error, "24.313±0.058".

    The value alone where the error is not known, and where it would be zero: items that all agree, such as three
    right answers of three, leave nothing to estimate it from.
    """
    text = rounded(value, error, signed)
    return f"{text}±{rounded(error, error)}" if error else text


def change(difference: float, error: float | None) -> str:
    """A paired difference with its sign and standard error; "same" where no item differs: that has no error to show."""
    return "same" if difference == 0 and not error else with_error(difference, error, signed=True)


def _exponent(value: float, digits: int) -> int:
    """The power of ten of the leading digit, after rounding to `digits`: 0.0996 to two digits leads with 0.1."""
    return math.floor(math.log10(float(f"{abs(value):.{digits - 1}e}")))

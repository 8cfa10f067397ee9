"""Bounds, intervals and times as text that is never tighter than what was proved."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal


def interval_digits(lower: float, upper: float) -> int:
    """Significant digits that show how wide the interval is: two of its width, at least four, at most 17."""
    if not lower < upper < math.inf:
        return 17 if lower == upper else 4
    return min(max(4, 2 + math.ceil(math.log10(max(-lower, upper) / (upper - lower)))), 17)


def interval_text(lower: float, upper: float, exact: float | None = None) -> str:
    """`lower ≤ W1 = exact ≤ upper`, with the ends rounded outward; an infinite upper end is left out."""
    digits = interval_digits(lower, upper)
    text = f"{rounded(lower, digits, ROUND_FLOOR)} ≤ W1"
    text = text if exact is None else f"{text} = {rounded(exact, digits)}"
    return text if upper == math.inf else f"{text} ≤ {rounded(upper, digits, ROUND_CEILING)}"


def rounded(value: float, digits: int, rounding: str = ROUND_HALF_EVEN) -> str:
    number = Context(prec=digits, rounding=rounding).create_decimal_from_float(float(value))
    plain = f"{number:f}"
    return plain if len(plain) <= 12 else str(number)


def rounded_down(value: float, digits: int = 4) -> str:
    """A lower bound as text, rounded down."""
    return rounded(value, digits, ROUND_FLOOR)


def rounded_up(value: float, digits: int = 4) -> str:
    """An upper bound as text, rounded up."""
    return rounded(value, digits, ROUND_CEILING)


def percent(share: float) -> str:
    """A share in percent, with all its digits: a confidence of 0.999999 is not 100 %."""
    number = Decimal(repr(float(share))).scaleb(2).normalize()
    return f"{number:f} %"


def clock_time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(int(max(seconds, 0.0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def plus_minus(value: float, error: float = math.nan, digits: int = 3) -> str:
    """`value ± error`, to one digit beyond the error's first; without the error if it is not finite."""
    if not math.isfinite(value):
        return "unknown"
    if not math.isfinite(error) or error <= 0:
        return rounded(value, digits)
    places = 1 - math.floor(math.log10(error))
    return f"{value:.{max(places, 0)}f} ± {error:.{max(places, 0)}f}"

"""Numbers and text as people read them."""

import math

import numpy as np

from bayes_panns.metrics import Interval


def exact(value: float, *, decimals: int = 0) -> str:
    """The shortest decimal number that reads back as the same float.

    Args:
        value: Any float.
        decimals: The fewest digits after the point. With 0, a whole number has no point, and a very small or large
            number has an exponent.

    Example:
        >>> exact(10000.25), exact(5.0), exact(2e-07), exact(0.5, decimals=6)
        ('10000.25', '5', '2e-07', '0.500000')
    """
    if not math.isfinite(value) or (not decimals and value != 0 and not 1e-4 <= abs(value) < 1e16):
        return repr(float(value))
    return np.format_float_positional(value, trim="k" if decimals else "-", min_digits=decimals or None)


def number(value: float) -> str:
    """A metric for people: three decimals, fewer for large values.

    Example:
        >>> number(0.12345), number(1234567.0), number(float("nan"))
        ('0.123', '1,234,567', 'undefined')
    """
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "∞" if value > 0 else "−∞"
    size = abs(value)
    shown = f"{value:.3f}" if size < 100 else f"{value:,.1f}" if size < 1e4 else f"{value:,.0f}"
    return shown.replace("-", "−")


def percent(share: float) -> str:
    """A share of 1 as a whole percentage."""
    return f"{100 * share:.0f}\u00a0%"


def span(interval: Interval) -> str:
    """The ends of an interval; empty where they are undefined."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"{number(interval.low)} to {number(interval.high)}"


def count_of(number: int, noun: str) -> str:
    """A number of things, such as ``1 clip`` or ``1,200 clips``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""The median of the rounds' ratios, its confidence interval, and whether it is known well enough to stop."""

import statistics
from collections.abc import Sequence
from math import comb

CONFIDENCE = 0.95
"""The confidence of an interval."""

WIDTH = 0.1
"""How wide the interval of a settled ratio may be, as a share of the ratio."""


def interval(ratios: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the median: two of the ratios themselves.

    A ratio is below the true median with probability 1/2, whatever its distribution, so how many of n are below is
    binomial. The interval goes from the k-th smallest to the k-th largest, with the largest k that leaves at most 2.5 %
    on either side (David and Nagaraja, Order Statistics, 2003, section 7.1).

    Args:
        ratios: One for each round, in any order.

    Returns:
        Its ends; ``None`` for fewer than 6 ratios, of which no two bound the median with that confidence.

    Example:
        >>> interval([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
        (1.0, 1.5)
    """
    # The smallest k for which P(at most k below) is over 2.5 %: one less leaves no more than that.
    rank, below = 0, 1.0
    while ratios and below / 2 ** len(ratios) < (1 - CONFIDENCE) / 2:
        rank += 1
        below += comb(len(ratios), rank)
    if rank == 0:
        return None
    ordered = sorted(ratios)
    return ordered[rank - 1], ordered[-rank]


def settled(ratios: Sequence[float]) -> bool:
    """Whether the interval of the median is narrower than 10 % of it."""
    ends = interval(ratios)
    return ends is not None and ends[1] - ends[0] < WIDTH * statistics.median(ratios)

"""Thresholds that meet a target with a stated confidence, from finitely many labelled clips.

A threshold that meets a precision on the clips it was chosen on misses it on others about half of the time: it was
chosen because these clips were kind to it. Here each threshold is tested before it is used, and the tests are ordered
so that no choice spoils them (Angelopoulos et al., 2021, "Learn then Test", arXiv:2110.01052).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv

CONFIDENCE = 0.9
"""How often, over sets of calibration clips, a threshold is to meet its target."""

_STARTS, _RATIO = 4, 1.6
"""The most sequences of tests, and how many times more clips each starts with than the one before."""

_CAUTION = 5
"""The weight of a likeness of 1, in recordings with an error."""


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it was fitted to.

    Attributes:
        value: Scores at least as high are called.
        called: How many of the calibration clips it calls.
        wrong: How many of these calls are wrong.
        bound: The upper confidence bound of the error rate at it.
    """

    value: float
    called: int
    wrong: int
    bound: float


def tail(errors: NDArray[np.floating] | float, trials: NDArray[np.floating] | float, rate: float) -> NDArray:
    """P(X <= errors) for X binomial in ``trials`` at ``rate``: the p-value of "the error rate is ``rate`` or more".

    It is continued to numbers that are not whole, by the Beta distribution.

    Example:
        >>> float(tail(0, 2, 0.5)), float(tail(1, 2, 0.5))
        (0.25, 0.75)
    """
    errors, trials = np.asarray(errors, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    some = errors < trials
    return np.where(some, betainc(np.where(some, trials - errors, 1), errors + 1, 1 - rate), 1.0)


def upper_bound(errors: float, trials: float, confidence: float = CONFIDENCE) -> float:
    """The upper confidence bound of an error rate (Clopper and Pearson, 1934), also of numbers that are not whole.

    Example:
        >>> round(upper_bound(0, 45, 0.9), 4)
        0.0499
    """
    return 1.0 if errors >= trials else float(betaincinv(errors + 1, trials - errors, confidence))


def needed(rate: float, confidence: float = CONFIDENCE) -> int:
    """The fewest independent clips, all right, that show an error rate below ``rate``.

    Example:
        >>> needed(0.05), needed(0.1)
        (45, 22)
    """
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate) - 1e-9)


def independent(groups: NDArray, likeness: float = 1.0) -> NDArray[np.float64]:
    """How many independent clips the first 1, 2, ... N clips are worth, ``(N,)``.

    With m_g of n clips in recording g, and the errors of a recording's clips correlated by ``likeness``, it is n
    divided by the design effect (Kish, 1965)::

        1 + likeness (sum_g m_g^2 / n - 1)

    Example:
        >>> independent(np.array([0, 0, 1, 1])).round(2)
        array([1. , 1. , 1.8, 2. ])

    Args:
        groups: ``(N,)``, the recording of each clip.
        likeness: In [0, 1]; 1 takes the clips of a recording to be all right or all wrong together.
    """
    _, number = np.unique(groups, return_inverse=True)
    # The sum of squared sizes grows by 2 m + 1 with a clip of a recording that had m.
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], number[order])
    before = np.empty(len(number))
    before[order] = np.arange(len(number)) - first
    count = np.arange(1, len(number) + 1)
    return count / (1 + likeness * (np.cumsum(2 * before + 1) / count - 1))


def likeness(wrong: NDArray[np.bool_], groups: NDArray) -> float:
    """How alike the errors within a recording are: their intraclass correlation (one-way analysis of variance).

    A few errors say little of it, so it is drawn to 1, the cautious value, with the weight of five recordings that have
    an error.

    Args:
        wrong: ``(N,)``.
        groups: ``(N,)``, the recording of each clip.

    Returns:
        In [0, 1]; 1 where it cannot be estimated, because no recording has two clips or no error differs.
    """
    _, number, size = np.unique(groups, return_inverse=True, return_counts=True)
    clips, recordings = len(wrong), len(size)
    if recordings < 2 or clips == recordings or wrong.all() or not wrong.any():
        return 1.0
    mean = np.bincount(number, wrong) / size
    between = float((size * (mean - wrong.mean()) ** 2).sum()) / (recordings - 1)
    within = float((wrong - mean[number]).__pow__(2).sum()) / (clips - recordings)
    typical = (clips - (size**2).sum() / clips) / (recordings - 1)
    found = np.clip((between - within) / (between + (typical - 1) * within), 0, 1)
    erring = int((mean > 0).sum())
    return float((erring * found + _CAUTION) / (erring + _CAUTION))


def risk_threshold(
    score: NDArray[np.floating],
    wrong: NDArray[np.bool_],
    risk: float,
    *,
    groups: NDArray | None = None,
    alike: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Threshold | None:
    """The lowest threshold at which at most ``risk`` of the calls are wrong, with a confidence; None if none is.

    Thresholds are tested from the strictest down, each by the exact binomial test of "``risk`` or more of the calls
    are wrong" at level 1 - confidence; the first that is not rejected ends the sequence (fixed-sequence testing). The
    first test is at as many clips as could pass without an error. A single early error would end this sequence, so with
    many clips there are up to four, which start later and share the level. The starts depend on how many clips there
    are, not on which calls are wrong. So with probability ``confidence`` over the calibration clips, the error rate at
    the threshold is at most ``risk``, for new clips of the same kind.

    Clips of one recording are not independent: errors and calls are counted in independent clips
    (:func:`independent`).

    Example:
        >>> score = np.linspace(1, 0, 100)
        >>> found = risk_threshold(score, score < 0.3, 0.1)
        >>> round(found.value, 2), found.called, found.wrong
        (0.27, 73, 3)

    Args:
        score: ``(N,)``, higher for surer calls.
        wrong: ``(N,)``, whether the call is wrong.
        risk: In (0, 1): 1 minus the precision.
        groups: ``(N,)``, the recording of each clip; by default each is its own.
        alike: The likeness of clips of a recording.
        confidence: In (0, 1).
    """
    if not len(score):
        return None
    order = np.argsort(-score, kind="stable")
    score, wrong = score[order], wrong[order]
    count = np.arange(1, len(score) + 1)
    worth = independent(np.arange(len(score)) if groups is None else groups[order], alike)
    errors = np.cumsum(wrong)
    # Equal scores are called together.
    last = np.append(score[1:] != score[:-1], True)
    values, worth_at, share = score[last], worth[last], errors[last] / count[last]
    starts = _starts(float(worth_at[-1]), risk, confidence)
    level = (1 - confidence) / len(starts)
    passed = tail(share * worth_at, worth_at, risk) <= level
    best = -1
    for start in starts:
        first = int(np.searchsorted(np.maximum.accumulate(worth_at), start - 1e-9))
        fails = np.flatnonzero(~passed[first:])
        best = max(
            best, (first + int(fails[0]) if len(fails) else len(values)) - 1 if passed[first : first + 1].any() else -1
        )
    if best < 0:
        return None
    return Threshold(
        value=float(values[best]),
        called=int(count[last][best]),
        wrong=int(errors[last][best]),
        bound=upper_bound(float(share[best] * worth_at[best]), float(worth_at[best]), 1 - level),
    )


def alarm_threshold(
    score: NDArray[np.floating],
    alarm: NDArray[np.bool_],
    rate: float,
    *,
    groups: NDArray | None = None,
    alike: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Threshold | None:
    """The lowest threshold at which at most ``rate`` of all clips are false alarms, with a confidence; None if none is.

    The share of false alarms only grows as the threshold falls, so the lowest threshold down to which its upper bound
    stays below ``rate`` needs no correction for the choice (Bates et al., 2021, "Distribution-free, risk-controlling
    prediction sets", arXiv:2101.02703).

    Args:
        score: ``(N,)``, of every clip; minus infinity where the label would not be called at any threshold.
        alarm: ``(N,)``, whether a call of the clip would be false.
        rate: In (0, 1), false alarms a clip.
        groups: As in :func:`risk_threshold`.
        alike: As in :func:`risk_threshold`.
        confidence: In (0, 1).
    """
    worth = float(independent(np.arange(len(score)) if groups is None else groups, alike)[-1]) if len(score) else 0.0
    order = np.argsort(-score, kind="stable")
    order = order[np.isfinite(score[order])]
    values, alarms = score[order], np.cumsum(alarm[order])
    last = np.append(values[1:] != values[:-1], True)[: len(values)]
    passed = tail(alarms[last] / max(1, len(score)) * worth, np.full(int(last.sum()), worth), rate) <= 1 - confidence
    fails = np.flatnonzero(~passed)
    best = (int(fails[0]) if len(fails) else len(passed)) - 1
    if best < 0:
        return None
    wrong = int(alarms[last][best])
    return Threshold(
        value=float(values[last][best]),
        called=int(np.flatnonzero(last)[best]) + 1,
        wrong=wrong,
        bound=upper_bound(wrong / len(score) * worth, worth, confidence),
    )


def _starts(worth: float, risk: float, confidence: float) -> list[float]:
    """How many independent clips each sequence of tests starts with: at least one, and more where there are clips."""
    starts: list[float] = []
    for number in range(1, _STARTS + 1):
        first = needed(risk, 1 - (1 - confidence) / number)
        tried = [first * _RATIO**index for index in range(number)]
        if number > 1 and tried[-1] > worth / 3:
            break
        starts = tried
    return starts

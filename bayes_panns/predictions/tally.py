"""The totals of a prediction run, in constant memory: what was decided, what is left, how many there are of each."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from bayes_panns.core.choices import Task
from bayes_panns.metrics.counts import LEVEL, Counts, count_kinds, count_labels
from bayes_panns.posterior import Confusion, Predictor, Usual
from bayes_panns.predictions.deciding import MIDDLE, Decided, most_probable
from bayes_panns.predictions.uncertainty import Uncertainty, score_of

SHIFT_LEVEL = 0.05
"""How often recordings like the held-out clips are said to differ from them."""


@dataclass(frozen=True)
class LabelCount:
    """How many windows have a label.

    Attributes:
        label: Its name.
        called: How many windows it was decided for.
        count: How many there are, corrected for the confusion; None where the posterior does not know it.
        low, high: The central 90 % of the posterior of that number.
    """

    label: str
    called: int
    count: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Totals:
    """The totals of a run.

    Attributes:
        windows: How many windows there were.
        recordings: Of how many recordings.
        decided: How many windows were decided.
        left: How many were left to a person, those outside among them.
        outside: How many were unlike the held-out clips.
        counts: For each label, how many windows have it, in the labels' order.
        shift_p: The p-value of the test that the recordings are like the held-out clips; None where it cannot be made.
        warning: What to say if they are not; else empty.
    """

    windows: int
    recordings: int
    decided: int
    left: int
    outside: int
    counts: tuple[LabelCount, ...]
    shift_p: float | None
    warning: str


class Tally:
    """Adds up a run's windows, in memory that does not grow with them.

    Args:
        posterior: The posterior whose predictions are added.
        together: How many windows overlap: window / hop.

    The windows of a recording are not independent either. Their errors are taken to be as alike as in the recordings of
    the held-out clips, over as many windows as these have clips.
    """

    def __init__(self, posterior: Predictor, *, together: float = 1.0):
        calibration = posterior.calibration
        self._labels, self._task, self._together = posterior.labels, posterior.task, together
        self._usual = None if calibration is None else calibration.usual
        self._confusion = None if calibration is None else calibration.confusion
        self._windows = self._left = self._outside = self._recordings = 0
        self._decided = np.zeros(len(posterior.labels), dtype=np.int64)
        self._top = np.zeros(len(posterior.labels), dtype=np.int64)
        self._rank_sum = self._rank_mean = 0.0
        self._of_this, self._neighbours, self._apart = 0, 0.0, 0.0

    def add(self, uncertainty: Uncertainty, decided: Decided, *, complete: bool = True) -> None:
        """Add windows that follow each other in a recording.

        Args:
            uncertainty: Their predictions.
            decided: What was decided for them.
            complete: Whether the recording ends with them.
        """
        windows = len(decided.left)
        self._windows += windows
        self._left += int(decided.left.sum())
        self._outside += int(decided.outside.sum())
        self._decided += decided.called.sum(axis=0)
        self._top += plain_calls(uncertainty)[~decided.outside].sum(axis=0)
        if self._usual is not None:
            self._rank_sum += float(ranks(self._usual, uncertainty).sum())
        self._of_this += windows
        if complete and self._of_this:
            self._recordings += 1
            self._rank_mean += (self._rank_sum / self._of_this - self._rank_mean) / self._recordings
            self._neighbours += self._of_this * self._span_of(self._of_this)
            self._apart += self._apart_of(self._of_this)
            self._rank_sum, self._of_this = 0.0, 0

    def result(self) -> Totals:
        """The totals so far; a recording that is not complete does not count for the test."""
        inside = self._windows - self._outside
        counts = None
        if self._confusion is not None:
            counts = estimated(self._confusion, self._task, self._top, inside, together=self._design_effect())
        p = None if self._usual is None else shift_p(self._usual, self._rank_mean, self._recordings)
        return Totals(
            windows=self._windows,
            recordings=self._recordings,
            decided=self._windows - self._left,
            left=self._left,
            outside=self._outside,
            counts=tuple(
                LabelCount(label, int(self._decided[k]))
                if counts is None
                else LabelCount(
                    label, int(self._decided[k]), float(counts.value[k]), float(counts.low[k]), float(counts.high[k])
                )
                for k, label in enumerate(self._labels)
            ),
            shift_p=p,
            warning="" if p is None or p >= SHIFT_LEVEL else warning(p, self._outside, self._windows, self._usual),
        )

    def _span_of(self, windows: int) -> float:
        """How many windows of a recording of so many are alike."""
        return 1.0 if self._confusion is None else min(windows, self._confusion.span * self._together)

    def _apart_of(self, windows: int) -> float:
        """How many windows of a recording of so many do not overlap: at least one, however short it is."""
        return max(1.0, windows / self._together) if windows else 0.0

    def _design_effect(self) -> float:
        """How many windows are worth one that is independent of all others."""
        if self._confusion is None or not self._windows:
            return self._together
        alike = self._neighbours + self._of_this * self._span_of(self._of_this)
        apart = self._apart + self._apart_of(self._of_this)
        return max(1.0, self._windows / apart, 1 + self._confusion.alike * (alike / self._windows - 1))


def plain_calls(uncertainty: Uncertainty) -> NDArray[np.bool_]:
    """What is called without any threshold of a decision, ``(N, K)``: what counts start from."""
    p = uncertainty.probability
    return most_probable(p) if uncertainty.task == Task.ONE_OF_K else p >= MIDDLE


def estimated(
    confusion: Confusion,
    task: str,
    called: NDArray[np.integer],
    windows: int,
    *,
    together: float = 1.0,
    level: float = LEVEL,
) -> Counts:
    """How many windows have each label, from how many were called so; see :mod:`bayes_panns.metrics.counts`.

    Args:
        confusion: How held-out clips were called.
        task: What the labels mean.
        called: ``(K,)``, of :func:`plain_calls`, of windows that are not outside.
        windows: How many windows these are.
        together: How many windows are right or wrong together.
        level: The share of the posterior that an interval holds.
    """
    labels, worth = len(called), np.array(confusion.worth)
    if task == Task.ONE_OF_K:
        table = np.zeros((labels, labels))
        for truth, call, clips in confusion.cells:
            table[truth, call] = clips
        return count_kinds(called, table * worth[:, None], together=together, level=level)
    pairs = np.array(confusion.rates, dtype=np.float64).reshape(labels, 2, 2)
    return count_labels(called, windows, pairs * worth[:, None, None], together=together, level=level)


def ranks(usual: Usual, uncertainty: Uncertainty) -> NDArray[np.float64]:
    """Where each window's score ranks among the held-out clips, from 0 to 1, ``(N,)``."""
    quantiles = np.array(usual.quantiles)
    score = score_of(uncertainty, usual.score)
    # Equal quantiles have the rank of their middle.
    below = np.searchsorted(quantiles, score, side="left"), np.searchsorted(quantiles, score, side="right")
    step = np.interp(score, quantiles, np.arange(len(quantiles)))
    tied = below[1] - below[0] > 1
    return np.where(tied, (below[0] + below[1] - 1) / 2, step) / (len(quantiles) - 1)


def shift_p(usual: Usual, mean: float, recordings: int) -> float | None:
    """The two-sided p-value of "these recordings are like the held-out ones", from their mean rank.

    Student's t-test of the difference between the mean ranks, with the spread that held-out recordings have. So one
    long recording can be tested too.

    Args:
        usual: The scores of the held-out clips.
        mean: The mean over the recordings of their windows' mean rank.
        recordings: How many there are.
    """
    if recordings < 1 or usual.recordings < 2 or not usual.deviation:
        return None
    error = usual.deviation * sqrt(1 / recordings + 1 / usual.recordings)
    return float(2 * stdtr(usual.recordings - 1, -abs(mean - usual.mean) / error))


def warning(p: float, outside: int, windows: int, usual: Usual | None) -> str:
    """What to say of recordings that are not like the held-out clips."""
    marked = "" if usual is None else f"; {outside / windows:.1%} of the windows are outside, not {usual.level:.1%}"
    return (
        f"these recordings differ from the clips that the posterior was calibrated on (p = {p:.2g}{marked}): "
        "probabilities and counts may be off, and a precision that was asked for may not hold; check some windows by "
        "ear, or calibrate on clips of these recordings"
    )

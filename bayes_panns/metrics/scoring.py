"""Proper scoring rules: negative log-likelihood, and the Brier score with its decomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import Task
from bayes_panns.metrics.checks import check_labelled
from bayes_panns.metrics.plotting import INK, PALETTE, clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPSILON = float(np.finfo(np.float64).eps)
"""Probabilities below this count as this in logarithms: 2.2e-16, so that one clip-label pair costs at most 36 nats. It
is the bound of scikit-learn's ``log_loss``."""


def nll(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Negative log-likelihood of the clips' labels, in nats, averaged over the clips.

    With p_nk the probability and y_nk the target of label k of clip n::

        one-of-K:     -1/N sum_n log p_n(label of n)
        multi-label:  -1/N sum_n sum_k [y_nk log p_nk + (1 - y_nk) log(1 - p_nk)]

    Multi-label *sums* over the K labels, since that is the clip's likelihood; divide by K to compare with a loss
    averaged over labels. Probabilities are kept at least :data:`EPSILON` away from 0 (and, for multi-label, from 1).

    Example:
        >>> p = np.array([[0.5, 0.5], [0.25, 0.75]])
        >>> round(nll(p, np.array([[True, False], [False, True]]), "one-of-k"), 4)
        0.4904

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.

    Raises:
        ValueError: The arrays or the task do not fit.
    """
    check_labelled(probability, target, task)
    # In float64 even if the probabilities are not: float32 cannot hold 1 - EPSILON.
    p = probability.astype(np.float64)
    likelihood = p[target] if task == Task.ONE_OF_K else np.where(target, p, 1 - p)
    return float(-np.log(np.maximum(likelihood, EPSILON)).sum() / len(p))


def brier(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Brier score (1950): the mean squared error of the probabilities.

    With p_nk the probability and y_nk the target of label k of clip n::

        one-of-K:     1/N sum_n sum_k (p_nk - y_nk)^2, in [0, 2]
        multi-label:  1/(N K) sum_n sum_k (p_nk - y_nk)^2, in [0, 1]

    Example:
        >>> p, target = np.array([[0.5, 0.5]]), np.array([[True, False]])
        >>> brier(p, target, "one-of-k"), brier(p, target, "multi-label")
        (0.5, 0.25)

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.

    Raises:
        ValueError: The arrays or the task do not fit.
    """
    check_labelled(probability, target, task)
    squares = (probability.astype(np.float64) - target) ** 2
    return float(squares.sum(axis=1).mean() if task == Task.ONE_OF_K else squares.mean())


@dataclass(frozen=True)
class BrierSplit:
    """The Brier score as ``reliability - resolution + uncertainty``; see :func:`brier_split`.

    Attributes:
        label_reliability: ``(K,)``, the cost of miscalibration; never negative, 0 is best.
        label_resolution: ``(K,)``, the gain from telling clips apart; never negative, higher is better.
        label_uncertainty: ``(K,)``, the score of a constant forecast of the label's frequency.
        task: One-of-K sums over the labels, multi-label averages, as :func:`brier` does.
    """

    label_reliability: NDArray[np.float64]
    label_resolution: NDArray[np.float64]
    label_uncertainty: NDArray[np.float64]
    task: str

    @property
    def reliability(self) -> float:
        """Of all labels together."""
        return self._together(self.label_reliability)

    @property
    def resolution(self) -> float:
        """Of all labels together."""
        return self._together(self.label_resolution)

    @property
    def uncertainty(self) -> float:
        """Of all labels together."""
        return self._together(self.label_uncertainty)

    def plot(self, ax: Axes) -> None:
        """Draw the parts as a waterfall: the uncertainty, less the resolution, plus the reliability.

        Args:
            ax: Where to draw.
        """
        known = self.uncertainty - self.resolution
        rows = (
            ("uncertainty", 0.0, self.uncertainty, PALETTE[6]),
            ("− resolution", known, self.resolution, PALETTE[2]),
            ("+ reliability", known, self.reliability, PALETTE[1]),
            ("= Brier score", 0.0, known + self.reliability, PALETTE[0]),
        )
        for row, (name, left, width, color) in enumerate(rows):
            ax.barh(row, width, 0.6, left, color=color, label=name)
            end = (left + width, row)
            ax.annotate(
                f"{width:.3f}", end, (4, 0), textcoords="offset points", va="center", fontsize="small", color=INK
            )
        ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
        ax.set_xlim(0, 1.18 * max(left + width for _, left, width, _ in rows) or 1)
        ax.invert_yaxis()
        ax.set_xlabel("squared error" + (" summed over labels" if self.task == Task.ONE_OF_K else ", mean over labels"))
        clean(ax)

    def _together(self, values: NDArray[np.float64]) -> float:
        return float(values.sum() if self.task == Task.ONE_OF_K else values.mean())


def brier_split(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> BrierSplit:
    """The Brier score's reliability, resolution and uncertainty: an exact identity, with no bins to choose.

    The CORP decomposition of each label (Dimitriadis, Gneiting and Jordan, 2021, arXiv:2008.03033). With S the mean
    squared error of the probabilities, S_C that after isotonic regression has recalibrated them on these clips, and S_R
    that of the label's frequency::

        reliability = S - S_C
        resolution  = S_R - S_C
        uncertainty = S_R

    Isotonic regression also fits noise, so on few clips both reliability and resolution are too large.

    Example:
        >>> p = np.array([[0.5], [0.5], [1.0], [1.0]])
        >>> split = brier_split(p, np.array([[False], [True], [True], [True]]), "multi-label")
        >>> split.reliability, split.resolution, split.uncertainty
        (0.0, 0.0625, 0.1875)

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.

    Raises:
        ValueError: The arrays or the task do not fit.
    """
    check_labelled(probability, target, task)
    parts = [_corp(p, y) for p, y in zip(probability.T.astype(np.float64), target.T, strict=True)]
    label_reliability, label_resolution, label_uncertainty = np.array(parts).T
    return BrierSplit(label_reliability, label_resolution, label_uncertainty, task)


def _corp(p: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Reliability, resolution and uncertainty of one label's probabilities ``(N,)``."""
    # It takes longer to import than the rest of these metrics together.
    from scipy.optimize import isotonic_regression

    _, level, size = np.unique(p, return_inverse=True, return_counts=True)
    rate = np.bincount(level, y) / size
    calibrated = isotonic_regression(rate, weights=size).x[level]
    frequency = y.mean()
    error = ((p - y) ** 2).mean() - ((calibrated - y) ** 2).mean()
    # The best isotonic map is no worse than none, but rounding may be.
    return max(error, 0.0), ((calibrated - frequency) ** 2).mean(), frequency * (1 - frequency)

"""Whether the probabilities mean what they say: ECE, ACE, negative log-likelihood and Brier score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.uncertainty.checks import ONE_OF_K, check_one_hot, check_pair, check_task
from bayes_panns.uncertainty.classification import top_label

BINS = 15
"""The number of bins, as in Guo et al., 2017 (arXiv:1706.04599)."""

EPSILON = float(np.finfo(np.float64).eps)
"""Logarithms see probabilities no closer than this to 0: 2.2e-16, so one clip-label pair costs at most 36 nats. It is
the bound of scikit-learn's ``log_loss``."""


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of like confidence.

    Attributes:
        confidence: ``(BINS,)``, each bin's mean confidence; NaN for an empty bin.
        frequency: ``(BINS,)``, how often its predictions came true; NaN for an empty bin.
        count: ``(BINS,)``, its number of predictions.
    """

    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    count: NDArray[np.int_]

    @property
    def error(self) -> float:
        """The mean gap between confidence and frequency, sum_b n_b / n |frequency_b - confidence_b|."""
        filled = self.count > 0
        gap = np.abs(self.frequency - self.confidence)[filled]
        return float(np.average(gap, weights=self.count[filled]))


def reliability(
    probability: NDArray[np.floating], target: NDArray[np.bool_], task: str, *, equal_mass: bool = False
) -> Reliability:
    """Sorts predictions into bins by confidence.

    For one-of-K a prediction is a clip's most probable label. For multi-label it is each clip-label pair, pooled, and
    its confidence is the probability of the label's presence.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
        equal_mass: bins between quantiles of the confidence instead of bins of equal width. Equal confidences share
            a bin, so that the order of the clips does not matter.
    """
    check_task(task)
    if task == ONE_OF_K:
        confidence, outcome = top_label(probability, target)
    else:
        check_pair(probability, target)
        confidence, outcome = probability.ravel(), target.ravel()
    fractions = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.quantile(confidence, fractions) if equal_mass else fractions
    index = np.searchsorted(edges, confidence, side="right")
    count = np.bincount(index, minlength=BINS)
    # An empty bin divides 0 by NaN, which is NaN without a warning.
    size = np.where(count, count, np.nan)
    return Reliability(
        confidence=np.bincount(index, confidence, minlength=BINS) / size,
        frequency=np.bincount(index, outcome, minlength=BINS) / size,
        count=count,
    )


def ece(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al., 2017, arXiv:1706.04599).

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"``, on the most probable label; or ``"multi-label"``, pooled over clip-label pairs.
    """
    return reliability(probability, target, task).error


def ace(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Adaptive calibration error: as :func:`ece`, over 15 bins of equal mass.

    The bins are those of Nixon et al., 2019 (arXiv:1904.01685); theirs is a mean over classes, here it is pooled.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """
    return reliability(probability, target, task, equal_mass=True).error


def nll(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Negative log-likelihood of a clip's labels, in nats, averaged over the clips.

    One-of-K: -log p of the label. Multi-label: the *sum* over the K labels of the binary cross-entropies, since that
    is the clip's likelihood; divide by K to compare with a loss averaged over labels. Probabilities are
    held :data:`EPSILON` away from 0 (and, for multi-label, from 1).

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """
    _check(probability, target, task)
    # In float64 also where the probabilities are not: float32 cannot hold 1 - EPSILON.
    p = probability.astype(np.float64)
    likelihood = p[target] if task == ONE_OF_K else np.where(target, p, 1 - p)
    return float(-np.log(np.maximum(likelihood, EPSILON)).sum() / len(p))


def brier(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Brier score (1950): the squared error of the probabilities.

    One-of-K: summed over the labels, averaged over the clips, in [0, 2]. Multi-label: averaged over all clip-label
    pairs, in [0, 1].

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """
    _check(probability, target, task)
    squares = (probability.astype(np.float64) - target) ** 2
    return float(squares.sum(axis=1).mean() if task == ONE_OF_K else squares.mean())


def _check(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> None:
    check_task(task)
    check_pair(probability, target)
    if task == ONE_OF_K:
        check_one_hot(target)

"""Calibration: whether predictions come true as often as their probabilities say. ECE, ACE and reliability diagrams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import Task
from bayes_panns.metrics.checks import check_pair, check_task
from bayes_panns.metrics.classification import top_label
from bayes_panns.metrics.plotting import INK, PALETTE, clean, diagonal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15
"""The number of bins, as in Guo et al., 2017 (arXiv:1706.04599)."""


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of similar confidence.

    Attributes:
        confidence: ``(BINS,)``, each bin's mean confidence; NaN for an empty bin.
        frequency: ``(BINS,)``, the share of its predictions that came true; NaN for an empty bin.
        count: ``(BINS,)``, its number of predictions.
        edges: ``(BINS + 1,)``; a bin includes its lower edge, and the last bin also includes 1.
        equal_mass: Whether the bins have equal mass, instead of equal width.
        top_label: Whether a prediction is a clip's most probable label, instead of the presence of a label.
    """

    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    count: NDArray[np.int_]
    edges: NDArray[np.float64]
    equal_mass: bool
    top_label: bool

    @property
    def error(self) -> float:
        """The calibration error, with n_b of the n predictions in bin b: sum_b n_b / n |frequency_b - confidence_b|."""
        return float(_error(self.confidence, self.frequency, self.count))

    def plot(self, ax: Axes) -> None:
        """Draw a reliability diagram: the share of predictions that came true against their confidence.

        Bars that end on the diagonal are well calibrated. The gap between a bin's frequency and its mean confidence is
        coloured by whether the model was overconfident or underconfident. A strip on top shows the number of
        predictions in each bin.

        Args:
            ax: Where to draw.
        """
        filled = self.count > 0
        left, width = self.edges[:-1][filled], np.diff(self.edges)[filled]
        # Equal masses may fill a bin without width.
        gutter = np.minimum(0.004, width / 4)
        left, width = left + gutter / 2, width - gutter
        frequency, confidence = self.frequency[filled], self.confidence[filled]
        low, gap = np.minimum(frequency, confidence), np.abs(frequency - confidence)
        sure = confidence > frequency
        ax.bar(left, low, width, align="edge", color=PALETTE[4])
        for kind, color, label in ((sure, PALETTE[1], "overconfident"), (~sure, PALETTE[0], "underconfident")):
            ax.bar(left[kind], gap[kind], width[kind], low[kind], align="edge", color=color, label=label)
        diagonal(ax)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.set_xlabel("confidence" if self.top_label else "probability of the label")
        ax.set_ylabel("share of clips classified correctly" if self.top_label else "share of clips that have the label")
        ax.plot([], [], " ", label=f"{'ACE' if self.equal_mass else 'ECE'} {self.error:.3f}")
        ax.legend(loc="upper left", frameon=False, fontsize="small", labelcolor=INK)
        clean(ax)

        strip = ax.inset_axes((0, 1.03, 1, 0.16), sharex=ax)
        strip.bar(left, self.count[filled], width, align="edge", color=PALETTE[6])
        if not self.top_label:
            # Most labels are absent from most clips, so the lowest bin is far larger than the others.
            strip.set_yscale("log")
            strip.set_ylim(bottom=0.5)
        strip.set_ylabel("clips" if self.top_label else "counts", fontsize="small")
        strip.tick_params(labelbottom=False, labelsize="small")
        clean(strip)


def reliability(
    probability: NDArray[np.floating], target: NDArray[np.bool_], task: str, *, equal_mass: bool = False
) -> Reliability:
    """Sort predictions into bins by confidence.

    For one-of-K a prediction is a clip's most probable label. For multi-label every clip-label pair is a prediction,
    and its confidence is the probability that the label is present.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
        equal_mass: Bins between quantiles of the confidence instead of bins of equal width. Equal confidences share
            a bin, so that the order of the clips does not matter.

    Raises:
        ValueError: The arrays or the task do not fit.
    """
    check_task(task)
    if task == Task.ONE_OF_K:
        confidence, outcome = top_label(probability, target)
    else:
        check_pair(probability, target)
        confidence, outcome = probability.ravel(), target.ravel()
    (bins,) = _bins(confidence[:, None], outcome[:, None], equal_mass, task == Task.ONE_OF_K)
    return bins


def classwise_reliability(
    probability: NDArray[np.floating], target: NDArray[np.bool_], *, equal_mass: bool = False
) -> tuple[Reliability, ...]:
    """Sort the clips into bins by the probability of a label, for each label; for one-of-K and multi-label alike.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.
        equal_mass: Bins between quantiles of each label's probability instead of bins of equal width.

    Returns:
        One for each of the K labels.

    Raises:
        ValueError: The arrays do not fit.
    """
    check_pair(probability, target)
    return _bins(probability, target, equal_mass, top=False)


def ece(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al., 2017, arXiv:1706.04599).

    With n_b of n predictions in bin b, their mean confidence conf_b, and freq_b the share that came true::

        ECE = sum_b n_b / n |freq_b - conf_b|

    Example:
        >>> p = np.array([[0.75, 0.25], [0.75, 0.25]])
        >>> ece(p, np.array([[True, False], [False, True]]), "one-of-k")
        0.25

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"``, on the most probable label; or ``"multi-label"``, pooled over clip-label pairs.

    Returns:
        In [0, 1], lower is better.

    Raises:
        ValueError: The arrays or the task do not fit.
    """
    return reliability(probability, target, task).error


def ece_if_calibrated(
    probability: NDArray[np.floating], task: str, *, repeats: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """The :func:`ece` of a calibrated model with these probabilities: labels are drawn from them, again and again.

    On few clips even a perfectly calibrated model has an ECE above 0. Compare an ECE with these (consistency
    resampling, Vaicenavicius et al., 2019, arXiv:1902.06977). Labels are drawn independently, even for clips of one
    recording, so these values are somewhat too small if recordings have several clips.

    Args:
        probability: ``(N, K)``.
        task: ``"one-of-k"`` or ``"multi-label"``.
        repeats: How often labels are drawn.
        seed: Of the random labels.

    Returns:
        ``(repeats,)``.

    Raises:
        ValueError: The probabilities or the task do not fit.
    """
    check_task(task)
    random = np.random.default_rng(seed)
    p = probability.astype(np.float64)
    count = p.shape[1]
    found = np.empty(repeats)
    for index in range(repeats):
        if task == Task.ONE_OF_K:
            level = random.random((len(p), 1)) * p.sum(axis=1, keepdims=True)
            drawn = np.eye(count, dtype=bool)[(p.cumsum(axis=1) <= level).sum(axis=1).clip(max=count - 1)]
        else:
            drawn = random.random(p.shape) < p
        found[index] = ece(probability, drawn, task)
    return found


def ace(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Adaptive calibration error: as :func:`ece`, over 15 bins of equal mass.

    The bins are those of Nixon et al., 2019 (arXiv:1904.01685). Their error is a mean over classes; this one is pooled.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """
    return reliability(probability, target, task, equal_mass=True).error


def classwise_ece(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The calibration error of each label's probability, over 15 bins of equal width.

    Its mean over the labels is the classwise-ECE of Kull et al., 2019 (arXiv:1910.12656), and the static calibration
    error of Nixon et al., 2019 (arXiv:1904.01685). For a rare label most clips have a probability near 0, so its error
    is easily small.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        ``(K,)``, in [0, 1].

    Raises:
        ValueError: The arrays do not fit.
    """
    check_pair(probability, target)
    return _error(*_binned(probability, target, _FRACTIONS[1:-1, None]))


_FRACTIONS = np.linspace(0, 1, BINS + 1)


def _bins(
    confidence: NDArray[np.floating], outcome: NDArray[np.bool_], equal_mass: bool, top: bool
) -> tuple[Reliability, ...]:
    """The bins of each column."""
    inner = _FRACTIONS[1:-1]
    edges = np.quantile(confidence, inner, axis=0) if equal_mass else inner[:, None]
    mean, frequency, count = _binned(confidence, outcome, edges)
    edges = np.broadcast_to(edges, (BINS - 1, confidence.shape[1]))
    return tuple(
        Reliability(mean[:, c], frequency[:, c], count[:, c], np.r_[0, edges[:, c], 1], equal_mass, top)
        for c in range(confidence.shape[1])
    )


def _binned(
    confidence: NDArray[np.floating], outcome: NDArray[np.bool_], edges: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int_]]:
    """Mean confidence, frequency, count: ``(BINS, C)``, of each column between inner edges ``(BINS - 1, 1 or C)``."""
    columns = confidence.shape[1]
    if edges.shape[1] == 1:
        index = np.searchsorted(edges[:, 0], confidence, side="right")
    else:
        each = zip(edges.T, confidence.T, strict=True)
        index = np.stack([np.searchsorted(edge, values, side="right") for edge, values in each], axis=1)
    place = (index * columns + np.arange(columns)).ravel()

    def total(values: NDArray | None = None) -> NDArray:
        return np.bincount(place, values, minlength=BINS * columns).reshape(BINS, columns)

    count = total()
    # An empty bin divides 0 by NaN, which is NaN without a warning.
    size = np.where(count, count, np.nan)
    return total(confidence.ravel()) / size, total(outcome.ravel()) / size, count


def _error(
    confidence: NDArray[np.float64], frequency: NDArray[np.float64], count: NDArray[np.int_]
) -> NDArray[np.float64]:
    """The mean gap over bins ``(BINS, ...)``."""
    gap = np.where(count, np.abs(frequency - confidence), 0)
    return (count * gap).sum(axis=0) / count.sum(axis=0)

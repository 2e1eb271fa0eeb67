"""Whether the probabilities mean what they say: ECE, ACE, negative log-likelihood, Brier score and its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bayes_panns.metrics.checks import ONE_OF_K, check_one_hot, check_pair, check_task
from bayes_panns.metrics.classification import top_label
from bayes_panns.metrics.plotting import INK, PALETTE, clean, diagonal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        edges: ``(BINS + 1,)``, where the bins begin and end; each holds its lower edge, the last one also 1.
        equal_mass: whether the bins are of equal mass, not of equal width.
        top_label: whether the predictions are the clips' most probable labels, not the presence of labels.
    """

    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    count: NDArray[np.int_]
    edges: NDArray[np.float64]
    equal_mass: bool
    top_label: bool

    @property
    def error(self) -> float:
        """The mean gap between confidence and frequency, sum_b n_b / n |frequency_b - confidence_b|."""
        return float(_error(self.confidence, self.frequency, self.count))

    def plot(self, ax: Axes) -> None:
        """Draws a reliability diagram: how often predictions came true against how sure they were.

        A well calibrated model's bars end on the diagonal. The gap between a bin's mean confidence and how often it
        came true is coloured, by whether the model was too sure or not sure enough. How many predictions each bin has
        stands in a strip on top.

        Args:
            ax: where to draw.
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
        for kind, color, label in ((sure, PALETTE[1], "too sure"), (~sure, PALETTE[0], "not sure enough")):
            ax.bar(left[kind], gap[kind], width[kind], low[kind], align="edge", color=color, label=label)
        diagonal(ax)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.set_xlabel("confidence" if self.top_label else "probability of the label")
        ax.set_ylabel("share of clips that are right" if self.top_label else "share of clips that have the label")
        ax.plot([], [], " ", label=f"{'ACE' if self.equal_mass else 'ECE'} {self.error:.3f}")
        ax.legend(loc="upper left", frameon=False, fontsize="small", labelcolor=INK)
        clean(ax)

        strip = ax.inset_axes((0, 1.03, 1, 0.16), sharex=ax)
        strip.bar(left, self.count[filled], width, align="edge", color=PALETTE[6])
        if not self.top_label:
            # Most labels are absent from most clips: the lowest bin dwarfs the rest.
            strip.set_yscale("log")
            strip.set_ylim(bottom=0.5)
        strip.set_ylabel("clips" if self.top_label else "counts", fontsize="small")
        strip.tick_params(labelbottom=False, labelsize="small")
        clean(strip)


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
    (bins,) = _bins(confidence[:, None], outcome[:, None], equal_mass, task == ONE_OF_K)
    return bins


def classwise_reliability(
    probability: NDArray[np.floating], target: NDArray[np.bool_], *, equal_mass: bool = False
) -> tuple[Reliability, ...]:
    """Sorts, for each label, the clips into bins by the probability of that label, for one-of-K and multi-label alike.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.
        equal_mass: bins between quantiles of each label's probability instead of bins of equal width.

    Returns:
        One a label.
    """
    check_pair(probability, target)
    return _bins(probability, target, equal_mass, top=False)


def ece(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al., 2017, arXiv:1706.04599).

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"``, on the most probable label; or ``"multi-label"``, pooled over clip-label pairs.
    """
    return reliability(probability, target, task).error


def ece_if_calibrated(
    probability: NDArray[np.floating], task: str, *, repeats: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """What :func:`ece` would be if the probabilities were right, for labels drawn from them.

    A perfectly calibrated model has a calibration error too on few clips, the larger the less sure it is: an ECE is to
    be read beside this (Vaicenavicius et al., 2019, arXiv:1902.06977, consistency resampling). Clips are drawn
    independently, also those of one recording, so it is rather too small.

    Args:
        probability: ``(N, K)``.
        task: ``"one-of-k"`` or ``"multi-label"``.
        repeats: how often labels are drawn.
        seed: of the random choice.

    Returns:
        ``(repeats,)``.
    """
    check_task(task)
    random = np.random.default_rng(seed)
    p = probability.astype(np.float64)
    count = p.shape[1]
    found = np.empty(repeats)
    for index in range(repeats):
        if task == ONE_OF_K:
            level = random.random((len(p), 1)) * p.sum(axis=1, keepdims=True)
            drawn = np.eye(count, dtype=bool)[(p.cumsum(axis=1) <= level).sum(axis=1).clip(max=count - 1)]
        else:
            drawn = random.random(p.shape) < p
        found[index] = ece(probability, drawn, task)
    return found


def ace(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> float:
    """Adaptive calibration error: as :func:`ece`, over 15 bins of equal mass.

    The bins are those of Nixon et al., 2019 (arXiv:1904.01685); theirs is a mean over classes, here it is pooled.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """
    return reliability(probability, target, task, equal_mass=True).error


def classwise_ece(probability: NDArray[np.floating], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The calibration error of each label's probability, over 15 bins of equal width.

    Their mean is the classwise-ECE of Kull et al., 2019 (arXiv:1910.12656), the static calibration error of Nixon et
    al., 2019 (arXiv:1904.01685). The gap weighs what a bin holds: where a label is rare, a small error is easy.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``.

    Returns:
        ``(K,)``, in [0, 1].
    """
    check_pair(probability, target)
    return _error(*_binned(probability, target, _FRACTIONS[1:-1, None]))


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


@dataclass(frozen=True)
class BrierSplit:
    """The Brier score as ``reliability - resolution + uncertainty``; see :func:`brier_split`.

    Attributes:
        label_reliability: ``(K,)``, what miscalibration costs each label; never negative, 0 is best.
        label_resolution: ``(K,)``, what telling clips apart gains; never negative, more is better.
        label_uncertainty: ``(K,)``, what is left to whoever knows only how frequent the label is.
        task: one-of-K sums over the labels, multi-label averages, as :func:`brier` does.
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
        """Draws how the score comes about: down from the uncertainty by the resolution, up by the reliability.

        Args:
            ax: where to draw.
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
        ax.set_xlabel("squared error" + (" summed over labels" if self.task == ONE_OF_K else ", mean over labels"))
        clean(ax)

    def _together(self, values: NDArray[np.float64]) -> float:
        return float(values.sum() if self.task == ONE_OF_K else values.mean())


def brier_split(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> BrierSplit:
    """The Brier score's reliability, resolution and uncertainty, an exact identity with no bins to choose.

    The CORP decomposition of each label (Dimitriadis, Gneiting and Jordan, 2021, arXiv:2008.03033): with S the mean
    squared error of the probabilities, S_C that after isotonic regression has calibrated them on these clips, and S_R
    that of the label's frequency, reliability = S - S_C, resolution = S_R - S_C and uncertainty = S_R. As isotonic
    regression fits noise too, reliability and resolution are both too large on few clips.

    Args:
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``.
    """
    _check(probability, target, task)
    parts = [_corp(p, y) for p, y in zip(probability.T.astype(np.float64), target.T, strict=True)]
    label_reliability, label_resolution, label_uncertainty = np.array(parts).T
    return BrierSplit(label_reliability, label_resolution, label_uncertainty, task)


def _corp(p: NDArray[np.float64], y: NDArray[np.bool_]) -> tuple[float, float, float]:
    _, level, size = np.unique(p, return_inverse=True, return_counts=True)
    rate = np.bincount(level, y) / size
    calibrated = isotonic_regression(rate, weights=size).x[level]
    frequency = y.mean()
    error = ((p - y) ** 2).mean() - ((calibrated - y) ** 2).mean()
    # The best isotonic map is no worse than none; rounding may be.
    return max(error, 0.0), ((calibrated - frequency) ** 2).mean(), frequency * (1 - frequency)


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


def _check(probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> None:
    check_task(task)
    check_pair(probability, target)
    if task == ONE_OF_K:
        check_one_hot(target)

"""Conformal prediction: label sets that contain the true labels with a guaranteed coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.checks import check_pair
from bayes_panns.metrics.classification import mean_defined
from bayes_panns.metrics.plotting import INK, PALETTE, clean, legend_above, percent, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def conformal_threshold(probability: NDArray[np.floating], target: NDArray[np.bool_], coverage: float) -> float:
    """The threshold for label sets ``{k: p_k >= threshold}`` that contain, on average, ``coverage`` of the true labels.

    Conformal risk control of the false negative rate (Angelopoulos et al., 2022, arXiv:2208.02814). With loss_i(t) the
    share of clip i's true labels that its set misses at threshold t, it is the highest t with::

        (sum_i loss_i(t) + 1) / (n + 1) <= 1 - coverage

    For one-of-K that is split conformal prediction with the score 1 - p of the true label (Sadinle et al., 2019,
    arXiv:1609.00451). The guarantee is for a new clip that is exchangeable with these and has a label, on average over
    calibration sets and clips. It does not hold for each label, nor for other kinds of clips. The clips must not have
    been used in the fit.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.2, 0.8]])
        >>> conformal_threshold(p, np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=bool), coverage=0.6)
        0.7

    Args:
        probability: ``(N, K)``, of held-out clips.
        target: ``(N, K)``. Clips without any label have none to miss and are left out.
        coverage: The share of true labels that sets should contain, in (0, 1), such as 0.9.

    Returns:
        In [0, 1].

    Raises:
        ValueError: The arrays do not fit together; ``coverage`` is not between 0 and 1; or there are too few clips
            for it, fewer than coverage / (1 - coverage).
    """
    check_pair(probability, target)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage}: expected a share between 0 and 1")
    size = target.sum(axis=1)
    clips = int((size > 0).sum())
    # 1 - 0.9 is below 0.1 by a rounding error.
    allowed = (1 - coverage) * (clips + 1) - 1 + 1e-9
    if allowed < 0:
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ValueError(f"{clips} clips with a label: a coverage of {coverage:g} needs at least {least}")
    # The highest threshold is the probability of a true label, which its set still contains.
    clip, label = np.nonzero(target)
    truth = probability[clip, label]
    order = np.argsort(truth, kind="stable")
    candidates, first = np.unique(truth[order], return_index=True)
    missed = np.concatenate([[0], np.cumsum(1 / size[clip[order]])])[first]
    return float(candidates[np.flatnonzero(missed <= allowed)[-1]])


def label_sets(probability: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """The labels at least as probable as the threshold.

    Example:
        >>> label_sets(np.array([[0.6, 0.3, 0.1]]), 0.3)
        array([[ True,  True, False]])

    Args:
        probability: ``(N, K)``.
        threshold: From :func:`conformal_threshold`.

    Returns:
        ``(N, K)``, whether the label is in the clip's set. A set is empty if no label is probable enough.
    """
    return probability >= threshold


@dataclass(frozen=True)
class SetQuality:
    """Coverage and size of label sets; see :func:`set_quality`.

    Attributes:
        coverage: The share of a clip's true labels in its set, averaged over the clips that have a label; NaN if none
            has.
        size: The mean number of labels in a set; at equal coverage, smaller is better.
        share: ``(K + 1,)``, the share of clips whose set has 0, 1, ... K labels.
        coverage_by_size: ``(K + 1,)``, the coverage among these clips; NaN if there are none. Ideally it is the same
            at every size (Angelopoulos et al., 2021, arXiv:2009.14193).
    """

    coverage: float
    size: float
    share: NDArray[np.float64]
    coverage_by_size: NDArray[np.float64]

    def plot(self, ax: Axes) -> None:
        """Draw the sizes of the sets as bars, and the coverage at each size as dots. The line is the overall coverage.

        Args:
            ax: Where to draw.
        """
        last = int(np.flatnonzero(self.share)[-1])
        sizes = np.arange(last + 1)
        ax.bar(sizes, self.share[: last + 1], 0.7, color=PALETTE[4], label="share of clips")
        ax.plot(sizes, self.coverage_by_size[: last + 1], "o", color=PALETTE[1], label="coverage at this size")
        ax.axhline(self.coverage, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        ax.plot([], [], " ", label=f"coverage {self.coverage:.3f}, mean size {self.size:.2f}")
        ax.set(xlabel="labels in the set", xlim=(-0.6, last + 0.6), ylim=(0, 1.04))
        whole(ax.xaxis)
        percent(ax.yaxis)
        legend_above(ax)
        clean(ax)


def set_quality(sets: NDArray[np.bool_], target: NDArray[np.bool_]) -> SetQuality:
    """The coverage and the size of label sets.

    Example:
        >>> sets = np.array([[True, True], [True, False]])
        >>> quality = set_quality(sets, np.array([[True, False], [False, True]]))
        >>> quality.coverage, quality.size
        (0.5, 1.5)

    Args:
        sets: ``(N, K)``, from :func:`label_sets`.
        target: ``(N, K)``, of clips that the threshold was *not* fitted to.

    Raises:
        ValueError: The shapes differ, there are no clips, or either is not bool.
    """
    if sets.ndim != 2 or sets.shape != target.shape or not sets.size:
        raise ValueError(f"sets {sets.shape} and target {target.shape}: expected two equal (N, K)")
    if sets.dtype != np.bool_ or target.dtype != np.bool_:
        raise ValueError(f"sets are {sets.dtype} and target is {target.dtype}: expected bool")
    labels = target.sum(axis=1)
    covered = (sets & target).sum(axis=1) / np.where(labels, labels, np.nan)
    size = sets.sum(axis=1)
    sizes = range(target.shape[1] + 1)
    return SetQuality(
        coverage=mean_defined(covered),
        size=float(size.mean()),
        share=np.bincount(size, minlength=len(sizes)) / len(size),
        coverage_by_size=np.array([mean_defined(covered[size == each]) for each in sizes]),
    )

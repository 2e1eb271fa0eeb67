"""Sets of labels that miss no more of the true ones than is asked for."""

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
    """The threshold for label sets ``{k: p_k >= threshold}`` that hold, on average, ``coverage`` of the true labels.

    Conformal risk control of the false negative rate, the share of a clip's true labels that its set misses
    (Angelopoulos et al., 2022, arXiv:2208.02814): the highest threshold t with
    (sum_i loss_i(t) + 1) / (n + 1) <= 1 - coverage. For one-of-K that is split conformal prediction with the score
    1 - p of the true label (Sadinle et al., 2019, arXiv:1609.00451). The promise is for a new clip that is exchangeable
    with these and has a label, on average over calibration sets and clips; it does not hold for each label or for
    other kinds of clips. The clips must not have been used in the fit.

    Args:
        probability: ``(N, K)``, of held-out clips.
        target: ``(N, K)``. Clips without any label have none to miss and are left out.
        coverage: in (0, 1), such as 0.9.

    Returns:
        In [0, 1].

    Raises:
        ValueError: the arrays do not fit together, ``coverage`` is not between 0 and 1, or there are too few clips
            for it: fewer than coverage / (1 - coverage).
    """
    check_pair(probability, target)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage}: expected a share between 0 and 1")
    size = target.sum(axis=1)
    clips = int((size > 0).sum())
    # 1 - 0.9 is a rounding error below 0.1.
    allowed = (1 - coverage) * (clips + 1) - 1 + 1e-9
    if allowed < 0:
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ValueError(f"{clips} clips with a label: a coverage of {coverage:g} needs at least {least}")
    # A threshold is only ever worth moving to a true label's own probability, which it does not miss.
    clip, label = np.nonzero(target)
    truth = probability[clip, label]
    order = np.argsort(truth, kind="stable")
    candidates, first = np.unique(truth[order], return_index=True)
    missed = np.concatenate([[0], np.cumsum(1 / size[clip[order]])])[first]
    return float(candidates[np.flatnonzero(missed <= allowed)[-1]])


def label_sets(probability: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """The labels at least as probable as the threshold.

    Args:
        probability: ``(N, K)``.
        threshold: from :func:`conformal_threshold`.

    Returns:
        ``(N, K)``, whether the label is in the clip's set. A set may be empty: then no label is probable enough.
    """
    return probability >= threshold


@dataclass(frozen=True)
class SetQuality:
    """What label sets are worth; see :func:`set_quality`.

    Attributes:
        coverage: the share of a clip's true labels that its set holds, averaged over the clips that have a label.
        size: the mean number of labels in a set; at equal coverage, smaller is better.
        share: ``(K + 1,)``, the share of clips whose set has 0, 1, ... K labels.
        coverage_by_size: ``(K + 1,)``, the coverage among these clips; NaN where there is none. Sets that adapt to
            the clip have the same at every size (Angelopoulos et al., 2021, arXiv:2009.14193).
    """

    coverage: float
    size: float
    share: NDArray[np.float64]
    coverage_by_size: NDArray[np.float64]

    def plot(self, ax: Axes) -> None:
        """Draws how large the sets are, as bars, and the coverage at each size, as dots; the line is the coverage.

        Args:
            ax: where to draw.
        """
        last = int(np.flatnonzero(self.share)[-1])
        sizes = np.arange(last + 1)
        ax.bar(sizes, self.share[: last + 1], 0.7, color=PALETTE[4], label="share of the clips")
        ax.plot(sizes, self.coverage_by_size[: last + 1], "o", color=PALETTE[1], label="coverage among them")
        ax.axhline(self.coverage, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        ax.plot([], [], " ", label=f"coverage {self.coverage:.3f}, mean size {self.size:.2f}")
        ax.set(xlabel="labels in the set", xlim=(-0.6, last + 0.6), ylim=(0, 1.04))
        whole(ax.xaxis)
        percent(ax.yaxis)
        legend_above(ax)
        clean(ax)


def set_quality(sets: NDArray[np.bool_], target: NDArray[np.bool_]) -> SetQuality:
    """How often label sets hold the truth, and how large they are.

    Args:
        sets: ``(N, K)``, from :func:`label_sets`.
        target: ``(N, K)``, of clips that the threshold was *not* fitted on.

    Raises:
        ValueError: the shapes differ, there are no clips, or either is not bool.
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

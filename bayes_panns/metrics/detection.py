"""Out-of-distribution detection: AUROC, AUPR, and the false positive rate at 95 % detection.

Out of distribution is the positive class, and scores are higher for it (Hendrycks and Gimpel, 2017, arXiv:1610.02136).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.plotting import clean, diagonal, legend_above, next_line, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DETECTED = 0.95
"""The true positive rate at which :func:`fpr95` takes the false positive rate."""


@dataclass(frozen=True)
class Detection:
    """How well a score separates N in-distribution from M out-of-distribution clips; see :func:`detection`.

    Attributes:
        false_alarm: ``(P,)``, the false positive rate at each threshold: the share of in-distribution clips flagged. It
            rises from 0, with no clip flagged, through each distinct score, the highest first, to 1.
        detected: ``(P,)``, the true positive rate: the share of out-of-distribution clips flagged.
        auroc: Area under the ROC curve; 0.5 at chance.
        aupr: Area under the precision-recall curve, as average precision; M / (N + M) at chance.
        fpr95: The false positive rate at the highest threshold whose true positive rate is at least 95 %.
    """

    false_alarm: NDArray[np.float64]
    detected: NDArray[np.float64]
    auroc: float
    aupr: float
    fpr95: float

    def plot(self, ax: Axes, label: str | None = None, color: str | None = None) -> None:
        """Draw the ROC curve; several can share the Axes.

        Args:
            ax: Where to draw.
            label: What the score is called; the AUROC is added to it.
            color: By default the palette's next.
        """
        diagonal(ax)
        area = f"AUROC {self.auroc:.3f}"
        ax.plot(self.false_alarm, self.detected, **next_line(ax, color), label=f"{label} ({area})" if label else area)
        ax.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="false positive rate: known clips flagged")
        ax.set_ylabel("true positive rate: novel clips flagged")
        percent(ax.xaxis)
        percent(ax.yaxis)
        legend_above(ax)
        clean(ax)


def detection(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> Detection:
    """The ROC curve of a score, with AUROC, AUPR and FPR at 95 %.

    Example:
        >>> found = detection(inside=np.array([0.1, 0.2, 0.4, 0.1]), outside=np.array([0.3, 0.9]))
        >>> found.auroc, round(found.aupr, 3), found.fpr95
        (0.875, 0.833, 0.25)

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips, expected to be higher.

    Returns:
        The curve and its numbers. If either is empty, the numbers are NaN and the curve has its two ends only.

    Raises:
        ValueError: The scores are not two vectors, or one holds NaN.
    """
    if inside.ndim != 1 or outside.ndim != 1:
        raise ValueError(f"inside {inside.shape} and outside {outside.shape}: expected vectors")
    if np.isnan(inside).any() or np.isnan(outside).any():
        raise ValueError("a score is NaN")
    ends = np.array([0.0, 1.0])
    if not len(inside) or not len(outside):
        return Detection(ends, ends, *[float("nan")] * 3)
    _, level = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    counts = [
        np.concatenate([[0], np.bincount(part, minlength=level.max() + 1)[::-1].cumsum()])
        for part in (level[: len(inside)], level[len(inside) :])
    ]
    false_alarm, detected = counts[0] / len(inside), counts[1] / len(outside)
    precision = counts[1][1:] / (counts[0] + counts[1])[1:]
    return Detection(
        false_alarm=false_alarm,
        detected=detected,
        auroc=float(np.diff(counts[0]) @ (counts[1][1:] + counts[1][:-1]) / (2 * len(inside) * len(outside))),
        aupr=float(np.diff(detected) @ precision),
        fpr95=float(false_alarm[np.searchsorted(detected, DETECTED)]),
    )


def auroc(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """Area under the ROC curve: P(outside above inside) + P(equal) / 2, over pairs of clips.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], 0.5 at chance; NaN if either is empty.
    """
    return detection(inside, outside).auroc


def aupr(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """Area under the precision-recall curve, as average precision.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], M / (N + M) at chance; NaN if either is empty.
    """
    return detection(inside, outside).aupr


def fpr95(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """The false positive rate at the highest threshold that flags at least 95 % of the out-of-distribution clips.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], lower is better; NaN if either is empty.
    """
    return detection(inside, outside).fpr95

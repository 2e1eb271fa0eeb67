"""Telling sounds that the model was not made for: AUROC, AUPR and the false alarms at 95 % detection.

Out of distribution is the positive class, and a score is higher for it (Hendrycks and Gimpel, 2017, arXiv:1610.02136).
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
"""The share of the clips from outside that must be flagged when false alarms are counted."""


@dataclass(frozen=True)
class Detection:
    """How well a score tells N clips from inside from M from outside: the ROC curve and what is read off it.

    Attributes:
        false_alarm: ``(P,)``, the share of the clips from inside that are flagged at each threshold, from 0 to 1:
            first none, then a point for every distinct score, the highest first.
        detected: ``(P,)``, the share of those from outside.
        auroc: the probability that a clip from outside scores above one from inside, ties half; 0.5 at chance.
        aupr: area under the precision-recall curve, as average precision; M / (N + M) at chance.
        fpr95: the share of clips from inside flagged at the highest threshold that flags 95 % of those from outside.
    """

    false_alarm: NDArray[np.float64]
    detected: NDArray[np.float64]
    auroc: float
    aupr: float
    fpr95: float

    def plot(self, ax: Axes, label: str | None = None, color: str | None = None) -> None:
        """Draws the ROC curve; several may share the Axes.

        Args:
            ax: where to draw.
            label: what the score is called; the AUROC is put behind it.
            color: by default the palette's next.
        """
        diagonal(ax)
        area = f"AUROC {self.auroc:.3f}"
        ax.plot(self.false_alarm, self.detected, **next_line(ax, color), label=f"{label} ({area})" if label else area)
        ax.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="false alarms: share of known clips flagged")
        ax.set_ylabel("share of strange clips flagged")
        percent(ax.xaxis)
        percent(ax.yaxis)
        legend_above(ax)
        clean(ax)


def detection(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> Detection:
    """The ROC curve of a score, with AUROC, AUPR and FPR at 95 %.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips, expected higher.

    Returns:
        With NaN for the three numbers, and no curve but for its ends, where either is empty.

    Raises:
        ValueError: the scores are not two vectors, or one holds NaN.
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
    """Area under the ROC curve: the probability that a clip from outside scores above one from inside, ties half.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], 0.5 at chance; NaN where either is empty.
    """
    return detection(inside, outside).auroc


def aupr(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """Area under the precision-recall curve, as average precision.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], M / (N + M) at chance; NaN where either is empty.
    """
    return detection(inside, outside).aupr


def fpr95(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """The share of in-distribution clips flagged at the highest threshold that flags 95 % of those from outside.

    Args:
        inside: ``(N,)``, scores of in-distribution clips.
        outside: ``(M,)``, scores of out-of-distribution clips.

    Returns:
        In [0, 1], lower is better; NaN where either is empty.
    """
    return detection(inside, outside).fpr95

"""Selective classification: what is gained by rejecting the least certain clips. Risk-coverage, AURC, AUGRC, PAvPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.plotting import clean, legend_above, next_line, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RiskCoverage:
    """The mean loss of the clips kept, as the least certain are rejected; see :func:`risk_coverage`.

    Attributes:
        coverage: ``(N,)``, the share of clips kept, k / N for k = 1 to N.
        risk: ``(N,)``, the mean loss of the k most certain clips.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve, the mean of the risk over k = 1 to N; see :func:`aurc`."""
        return float(self.risk.mean()) if len(self.risk) else float("nan")

    @property
    def augrc(self) -> float:
        """Area under the generalised risk-coverage curve; see :func:`augrc`."""
        if not len(self.risk):
            return float("nan")
        generalised = self.risk * self.coverage
        # The trapezoidal rule from 0 at coverage 0: the last point counts half.
        return float((generalised.sum() - generalised[-1] / 2) / len(generalised))

    def coverage_at(self, risk: float) -> float:
        """The largest share of clips that can be kept at a mean loss of at most ``risk``; see :func:`coverage_at_risk`.

        Args:
            risk: In [0, 1].
        """
        # A mean of equal losses may exceed them by a rounding error.
        kept = np.flatnonzero(self.risk <= risk + 1e-12)
        return float(self.coverage[kept[-1]]) if len(kept) else 0.0

    def plot(self, ax: Axes, label: str | None = None, color: str | None = None) -> None:
        """Draw the curve; several can share the Axes. The noise of the first few clips may reach beyond its top.

        Args:
            ax: Where to draw.
            label: What the score is called; the AURC is added to it.
            color: By default the palette's next.
        """
        area = f"AURC {self.aurc:.3f}"
        marker = "o" if len(self.risk) == 1 else ""
        style = next_line(ax, color)
        ax.plot(self.coverage, self.risk, **style, marker=marker, label=f"{label} ({area})" if label else area)
        curves = [np.asarray(line.get_xydata()) for line in ax.lines]
        top = max((curve[curve[:, 0] >= 0.05, 1].max(initial=0) for curve in curves), default=0)
        ax.set(xlim=(0, 1), xlabel="coverage: share of clips kept", ylabel="risk: mean loss of the clips kept")
        ax.set_ylim(0, 1.1 * top or 1)
        percent(ax.xaxis)
        percent(ax.yaxis)
        legend_above(ax)
        clean(ax)


def risk_coverage(uncertainty: NDArray[np.floating], loss: NDArray[np.bool_] | NDArray[np.floating]) -> RiskCoverage:
    """The risk-coverage curve (Geifman and El-Yaniv, 2017, arXiv:1705.08500).

    With the clips sorted from the most to the least certain, the risk at coverage k / N is the mean loss of the first
    k. Among clips of equal uncertainty it is the expectation over their order.

    Example:
        >>> curve = risk_coverage(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True]))
        >>> curve.risk.round(3)
        array([0.   , 0.   , 0.333, 0.5  ])
        >>> round(curve.aurc, 4), curve.augrc, curve.coverage_at(0.05)
        (0.2083, 0.125, 0.5)

    Args:
        uncertainty: ``(N,)``, any score that is higher for clips to be rejected earlier, such as the entropy.
        loss: ``(N,)``, whether the clip's prediction is wrong; or its loss, in [0, 1].

    Raises:
        ValueError: The shapes differ, a score is NaN, or a loss is not in [0, 1].
    """
    _check(uncertainty, loss, "loss")
    if not ((loss >= 0) & (loss <= 1)).all():
        raise ValueError("loss holds values outside [0, 1] or NaN")
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    rate = np.bincount(group, loss, minlength=len(size)) / size
    kept = np.arange(1, len(loss) + 1)
    return RiskCoverage(kept / len(loss), np.cumsum(rate[np.sort(group)]) / kept)


def aurc(uncertainty: NDArray[np.floating], loss: NDArray[np.bool_] | NDArray[np.floating]) -> float:
    """Area under the risk-coverage curve (AURC): the mean risk over k = 1 to N (Geifman et al., arXiv:1805.08206).

    Args:
        uncertainty: ``(N,)``, see :func:`risk_coverage`.
        loss: ``(N,)``, bool or in [0, 1].

    Returns:
        In [0, 1], lower is better: 0 without errors, the mean loss for an uninformative score. NaN for no clips.
    """
    return risk_coverage(uncertainty, loss).aurc


def augrc(uncertainty: NDArray[np.floating], loss: NDArray[np.bool_] | NDArray[np.floating]) -> float:
    """Area under the generalised risk-coverage curve (Traub et al., 2024, arXiv:2407.01032).

    The generalised risk is the risk times the coverage: the share of *all* N clips that is kept and wrong. Unlike AURC
    it gives no unbounded weight to an error among the most certain clips. The area is by the trapezoidal rule from
    coverage 0. For a bool loss it is therefore exactly the paper's::

        AUGRC = (1 - AUROC) a (1 - a) + (1 - a)^2 / 2

    with a the accuracy, and AUROC that of separating wrong from correct predictions.

    Args:
        uncertainty: ``(N,)``, see :func:`risk_coverage`.
        loss: ``(N,)``, bool or in [0, 1].

    Returns:
        In [0, 1/2], lower is better: 0 without errors, half the mean loss for an uninformative score. NaN for no
        clips.
    """
    return risk_coverage(uncertainty, loss).augrc


def coverage_at_risk(
    uncertainty: NDArray[np.floating], loss: NDArray[np.bool_] | NDArray[np.floating], risk: float
) -> float:
    """The largest share of clips that can be kept at a mean loss of at most ``risk``.

    It holds for these clips and guarantees nothing for others (for a guarantee: Geifman and El-Yaniv, 2017,
    arXiv:1705.08500).

    Args:
        uncertainty: ``(N,)``, see :func:`risk_coverage`.
        loss: ``(N,)``, bool or in [0, 1].
        risk: In [0, 1].

    Returns:
        In [0, 1], higher is better; 0 if not even the most certain clip can be kept.
    """
    return risk_coverage(uncertainty, loss).coverage_at(risk)


@dataclass(frozen=True)
class PAvPU:
    """Accuracy against uncertainty, over every threshold: see :func:`pavpu`.

    Attributes:
        threshold: ``(M,)``, the distinct scores, ascending.
        value: ``(M,)``, the share of clips that are certain and correct, or uncertain and wrong. Clips with a score of
            at most the threshold are certain.
        error: The value if no clip is certain, which is the share of wrong clips.
    """

    threshold: NDArray[np.float64]
    value: NDArray[np.float64]
    error: float

    def at(self, threshold: float) -> float:
        """The value if clips with a score of at most ``threshold`` are certain.

        Args:
            threshold: In the unit of the score.
        """
        place = int(np.searchsorted(self.threshold, threshold, side="right"))
        return float(self.value[place - 1]) if place else self.error

    @property
    def middle(self) -> float:
        """The threshold halfway between the lowest and the highest score."""
        return float(self.threshold[[0, -1]].mean())

    def plot(self, ax: Axes, label: str | None = None, color: str | None = None) -> None:
        """Draw the value over the thresholds; several can share the Axes.

        Args:
            ax: Where to draw.
            label: What the score is called.
            color: By default the palette's next.
        """
        style = next_line(ax, color)
        shown = f"{self.at(self.middle):.3f} at the middle"
        ax.plot(
            *(np.r_[self.threshold[0], self.threshold], np.r_[self.error, self.value]),
            **style,
            drawstyle="steps-post",
            marker="o" if len(self.threshold) == 1 else "",
            label=f"{label} ({shown})" if label else shown,
        )
        ax.set(ylim=(0, 1.01), xlabel="threshold: certain up to", ylabel="PAvPU")
        percent(ax.yaxis)
        legend_above(ax)
        clean(ax)


def pavpu(uncertainty: NDArray[np.floating], wrong: NDArray[np.bool_]) -> PAvPU:
    """The share of clips that are certain and correct, or uncertain and wrong (Mukhoti and Gal, arXiv:1811.12709).

    Their patch accuracy vs patch uncertainty, with clips in place of image patches. With n_ac the number of accurate
    and certain clips, n_iu that of inaccurate and uncertain ones, and so on::

        PAvPU = (n_ac + n_iu) / (n_ac + n_au + n_ic + n_iu)

    Example:
        >>> pavpu(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True])).value
        array([0.75, 1.  , 0.75, 0.5 ])

    Args:
        uncertainty: ``(N,)``, higher for less certain clips, such as the entropy.
        wrong: ``(N,)``, bool: whether the clip's prediction is wrong.

    Returns:
        The value at every threshold, in [0, 1], higher is better.

    Raises:
        ValueError: The shapes differ, there are no clips, a score is NaN, or ``wrong`` is not bool.
    """
    _check(uncertainty, wrong, "wrong")
    if wrong.dtype != np.bool_ or not wrong.size:
        raise ValueError(f"wrong is {wrong.dtype} of {wrong.size} clips: expected bool, of at least one")
    threshold, group = np.unique(uncertainty, return_inverse=True)
    gain = np.bincount(group, 1 - 2.0 * wrong, minlength=len(threshold))
    return PAvPU(threshold.astype(np.float64), (wrong.sum() + gain.cumsum()) / len(wrong), float(wrong.mean()))


def _check(uncertainty: NDArray[np.floating], outcome: NDArray, name: str) -> None:
    if uncertainty.ndim != 1 or uncertainty.shape != outcome.shape:
        raise ValueError(f"uncertainty {uncertainty.shape} and {name} {outcome.shape}: expected two equal (N,)")
    if np.isnan(uncertainty).any():
        raise ValueError("uncertainty holds NaN")

"""The polyphonic sound detection score: one number for all thresholds (Bilen et al., 2020, arXiv:1910.08440)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.intersections import Intersections
from bayes_panns.metrics.plotting import clean, next_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HOUR = 3600.0


@dataclass(frozen=True)
class Psds:
    """The score, and the curve that it is the area under.

    Attributes:
        value: From 0 to 1.
        alarms: ``(P,)``, effective false alarms an hour.
        found: ``(P,)``, the effective share of the events that is found at so many alarms.
        most: Alarms an hour up to which the area is taken.
    """

    value: float
    alarms: NDArray[np.float64]
    found: NDArray[np.float64]
    most: float

    def plot(self, ax: Axes, label: str | None = None, color: str | None = None) -> None:
        """Draw the curve; several can share the Axes."""
        ax.step(self.alarms, self.found, where="post", **next_line(ax, color), label=label)
        ax.set(xlim=(0, self.most), ylim=(0, 1.01), xlabel="false alarms an hour", ylabel="events found")
        clean(ax)


def psds(
    points: Sequence[Intersections],
    *,
    cross_weight: float = 0.0,
    spread_weight: float = 1.0,
    most: float = 100.0,
    units: NDArray[np.intp] | None = None,
) -> Psds:
    """The polyphonic sound detection score of several operating points, such as thresholds.

    With TPR_k and eFPR_k a label's share of found events and its alarms an hour, crossings counted
    ``cross_weight`` times more, the score is the area up to ``most`` alarms under::

        mean_k TPR_k(eFPR) - spread_weight * std_k TPR_k(eFPR)

    Each label's curve takes its best threshold at each rate. The defaults are the paper's; labels without an annotated
    event are left out.

    Args:
        points: The comparisons at each operating point, of the same annotated events, units and labels.
        cross_weight: alpha_ct.
        spread_weight: alpha_st.
        most: The largest rate, e_max, a label and hour.
        units: Which units; by default all. A resample may hold some several times.

    Raises:
        ValueError: There is no operating point.
    """
    if not points:
        raise ValueError("no operating points; give at least one")
    first = points[0]
    units = np.arange(len(first.seconds)) if units is None else units
    hours = first.seconds[units].sum() / _HOUR
    there = first.there[units].sum(axis=0)
    known = np.flatnonzero(there)
    if not len(known):
        return Psds(math.nan, np.zeros(1), np.full(1, math.nan), most)
    hits = np.stack([point.hits[units].sum(axis=0) for point in points])
    rate = np.stack([point.alarms[units].sum(axis=0) for point in points]) / hours
    if cross_weight:
        heard = first.heard[units].sum(axis=0)[known] / _HOUR
        crossed = np.stack([point.crossed[units].sum(axis=0) for point in points])[:, :, known] / heard
        # The mean over the other labels.
        others = np.array([len(known) - (k in known) for k in range(len(there))])
        rate = rate + cross_weight * crossed.sum(axis=2) / np.maximum(1, others)
    found, rate = hits[:, known] / there[known], rate[:, known]
    steps = np.unique(np.concatenate([[0.0], rate.ravel()]))
    curves = np.stack([_steps(steps, rate[:, k], found[:, k]) for k in range(len(known))])
    curve = np.maximum(0, curves.mean(axis=0) - spread_weight * curves.std(axis=0))
    inside = steps < most
    widths = np.diff(np.append(steps[inside], most))
    return Psds(float((curve[inside] * widths).sum() / most), steps, curve, most)


def _steps(at: NDArray[np.float64], rate: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest share that any operating point with at most so many alarms finds."""
    order = np.argsort(rate, kind="stable")
    best = np.maximum.accumulate(np.concatenate([[0.0], found[order]]))
    return best[np.searchsorted(rate[order], at, side="right")]

"""Bootstrap intervals: how much a metric would vary with other clips of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.plotting import FAINT, INK, PALETTE, clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A metric with its bootstrap interval.

    Attributes:
        value: The metric of all clips.
        low: The interval's lower end; NaN if the metric is undefined.
        high: Its upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap(
    metric: Callable[..., float],
    *arrays: NDArray,
    groups: NDArray | None = None,
    together: bool = True,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    centred: bool = False,
) -> Interval:
    """The bootstrap interval of a metric, by resampling clips with replacement (Efron, 1979).

    The interval is the percentile interval: quantiles of the resampled values. It never leaves the metric's range, and
    a monotone function of the metric has the function of its interval (d' of AUC, for example). It shows how the metric
    would vary with other clips of the same kind, not with another fit.

    A resample holds some clips several times and lacks about a third of them. For most metrics this is harmless. A
    calibration error, however, grows as there are fewer distinct clips to average, so it is larger in a resample than
    in the data. Use ``centred=True`` for such metrics.

    A resample in which the metric is NaN, such as an AUC without a positive clip, is left out. If more than half are,
    the interval is NaN.

    Example:
        >>> right = np.repeat([True, False], [80, 20])
        >>> print(bootstrap(np.mean, right))
        0.800 (0.720 to 0.880)

    Args:
        metric: Called with the arrays, and then with resamples of them.
        *arrays: With the clips along axis 0.
        groups: ``(N,)``, such as the recording that each clip was cut from: whole groups are resampled. Clips of one
            recording are similar, and an interval that treats them as independent is too narrow.
        together: Whether the arrays are of the same clips. Otherwise each is resampled on its own, such as the scores
            of in-distribution and of out-of-distribution clips.
        resamples: How many.
        level: The share of the resampled values that the interval holds.
        seed: Of the random choice.
        centred: Subtract the bias that resampling adds, by its bootstrap estimate: the mean of the resampled values
            minus the value (Efron and Tibshirani, 1993, section 10.2). The bias that the metric has at this number of
            clips stays, in the value and in the interval. The interval is for the metric of equally many other clips,
            not for the smaller calibration error of infinitely many.

    Raises:
        ValueError: The arrays do not fit together, are empty, or a setting makes no sense.
    """
    lengths = [len(array) for array in arrays]
    if together and len(set(lengths)) != 1:
        raise ValueError(f"arrays of {lengths} clips: expected one or more of the same clips")
    if groups is not None and not together:
        raise ValueError("groups are of clips that are resampled together")

    def statistic(*index: NDArray[np.intp]) -> NDArray[np.float64]:
        chosen = index * len(arrays) if together else index
        return np.array([metric(*(array[i] for array, i in zip(arrays, chosen, strict=True)))], dtype=np.float64)

    samples = [Sample(lengths[0], groups)] if together else [Sample(length) for length in lengths]
    (interval,) = percentiles(statistic, samples, resamples, level, seed, np.array([centred]))
    return interval


def paired(
    metric: Callable[..., float],
    a: NDArray,
    b: NDArray,
    *shared: NDArray,
    groups: NDArray | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    centred: bool = False,
) -> Interval:
    """The interval of ``metric(a, *shared) - metric(b, *shared)``, for two sets of predictions of the same clips.

    Both see the same resampled clips. What makes a clip easy or hard for both cancels, so the interval is narrower than
    two separate ones would suggest. If it contains 0, the difference may be due to chance.

    Args:
        metric: Called with ``a`` or ``b`` and the shared arrays.
        a: Predictions, with the N clips along axis 0.
        b: Other predictions for the same clips.
        *shared: Other arrays of the same clips, such as the target.
        groups: As in :func:`bootstrap`.
        resamples: As in :func:`bootstrap`.
        level: As in :func:`bootstrap`.
        seed: As in :func:`bootstrap`.
        centred: As in :func:`bootstrap`.

    Raises:
        ValueError: As in :func:`bootstrap`.
    """

    def difference(a: NDArray, b: NDArray, *shared: NDArray) -> float:
        return metric(a, *shared) - metric(b, *shared)

    return bootstrap(
        difference, a, b, *shared, groups=groups, resamples=resamples, level=level, seed=seed, centred=centred
    )


def plot_intervals(ax: Axes, intervals: Mapping[str, Interval]) -> None:
    """Draw a row for each interval, the first on top: a dot at the value, and a line from low to high.

    A value that is not finite leaves its row empty.

    Args:
        ax: Where to draw.
        intervals: Name to interval, all of one metric or one unit.
    """
    for row, interval in enumerate(intervals.values()):
        if np.isfinite([interval.low, interval.high]).all():
            ax.plot([interval.low, interval.high], [row, row], color=PALETTE[0], linewidth=2, solid_capstyle="butt")
        if np.isfinite(interval.value):
            ax.plot(interval.value, row, "o", color=PALETTE[0], markersize=6)
    if any(interval.low <= 0 <= interval.high for interval in intervals.values()):
        ax.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.set_yticks(range(len(intervals)), list(intervals))
    ax.set_ylim(len(intervals) - 0.5, -0.5)
    ax.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)
    clean(ax)


class Sample:
    """Clips that are resampled together.

    Args:
        clips: N, how many.
        groups: ``(N,)``, the group of each clip, if whole groups are to be resampled.

    Raises:
        ValueError: There are no clips, or ``groups`` is not ``(N,)``.
    """

    def __init__(self, clips: int, groups: NDArray | None = None):
        if not clips:
            raise ValueError("no clips to resample")
        self.clips = clips
        self.members: list[NDArray[np.intp]] | None = None
        if groups is not None:
            if groups.shape != (clips,):
                raise ValueError(f"groups {groups.shape}: expected ({clips},)")
            _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
            self.members = np.split(np.argsort(group, kind="stable"), size.cumsum()[:-1])

    def draw(self, random: np.random.Generator) -> NDArray[np.intp]:
        """The indices of one resample: N clips, or as many whole groups as there are."""
        if self.members is None:
            return random.integers(self.clips, size=self.clips)
        chosen = random.integers(len(self.members), size=len(self.members))
        return np.concatenate([self.members[group] for group in chosen])


def percentiles(
    statistic: Callable[..., NDArray[np.float64]],
    samples: Sequence[Sample],
    resamples: int,
    level: float,
    seed: int,
    centred: NDArray[np.bool_],
) -> list[Interval]:
    """The intervals of M metrics that are computed together; see :func:`bootstrap`.

    Args:
        statistic: Takes the indices of a resample of each sample; returns ``(M,)``.
        samples: What is resampled, each independently.
        resamples: How many.
        level: The share of the resampled values that an interval holds.
        seed: Of the random choice.
        centred: ``(M,)``, which intervals are centred.

    Raises:
        ValueError: ``resamples`` or ``level`` makes no sense.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"{resamples} resamples at level {level}: expected at least one, and a level between 0 and 1")
    random = np.random.default_rng(seed)
    values = statistic(*(np.arange(sample.clips) for sample in samples))
    drawn = np.array([statistic(*(sample.draw(random) for sample in samples)) for _ in range(resamples)])
    intervals = []
    for value, column, moved in zip(values, drawn.T, centred, strict=True):
        defined = column[~np.isnan(column)]
        if np.isnan(value) or 2 * len(defined) < resamples:
            low = high = np.nan
        else:
            # No interpolation: there is nothing between a finite and an infinite value.
            low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
            if moved:
                low, high = np.array([low, high]) - (defined.mean() - value)
        intervals.append(Interval(float(value), float(low), float(high)))
    return intervals

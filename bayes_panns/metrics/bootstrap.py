"""How far a metric could be off for the clips that happened to be there: bootstrap intervals."""

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
        value: the metric of all clips.
        low: the interval's lower end; NaN where the metric is undefined.
        high: its upper end.
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

    The interval is the percentile one: between quantiles of the resampled values. It stays where the metric can be, and
    that of a rising function of a metric is the function of its interval, d' of AUC say; neither holds for value ± 2
    standard errors near a bound, where good metrics are. It shows what other clips of the same kind would change, not
    what another fit would.

    A resample holds some clips twice and lacks a third of them. For most metrics that is harmless: clips that are the
    same count as one with a larger weight. A calibration error, though, is larger the fewer clips there are to average,
    and so larger in a resample than in the data; give ``centred=True`` for those.

    A resample where the metric is NaN, such as an AUC without a positive clip, is left out. Where more than half are,
    the interval is NaN.

    Example:
        >>> right = np.repeat([True, False], [80, 20])
        >>> print(bootstrap(np.mean, right))
        0.800 (0.720 to 0.880)

    Args:
        metric: called with the arrays, and then with resamples of them.
        *arrays: of the clips along axis 0.
        groups: ``(N,)``, such as the recording that each clip was cut from: whole groups are resampled. Clips of one
            recording are alike, and intervals that take them for independent are too narrow.
        together: whether the arrays are of the same clips; otherwise each is resampled on its own, such as scores of
            clips from inside and from outside.
        resamples: how many.
        level: the share of the resampled values that the interval holds.
        seed: of the random choice.
        centred: take off the bias that resampling adds, by its bootstrap estimate: the mean of the resampled values
            less the value (Efron and Tibshirani, 1993, section 10.2). The bias that the metric has for its number of
            clips stays, in the value and in the interval: it is one for what as many other clips would show on average,
            not for the calibration error of endless clips, which is smaller.

    Raises:
        ValueError: the arrays do not fit together, are empty, or a setting makes no sense.
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

    Both see the same resampled clips, so what makes clips easy or hard for both cancels, and the interval is narrower
    than that of two separate ones. A difference whose interval holds 0 may be none.

    Args:
        metric: called with ``a`` or ``b`` and the shared arrays.
        a: of the N clips along axis 0.
        b: of the same clips.
        *shared: of the same clips, such as the target.
        groups: as in :func:`bootstrap`.
        resamples: as in :func:`bootstrap`.
        level: as in :func:`bootstrap`.
        seed: as in :func:`bootstrap`.
        centred: as in :func:`bootstrap`.

    Raises:
        ValueError: as in :func:`bootstrap`.
    """

    def difference(a: NDArray, b: NDArray, *shared: NDArray) -> float:
        return metric(a, *shared) - metric(b, *shared)

    return bootstrap(
        difference, a, b, *shared, groups=groups, resamples=resamples, level=level, seed=seed, centred=centred
    )


def plot_intervals(ax: Axes, intervals: Mapping[str, Interval]) -> None:
    """Draws a dot a value and a line from low to high, a row each, the first on top.

    A value that is not finite leaves its row empty.

    Args:
        ax: where to draw.
        intervals: name to interval, all of one metric or one unit.
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
        groups: ``(N,)``, what each belongs to, where whole groups are resampled.

    Raises:
        ValueError: there are no clips, or ``groups`` is not ``(N,)``.
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
        """Indices of one resample: of N clips, or of as many whole groups as there are."""
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
        statistic: takes the indices of a resample of each sample, returns ``(M,)``.
        samples: resampled independently.
        resamples: how many.
        level: the share of the resampled values that an interval holds.
        seed: of the random choice.
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
            # Values that occurred: between a finite and an infinite one there is nothing to interpolate.
            low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
            if moved:
                low, high = np.array([low, high]) - (defined.mean() - value)
        intervals.append(Interval(float(value), float(low), float(high)))
    return intervals

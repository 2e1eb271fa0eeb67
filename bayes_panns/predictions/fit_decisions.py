"""What decisions need, fitted to predictions for held-out clips: thresholds, usual scores, the confusion.

The rules are in :mod:`bayes_panns.metrics.deciding`; :mod:`bayes_panns.predictions.deciding` applies the result.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import FittedTo, Score, Target, Task
from bayes_panns.core.errors import SettingError, StoreError
from bayes_panns.metrics.counts import confusion, rates
from bayes_panns.metrics.deciding import (
    CONFIDENCE,
    Threshold,
    alarm_threshold,
    independent,
    likeness,
    needed,
    risk_threshold,
    tail,
)
from bayes_panns.posterior import Confusion, Decisions, Usual
from bayes_panns.predictions.tally import plain_calls, ranks
from bayes_panns.predictions.uncertainty import Uncertainty, score_of

SCORE = Score.ENTROPY
"""The score that finds sounds of other kinds; see ``docs/deciding.md`` for how it was chosen."""

OUTSIDE = 0.01
"""The share of windows like the held-out clips that are marked as outside."""

_QUANTILES = 41
_CONTRADICTED = 0.05
"""How improbable a label's own errors must be under the target for it to be left out of the pool, for all labels."""


def fit_decisions(
    uncertainty: Uncertainty,
    target: NDArray[np.bool_],
    *,
    groups: NDArray,
    aim: Target,
    value: float,
    confidence: float = CONFIDENCE,
    seconds: float = 0.0,
    outside: NDArray[np.bool_] | None = None,
) -> Decisions:
    """Fit the thresholds of decisions to predictions for held-out clips.

    For a precision each label is tested with its own clips. The labels for which these are too few, or too often wrong
    to show it, are then tested together, and share a threshold: the precision holds for all their calls, not for each
    label's. A label whose own calls at that threshold contradict the target is taken out, and never decided (where
    there is no such threshold, one whose surer half of calls does); so is one
    that no held-out clip has. For a risk all labels share one threshold. For false alarms each label is tested with all
    clips, since each clip without it is a chance to call it falsely.

    Args:
        uncertainty: The predictions for N clips and K labels.
        target: ``(N, K)``.
        groups: ``(N,)``, the recording of each clip.
        aim: What is to be met.
        value: The precision, the risk, or the false alarms an hour.
        confidence: How often, over sets of held-out clips, a threshold is to meet it.
        seconds: How long a clip is; for false alarms.
        outside: ``(N,)``, the clips that are outside, where nothing is called.

    Raises:
        SettingError: The value is out of range, or the task has no such target.
        StoreError: For false alarms, the clips are too short in all to show so few.
    """
    rate = _rate(aim, value, uncertainty.task, seconds)
    p, calls = uncertainty.probability, plain_calls(uncertainty)
    alike = likeness(~target[calls], groups[np.nonzero(calls)[0]])
    inside = np.ones(len(p), dtype=bool) if outside is None else ~outside
    may = inside[:, None] & (calls if uncertainty.task == Task.ONE_OF_K else np.ones(p.shape, dtype=bool))
    fit = _Fit(p, may, ~target, groups, rate, confidence, alike)
    labels = p.shape[1]
    fitted: list[FittedTo] = [FittedTo.NEVER] * labels
    found: list[Threshold | None] = [None] * labels
    if aim is Target.FALSE_ALARMS:
        worth = float(independent(groups, alike)[-1])
        least = needed(rate, confidence)
        if worth < least:
            raise StoreError(
                f"--false-alarms {value:g}: takes {least * seconds / 3600:.2g} hours of independent held-out sound to "
                f"show with a confidence of {confidence:g}, and there are {worth * seconds / 3600:.2g}; calibrate on "
                f"more clips, or ask for {_rounded_up(-math.log(1 - confidence) / (worth * seconds / 3600)):g} or more"
            )
        for k in range(labels):
            found[k] = fit.alarms(k)
            fitted[k] = FittedTo.NEVER if found[k] is None else FittedTo.OWN
    elif aim is Target.RISK:
        shared = fit.shared(list(range(labels)))
        found = [shared] * labels
        fitted = [FittedTo.NEVER if shared is None else FittedTo.POOLED] * labels
    else:
        seen = np.flatnonzero(target.any(axis=0)).tolist()
        for k in seen:
            found[k] = fit.shared([k])
            if found[k] is not None:
                fitted[k] = FittedTo.OWN
        pool = [k for k in seen if found[k] is None]
        shared, pool = fit.pooled(pool)
        for k in pool if shared is not None else []:
            found[k], fitted[k] = shared, FittedTo.POOLED
    thresholds = [1.0 if each is None else each.value for each in found]
    called = (p >= np.array(thresholds)) & may & (np.array(fitted) != FittedTo.NEVER)
    scale = 3600 / seconds if aim is Target.FALSE_ALARMS else 1.0
    return Decisions(
        target=aim,
        value=value,
        confidence=confidence,
        threshold=tuple(thresholds),
        fitted=tuple(fitted),
        called=tuple(called.sum(axis=0).tolist()),
        wrong=tuple((called & ~target).sum(axis=0).tolist()),
        bound=tuple(0.0 if each is None else each.bound * scale for each in found),
        clips=len(p),
        recordings=len(np.unique(groups)),
        alike=alike,
    )


def usual_scores(uncertainty: Uncertainty, groups: NDArray, *, score: Score = SCORE, level: float = OUTSIDE) -> Usual:
    """How a score is distributed among held-out clips, and beyond what a window is outside.

    The limit is that of a conformal p-value: a new clip like these is above it with probability ``level`` at most. With
    fewer than 1 / level clips it is the largest score, and the level is 1 / (clips + 1).

    Args:
        uncertainty: The predictions for N clips.
        groups: ``(N,)``, the recording of each clip.
        score: Which score.
        level: The share of windows like these clips that may be marked.
    """
    values = np.sort(score_of(uncertainty, score))
    clips = len(values)
    place = math.ceil((clips + 1) * (1 - level) - 1e-9)
    usual = Usual(
        score=score,
        limit=float(values[min(place, clips) - 1]),
        level=level if place <= clips else 1 / (clips + 1),
        quantiles=tuple(np.quantile(values, np.linspace(0, 1, _QUANTILES)).tolist()),
        recordings=len(np.unique(groups)),
        mean=0.5,
        deviation=0.0,
        clips=clips,
    )
    _, number, size = np.unique(groups, return_inverse=True, return_counts=True)
    mean = np.bincount(number, ranks(usual, uncertainty)) / size
    deviation = float(mean.std(ddof=1)) if len(mean) > 1 else 0.0
    return usual.model_copy(update={"mean": float(np.clip(mean.mean(), 0, 1)), "deviation": deviation})


def fit_confusion(
    uncertainty: Uncertainty, target: NDArray[np.bool_], *, groups: NDArray, outside: NDArray[np.bool_] | None = None
) -> Confusion:
    """How held-out clips of each kind are called, without any threshold of a decision.

    Args:
        uncertainty: The predictions for N clips and K labels.
        target: ``(N, K)``.
        groups: ``(N,)``, the recording of each clip.
        outside: ``(N,)``, the clips that are outside; they are not counted.
    """
    calls = plain_calls(uncertainty)
    alike = likeness(~target[calls], groups[np.nonzero(calls)[0]])
    inside = np.ones(len(target), dtype=bool) if outside is None else ~outside
    calls, target, groups = calls[inside], target[inside], groups[inside]
    sizes = np.unique(groups, return_counts=True)[1]
    span = float((sizes**2).sum() / max(1, len(groups))) or 1.0
    worth = []
    for k in range(target.shape[1]):
        own = groups[target[:, k]]
        worth.append(float(independent(own, alike)[-1]) / len(own) if len(own) else 1.0)
    if uncertainty.task == Task.ONE_OF_K:
        table = confusion(calls, target)
        cells = tuple((int(i), int(j), int(table[i, j])) for i, j in np.argwhere(table))
        return Confusion(cells=cells, worth=tuple(worth), alike=alike, span=span)
    four = tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in rates(calls, target).reshape(-1, 4))
    return Confusion(rates=four, worth=tuple(worth), alike=alike, span=span)


class _Fit:
    """The tests of one fit: probabilities, possible calls, whether these would be wrong, all ``(N, K)``."""

    def __init__(
        self,
        p: NDArray[np.float64],
        may: NDArray[np.bool_],
        wrong: NDArray[np.bool_],
        groups: NDArray,
        rate: float,
        confidence: float,
        alike: float,
    ):
        self.p, self.may, self.wrong, self.groups = p, may, wrong, groups
        self.rate, self.confidence, self.alike = rate, confidence, alike

    def alarms(self, k: int) -> Threshold | None:
        """A threshold for the false alarms of a label."""
        score = np.where(self.may[:, k], self.p[:, k], -np.inf)
        return alarm_threshold(
            score, self.wrong[:, k], self.rate, groups=self.groups, alike=self.alike, confidence=self.confidence
        )

    def shared(self, labels: list[int]) -> Threshold | None:
        """One threshold for the calls of some labels."""
        clip, column = np.nonzero(self.may[:, labels])
        label = np.array(labels, dtype=np.intp)[column]
        return risk_threshold(
            self.p[clip, label],
            self.wrong[clip, label],
            self.rate,
            groups=self.groups[clip],
            alike=self.alike,
            confidence=self.confidence,
        )

    def pooled(self, pool: list[int]) -> tuple[Threshold | None, list[int]]:
        """One threshold for labels that have none of their own, and those of them that it is for."""
        while pool:
            found = self.shared(pool)
            level = _CONTRADICTED / len(pool)
            against = [
                k for k in pool if self._contradicted(k, self._middle(k) if found is None else found.value, level)
            ]
            if not against:
                return found, pool
            pool = [k for k in pool if k not in against]
        return None, []

    def _middle(self, k: int) -> float:
        """The threshold of the surer half of a label's possible calls."""
        possible = self.p[self.may[:, k], k]
        return float(np.median(possible)) if len(possible) else 1.0

    def _contradicted(self, k: int, threshold: float, level: float) -> bool:
        """Whether the calls of a label are too often wrong to be at the target by chance."""
        called = self.may[:, k] & (self.p[:, k] >= threshold)
        if not called.any():
            return False
        worth = float(independent(self.groups[called], self.alike)[-1])
        right = float((~self.wrong[called, k]).mean()) * worth
        # P(at most so many right) at a share 1 - rate of right ones.
        return bool(tail(right, worth, 1 - self.rate) < level) if right < worth else False


def _rounded_up(value: float) -> float:
    """A number with two digits that is not below the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value * 1.001 / step) * step


def _rate(aim: Target, value: float, task: str, seconds: float) -> float:
    """The rate of errors that a target allows: among the calls, or for false alarms among all clips."""
    if aim is not Target.FALSE_ALARMS and not 0 < value < 1:
        raise SettingError(f"--{aim} {value:g}: expected a share between 0 and 1")
    if aim is Target.RISK and task != Task.ONE_OF_K:
        raise SettingError(
            f"--risk is the share of decided windows that are wrong, for {Task.ONE_OF_K}; use --precision"
        )
    if aim is Target.PRECISION:
        return 1 - value
    if aim is Target.RISK:
        return value
    if seconds <= 0:
        raise SettingError("--false-alarms: embeddings have no length, so there are no hours; use --precision")
    rate = value * seconds / 3600
    if not 0 < rate < 1:
        raise SettingError(
            f"--false-alarms {value:g}: expected a number an hour, up to one in each clip of {seconds:g} s"
        )
    return rate

"""Every metric of a posterior's predictions as one flat mapping, with bootstrap intervals and paired comparisons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import Task
from bayes_panns.metrics.bootstrap import LEVEL, RESAMPLES, Interval, Sample, percentiles
from bayes_panns.metrics.calibration import ace, classwise_ece, ece
from bayes_panns.metrics.checks import check_pair
from bayes_panns.metrics.classification import (
    accuracy,
    clip_loss,
    d_prime,
    mean_auc,
    mean_average_precision,
)
from bayes_panns.metrics.detection import detection
from bayes_panns.metrics.scoring import brier, brier_split, nll
from bayes_panns.metrics.selection import pavpu, risk_coverage
from bayes_panns.predictions.uncertainty import Uncertainty, scores

RISK = 0.05
"""The risk of ``sc/coverage_at_5_percent_risk``."""

BIASED = (
    "cls/map",
    "cal/ece",
    "cal/ace",
    "cal/classwise_ece",
    "cal/brier_reliability",
    "cal/brier_resolution",
    "cal/brier_uncertainty",
)
"""The metrics that resampling biases: their intervals are centred, and cut off at 0, below which none can be."""


def evaluate(
    uncertainty: Uncertainty, target: NDArray[np.bool_], task: str, ood: Uncertainty | None = None
) -> dict[str, Any]:
    """Every metric that applies, under the names of ``evaluate --json``.

    - ``cls/*``, classification: ``accuracy`` for one-of-K only; ``map``, ``auc`` and ``d_prime``, which is infinite at
      a perfect AUC. The means are over the labels that have a positive clip (``auc``: and a negative one), so a set of
      clips that lacks some labels can be scored.
    - ``cal/*``, calibration: ``ece``, ``ace``, ``classwise_ece`` (the mean over the labels), ``nll``, ``brier`` and its
      parts ``brier_reliability``, ``brier_resolution``, ``brier_uncertainty``.
    - ``sc/*``, selective classification: ``aurc``, ``augrc``, ``coverage_at_5_percent_risk``. Clips are rejected by
      the probability of their most probable label for one-of-K, and by their entropy for multi-label;
      ``sc/aurc_<score>`` uses the other :func:`~bayes_panns.predictions.scores`. The loss is
      :func:`~bayes_panns.metrics.clip_loss`: an error, or 1 minus the label-ranking average precision. For ``pavpu``,
      clips below the middle of the entropy's range are certain, and clips with any loss are wrong.
    - ``unc/*``, uncertainty: the mean over the clips of :meth:`Uncertainty.per_clip`, and of the entropies in nats.
    - ``ood/*``, out-of-distribution detection: ``auroc``, ``aupr`` and ``fpr95`` by the predictive entropy;
      ``ood/<metric>_<score>`` by the other scores.
    - ``draws`` and ``clips``: how many there are.

    An undefined metric is NaN.

    Args:
        uncertainty: The predictions for N clips and K labels.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``; that of ``uncertainty``.
        ood: The same posterior's predictions for clips that have none of the labels.

    Raises:
        ValueError: Shapes, labels or tasks do not fit together.
    """
    metrics = _Predictions.of(uncertainty, target, task, ood).metrics(slice(None), slice(None))
    return metrics | {"draws": uncertainty.draws, "clips": len(target)}


def intervals(
    uncertainty: Uncertainty,
    target: NDArray[np.bool_],
    task: str,
    ood: Uncertainty | None = None,
    *,
    groups: NDArray | None = None,
    ood_groups: NDArray | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """:func:`evaluate` with a bootstrap interval for every metric, from the same resamples.

    The intervals are those of :func:`~bayes_panns.metrics.bootstrap`, centred for the metrics of :data:`BIASED`: those
    are intervals for equally many other clips, on which even a calibrated model has a calibration error. In a resample
    without some label, a mean over labels is over the others. 1000 resamples of 400 clips, 10 labels and 300
    out-of-distribution clips take 5 s on one core.

    Args:
        uncertainty: The predictions for N clips and K labels.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``; that of ``uncertainty``.
        ood: The predictions for clips that have none of the labels; they are resampled on their own.
        groups: ``(N,)``, such as the recording that each clip was cut from: whole groups are resampled.
        ood_groups: The same for the clips of ``ood``.
        resamples: How many.
        level: The share of the resampled values that an interval holds.
        seed: Of the random choice.

    Raises:
        ValueError: As :func:`evaluate` and :func:`~bayes_panns.metrics.bootstrap`.
    """
    predictions = _Predictions.of(uncertainty, target, task, ood)
    found = _intervals(predictions.metrics, predictions, (groups, ood_groups), resamples, level, seed)
    return {
        name: Interval(each.value, *np.maximum([each.low, each.high], 0).tolist()) if name in BIASED else each
        for name, each in found.items()
    }


def compare(
    a: Uncertainty,
    b: Uncertainty,
    target: NDArray[np.bool_],
    task: str,
    ood: tuple[Uncertainty, Uncertainty] | None = None,
    *,
    groups: NDArray | None = None,
    ood_groups: NDArray | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """The difference a - b of every metric of two sets of predictions of the same clips, with paired intervals.

    Both see the same resampled clips, as in :func:`~bayes_panns.metrics.paired`.

    Args:
        a: The predictions for N clips and K labels.
        b: Those of another posterior, for the same clips and labels in the same order.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"`` or ``"multi-label"``; that of both.
        ood: The predictions of each for the same out-of-distribution clips.
        groups: As in :func:`intervals`.
        ood_groups: As in :func:`intervals`.
        resamples: As in :func:`intervals`.
        level: As in :func:`intervals`.
        seed: As in :func:`intervals`.

    Raises:
        ValueError: As :func:`intervals`; or the two have different numbers of out-of-distribution clips.
    """
    outside = (None, None) if ood is None else ood
    first, second = (_Predictions.of(each, target, task, out) for each, out in zip((a, b), outside, strict=True))
    if first.outside_clips != second.outside_clips:
        raise ValueError(
            f"{first.outside_clips} and {second.outside_clips} out-of-distribution clips: expected the same ones"
        )

    def difference(inside: NDArray[np.intp], outside: NDArray[np.intp]) -> dict[str, float]:
        one, two = first.metrics(inside, outside), second.metrics(inside, outside)
        return {name: one[name] - two[name] for name in one}

    return _intervals(difference, first, (groups, ood_groups), resamples, level, seed)


@dataclass(frozen=True)
class _Predictions:
    """The arrays that the metrics need, quick to index."""

    probability: NDArray[np.float64]
    target: NDArray[np.bool_]
    task: str
    scores: dict[str, NDArray[np.float64]]
    outside: dict[str, NDArray[np.float64]] | None

    @classmethod
    def of(
        cls, uncertainty: Uncertainty, target: NDArray[np.bool_], task: str, ood: Uncertainty | None
    ) -> _Predictions:
        if task != uncertainty.task:
            raise ValueError(f"task {task!r}, but the predictions are {uncertainty.task!r}")
        p = uncertainty.probability
        check_pair(p, target)
        if ood is not None and (ood.task, ood.probability.shape[1]) != (task, p.shape[1]):
            raise ValueError("the out-of-distribution predictions are of another task or other labels")
        return cls(p, target, task, scores(uncertainty), None if ood is None else scores(ood))

    @property
    def outside_clips(self) -> int:
        return 0 if self.outside is None else len(self.outside["entropy"])

    def metrics(self, inside: NDArray[np.intp] | slice, outside: NDArray[np.intp] | slice) -> dict[str, float]:
        """The metrics of some of the clips."""
        p, target, task = self.probability[inside], self.target[inside], self.task
        score = {name: values[inside] for name, values in self.scores.items()}
        metrics = {"cls/accuracy": accuracy(p, target)} if task == Task.ONE_OF_K else {}
        auc = mean_auc(p, target)
        metrics |= {"cls/map": mean_average_precision(p, target), "cls/auc": auc, "cls/d_prime": d_prime(auc)}
        metrics |= {"cal/ece": ece(p, target, task), "cal/ace": ace(p, target, task)}
        metrics |= {"cal/classwise_ece": float(classwise_ece(p, target).mean())}
        metrics |= {"cal/nll": nll(p, target, task), "cal/brier": brier(p, target, task)}
        split = brier_split(p, target, task)
        metrics |= {f"cal/brier_{part}": getattr(split, part) for part in ("reliability", "resolution", "uncertainty")}
        loss = clip_loss(p, target, task)
        first = next(iter(score))
        curve = risk_coverage(score[first], loss)
        metrics |= {"sc/aurc": curve.aurc, "sc/augrc": curve.augrc}
        metrics["sc/coverage_at_5_percent_risk"] = curve.coverage_at(RISK)
        certain = pavpu(score["entropy"], loss > 0)
        metrics["sc/pavpu"] = certain.at(certain.middle)
        metrics |= {f"sc/aurc_{name}": risk_coverage(score[name], loss).aurc for name in score if name != first}
        metrics |= {f"unc/{name}": float(values.mean()) for name, values in score.items() if name != "confidence"}
        if self.outside is not None:
            for name in ("entropy", *(name for name in score if name != "entropy")):
                found = detection(score[name], self.outside[name][outside])
                suffix = "" if name == "entropy" else f"_{name}"
                metrics |= {f"ood/{part}{suffix}": getattr(found, part) for part in ("auroc", "aupr", "fpr95")}
        return metrics


def _intervals(
    metrics: Callable[[Any, Any], dict[str, float]],
    predictions: _Predictions,
    groups: tuple[NDArray | None, NDArray | None],
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Interval]:
    names = list(metrics(slice(None), slice(None)))
    samples = [Sample(len(predictions.target), groups[0])]
    if predictions.outside_clips:
        samples.append(Sample(predictions.outside_clips, groups[1]))

    def statistic(inside: NDArray[np.intp], outside: NDArray[np.intp] | slice = slice(0)) -> NDArray[np.float64]:
        return np.array(list(metrics(inside, outside).values()))

    centred = np.isin(names, BIASED)
    return dict(zip(names, percentiles(statistic, samples, resamples, level, seed, centred), strict=True))

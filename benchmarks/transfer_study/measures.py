"""Metrics of a row and paired differences between rows, with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.errors import BayesPannsError
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import Interval, aurc, auroc, ece, paired, top_label
from bayes_panns.metrics.bootstrap import LEVEL, Sample, percentiles
from bayes_panns.metrics.scoring import EPSILON
from benchmarks.transfer_study.out_of_distribution import KINDS, OutOfDistribution
from benchmarks.transfer_study.results import Result

METRIC_NAMES = {
    "accuracy": "accuracy",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "aurc": "AURC",
    "near_entropy": "near, H",
    "near_mutual_information": "near, MI",
    "speech_entropy": "speech, H",
    "speech_mutual_information": "speech, MI",
}
"""The metrics of a row, and their names in the tables."""


_SCORES = ("entropy", "mutual_information")
_NONE = np.empty(0)


@dataclass(frozen=True)
class _Clips:
    """What the metrics need of an evaluation of N one-of-K clips, as arrays that a resample can index."""

    probability: NDArray[np.float64]
    target: NDArray[np.bool_]
    task: str
    right: NDArray[np.float64]
    confidence: NDArray[np.float64]
    nll: NDArray[np.float64]
    brier: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]
    outside: dict[tuple[str, str], NDArray[np.float64]]

    @classmethod
    def of(cls, evaluation: Evaluation, outside: OutOfDistribution) -> "_Clips":
        uncertainty, target = evaluation.uncertainty, evaluation.target
        assert evaluation.ood is not None
        p = uncertainty.probability
        confidence, right = top_label(p, target)
        return cls(
            probability=p,
            target=target,
            task=evaluation.task,
            right=right.astype(float),
            confidence=confidence.astype(float),
            nll=-np.log(np.maximum(p[target], EPSILON)),
            brier=((p - target) ** 2).sum(axis=1),
            scores={score: getattr(uncertainty, score) for score in _SCORES},
            outside={
                (kind, score): getattr(evaluation.ood, score)[outside.of(evaluation, kind)]
                for kind in outside.present
                for score in _SCORES
            },
        )

    def metrics(self, inside: NDArray[np.intp], **outside: NDArray[np.intp]) -> list[float]:
        """The metrics in the order of :data:`METRIC_NAMES`; NaN for a kind without clips, or if all scores are 0."""
        right = self.right[inside]
        found = [right.mean(), self.nll[inside].mean(), self.brier[inside].mean()]
        found += [
            ece(self.probability[inside], self.target[inside], self.task),
            aurc(-self.confidence[inside], 1 - right),
        ]
        for kind in KINDS:
            for score in _SCORES:
                known, strange = self.scores[score], self.outside.get((kind, score), _NONE)
                some = len(strange) and (known.any() or strange.any())
                found.append(auroc(known[inside], strange[outside[kind]]) if some else np.nan)
        return found


def measure(result: Result, outside: OutOfDistribution, resamples: int) -> dict[str, Interval]:
    """The metrics of a row, with bootstrap intervals over recordings.

    A metric is the mean of the metrics of the seeds. A resample takes the same recordings for every seed. The interval
    of the ECE is centred, since the ECE of a resample is biased.
    """
    first = result.runs[0]
    prepared = [_Clips.of(each, outside) for each in result.runs]
    samples = [Sample(len(first.names), first.groups)]
    for kind in outside.present:
        groups = outside.groups(first, kind)
        samples.append(Sample(len(groups), groups))

    def statistic(inside: NDArray[np.intp], *strange: NDArray[np.intp]) -> NDArray[np.float64]:
        outer = dict(zip(outside.present, strange, strict=True))
        return np.mean([each.metrics(inside, **outer) for each in prepared], axis=0)

    centred = np.array([name == "ece" for name in METRIC_NAMES])
    found = dict(zip(METRIC_NAMES, percentiles(statistic, samples, resamples, LEVEL, 0, centred), strict=True))
    bounds = found["ece"]
    return found | {"ece": Interval(bounds.value, max(bounds.low, 0), max(bounds.high, 0))}


def difference(a: Result, b: Result, what: str, outside: OutOfDistribution, resamples: int) -> Interval:
    """The paired difference a - b of two rows in ``right`` (accuracy) or ``nll``, each the mean over its seeds.

    Raises:
        BayesPannsError: The two have not the same clips in the same order.
    """
    first = a.runs[0]
    if any(each.names != first.names for each in [*a.runs, *b.runs]):
        raise BayesPannsError(f"{a.name} and {b.name} do not have the same clips in the same order")
    one, two = (np.mean([getattr(_Clips.of(each, outside), what) for each in line.runs], axis=0) for line in (a, b))
    return paired(_mean, one, two, groups=first.groups, resamples=resamples)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())

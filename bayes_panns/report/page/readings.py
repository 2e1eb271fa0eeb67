"""What the metrics of an evaluation say, in one sentence each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.clips import Task
from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import Interval, clip_loss
from bayes_panns.report.formatting import number, percent, span
from bayes_panns.report.names import MetricName, metric_name

HEADLINES = (
    "cls/accuracy",
    "cls/map",
    "cal/ece",
    "cal/nll",
    "sc/aurc",
    "sc/coverage_at_5_percent_risk",
    "unc/epistemic",
    "ood/auroc",
)
"""The metrics that a page starts with, where they are defined; see :func:`main_metrics`."""


@dataclass(frozen=True)
class Headline:
    """A metric of an evaluation and what it says.

    Attributes:
        metric: Its name in ``evaluate --json``.
        name: Its names for people.
        interval: Its value and its bootstrap interval.
        reading: One sentence; may be empty.
    """

    metric: str
    name: MetricName
    interval: Interval
    reading: str

    @property
    def value(self) -> str:
        """The value as shown."""
        return number(self.interval.value)

    @property
    def ends(self) -> str:
        """The interval as shown; empty where there is none."""
        return span(self.interval)


def main_metrics(known: Mapping[str, object]) -> list[str]:
    """Those of :data:`HEADLINES` that are known, without mean average precision beside an accuracy."""
    chosen = [metric for metric in HEADLINES if metric in known]
    return [metric for metric in chosen if metric != "cls/map" or "cls/accuracy" not in chosen]


def headlines(evaluation: Evaluation, intervals: Mapping[str, Interval]) -> list[Headline]:
    """The main metrics that are defined."""
    defined = {metric: interval for metric, interval in intervals.items() if not math.isnan(interval.value)}
    return [headline(evaluation, metric, defined[metric]) for metric in main_metrics(defined)]


def headline(evaluation: Evaluation, metric: str, interval: Interval) -> Headline:
    """A metric of an evaluation, with a sentence on these clips if there is one, or on the metric in general."""
    name = metric_name(metric)
    specific = _READINGS.get(metric)
    if specific is None or not math.isfinite(interval.value):
        return Headline(metric, name, interval, name.reading)
    return Headline(metric, name, interval, specific(evaluation, interval.value))


def correct(evaluation: Evaluation) -> NDArray[np.bool_]:
    """``(N,)``, whether a clip has the label that is most probable for it."""
    p = evaluation.uncertainty.probability
    return evaluation.target[np.arange(len(p)), p.argmax(axis=1)]


def one_of_k(evaluation: Evaluation) -> bool:
    """Whether every clip has exactly one label."""
    return evaluation.task == Task.ONE_OF_K


def _accuracy(evaluation: Evaluation, value: float) -> str:
    hits, clips = int(correct(evaluation).sum()), len(evaluation.names)
    common = evaluation.target.mean(axis=0).max()
    return (
        f"{hits} of {clips} {'clip is' if clips == 1 else 'clips are'} classified correctly. "
        f"Always predicting the most common label would be correct for {percent(common)}."
    )


def _map(evaluation: Evaluation, value: float) -> str:
    counts = evaluation.target.sum(axis=0)
    chance = evaluation.target[:, counts > 0].mean()
    return f"{metric_name('cls/map').reading} A random ranking gives {chance:.2f}."


def _ece(evaluation: Evaluation, value: float) -> str:
    p = evaluation.uncertainty.probability
    if one_of_k(evaluation):
        gap = p.max(axis=1).mean() - correct(evaluation).mean()
        what = "Confidence and accuracy"
    else:
        gap = (p - evaluation.target).mean()
        what = "Predicted probabilities and observed frequencies"
    if abs(gap) <= 0.005:
        overall = "neither overconfident nor underconfident"
    else:
        overall = "overconfident" if gap > 0 else "underconfident"
    return f"{what} differ by {100 * value:.1f} percentage points, averaged over bins. Overall, the model is {overall}."


def _nll(evaluation: Evaluation, value: float) -> str:
    if one_of_k(evaluation):
        baseline = math.log(len(evaluation.labels))
        guess = "A uniform prediction"
    else:
        share = np.clip(evaluation.target.mean(axis=0), 1e-12, 1 - 1e-12)
        baseline = float(-(share * np.log(share) + (1 - share) * np.log(1 - share)).sum())
        guess = "Always predicting each label's frequency"
    return f"{metric_name('cal/nll').reading} {guess} gives {baseline:.2f}."


def _aurc(evaluation: Evaluation, value: float) -> str:
    risk = "error rate" if one_of_k(evaluation) else "loss"
    loss = clip_loss(evaluation.uncertainty.probability, evaluation.target, evaluation.task).mean()
    return (
        f"The {risk} among the clips kept, averaged over all coverages, when the least certain clips are rejected "
        f"first. Rejecting at random gives {loss:.3f}."
    )


def _coverage(evaluation: Evaluation, value: float) -> str:
    risk = "an error rate" if one_of_k(evaluation) else "a mean loss"
    if value == 0:
        return f"No share of the clips, most certain first, has {risk} of at most 5 %."
    return f"The most certain {percent(value)} of the clips have {risk} of at most 5 %."


def _epistemic(evaluation: Evaluation, value: float) -> str:
    total = evaluation.metrics["unc/total"]
    if evaluation.metrics["draws"] in (0, 1):
        return "A single prediction has no draws to compare, so epistemic uncertainty is not measured."
    share = value / total if total else 0.0
    return (
        f"The variance between the draws of the weights is {percent(share)} of the total variance, {number(total)}. "
        "The rest is aleatoric."
    )


def _auroc(evaluation: Evaluation, value: float) -> str:
    return (
        f"An out-of-distribution clip has a higher entropy than a known clip in {percent(value)} of all pairs; "
        f"{percent(0.5)} is chance."
    )


def _fpr(evaluation: Evaluation, value: float) -> str:
    return (
        f"Flagging {percent(0.95)} of the out-of-distribution clips by their entropy also flags {percent(value)} of "
        "the known clips."
    )


_READINGS: dict[str, Callable[[Evaluation, float], str]] = {
    "cls/accuracy": _accuracy,
    "cls/map": _map,
    "cal/ece": _ece,
    "cal/nll": _nll,
    "sc/aurc": _aurc,
    "sc/coverage_at_5_percent_risk": _coverage,
    "unc/epistemic": _epistemic,
    "ood/auroc": _auroc,
    "ood/fpr95": _fpr,
}
"""Sentences on the clips at hand, from the evaluation and the metric's value."""

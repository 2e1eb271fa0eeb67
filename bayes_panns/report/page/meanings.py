"""What the numbers of an evaluation mean, in a sentence each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import Interval, clip_loss
from bayes_panns.report.figures import NAMES
from bayes_panns.report.page.clips import right

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
"""The metrics that a page starts with, where they are defined; a mean average precision only without an accuracy."""


_LONG = {
    "cal/ece": "calibration error (ECE)",
    "sc/aurc": "risk over coverage (AURC)",
    "ood/auroc": "out of distribution, AUROC",
}
"""Names that say more than the pictures have room for."""


@dataclass(frozen=True)
class Headline:
    """A number and what it means.

    Attributes:
        metric: Its name in ``evaluate --json``.
        title: Its name for people.
        better: ``higher``, ``lower`` or nothing.
        interval: Its value and its bootstrap interval.
        meaning: One sentence.
    """

    metric: str
    title: str
    better: str
    interval: Interval
    meaning: str

    @property
    def value(self) -> str:
        """The value as shown."""
        return number(self.interval.value)

    @property
    def ends(self) -> str:
        """The interval as shown; empty where there is none."""
        return span(self.interval)


def number(value: float) -> str:
    """Three decimals, fewer for what is large."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "∞" if value > 0 else "−∞"
    shown = f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"
    return shown.replace("-", "−")


def percent(share: float) -> str:
    """A share of 1 as a whole number of per cent."""
    return f"{100 * share:.0f}\u00a0%"


def span(interval: Interval) -> str:
    """An interval's ends; empty where they are undefined."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"{number(interval.low)} to {number(interval.high)}"


def name(metric: str) -> tuple[str, str]:
    """What a metric is called where there is room for its name, and which way is better."""
    title, better = NAMES.get(metric, (metric, ""))
    return _LONG.get(metric, title), better


def headlines(evaluation: Evaluation, intervals: Mapping[str, Interval]) -> list[Headline]:
    """The numbers that matter most, those of :data:`HEADLINES`."""
    chosen = [metric for metric in HEADLINES if metric in intervals and not math.isnan(intervals[metric].value)]
    if "cls/accuracy" in chosen:
        chosen.remove("cls/map")
    return [every(evaluation, metric, intervals[metric]) for metric in chosen]


def every(evaluation: Evaluation, metric: str, interval: Interval) -> Headline:
    """Any metric of an evaluation, with its meaning where there is one to tell."""
    title, better = name(metric)
    return Headline(metric, title, better, interval, _meaning(evaluation, metric, interval.value))


def _meaning(evaluation: Evaluation, metric: str, value: float) -> str:
    if not math.isfinite(value):
        return ""
    return _SENTENCES.get(metric, lambda evaluation, value: "")(evaluation, value)


def _accuracy(evaluation: Evaluation, value: float) -> str:
    hits, clips = int(right(evaluation).sum()), len(evaluation.names)
    common = evaluation.target.mean(axis=0).max()
    return (
        f"{hits} of {clips} clips get their label; always saying the most common one would get {percent(common)} right."
    )


def _map(evaluation: Evaluation, value: float) -> str:
    counts = evaluation.target.sum(axis=0)
    chance = evaluation.target[:, counts > 0].mean()
    return f"How far a label's clips come before all others, averaged over the labels; by chance {chance:.2f}."


def _ece(evaluation: Evaluation, value: float) -> str:
    p = evaluation.uncertainty.probability
    if evaluation.task == "one-of-k":
        gap = p.max(axis=1).mean() - right(evaluation).mean()
        told, true = "sure", "right"
    else:
        gap = (p - evaluation.target).mean()
        told, true = "probable", "true"
    side = "too sure" if gap > 0.005 else "not sure enough" if gap < -0.005 else "neither too sure nor too unsure"
    return (
        f"How {told} it says it is and how often it is {true} are {100 * value:.1f} points apart, bin by bin; "
        f"on the whole it is {side}."
    )


def _nll(evaluation: Evaluation, value: float) -> str:
    if evaluation.task == "one-of-k":
        guess = math.log(len(evaluation.labels))
        blind = f"calling all {len(evaluation.labels)} labels equally likely costs {guess:.2f}"
    else:
        share = np.clip(evaluation.target.mean(axis=0), 1e-12, 1 - 1e-12)
        guess = float(-(share * np.log(share) + (1 - share) * np.log(1 - share)).sum())
        blind = f"knowing only how common each label is costs {guess:.2f}"
    return f"Nats of surprise at a clip's true labels: {blind}."


def _aurc(evaluation: Evaluation, value: float) -> str:
    what = "Errors" if evaluation.task == "one-of-k" else "Loss"
    loss = clip_loss(evaluation.uncertainty.probability, evaluation.target, evaluation.task).mean()
    return f"{what} among the clips kept, averaged over how many are kept; an order by chance gives {loss:.3f}."


def _coverage(evaluation: Evaluation, value: float) -> str:
    what = "errors" if evaluation.task == "one-of-k" else "loss"
    if value == 0:
        return f"However few clips it keeps, the surest first, {what} among them exceed 5 %."
    return f"It can keep {percent(value)} of these clips, the surest, with at most 5 % {what} among them."


def _epistemic(evaluation: Evaluation, value: float) -> str:
    total = evaluation.metrics["unc/total"]
    if value == 0:
        return "There is one prediction and no draws, so nothing is known of what the model does not know."
    share = value / total if total else 0.0
    return f"The draws' disagreement: {percent(share)} of the total variance {total:.3f}. On the rest the draws agree."


def _auroc(evaluation: Evaluation, value: float) -> str:
    return (
        f"A clip out of distribution looks more uncertain than a known one {percent(value)} of the time, by entropy; "
        f"guessing is {percent(0.5)}."
    )


_SENTENCES = {
    "cls/accuracy": _accuracy,
    "cls/map": _map,
    "cls/auc": lambda _, value: f"A clip with a label outscores one without it {percent(value)} of the time.",
    "cls/d_prime": lambda *_: "The same AUC as a distance between two bell curves, in standard deviations.",
    "cal/ece": _ece,
    "cal/ace": lambda *_: "ECE over bins that hold equally many predictions.",
    "cal/classwise_ece": lambda *_: "The calibration error of each label's probability, averaged over the labels.",
    "cal/nll": _nll,
    "cal/brier": lambda *_: "Squared error of the probabilities: reliability − resolution + uncertainty.",
    "cal/brier_reliability": lambda *_: "The part of the Brier score that recalibration could remove.",
    "cal/brier_resolution": lambda *_: "What telling clips apart takes off the Brier score.",
    "cal/brier_uncertainty": lambda *_: "The Brier score of knowing only how common the labels are.",
    "sc/aurc": _aurc,
    "sc/augrc": lambda *_: "How often a clip is both kept and wrong, averaged over how many are kept.",
    "sc/coverage_at_5_percent_risk": _coverage,
    "sc/pavpu": lambda _, value: f"{percent(value)} of the clips are certain and right, or uncertain and wrong.",
    "unc/total": lambda *_: "p (1 − p), summed over the labels: aleatoric + epistemic.",
    "unc/aleatoric": lambda *_: "What every draw finds ambiguous in the sound.",
    "unc/epistemic": _epistemic,
    "unc/entropy": lambda *_: "Of the mean prediction: expected entropy + mutual information.",
    "unc/expected_entropy": lambda *_: "The draws' own entropy, averaged.",
    "unc/mutual_information": lambda *_: "Between a clip's label and the weights: what the draws disagree on.",
    "ood/auroc": _auroc,
    "ood/aupr": lambda *_: "Average precision of finding clips out of distribution by their entropy.",
    "ood/fpr95": lambda _, value: f"To flag 95 % of the strange clips takes {percent(value)} of the known ones along.",
}
"""A metric's sentence, from the evaluation and the value."""

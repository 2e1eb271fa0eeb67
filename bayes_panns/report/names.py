"""What each metric is called, which direction is better, and how to read it.

Figures, tables, LaTeX and the page all take their names from :data:`METRIC_NAMES`.
"""

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class MetricName:
    """The names of a metric.

    Attributes:
        title: Its standard name with its abbreviation, for headings and tables.
        short: Its abbreviation, for axes and narrow columns.
        better: ``higher`` or ``lower``; empty where neither is better.
        reading: One sentence that says how to read it; may be empty.
        unit: Its unit; empty for a number without one.
    """

    title: str
    short: str
    better: Better
    reading: str
    unit: str = ""

    @property
    def axis(self) -> str:
        """The abbreviation with its unit, such as ``NLL / nats``."""
        return f"{self.short} / {self.unit}" if self.unit else self.short

    @property
    def arrow(self) -> str:
        """``↑`` where higher is better, ``↓`` where lower is better."""
        return {"higher": "↑", "lower": "↓", "": ""}[self.better]


METRIC_NAMES: dict[str, MetricName] = {
    "cls/accuracy": MetricName(
        "Accuracy", "accuracy", "higher", "The share of clips whose most probable label is correct."
    ),
    "cls/map": MetricName(
        "Mean average precision (mAP)",
        "mAP",
        "higher",
        "How well each label's probability ranks clips with the label above clips without it, averaged over labels.",
    ),
    "cls/auc": MetricName(
        "Area under the ROC curve (AUC)",
        "AUC",
        "higher",
        "The probability that a clip with a label gets a higher score for it than a clip without, averaged over "
        "labels; 0.5 is chance.",
    ),
    "cls/d_prime": MetricName(
        "d-prime (d′)",
        "d′",
        "higher",
        "The AUC expressed as a distance between two unit normal distributions; 0 is chance.",
    ),
    "cal/ece": MetricName(
        "Expected calibration error (ECE)",
        "ECE",
        "lower",
        "The mean gap between confidence and accuracy over 15 bins of equal width; 0 is perfectly calibrated.",
    ),
    "cal/ace": MetricName(
        "Adaptive calibration error (ACE)",
        "ACE",
        "lower",
        "The ECE with bins that hold equal numbers of predictions.",
    ),
    "cal/classwise_ece": MetricName(
        "Class-wise expected calibration error",
        "class-wise ECE",
        "lower",
        "The ECE of each label's probability, averaged over labels.",
    ),
    "cal/nll": MetricName(
        "Negative log-likelihood (NLL)",
        "NLL",
        "lower",
        "Minus the log-probability of a clip's true labels, averaged over clips; it punishes confident errors.",
        "nats",
    ),
    "cal/brier": MetricName(
        "Brier score",
        "Brier score",
        "lower",
        "The mean squared error of the probabilities: reliability − resolution + uncertainty.",
    ),
    "cal/brier_reliability": MetricName(
        "Brier score: reliability",
        "Brier reliability",
        "lower",
        "The part of the Brier score that recalibration could remove.",
    ),
    "cal/brier_resolution": MetricName(
        "Brier score: resolution",
        "Brier resolution",
        "higher",
        "How much the Brier score is lowered by telling clips apart.",
    ),
    "cal/brier_uncertainty": MetricName(
        "Brier score: uncertainty",
        "Brier uncertainty",
        "",
        "The Brier score of always predicting each label's frequency.",
    ),
    "sc/aurc": MetricName(
        "Area under the risk-coverage curve (AURC)",
        "AURC",
        "lower",
        "The risk among the clips kept, averaged over all coverages, when the least certain clips are rejected first.",
    ),
    "sc/augrc": MetricName(
        "Area under the generalised risk-coverage curve (AUGRC)",
        "AUGRC",
        "lower",
        "How often a clip is both kept and wrong, averaged over all coverages.",
    ),
    "sc/coverage_at_5_percent_risk": MetricName(
        "Coverage at 5 % risk",
        "coverage at 5 % risk",
        "higher",
        "The largest share of clips that can be kept, most certain first, with a risk of at most 5 %.",
    ),
    "sc/pavpu": MetricName(
        "Patch accuracy versus patch uncertainty (PAvPU)",
        "PAvPU",
        "higher",
        "The share of clips that are certain and correct, or uncertain and wrong.",
    ),
    "unc/entropy": MetricName(
        "Predictive entropy",
        "predictive entropy",
        "",
        "The entropy of the mean of the draws, before any power: expected entropy + mutual information.",
        "nats",
    ),
    "unc/mutual_information": MetricName(
        "Mutual information",
        "mutual information",
        "",
        "The epistemic part of the entropy: how much the draws of the weights disagree.",
        "nats",
    ),
    "unc/expected_entropy": MetricName(
        "Expected entropy",
        "expected entropy",
        "",
        "The aleatoric part of the entropy: the entropy of a single draw, averaged over the draws.",
        "nats",
    ),
    "unc/total": MetricName(
        "Total variance",
        "total variance",
        "",
        "p (1 − p), summed over labels: aleatoric variance + epistemic variance.",
    ),
    "unc/aleatoric": MetricName(
        "Aleatoric variance",
        "aleatoric variance",
        "",
        "The variance within each draw of the weights: the sound itself is ambiguous.",
    ),
    "unc/epistemic": MetricName(
        "Epistemic variance",
        "epistemic variance",
        "",
        "The variance between the draws of the weights: the model has seen too little of such sounds.",
    ),
    "ood/auroc": MetricName(
        "Out-of-distribution AUROC",
        "OOD AUROC",
        "higher",
        "The probability that an out-of-distribution clip has a higher entropy than a known clip; 0.5 is chance.",
    ),
    "ood/aupr": MetricName(
        "Out-of-distribution AUPR",
        "OOD AUPR",
        "higher",
        "The average precision of detecting out-of-distribution clips by their entropy.",
    ),
    "ood/fpr95": MetricName(
        "Out-of-distribution FPR at 95 % TPR",
        "OOD FPR95",
        "lower",
        "The share of known clips that are flagged when 95 % of the out-of-distribution clips are flagged, by entropy.",
    ),
    "set/coverage": MetricName(
        "Coverage of the label sets",
        "set coverage",
        "",
        "The mean share of a clip's true labels that its label set holds; it should be near the coverage asked for.",
    ),
    "set/size": MetricName(
        "Mean size of the label sets",
        "set size",
        "lower",
        "The mean number of labels in a set; at equal coverage, smaller sets are better.",
    ),
    "dec/coverage": MetricName(
        "Share of clips decided",
        "decided",
        "higher",
        "The share of the clips that the posterior's decisions do not leave to a person.",
    ),
    "dec/precision": MetricName(
        "Precision of the decisions",
        "precision",
        "higher",
        "The share of the calls that are right.",
    ),
    "dec/outside": MetricName(
        "Share of clips outside",
        "outside",
        "",
        "The share of the clips that are marked as unlike those that the decisions were fitted to; nothing is called "
        "there.",
    ),
}
"""The metrics of ``evaluate --json``. Those of another score, such as ``ood/auroc_epistemic``, follow from these: see
:func:`metric_name`."""

WIDTH_NAMES: dict[str, MetricName] = {
    "effective": MetricName(
        "Effective parameters (γ)",
        "determined",
        "",
        "The share of the weights that the data determine, by their widths: the mean of 1 − s² / s₀², with s and s₀ "
        "the standard deviations of posterior and prior. It is below 0 where widths are above the prior's.",
    ),
    "at_prior": MetricName(
        "At the prior's width",
        "at the prior's width",
        "",
        "The share of the weights to whose precision the data add less than the prior has: s² > s₀² / 2.",
    ),
    "left": MetricName(
        "Left of the start",
        "left of the start",
        "lower",
        "How much of a factor on the starting widths is left after a second fit: 0 where the data decide the widths, "
        "1 where the start does.",
    ),
    "rank_correlation": MetricName(
        "Rank correlation of the widths",
        "rank correlation",
        "higher",
        "Spearman's, of the widths of the two fits: whether they agree on which weights are certain.",
    ),
}
"""What a fit says about the widths of its weights: the first two are ``effective/<parameter>`` and
``at_prior/<parameter>`` of ``metrics.jsonl``, the others are of ``start.json``."""

SCORE_NAMES = {
    "confidence": "confidence",
    "entropy": "predictive entropy",
    "mutual_information": "mutual information",
    "expected_entropy": "expected entropy",
    "total": "total variance",
    "aleatoric": "aleatoric variance",
    "epistemic": "epistemic variance",
}
"""The scores that rank clips by their uncertainty; see :func:`bayes_panns.predictions.scores`."""


def metric_name(metric: str) -> MetricName:
    """The names of a metric; an unknown one is called what it is.

    Args:
        metric: As in ``evaluate --json``, such as ``cal/ece``.

    Example:
        >>> metric_name("cal/ece").title
        'Expected calibration error (ECE)'
        >>> metric_name("ood/auroc_mutual_information").short
        'OOD AUROC by mutual information'
    """
    known = METRIC_NAMES.get(metric)
    if known is not None:
        return known
    for base in ("sc/aurc", "ood/auroc", "ood/aupr", "ood/fpr95"):
        score = metric.removeprefix(f"{base}_")
        if score in SCORE_NAMES and score != metric:
            of, by = METRIC_NAMES[base], SCORE_NAMES[score]
            reading = f"The same with the clips ranked by {by}."
            return MetricName(f"{of.title} by {by}", f"{of.short} by {by}", of.better, reading, of.unit)
    return MetricName(metric, metric, "", "")


def validation_name(key: str) -> MetricName:
    """The names of a validation metric of ``metrics.jsonl``.

    Args:
        key: Such as ``val/accuracy``.

    Example:
        >>> validation_name("val/map").short
        'mAP'
    """
    name = key.removeprefix("val/")
    families = (f"{family}/{name}" for family in ("cls", "cal"))
    return metric_name(next((metric for metric in families if metric in METRIC_NAMES), name))

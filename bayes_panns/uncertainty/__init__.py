"""What the draws say together: aleatoric and epistemic uncertainty, and whether it can be trusted."""

from bayes_panns.uncertainty.calibration import Reliability, ace, brier, ece, nll, reliability
from bayes_panns.uncertainty.classification import accuracy, d_prime, mean_auc, mean_average_precision, top_label
from bayes_panns.uncertainty.decomposition import Moments, Uncertainty, concatenate, decompose
from bayes_panns.uncertainty.detection import aupr, auroc, fpr95
from bayes_panns.uncertainty.evaluation import evaluate
from bayes_panns.uncertainty.predictive import Draws, Tags, Window, predict, tag
from bayes_panns.uncertainty.propagated import from_moments
from bayes_panns.uncertainty.selective import aurc, risk_coverage

__all__ = [
    "Draws",
    "Moments",
    "Reliability",
    "Tags",
    "Uncertainty",
    "Window",
    "accuracy",
    "ace",
    "aupr",
    "aurc",
    "auroc",
    "brier",
    "concatenate",
    "d_prime",
    "decompose",
    "ece",
    "evaluate",
    "fpr95",
    "from_moments",
    "mean_auc",
    "mean_average_precision",
    "nll",
    "predict",
    "reliability",
    "risk_coverage",
    "tag",
    "top_label",
]

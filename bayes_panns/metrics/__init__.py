"""Metrics of predictions: NumPy arrays in, numbers out. Nothing here needs torch, Pyro or, until a plot, matplotlib."""

from bayes_panns.metrics.bootstrap import Interval, bootstrap, paired, plot_intervals
from bayes_panns.metrics.calibration import (
    Reliability,
    ace,
    classwise_ece,
    classwise_reliability,
    ece,
    ece_if_calibrated,
    reliability,
)
from bayes_panns.metrics.classification import (
    accuracy,
    auc,
    average_precision,
    clip_loss,
    d_prime,
    label_ranking_average_precision,
    mean_auc,
    mean_average_precision,
    top_label,
)
from bayes_panns.metrics.conformal import SetQuality, conformal_threshold, label_sets, set_quality
from bayes_panns.metrics.detection import Detection, aupr, auroc, detection, fpr95
from bayes_panns.metrics.power import apply_power, fit_power, logits_of, power_losses
from bayes_panns.metrics.scoring import BrierSplit, brier, brier_split, nll
from bayes_panns.metrics.selection import PAvPU, RiskCoverage, augrc, aurc, coverage_at_risk, pavpu, risk_coverage
from bayes_panns.metrics.temperature import cross_fitted_temperatures, fit_temperature

__all__ = [
    "BrierSplit",
    "Detection",
    "Interval",
    "PAvPU",
    "Reliability",
    "RiskCoverage",
    "SetQuality",
    "accuracy",
    "ace",
    "apply_power",
    "auc",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "average_precision",
    "bootstrap",
    "brier",
    "brier_split",
    "classwise_ece",
    "classwise_reliability",
    "clip_loss",
    "conformal_threshold",
    "coverage_at_risk",
    "cross_fitted_temperatures",
    "d_prime",
    "detection",
    "ece",
    "ece_if_calibrated",
    "fit_power",
    "fit_temperature",
    "fpr95",
    "label_ranking_average_precision",
    "label_sets",
    "logits_of",
    "mean_auc",
    "mean_average_precision",
    "nll",
    "paired",
    "pavpu",
    "plot_intervals",
    "power_losses",
    "reliability",
    "risk_coverage",
    "set_quality",
    "top_label",
]

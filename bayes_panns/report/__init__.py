"""Pictures of runs, predictions and their uncertainty."""

from bayes_panns.report.figures import (
    comparison,
    reliability,
    risk_coverage,
    save,
    training_curves,
    uncertainty_histograms,
)
from bayes_panns.report.summaries import describe
from bayes_panns.report.tags import FORMATS, render

__all__ = [
    "FORMATS",
    "comparison",
    "describe",
    "reliability",
    "render",
    "risk_coverage",
    "save",
    "training_curves",
    "uncertainty_histograms",
]

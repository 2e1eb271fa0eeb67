"""Pictures of runs, predictions and their uncertainty."""

from bayes_panns.report.figures import (
    comparison,
    save,
    training_curves,
    uncertainty_histograms,
)
from bayes_panns.report.summaries import describe
from bayes_panns.report.tables import crossval_latex, crossval_table
from bayes_panns.report.tags import FORMATS, render

__all__ = [
    "FORMATS",
    "comparison",
    "crossval_latex",
    "crossval_table",
    "describe",
    "render",
    "save",
    "training_curves",
    "uncertainty_histograms",
]

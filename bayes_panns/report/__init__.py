"""Pictures of runs, predictions and their uncertainty, and the page that holds them all."""

from bayes_panns.report.figures import (
    comparison,
    save,
    training_curves,
    uncertainty_histograms,
)
from bayes_panns.report.page.page import render_page, write_report
from bayes_panns.report.subjects import Data, Part, Subject, read_subjects
from bayes_panns.report.text.summaries import describe
from bayes_panns.report.text.tables import crossval_latex, crossval_table
from bayes_panns.report.text.tags import FORMATS, render

__all__ = [
    "FORMATS",
    "Data",
    "Part",
    "Subject",
    "comparison",
    "crossval_latex",
    "crossval_table",
    "describe",
    "read_subjects",
    "render",
    "render_page",
    "save",
    "training_curves",
    "uncertainty_histograms",
    "write_report",
]

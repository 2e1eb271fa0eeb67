"""Results as text: tables for the terminal and LaTeX, tags, and what a store, posterior or run holds."""

from bayes_panns.report.text.summaries import describe
from bayes_panns.report.text.tables import crossval_latex, crossval_table
from bayes_panns.report.text.tags import FORMATS, render

__all__ = ["FORMATS", "crossval_latex", "crossval_table", "describe", "render"]

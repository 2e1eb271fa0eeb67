"""Results as text: tables for the terminal and LaTeX, tags, and descriptions of stores, posteriors and runs."""

from bayes_panns.report.text.summaries import describe
from bayes_panns.report.text.tables import crossval_latex, crossval_table
from bayes_panns.report.text.tags import render_tags

__all__ = ["crossval_latex", "crossval_table", "describe", "render_tags"]

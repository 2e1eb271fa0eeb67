"""What to label next, as a table and as a page to label on."""

from bayes_panns.report.labelling.page import render_labelling, write_labelling

__all__ = ["render_labelling", "write_labelling"]

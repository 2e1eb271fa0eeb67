"""The report: one HTML page."""

from bayes_panns.report.page.render import render_page, write_report

__all__ = ["render_page", "write_report"]

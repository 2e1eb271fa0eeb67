"""Results as text: tables for the terminal and LaTeX, tags, and descriptions of stores, posteriors and runs."""

from typing import TYPE_CHECKING

from bayes_panns.core.lazy import imported_when_used

if TYPE_CHECKING:
    from bayes_panns.report.text.event_scores import render_event_scores
    from bayes_panns.report.text.findings import findings_text
    from bayes_panns.report.text.memory import start_table
    from bayes_panns.report.text.summaries import describe
    from bayes_panns.report.text.tables import crossval_latex, crossval_table
    from bayes_panns.report.text.tags import TagText, render_tags, tag_text
else:
    __getattr__ = imported_when_used(
        __name__,
        {
            "bayes_panns.report.text.findings": ["findings_text"],
            "bayes_panns.report.text.event_scores": ["render_event_scores"],
            "bayes_panns.report.text.memory": ["start_table"],
            "bayes_panns.report.text.summaries": ["describe"],
            "bayes_panns.report.text.tables": ["crossval_latex", "crossval_table"],
            "bayes_panns.report.text.tags": ["TagText", "render_tags", "tag_text"],
        },
    )

__all__ = [
    "TagText",
    "crossval_latex",
    "crossval_table",
    "describe",
    "findings_text",
    "render_event_scores",
    "render_tags",
    "start_table",
    "tag_text",
]

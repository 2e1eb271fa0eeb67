"""Figures, tables and pages about runs, predictions and their uncertainty."""

from typing import TYPE_CHECKING

from bayes_panns.core.lazy import imported_when_used

if TYPE_CHECKING:
    from bayes_panns.report.figures import comparison, save, training_curves, uncertainty_histograms
    from bayes_panns.report.names import METRIC_NAMES, MetricName, metric_name
    from bayes_panns.report.page.render import render_page, write_report
    from bayes_panns.report.reading import read_sources
    from bayes_panns.report.recordings import RECORDING_FORMATS, parquet_tags, require_format
    from bayes_panns.report.sources import Scoring, Source, SourcePart
    from bayes_panns.report.text.memory import start_table
    from bayes_panns.report.text.summaries import describe
    from bayes_panns.report.text.tables import crossval_latex, crossval_table
    from bayes_panns.report.text.tags import TagText, render_tags, tag_text
    from bayes_panns.report.timeline import timeline
else:
    __getattr__ = imported_when_used(
        __name__,
        {
            "bayes_panns.report.figures": ["comparison", "save", "training_curves", "uncertainty_histograms"],
            "bayes_panns.report.names": ["METRIC_NAMES", "MetricName", "metric_name"],
            "bayes_panns.report.page.render": ["render_page", "write_report"],
            "bayes_panns.report.reading": ["read_sources"],
            "bayes_panns.report.recordings": ["RECORDING_FORMATS", "parquet_tags", "require_format"],
            "bayes_panns.report.sources": ["Scoring", "Source", "SourcePart"],
            "bayes_panns.report.text.memory": ["start_table"],
            "bayes_panns.report.text.summaries": ["describe"],
            "bayes_panns.report.text.tables": ["crossval_latex", "crossval_table"],
            "bayes_panns.report.text.tags": ["TagText", "render_tags", "tag_text"],
            "bayes_panns.report.timeline": ["timeline"],
        },
    )

__all__ = [
    "METRIC_NAMES",
    "RECORDING_FORMATS",
    "MetricName",
    "Scoring",
    "Source",
    "SourcePart",
    "TagText",
    "comparison",
    "crossval_latex",
    "crossval_table",
    "describe",
    "metric_name",
    "parquet_tags",
    "read_sources",
    "render_page",
    "render_tags",
    "require_format",
    "save",
    "start_table",
    "tag_text",
    "timeline",
    "training_curves",
    "uncertainty_histograms",
    "write_report",
]

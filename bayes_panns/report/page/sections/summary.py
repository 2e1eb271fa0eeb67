"""The main metrics in large print."""

from bayes_panns.report.page.content import Context, Section
from bayes_panns.report.page.intervals import how_intervals
from bayes_panns.report.page.readings import headlines
from bayes_panns.report.sources import Source

TITLE = "Summary"


def section(source: Source, context: Context) -> Section | None:
    """The main metrics, each with its interval and what it says; None without an evaluation."""
    evaluation = source.evaluation
    if evaluation is None:
        return None
    text = how_intervals(evaluation, context.resamples)
    return Section("summary", TITLE, text, headlines=headlines(evaluation, context.intervals))

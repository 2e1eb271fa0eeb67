"""Every metric in one table."""

from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.page.readings import headline
from bayes_panns.report.sources import Source

TITLE = "All metrics"

_COLUMNS = (
    ("metric", "The name in evaluate --json."),
    ("name", "An arrow shows which direction is better."),
    ("value", ""),
    ("95 % interval", ""),
    ("how to read it", ""),
)


def section(source: Source, context: Context) -> Section | None:
    """A table of every metric with its interval; None without an evaluation."""
    evaluation = source.evaluation
    if evaluation is None:
        return None
    rows = []
    for metric, interval in context.intervals.items():
        line = headline(evaluation, metric, interval)
        rows.append(
            [
                Cell.of(metric),
                Cell(f"{line.name.title} {line.name.arrow}".strip(), line.name.title),
                Cell(line.value, interval.value),
                Cell(line.ends, interval.low),
                Cell.of(line.reading),
            ]
        )
    table = Table("All metrics with their intervals", _COLUMNS, rows, folded=True)
    return Section("metrics", TITLE, "The names in the first column are those of evaluate --json.", tables=[table])

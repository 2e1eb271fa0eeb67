"""What is left of the start in a run's widths, as a table for the terminal."""

from bayes_panns.jobs import StartMemory
from bayes_panns.report.formatting import percent
from bayes_panns.report.names import WIDTH_NAMES
from bayes_panns.report.text.layout import columns


def start_table(memory: StartMemory) -> str:
    """A row for each weight tensor, and one for all: what is left of the start, and the rank correlation.

    Returns:
        Plain text, ending in a newline.
    """
    rows = [["parameter", "weights", *(WIDTH_NAMES[key].short for key in ("left", "rank_correlation"))]]
    for name, each in memory.parameters.items():
        correlation = "undefined" if each.rank_correlation is None else f"{each.rank_correlation:.2f}"
        rows.append([name, f"{each.weights:,}", percent(each.left), correlation])
    weights = sum(each.weights for each in memory.parameters.values())
    return columns([*rows, ["all", f"{weights:,}", percent(memory.left), ""]])

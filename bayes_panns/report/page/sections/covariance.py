"""Labels whose probabilities vary together between the draws of the weights."""

import numpy as np

from bayes_panns.report.formatting import number
from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.page.readings import one_of_k
from bayes_panns.report.sources import Source

TITLE = "Epistemic covariance between labels"

PAIRS = 15
"""How many pairs of labels the table lists."""

_COLUMNS = (
    ("label", ""),
    ("with", ""),
    ("epistemic covariance", "The average over the clips."),
    ("correlation", "From the average covariance."),
    ("clips with both", ""),
)


def section(source: Source, context: Context) -> Section | None:
    """The pairs of the largest covariance; None without a multi-label evaluation that kept the covariance."""
    del context
    evaluation = source.evaluation
    if evaluation is None or one_of_k(evaluation) or evaluation.uncertainty.covariance is None:
        return None
    mean = evaluation.uncertainty.covariance.mean(axis=0)
    deviation = np.sqrt(np.maximum(mean.diagonal(), 1e-300))
    rows = []
    for first, second, covariance in evaluation.uncertainty.confused_together(evaluation.labels)[:PAIRS]:
        if covariance == 0:
            continue
        i, j = evaluation.labels.index(first), evaluation.labels.index(second)
        correlation = covariance / float(deviation[i] * deviation[j])
        both = int((evaluation.target[:, i] & evaluation.target[:, j]).sum())
        numbers = [
            Cell(f"{covariance:.3g}".replace("-", "−"), covariance),
            Cell(number(correlation), correlation),
            Cell(str(both), float(both)),
        ]
        rows.append([Cell.of(first), Cell.of(second), *numbers])
    if not rows:
        return None
    text = (
        "A positive covariance means that a draw of the weights that raises the probability of one label also raises "
        "the other's. A negative covariance means that the two labels compete."
    )
    table = Table("The pairs of labels with the largest epistemic covariance", _COLUMNS, rows)
    return Section("covariance", TITLE, text, tables=[table])

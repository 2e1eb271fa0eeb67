"""Which labels are mistaken for which."""

import numpy as np
from numpy.typing import NDArray

from bayes_panns.report.page import drawings
from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.page.readings import one_of_k
from bayes_panns.report.sources import Source

TITLE = "Confusions"

PAIRS = 15
"""How many pairs of labels the table lists."""

LARGEST = 60
"""The most labels of a confusion matrix."""

_COLUMNS = (("true label", ""), ("predicted label", ""), ("clips", ""), ("share of the true label's clips", ""))


def section(source: Source, context: Context) -> Section | None:
    """A confusion matrix and the most frequent confusions; None without an evaluation of one-of-K labels."""
    evaluation = source.evaluation
    if evaluation is None or not one_of_k(evaluation):
        return None
    predicted, true = evaluation.uncertainty.probability.argmax(axis=1), evaluation.target.argmax(axis=1)
    size = len(evaluation.labels)
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (true, predicted), 1)
    wrong = counts - np.diag(counts.diagonal())
    charts = []
    if size <= LARGEST:
        side = min(6.4, max(3.6, 1.4 + 0.34 * size))
        charts.append(
            context.draw(
                "Confusion matrix",
                drawings.confusion(counts, evaluation.labels),
                f"Confusion matrix: {counts.diagonal().sum()} of {counts.sum()} clips are on the diagonal. "
                f"{_most_frequent(evaluation.labels, wrong)}",
                size=(side, side),
                wide=True,
            )
        )
    rows = []
    for pair in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS].tolist():
        row, column = divmod(pair, size)
        if wrong[row, column]:
            names = [Cell.of(evaluation.labels[k]) for k in (row, column)]
            share = Cell.share(wrong[row, column] / counts[row].sum())
            rows.append([*names, Cell(str(wrong[row, column]), float(wrong[row, column])), share])
    tables = [Table("The most frequent confusions", _COLUMNS, rows)] if rows else []
    text = "Each row is a true label and each column a predicted label. Shades are shares of the row."
    if not charts:
        text = f"There are more than {LARGEST} labels, so the matrix is not drawn."
    if not rows:
        text += " No clip is classified wrongly."
    return Section("confusion", TITLE, text, charts=charts, tables=tables)


def _most_frequent(labels: tuple[str, ...], wrong: NDArray[np.int_]) -> str:
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    if not wrong[row, column]:
        return "There are no confusions."
    times = "once" if wrong[row, column] == 1 else f"{wrong[row, column]} times"
    return f"The most frequent confusion is {labels[row]} predicted as {labels[column]}, {times}."

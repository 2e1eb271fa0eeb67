"""The results of each label."""

import numpy as np
from numpy.typing import NDArray

from bayes_panns import metrics
from bayes_panns.report.formatting import number
from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.page.readings import one_of_k
from bayes_panns.report.sources import Source

TITLE = "Results by label"


def section(source: Source, context: Context) -> Section | None:
    """A table with a row for each label; None without an evaluation."""
    del context
    evaluation = source.evaluation
    if evaluation is None:
        return None
    p, target, uncertainty = evaluation.uncertainty.probability, evaluation.target, evaluation.uncertainty
    one = one_of_k(evaluation)
    predicted = np.eye(p.shape[1], dtype=bool)[p.argmax(axis=1)] if one else p >= 0.5
    hits = (predicted & target).sum(axis=0)
    rule = "the most probable label" if one else "at least 0.5"
    columns: dict[str, tuple[str, NDArray]] = {
        "clips": ("The clips that have the label.", target.sum(axis=0)),
        "recall": (f"The share of these clips for which it is {rule}.", _ratio(hits, target.sum(axis=0))),
        "precision": (
            f"Of the clips for which it is {rule}, the share that have the label.",
            _ratio(hits, predicted.sum(axis=0)),
        ),
        "AP": ("Average precision.", metrics.average_precision(p, target)),
        "AUC": ("Area under the ROC curve.", metrics.auc(p, target)),
        "ECE": ("Expected calibration error of the label's probability.", metrics.classwise_ece(p, target)),
        "aleatoric": ("Mean aleatoric variance over the clips that have it.", _mean(uncertainty.aleatoric, target)),
        "epistemic": ("Mean epistemic variance over the clips that have it.", _mean(uncertainty.epistemic, target)),
    }
    full = {"recall": 1.0, "precision": 1.0, "AP": 1.0}
    for name in ("ECE", "aleatoric", "epistemic"):
        full[name] = max(np.nanmax(columns[name][1], initial=0), 1e-300)
    rows = []
    for k, label in enumerate(evaluation.labels):
        row = [Cell.of(label)]
        for name, (_, values) in columns.items():
            value = float(values[k])
            text = "–" if np.isnan(value) else str(int(value)) if name == "clips" else number(value)
            bar = None if name not in full or np.isnan(value) else value / full[name]
            row.append(Cell(text, value, bar))
        rows.append(row)
    headings = [("label", ""), *[(name, hint) for name, (hint, _) in columns.items()]]
    text = "Click a heading to sort. A dash means that there are no clips to compute the value from."
    return Section("labels", TITLE, text, tables=[Table("All labels", headings, rows)])


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """``part / whole``, NaN where ``whole`` is 0."""
    return part / np.where(whole, whole, np.nan)


def _mean(values: NDArray[np.float64], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of each label's values over the clips that have it, ``(K,)``."""
    return _ratio((values * target).sum(axis=0), target.sum(axis=0))

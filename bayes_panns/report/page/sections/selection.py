"""Selective prediction: what is gained by rejecting the least certain clips."""

import numpy as np
from matplotlib.axes import Axes

from bayes_panns import metrics
from bayes_panns.predictions import scores
from bayes_panns.report.formatting import number, percent
from bayes_panns.report.names import SCORE_NAMES, metric_name
from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.page.readings import one_of_k
from bayes_panns.report.sources import Source

TITLE = "Selective prediction"

_COVERAGES = (1.0, 0.9, 0.75, 0.5, 0.25)
"""The coverages that the table shows."""


def section(source: Source, context: Context) -> Section | None:
    """Risk over coverage for several scores, and PAvPU; None without an evaluation."""
    evaluation, draw = source.evaluation, context.draw
    if evaluation is None:
        return None
    loss = metrics.clip_loss(evaluation.uncertainty.probability, evaluation.target, evaluation.task)
    known = scores(evaluation.uncertainty)
    shown = ("confidence" if one_of_k(evaluation) else "entropy", "aleatoric", "epistemic")
    by = {SCORE_NAMES[name]: known[name] for name in shown if np.ptp(known[name]) > 0}
    if not by:
        return Section("selection", TITLE, "All clips are equally certain by every score, so none can be chosen.")
    curves = {name: metrics.risk_coverage(score, loss) for name, score in by.items()}
    risk = "error rate" if one_of_k(evaluation) else "mean loss (1 − label-ranking average precision)"

    def plot(ax: Axes) -> None:
        for name, curve in curves.items():
            curve.plot(ax, label=f"by {name}")

    areas = ", ".join(f"{name} {curve.aurc:.3f}" for name, curve in curves.items())
    certain = metrics.pavpu(evaluation.uncertainty.entropy, loss > 0)
    middle = certain.at(certain.middle)
    charts = [
        draw(
            "Risk-coverage curve",
            plot,
            f"The {risk} of the clips kept against the share of clips kept; area under the curve by {areas}.",
            caption="The least certain clips are rejected first. A curve that falls to the left shows a useful score.",
        ),
        draw(
            metric_name("sc/pavpu").title,
            lambda ax: certain.plot(ax, label="entropy"),
            f"PAvPU against the threshold on the entropy; at the middle of the entropy's range it is {middle:.3f}.",
            caption=metric_name("sc/pavpu").reading,
        ),
    ]
    rows = []
    for share in _COVERAGES:
        kept = max(1, round(share * len(loss)))
        risks = [float(curve.risk[kept - 1]) for curve in curves.values()]
        rows.append([Cell(f"{percent(share)} ({kept})", share), *[Cell(number(each), each) for each in risks]])
    columns = [("clips kept", ""), *[(f"by {name}", "") for name in curves]]
    table = Table(f"Risk ({risk}) at several coverages", columns, rows)
    text = "How the risk falls when the least certain clips are rejected, for example to be labelled by a person."
    return Section("selection", TITLE, text, charts=charts, tables=[table])

"""Whether out-of-distribution clips are more uncertain than known clips."""

import numpy as np
from matplotlib.axes import Axes

from bayes_panns import metrics
from bayes_panns.predictions import scores
from bayes_panns.report.formatting import count_of, number, span
from bayes_panns.report.names import SCORE_NAMES, metric_name
from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.sources import Source

TITLE = "Out-of-distribution detection"

_MEASURES = ("auroc", "aupr", "fpr95")


def section(source: Source, context: Context) -> Section | None:
    """ROC curves and a table for several scores; None without out-of-distribution clips."""
    evaluation = source.evaluation
    if evaluation is None or evaluation.ood is None:
        return None
    inside, outside = scores(evaluation.uncertainty), scores(evaluation.ood)
    shown = [name for name in ("entropy", "mutual_information", "aleatoric", "epistemic") if np.ptp(inside[name]) > 0]
    found = {name: metrics.detection(inside[name], outside[name]) for name in shown}

    def plot(ax: Axes) -> None:
        for name, each in found.items():
            each.plot(ax, label=SCORE_NAMES[name])

    areas = ", ".join(f"{SCORE_NAMES[name]} {each.auroc:.3f}" for name, each in found.items())
    clips = len(evaluation.ood_names)
    text = (
        f"Whether {count_of(clips, 'clip')} with none of the labels can be told from known clips by their uncertainty."
    )
    if evaluation.provenance.get("pooled", 1) > 1:
        text += " The posterior of each fold scored these clips, so each clip counts once per fold."
    if not found:
        return Section("ood", TITLE, f"{text} The known clips are equally certain by every score.")
    chart = context.draw(
        "ROC curve",
        plot,
        f"True positive rate against false positive rate; area under the curve by {areas}.",
        caption="Each curve runs over all thresholds of a score. The diagonal is chance.",
    )
    rows = []
    for name in found:
        suffix = "" if name == "entropy" else f"_{name}"
        measured = [context.intervals[f"ood/{measure}{suffix}"] for measure in _MEASURES]
        values = [Cell(f"{number(each.value)} ({span(each)})", each.value) for each in measured]
        rows.append([Cell.of(SCORE_NAMES[name]), *values])
    named = [metric_name(f"ood/{measure}") for measure in _MEASURES]
    columns = [
        ("score", ""),
        *[(f"{each.short} {each.arrow}", f"{each.better.capitalize()} is better.") for each in named],
    ]
    table = Table("Detection by each score, with 95 % intervals", columns, rows)
    return Section("ood", TITLE, text, charts=[chart], tables=[table])

"""Whether probabilities agree with frequencies, and what the label sets are worth."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from bayes_panns import metrics
from bayes_panns.report.formatting import count_of, percent
from bayes_panns.report.page.charts import Chart, Charts
from bayes_panns.report.page.content import Context, Section
from bayes_panns.report.sources import Source

TITLE = "Calibration"

WORST = 6
"""How many labels get a reliability diagram of their own."""


def section(source: Source, context: Context) -> Section | None:
    """Reliability diagrams, the parts of the Brier score, and label sets; None without an evaluation."""
    evaluation, draw = source.evaluation, context.draw
    if evaluation is None:
        return None
    p, target, task = evaluation.uncertainty.probability, evaluation.target, evaluation.task
    bins = metrics.reliability(p, target, task)
    split = metrics.brier_split(p, target, task)
    charts = [
        draw(
            "Reliability diagram",
            bins.plot,
            f"Reliability diagram, ECE {bins.error:.3f}. {_describe(bins)}",
            caption="Bars on the diagonal are well calibrated. The strip on top counts the predictions in each bin.",
            size=(3.4, 3.2),
        ),
        draw(
            "Parts of the Brier score",
            split.plot,
            f"Brier score: uncertainty {split.uncertainty:.3f}, minus resolution {split.resolution:.3f}, plus "
            f"reliability {split.reliability:.3f}.",
            caption=(
                "Brier score = uncertainty − resolution + reliability. Resolution grows with how well clips are told "
                "apart; recalibration could remove the reliability term."
            ),
            size=(3.4, 3.2),
        ),
    ]
    sets = _label_sets(source, draw)
    if sets is not None:
        charts.append(sets)
    error = metrics.classwise_ece(p, target)
    each = metrics.classwise_reliability(p, target)
    worst = [k for k in np.argsort(-error, kind="stable").tolist() if target[:, k].any()][:WORST]
    by_label = []
    for k in worst:
        label = evaluation.labels[k]
        alt = f"Reliability diagram of {label}, ECE {error[k]:.3f}. {_describe(each[k])}"
        by_label.append(draw(f"{label}: ECE {error[k]:.3f}", _compact(each[k].plot), alt, size=(3.4, 2.3)))
    text = f"Of all predictions with a probability of {percent(0.8)}, {percent(0.8)} should be correct."
    if by_label and len(by_label) < len(evaluation.labels):
        text += f" The diagrams below are of the {count_of(len(by_label), 'label')} with the largest ECE."
    return Section("calibration", TITLE, text, charts=charts, label_charts=by_label)


def _label_sets(source: Source, draw: Charts) -> Chart | None:
    """The label sets as they were evaluated, whatever the posterior's calibration is now."""
    evaluation = source.evaluation
    if evaluation is None or evaluation.sets is None:
        return None
    quality = metrics.set_quality(evaluation.sets, evaluation.target)
    found = [part.calibration for part in source.scored]
    caption = "Bars: the share of sets of each size. Dots: the coverage of these sets."
    if len(found) > 1:
        caption += " Each fold's sets use the threshold of its own posterior."
    elif found[0] is not None:
        applied = found[0]
        caption += (
            f" A set holds every label with a probability of at least {applied.threshold:.3f}, and should hold "
            f"{percent(applied.coverage)} of the true labels. The threshold and the temperature, "
            f"{applied.temperature:.3f}, were fitted on clips of {', '.join(applied.data)}."
        )
    alt = f"Sizes of label sets: coverage {quality.coverage:.3f}, {quality.size:.2f} labels per set on average."
    return draw("Label sets", quality.plot, alt, caption=caption)


def _compact(plot: Callable[[Axes], None]) -> Callable[[Axes], None]:
    """A smaller reliability diagram, without the legend that the first diagram has."""

    def draw(ax: Axes) -> None:
        plot(ax)
        legend = ax.get_legend()
        if legend is not None:
            legend.remove()
        ax.set_ylabel("share with the label")
        for strip in ax.child_axes:
            strip.set_ylabel("")
            strip.tick_params(axis="y", which="both", left=False, labelleft=False)

    return draw


def _describe(bins: metrics.Reliability) -> str:
    filled = np.flatnonzero(bins.count)
    shown = [f"{bins.confidence[b]:.2f}, {bins.frequency[b]:.2f}, {bins.count[b]}" for b in filled]
    return f"For each bin, mean confidence, observed frequency and number of predictions: {'; '.join(shown)}."

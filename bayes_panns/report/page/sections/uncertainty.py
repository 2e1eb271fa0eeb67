"""Aleatoric and epistemic uncertainty of correct, wrong and out-of-distribution clips."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bayes_panns.report.figures import uncertainty_histograms
from bayes_panns.report.names import metric_name
from bayes_panns.report.page.content import Context, Section
from bayes_panns.report.page.readings import correct, one_of_k
from bayes_panns.report.sources import Source

TITLE = "Aleatoric and epistemic uncertainty"


def section(source: Source, context: Context) -> Section | None:
    """A histogram of each kind of uncertainty; None without an evaluation."""
    evaluation = source.evaluation
    if evaluation is None:
        return None
    hits = correct(evaluation)
    names = ("correct", "wrong") if one_of_k(evaluation) else ("top label correct", "top label wrong")
    charts = []
    for kind in ("aleatoric", "epistemic"):
        values = evaluation.uncertainty.per_clip()[kind]
        groups = {names[0]: values[hits], names[1]: values[~hits]}
        if evaluation.ood is not None:
            groups["out of distribution"] = evaluation.ood.per_clip()[kind]
        medians = ", ".join(f"{name} {np.median(group):.3f}" for name, group in groups.items() if len(group))
        title = metric_name(f"unc/{kind}").title
        charts.append(
            context.draw(
                title,
                _histogram(groups, f"{kind} variance of a clip"),
                f"Histogram of the {kind} variance of the clips; medians: {medians}.",
                caption=metric_name(f"unc/{kind}").reading,
                size=(3.4, 2.8),
            )
        )
    text = "By the law of total variance, the total variance of a prediction is its aleatoric plus its epistemic part."
    return Section("uncertainty", TITLE, text, charts=charts)


def _histogram(groups: Mapping[str, NDArray[np.floating]], label: str) -> Callable[[Axes], None]:
    return lambda ax: uncertainty_histograms(ax, groups, label)

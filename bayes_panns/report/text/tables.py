"""A cross-validation as a table for the terminal and for LaTeX."""

import math
from collections.abc import Sequence

from bayes_panns.jobs import CrossValidation, Spread
from bayes_panns.metrics import Interval
from bayes_panns.report.names import metric_name
from bayes_panns.report.text.layout import columns

COMPARED = ("cls/accuracy", "cls/map", "cal/nll", "cal/brier", "cal/ece", "sc/aurc")
"""The metrics whose differences between strategies the table for the terminal shows."""


def crossval_table(result: CrossValidation) -> str:
    """Every metric over the folds, one per row, and the differences between strategies.

    A strategy has its mean over the folds, their standard deviation, and the 95 % t interval of the mean. Differences
    are those of the pooled clips with paired bootstrap intervals; a star marks an interval that excludes 0.

    Args:
        result: The cross-validation.

    Returns:
        Plain text, ending in a newline; lines are as long as they need to be.
    """
    spreads = {name: result.spread(name) for name in result.evaluations}
    metrics = list(dict.fromkeys(metric for spread in spreads.values() for metric in spread))
    rows = [["metric", "name", *(f"{name}: mean ± sd (95 % interval)" for name in spreads)]]
    for metric in metrics:
        cells = [_cell(spread.get(metric)) for spread in spreads.values()]
        if any(cells):
            rows.append([metric, _titled(metric), *cells])
    text = columns(rows)
    for (a, b), differences in result.differences.items():
        shown = [(metric, differences[metric]) for metric in COMPARED if metric in differences]
        text += f"\n{a} minus {b}, pooled (* the interval excludes 0)\n"
        text += columns([[f"  {metric}", _titled(metric), _difference(interval)] for metric, interval in shown])
    return text


def crossval_latex(
    result: CrossValidation,
    metrics: Sequence[str] = ("cls/accuracy", "cls/map", "cal/nll", "cal/brier", "cal/ece", "sc/aurc", "ood/auroc"),
) -> str:
    r"""The chosen metrics as a LaTeX ``tabular`` for the package booktabs: one row per strategy, mean ± deviation.

    Args:
        result: The cross-validation.
        metrics: The metrics to show, in order. One that is undefined for all strategies is left out, and so is mean
            average precision where there is an accuracy.

    Returns:
        The text, ending in a newline.
    """
    spreads = {name: result.spread(name) for name in result.evaluations}
    known = [metric for metric in metrics if any(_cell(each.get(metric)) for each in spreads.values())]
    if "cls/accuracy" in known:
        known = [metric for metric in known if metric != "cls/map"]
    head = " & ".join(["strategy", *(_escaped(metric_name(metric).axis) for metric in known)])
    body = [
        " & ".join([_escaped(name), *(_latex_cell(spread.get(metric)) for metric in known)]) + r" \\"
        for name, spread in spreads.items()
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * len(known)}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _titled(metric: str) -> str:
    named = metric_name(metric)
    unit = f" / {named.unit}" if named.unit else ""
    return f"{named.title}{unit} {named.arrow}".rstrip()


def _cell(spread: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return ""
    folds = "" if spread.defined == len(spread.folds) else f" [{spread.defined} of {len(spread.folds)} folds]"
    if math.isnan(spread.deviation):
        return f"{spread.mean:.4f}{folds}"
    return f"{spread.mean:.4f} ± {spread.deviation:.4f} ({spread.low:.4f} to {spread.high:.4f}){folds}"


def _latex_cell(spread: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return "--"
    if not math.isfinite(spread.mean):
        return r"$\infty$" if spread.mean > 0 else r"$-\infty$"
    deviation = "" if math.isnan(spread.deviation) else rf" \pm {spread.deviation:.3f}"
    return f"${spread.mean:.3f}{deviation}$"


def _difference(interval: Interval) -> str:
    apart = interval.low > 0 or interval.high < 0
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}){' *' if apart else ''}"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "′": "$'$",
    **{mark: f"\\{mark}" for mark in "_%&#${}"},
}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)

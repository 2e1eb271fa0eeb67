"""A cross-validation as a table for the terminal and for LaTeX."""

import math
from collections.abc import Sequence

from bayes_panns.jobs import CrossValidation, Spread
from bayes_panns.metrics import Interval
from bayes_panns.report.figures import NAMES

COMPARED = ("cls/accuracy", "cls/map", "cal/nll", "cal/brier", "cal/ece", "sc/aurc")
"""The metrics whose differences between strategies the table for the terminal shows."""


def crossval_table(result: CrossValidation) -> str:
    """Every metric over the folds, a row each, and how the strategies differ.

    A strategy has its mean over the folds, their standard deviation, and the 95 % t interval of the mean. Differences
    are those of the pooled clips, with paired bootstrap intervals; a star marks one that leaves 0 out.

    Returns:
        The text, ending in a newline.
    """
    spreads = {name: result.spread(name) for name in result.evaluations}
    rows = [["", *(f"{name}: mean ± sd (95 % interval)" for name in spreads)]]
    for metric in next(iter(spreads.values())):
        cells = [_cell(spread[metric]) if metric in spread else "" for spread in spreads.values()]
        if any(cells):
            rows.append([metric, *cells])
    lines = _columns(rows)
    for (a, b), metrics in result.differences.items():
        lines.append("")
        lines.append(f"{a} minus {b}, pooled")
        shown = [(metric, metrics[metric]) for metric in COMPARED if metric in metrics]
        lines += _columns([[f"  {metric}", _difference(interval)] for metric, interval in shown])
    return "\n".join(lines) + "\n"


def crossval_latex(
    result: CrossValidation,
    metrics: Sequence[str] = ("cls/accuracy", "cls/map", "cal/nll", "cal/brier", "cal/ece", "sc/aurc", "ood/auroc"),
) -> str:
    r"""The chosen metrics as a LaTeX ``tabular`` for the package booktabs: a row a strategy, mean ± standard deviation.

    Args:
        result: The cross-validation.
        metrics: Which, in order; one that is defined nowhere is left out, and so is mean average precision beside an
            accuracy.

    Returns:
        The text, ending in a newline.
    """
    spreads = {name: result.spread(name) for name in result.evaluations}
    known = [metric for metric in metrics if any(_cell(each.get(metric)) for each in spreads.values())]
    if "cls/accuracy" in known:
        known = [metric for metric in known if metric != "cls/map"]
    head = " & ".join(["strategy", *(_escaped(NAMES[metric][0]) for metric in known)])
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


def _cell(spread: Spread | None) -> str:
    if spread is None or math.isnan(spread.mean):
        return ""
    some = "" if spread.defined == len(spread.folds) else f" in {spread.defined} of {len(spread.folds)} folds"
    if math.isnan(spread.deviation):
        return f"{spread.mean:.4f}{some}"
    return f"{spread.mean:.4f} ± {spread.deviation:.4f} ({spread.low:.4f} to {spread.high:.4f}){some}"


def _latex_cell(spread: Spread | None) -> str:
    if not _cell(spread):
        return "--"
    assert spread is not None
    deviation = "" if math.isnan(spread.deviation) else rf" \pm {spread.deviation:.3f}"
    return f"${spread.mean:.3f}{deviation}$"


def _difference(interval: Interval) -> str:
    apart = interval.low > 0 or interval.high < 0
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}){' *' if apart else ''}"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _escaped(text: str) -> str:
    for mark in "\\_%&#$":
        text = text.replace(mark, r"\textbackslash{}" if mark == "\\" else f"\\{mark}")
    return text.replace("′", "$'$")

"""Figures of a run and its uncertainty.

A function draws on the Axes it is given or returns a Figure; none changes Matplotlib's global state. Axes need a figure
with ``layout="constrained"``, because legends stand outside them.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from bayes_panns.core.files import whole_file
from bayes_panns.metrics.plotting import FAINT, INK, PALETTE, clean, legend_above, percent
from bayes_panns.report.names import metric_name, validation_name


def uncertainty_histograms(
    ax: Axes, groups: Mapping[str, NDArray[np.floating]], label: str = "predictive entropy / nats"
) -> None:
    """Draw how uncertain each group of clips is, such as correct, wrong and out-of-distribution clips.

    Each group's bars add up to 100 %, so that groups of different sizes compare. An empty group is left out.

    Args:
        ax: Where to draw.
        groups: The name of each group to the scores of its clips, ``(N,)``.
        label: The name of the score, with its unit.
    """
    filled = {name: values for name, values in groups.items() if len(values)}
    edges = np.histogram_bin_edges(np.concatenate(list(filled.values())), bins=24)
    for index, (name, values) in enumerate(groups.items()):
        if name not in filled:
            continue
        share = np.histogram(values, edges)[0] / len(values)
        color = PALETTE[index % len(PALETTE)]
        ax.stairs(share, edges, fill=True, color=color, alpha=0.18)
        ax.stairs(share, edges, color=color, linewidth=1.5, label=f"{name} ({len(values)})")
    ax.set(xlabel=label, ylabel="share of the group's clips")
    percent(ax.yaxis)
    legend_above(ax)
    clean(ax)


def training_panels(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, str]]:
    """The charts of a fit's log: NLL, KL, weight of the KL, and one for each validation metric.

    The validation NLL joins the training NLL. A chart without any value is left out.

    Args:
        metrics: The lines of ``metrics.jsonl``: ``epoch``, ``nll``, ``kl``, ``kl_weight`` and any ``val/...``.

    Returns:
        The title of each chart to its curves: the key of a curve to its name.
    """
    keys = list(dict.fromkeys(key for line in metrics for key, value in line.items() if value is not None))
    nll = metric_name("cal/nll")
    panels: dict[str, dict[str, str]] = {f"{nll.axis} per clip": {"nll": "training", "val/nll": "validation"}}
    panels |= {"KL to the prior / nats": {"kl": "KL"}, "Weight of the KL": {"kl_weight": "weight"}}
    for key in keys:
        if key.startswith("val/") and key != "val/nll":
            panels[f"Validation: {validation_name(key).title}"] = {key: validation_name(key).short}
    return {title: found for title, curves in panels.items() if (found := {k: curves[k] for k in curves if k in keys})}


def training_curves(metrics: Sequence[Mapping[str, float]]) -> Figure:
    """A figure of what a fit logged over its epochs, with a panel for each of :func:`training_panels`.

    Args:
        metrics: The lines of ``metrics.jsonl``.

    Raises:
        ValueError: There are none.
    """
    if not metrics:
        raise ValueError("no metrics to draw")
    panels = training_panels(metrics)
    figure, axes = _grid(len(panels), width=3.4, height=2.4)
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        for color, (key, name) in zip(PALETTE, curves.items(), strict=False):
            points = [(line["epoch"], line[key]) for line in metrics if line.get(key) is not None]
            ax.plot(*zip(*points, strict=True), color=color, marker="o" if len(points) < 15 else "", ms=3, label=name)
        if len(curves) > 1:
            ax.legend(loc="upper right", frameon=False, fontsize="small", labelcolor=INK)
        ax.set_title(title, fontsize="medium", loc="left", color=INK)
        ax.set_xlabel("epoch")
        ax.set_xlim(metrics[0]["epoch"] - 0.5, metrics[-1]["epoch"] + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        clean(ax)
    return figure


def comparison(
    results: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str] = ("cls/accuracy", "cal/nll", "cal/ece", "ood/auroc"),
) -> Figure:
    """A dot plot of several results, with a panel for each metric; the best dot is filled.

    A metric that no result has is left out. A result without a finite value has no dot.

    Args:
        results: The name of each result to its metrics, as ``evaluate`` returns them.
        metrics: The metrics to show, in order.

    Raises:
        ValueError: No result has any of the metrics.
    """
    finite = {
        metric: {
            name: values[metric] for name, values in results.items() if math.isfinite(values.get(metric, math.nan))
        }
        for metric in metrics
    }
    finite = {metric: values for metric, values in finite.items() if values}
    if not finite:
        raise ValueError(f"no result has any of {', '.join(metrics)}")
    names = list(results)
    figure = Figure(figsize=(1.2 + 2.3 * len(finite), 1.1 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(finite), sharey=True, squeeze=False)[0]
    for ax, (metric, values) in zip(axes, finite.items(), strict=True):
        named = metric_name(metric)
        # An infinite d' has no dot and is still the best.
        known = [result[metric] for result in results.values() if not math.isnan(result.get(metric, math.nan))]
        best = {"higher": max, "lower": min}[named.better](known) if named.better else None
        for name, value in values.items():
            row = names.index(name)
            face = PALETTE[0] if value == best else "none"
            ax.plot(value, row, "o", ms=7, color=PALETTE[0], markerfacecolor=face)
            ax.annotate(
                *(f"{value:.3f}", (value, row), (0, 6)),
                textcoords="offset points",
                ha="center",
                fontsize="x-small",
                color=INK,
            )
        ax.set_title(named.axis, fontsize="medium")
        direction = {"higher": "higher is better →", "lower": "← lower is better", "": ""}[named.better]
        ax.set_xlabel(direction, fontsize="small")
        ax.margins(x=0.25)
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        clean(ax)
        ax.grid(visible=True, axis="y", color=FAINT, linewidth=0.6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.7)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG at 150 dots per inch, whole or not at all.

    Args:
        figure: The figure.
        path: The file to write; its folder exists.

    Raises:
        OSError: The file cannot be written.
    """
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=150)


def _grid(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, up to three in a row; width and height of a panel are in inches."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, 1 + panel) for panel in range(panels)]

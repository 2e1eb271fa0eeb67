"""The pictures of a run and its uncertainty. Each draws on an Axes it is given, or makes a Figure; no global state.

Give the Axes room with ``Figure(layout="constrained")``.
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

_SCORES = ("confidence", "entropy", "mutual_information", "expected_entropy", "total", "aleatoric", "epistemic")

NAMES: dict[str, tuple[str, str]] = {
    "cls/accuracy": ("accuracy", "higher"),
    "cls/map": ("mean average precision", "higher"),
    "cls/auc": ("AUC", "higher"),
    "cls/d_prime": ("d′", "higher"),
    "cal/ece": ("ECE", "lower"),
    "cal/ace": ("ACE", "lower"),
    "cal/classwise_ece": ("class-wise ECE", "lower"),
    "cal/nll": ("NLL / nats", "lower"),
    "cal/brier": ("Brier score", "lower"),
    "cal/brier_reliability": ("Brier: reliability", "lower"),
    "cal/brier_resolution": ("Brier: resolution", "higher"),
    "cal/brier_uncertainty": ("Brier: uncertainty", ""),
    "sc/aurc": ("AURC", "lower"),
    "sc/augrc": ("AUGRC", "lower"),
    "sc/coverage_at_5_percent_risk": ("coverage at 5 % risk", "higher"),
    "sc/pavpu": ("PAvPU", "higher"),
    **{f"sc/aurc_{score}": (f"AURC, {score.replace('_', ' ')}", "lower") for score in _SCORES},
    "unc/entropy": ("entropy / nats", ""),
    "unc/mutual_information": ("mutual information / nats", ""),
    "unc/expected_entropy": ("expected entropy / nats", ""),
    "unc/total": ("total variance", ""),
    "unc/aleatoric": ("aleatoric variance", ""),
    "unc/epistemic": ("epistemic variance", ""),
    "ood/auroc": ("OOD AUROC", "higher"),
    "ood/aupr": ("OOD AUPR", "higher"),
    "ood/fpr95": ("OOD FPR at 95 % TPR", "lower"),
    **{f"ood/auroc_{score}": (f"OOD AUROC, {score.replace('_', ' ')}", "higher") for score in _SCORES},
    **{f"ood/aupr_{score}": (f"OOD AUPR, {score.replace('_', ' ')}", "higher") for score in _SCORES},
    **{f"ood/fpr95_{score}": (f"OOD FPR at 95 % TPR, {score.replace('_', ' ')}", "lower") for score in _SCORES},
}
"""What the metrics of ``evaluate --json`` are called in a picture, and which way is better."""


def uncertainty_histograms(
    ax: Axes, groups: Mapping[str, NDArray[np.floating]], label: str = "predictive entropy / nats"
) -> None:
    """How uncertain each group of clips is, say the right, the wrong and those out of distribution.

    Every group's bars add up to 100 %, so that groups of different size compare. An empty group is left out.

    Args:
        ax: where to draw.
        groups: name to the scores of its clips ``(N,)``.
        label: what the score is, and its unit.
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


def training_curves(metrics: Sequence[Mapping[str, float]]) -> Figure:
    """What a fit logged, over its epochs, a panel each: NLL, KL, the KL's weight, and every validation metric.

    The validation NLL joins the training NLL. Epochs that did not measure a value are skipped, and so is a panel
    without any.

    Args:
        metrics: the lines of ``metrics.jsonl``: ``epoch``, ``nll``, ``kl``, ``kl_weight`` and any ``val/...``.

    Raises:
        ValueError: there are none.
    """
    if not metrics:
        raise ValueError("no metrics to draw")
    keys = list(dict.fromkeys(key for line in metrics for key, value in line.items() if value is not None))
    panels: dict[str, dict[str, str]] = {"NLL / nats per clip": {"nll": "training", "val/nll": "validation"}}
    panels |= {"KL / nats": {"kl": ""}, "weight of the KL": {"kl_weight": ""}}
    for key in keys:
        name = key.removeprefix("val/")
        if name != key and name != "nll":
            panels[f"validation {NAMES[name][0] if name in NAMES else name}"] = {key: ""}
    panels = {
        title: found for title, curves in panels.items() if (found := {k: curves[k] for k in curves if k in keys})
    }

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
    """A dot plot of named results, a panel a metric, the best filled.

    A metric that no result has is left out; a result without a finite value has no dot.

    Args:
        results: name to metrics, as ``evaluate`` returns them.
        metrics: which to show, in order.

    Raises:
        ValueError: no result has any of the metrics.
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
        title, better = NAMES.get(metric, (metric, ""))
        # An infinite d' has no dot and is the best all the same.
        known = [result[metric] for result in results.values() if not math.isnan(result.get(metric, math.nan))]
        best = {"higher": max, "lower": min}[better](known) if better else None
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
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel({"higher": "higher is better →", "lower": "← lower is better", "": ""}[better], fontsize="small")
        ax.margins(x=0.25)
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        clean(ax)
        ax.grid(visible=True, axis="y", color=FAINT, linewidth=0.6)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.7)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG of 150 dots an inch; ``path`` holds all of it or what it held before.

    Args:
        figure: what to draw.
        path: where to; its folder exists.
    """
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=150)


def _grid(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, up to three a row, each that many inches."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, 1 + panel) for panel in range(panels)]

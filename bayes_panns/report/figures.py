"""The pictures of a run and its uncertainty. Each draws on an Axes it is given, or makes a Figure; no global state.

Give the Axes room with ``Figure(layout="constrained")``.
"""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from bayes_panns import uncertainty

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""The colours of Okabe and Ito (2008), told apart under every common colour blindness."""

INK = "#333333"
FAINT = "#D9D9D9"

NAMES: dict[str, tuple[str, str]] = {
    "cls/accuracy": ("accuracy", "higher"),
    "cls/map": ("mean average precision", "higher"),
    "cls/auc": ("AUC", "higher"),
    "cls/d_prime": ("d′", "higher"),
    "cal/ece": ("ECE", "lower"),
    "cal/ace": ("ACE", "lower"),
    "cal/nll": ("NLL / nats", "lower"),
    "cal/brier": ("Brier score", "lower"),
    "sc/aurc": ("AURC", "lower"),
    "unc/total": ("total variance", ""),
    "unc/aleatoric": ("aleatoric variance", ""),
    "unc/epistemic": ("epistemic variance", ""),
    "ood/auroc": ("OOD AUROC", "higher"),
    "ood/aupr": ("OOD AUPR", "higher"),
    "ood/fpr95": ("OOD FPR at 95 % TPR", "lower"),
    "ood/auroc_mutual_information": ("OOD AUROC, mutual information", "higher"),
}
"""What the metrics of ``evaluate --json`` are called in a picture, and which way is better."""


def reliability(ax: Axes, probability: NDArray[np.floating], target: NDArray[np.bool_], task: str) -> None:
    """A reliability diagram: how often predictions came true against how sure they were, and how many there are.

    A well calibrated model's bars end on the diagonal. The gap between a bin's mean confidence and how often it came
    true is coloured, by whether the model was too sure or not sure enough. The counts stand in a strip on top.

    Args:
        ax: where to draw.
        probability: ``(N, K)``.
        target: ``(N, K)``, one-hot for one-of-K.
        task: ``"one-of-k"``, on the most probable label; or ``"multi-label"``, pooled over clip-label pairs.
    """
    one_of_k = task == "one-of-k"
    bins = uncertainty.reliability(probability, target, task)
    width = 1 / len(bins.count)
    filled = bins.count > 0
    left = np.arange(len(bins.count))[filled] * width
    frequency, confidence = bins.frequency[filled], bins.confidence[filled]
    low, gap = np.minimum(frequency, confidence), np.abs(frequency - confidence)
    sure = confidence > frequency
    ax.bar(left, low, width, align="edge", color=PALETTE[4], edgecolor="white")
    for kind, face, edge, label in (
        (sure, "#F7D3BD", PALETTE[1], "too sure"),
        (~sure, PALETTE[0], PALETTE[0], "not sure enough"),
    ):
        ax.bar(left[kind], gap[kind], width, low[kind], align="edge", color=face, edgecolor=edge, lw=0.8, label=label)
    ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_xlabel("confidence" if one_of_k else "probability of a label")
    ax.set_ylabel("share of clips that are right" if one_of_k else "share of clips that have the label")
    ax.plot([], [], " ", label=f"ECE {bins.error:.3f}")
    ax.legend(loc="upper left", frameon=False, fontsize="small")
    _clean(ax)

    strip = ax.inset_axes((0, 1.03, 1, 0.16), sharex=ax)
    strip.bar(left, bins.count[filled], width, align="edge", color="#999999", edgecolor="white")
    if not one_of_k:
        # Most labels are absent from most clips: the lowest bin dwarfs the rest.
        strip.set_yscale("log")
        strip.set_ylim(bottom=0.5)
    strip.set_ylabel("clips" if one_of_k else "pairs", fontsize="small")
    strip.tick_params(labelbottom=False, labelsize="small")
    _clean(strip)


def risk_coverage(ax: Axes, results: Mapping[str, tuple[NDArray[np.floating], NDArray[np.bool_]]]) -> None:
    """The share of errors among the clips kept, as the least certain are handed to a person.

    The noise of the first few clips may leave the picture at its top.

    Args:
        ax: where to draw.
        results: name to uncertainty ``(N,)``, higher given up earlier, and whether the prediction is wrong ``(N,)``.
    """
    top = 0.0
    for index, (name, (score, wrong)) in enumerate(results.items()):
        coverage, risk = uncertainty.risk_coverage(score, wrong)
        top = max(top, risk[coverage >= 0.05].max())
        ax.plot(
            coverage,
            risk,
            color=PALETTE[index % len(PALETTE)],
            linestyle="-" if index < len(PALETTE) else "--",
            marker="o" if len(risk) == 1 else "",
            label=f"{name} (AURC {uncertainty.aurc(score, wrong):.3f})",
        )
    ax.set(xlim=(0, 1), xlabel="coverage: share of clips kept", ylabel="risk: share of errors among them")
    ax.set_ylim(0, 1.1 * top or 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    _legend_above(ax)
    _clean(ax)


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
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    _legend_above(ax)
    _clean(ax)


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
            ax.legend(loc="upper right", frameon=False, fontsize="small")
        ax.set_title(title, fontsize="medium", loc="left", color=INK)
        ax.set_xlabel("epoch")
        ax.set_xlim(metrics[0]["epoch"] - 0.5, metrics[-1]["epoch"] + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        _clean(ax)
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
            face = PALETTE[0] if value == best else "white"
            ax.plot(value, row, "o", ms=7, color=PALETTE[0], markerfacecolor=face)
            ax.annotate(
                f"{value:.3f}", (value, row), (0, 6), textcoords="offset points", ha="center", fontsize="x-small"
            )
        ax.set_title(title, fontsize="medium", color=INK)
        ax.set_xlabel({"higher": "higher is better →", "lower": "← lower is better", "": ""}[better], fontsize="small")
        ax.margins(x=0.25)
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        _clean(ax)
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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(part, format="png", dpi=150)
        part.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def _grid(panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, up to three a row, each that many inches."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, 1 + panel) for panel in range(panels)]


def _legend_above(ax: Axes) -> None:
    """A legend outside the axes, where it covers no data."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")


def _clean(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(color="#888888", labelcolor=INK)
    ax.set_axisbelow(True)

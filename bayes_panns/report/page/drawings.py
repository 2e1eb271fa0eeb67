"""Drawings of a page's own charts; those of metrics are drawn by the metrics' ``plot`` methods.

Each function returns a function that draws on the Axes it is given.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from bayes_panns.metrics.plotting import FAINT, INK, PALETTE, clean
from bayes_panns.report.page.charts import DEPTH, plain


def curve(metrics: Sequence[Sequence[Mapping[str, float]]], curves: Mapping[str, str]) -> Callable[[Axes], None]:
    """Values over the epochs; those of several runs, such as folds, are thin lines of one colour.

    Args:
        metrics: The lines of ``metrics.jsonl`` of each run.
        curves: The key of each curve to its name.
    """

    def draw(ax: Axes) -> None:
        for colour, (key, name) in zip(PALETTE, curves.items(), strict=False):
            for place, lines in enumerate(metrics):
                points = [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]
                ax.plot(
                    [epoch for epoch, _ in points],
                    [value for _, value in points],
                    color=colour,
                    linewidth=1.6 if len(metrics) == 1 else 0.9,
                    marker="o" if len(points) < 15 else "",
                    markersize=3,
                    label=name if place == 0 else None,
                )
        if len(curves) > 1:
            ax.legend(loc="upper right", frameon=False, fontsize="small")
        _epochs(ax)

    return draw


def scales(metrics: Sequence[Mapping[str, float]], groups: Mapping[str, Sequence[str]]) -> Callable[[Axes], None]:
    """The geometric mean of the posterior's scales over the epochs, a line for each group of weights.

    Args:
        metrics: The lines of ``metrics.jsonl``.
        groups: The name of each group to its keys, from the network's first layer to its last.
    """

    def draw(ax: Axes) -> None:
        for place, (name, keys) in enumerate(groups.items()):
            colour = DEPTH[round(place * (len(DEPTH) - 1) / max(1, len(groups) - 1))]
            lines = [line for line in metrics if all((line.get(key) or 0) > 0 for key in keys)]
            values = [float(np.exp(np.mean([np.log(line[key]) for key in keys]))) for line in lines]
            epochs = [line["epoch"] for line in lines]
            ax.plot(epochs, values, color=colour, linewidth=1.6, label=plain(name))
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
        _epochs(ax)

    return draw


def confusion(counts: NDArray[np.integer], labels: Sequence[str]) -> Callable[[Axes], None]:
    """A confusion matrix with a row for each true label; shades are shares of the row.

    Args:
        counts: ``(K, K)``, the clips of a true label (row) with a predicted label (column).
        labels: K names.
    """

    def draw(ax: Axes) -> None:
        size = len(labels)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = PALETTE[0] if row == column else PALETTE[1]
            alpha = float(0.12 + 0.68 * share[row, column])
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="none", alpha=alpha))
            if size <= 24:
                ax.text(column, row, str(counts[row, column]), ha="center", va="center", color=INK, fontsize="small")
        names = [plain(label, 18) for label in labels]
        font = "small" if size <= 24 else 5
        ax.set_xticks(range(size), names, rotation=90, fontsize=font)
        ax.set_yticks(range(size), names, fontsize=font)
        ax.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="predicted label", ylabel="true label")
        ax.set_aspect("equal")
        clean(ax)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for edge in np.arange(size + 1) - 0.5:
            ax.axhline(edge, color=FAINT, linewidth=0.5)
            ax.axvline(edge, color=FAINT, linewidth=0.5)

    return draw


def signal_to_noise(quantiles: Mapping[str, NDArray[np.floating]]) -> Callable[[Axes], None]:
    """The quantiles of |loc| / scale, a row for each weight tensor: 5-95 % thin, 25-75 % thick, a dot at the median.

    Args:
        quantiles: The name of each weight tensor to its quantiles at 5, 25, 50, 75 and 95 %, ``(5,)``.
    """

    def draw(ax: Axes) -> None:
        for row, (low, lower, middle, upper, high) in enumerate(quantiles.values()):
            ax.plot([low, high], [row, row], color=PALETTE[0], linewidth=1.2, solid_capstyle="butt")
            ax.plot([lower, upper], [row, row], color=PALETTE[0], linewidth=4.5, solid_capstyle="butt")
            ax.plot(middle, row, "o", color=PALETTE[0], markerfacecolor="white", markersize=5, markeredgewidth=1.4)
        ax.axvline(1, color=PALETTE[1], linewidth=1, linestyle=(0, (4, 3)))
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=6))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_yticks(range(len(quantiles)), [plain(name, 40) for name in quantiles], fontsize="small")
        ax.set_ylim(len(quantiles) - 0.4, -0.6)
        ax.set_xlabel("|loc| / scale")
        clean(ax)
        ax.grid(visible=True, axis="x", color=FAINT, linewidth=0.6)

    return draw


def _epochs(ax: Axes) -> None:
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if ax.get_yscale() == "linear":
        large = max(map(abs, ax.get_ylim())) >= 1e4
        ax.yaxis.set_major_formatter(EngFormatter(sep="") if large else StrMethodFormatter("{x:g}"))
    clean(ax)

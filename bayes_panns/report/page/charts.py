"""Charts for a page: SVG that stands inside HTML, takes the page's colours and keeps its text as text."""

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from bayes_panns.metrics.plotting import FAINT, INK, PALETTE, clean

DEPTH = ("#f2a900", "#d98f1b", "#b87a4b", "#8f6d74", "#6f6593", "#5560a8", "#3459b5", "#0047ab")
"""From the first layer to the last."""

_COLOURS = {
    "#000000": "ink",
    INK: "ink",
    FAINT: "grid",
    "#ffffff": "paper",
    **dict(zip(PALETTE, ("blue", "vermilion", "green", "pink", "sky", "orange", "grey"), strict=True)),
    **{colour: f"depth-{place}" for place, colour in enumerate(DEPTH)},
}
"""What each colour of the drawings is called in the page's style sheet, which has it for light and for dark."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    # Names inside an SVG are made from its content and this, so that the same drawing is the same text.
    "svg.hashsalt": "bayes_panns",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.formatter.use_mathtext": False,
}


@dataclass(frozen=True)
class Chart:
    """A chart on a page.

    Attributes:
        title: What it shows.
        svg: The drawing.
        caption: How to read it; may be empty.
        wide: Whether it takes the whole width of the page.
    """

    title: str
    svg: Markup
    caption: str = ""
    wide: bool = False


class Charts:
    """Draws the charts of one page; names inside one chart never meet those of another."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(
        self,
        title: str,
        draw: Callable[[Axes], object],
        alt: str,
        *,
        caption: str = "",
        size: tuple[float, float] = (3.4, 2.9),
        wide: bool = False,
    ) -> Chart:
        """Draw a chart.

        Args:
            title: What it shows.
            draw: Draws on the axes it is given.
            alt: What there is to see, for those who cannot.
            caption: How to read it.
            size: Width and height in inches; text keeps its size, so what phones should show is no wider than 3.4.
            wide: Whether it takes the whole width of the page.
        """
        self._count += 1
        return Chart(title, _svg(draw, alt, size, f"chart{self._count}-"), caption, wide)


def plain(text: str, limit: int = 28) -> str:
    """A stranger's text as matplotlib shows it letter by letter: no formulas, no control characters, not too long."""
    shown = "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in text)
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    # Legends leave out what starts with an underscore.
    return ("\u200a" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def curve(metrics: Sequence[Sequence[Mapping[str, float]]], curves: Mapping[str, str]) -> Callable[[Axes], None]:
    """Draws values over the epochs; those of several runs, as of a cross-validation, in thin lines of one colour.

    Args:
        metrics: The lines of ``metrics.jsonl``, for each run.
        curves: The keys to draw, and what to call each.
    """

    def draw(ax: Axes) -> None:
        for colour, (key, name) in zip(PALETTE, curves.items(), strict=False):
            for place, lines in enumerate(metrics):
                points = [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]
                ax.plot(
                    *zip(*points, strict=True),
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
    """Draws the geometric mean of the posterior's scales over the epochs, a line a group of weights.

    Args:
        metrics: The lines of ``metrics.jsonl``.
        groups: A name to the keys that make it up, from the network's first layer to its last.
    """

    def draw(ax: Axes) -> None:
        for place, (name, keys) in enumerate(groups.items()):
            colour = DEPTH[round(place * (len(DEPTH) - 1) / max(1, len(groups) - 1))]
            lines = [line for line in metrics if all(line.get(key) for key in keys)]
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
    """Draws a confusion matrix: a row a true label, its shades the shares of the row.

    Args:
        counts: ``(K, K)``: clips of a true label (row) that were given a label (column).
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
        ax.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="given label", ylabel="true label")
        ax.set_aspect("equal")
        clean(ax)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for edge in np.arange(size + 1) - 0.5:
            ax.axhline(edge, color=FAINT, linewidth=0.5)
            ax.axvline(edge, color=FAINT, linewidth=0.5)

    return draw


def signal_to_noise(quantiles: Mapping[str, NDArray[np.floating]]) -> Callable[[Axes], None]:
    """Draws, a row a weight tensor, how far its |loc| / scale reach: 5-95 % thin, 25-75 % thick, and the median.

    Args:
        quantiles: A weight's name to its quantiles at 5, 25, 50, 75 and 95 %.
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


def _svg(draw: Callable[[Axes], object], alt: str, size: tuple[float, float], prefix: str) -> Markup:
    """What ``draw`` draws, as an ``<svg>`` for the inside of an HTML page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The browser has fonts for what this one lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        ax = figure.add_subplot()
        draw(ax)
        for strip in ax.child_axes:
            # Its lowest tick would stand on the highest of the axes below.
            if strip.get_yscale() == "linear":
                strip.yaxis.set_major_locator(MaxNLocator(2, integer=True, prune="lower"))
        for each in figure.findobj(Axes):
            each.patch.set_alpha(0)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # What holds for all elements would hold for all of the page.
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r"#[0-9a-f]{6}\b(?=[;\"])", lambda found: _variable(found[0]), text)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None, "matplotlib gives every SVG one"
    width = round(size[0] * 96)
    return Markup(
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box[0]} style="max-width: {width}px" role="img" aria-label="{escape(alt)}">{body}'
    )


_BY_HEX = {colour.lower(): name for colour, name in _COLOURS.items()}


def _variable(colour: str) -> str:
    return f"var(--{_BY_HEX[colour]})" if colour in _BY_HEX else colour

"""The look of plots: colours, axes and legends, on Axes that the caller passes. Importing this changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
"""The colours of Okabe and Ito (2008), which can be told apart with any common colour blindness. Grey replaces their
black, so that all can be seen on a light and on a dark page."""

INK = "#333333"
"""The colour of text, axes and reference lines, and of nothing else: a page may replace it by its own text colour."""

FAINT = "#D9D9D9"
"""The colour of grids."""


def clean(ax: Axes) -> None:
    """Remove the box and colour the axes in :data:`INK`. Call it last.

    Args:
        ax: Where to draw.
    """
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(which="both", color=INK, labelcolor=INK)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set_color(INK)
    ax.set_axisbelow(True)


def legend_above(ax: Axes) -> None:
    """Put the legend above the axes, where it covers no data.

    Args:
        ax: Where to draw.
    """
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small", labelcolor=INK)


def percent(axis: Axis) -> None:
    """Label an axis in percent of 1.

    Args:
        axis: ``ax.xaxis`` or ``ax.yaxis``.
    """
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1))


def whole(axis: Axis) -> None:
    """Put an axis' ticks at whole numbers.

    Args:
        axis: ``ax.xaxis`` or ``ax.yaxis``.
    """
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def next_line(ax: Axes, color: str | None) -> dict[str, Any]:
    """The colour and line style of the next curve on an Axes, so that curves drawn one by one differ.

    Args:
        ax: Where to draw; its curves are the lines with a label for the legend.
        color: By default the palette's next.
    """
    curves = sum(not str(line.get_label()).startswith("_") for line in ax.lines)
    return {
        "color": color or PALETTE[curves % len(PALETTE)],
        "linestyle": "-" if curves < len(PALETTE) else "--",
    }


def diagonal(ax: Axes) -> None:
    """Draw the line from (0, 0) to (1, 1), once per Axes.

    Args:
        ax: Where to draw.
    """
    if all(line.get_label() != "_diagonal" for line in ax.lines):
        ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="_diagonal")

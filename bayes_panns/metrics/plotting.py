"""How the pictures of results look: colours, axes and legends, for Axes that the caller gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
"""The colours of Okabe and Ito (2008), told apart under every common colour blindness, with grey for their black: all
show on a light and on a dark page."""

INK = "#333333"
"""Text, axes and reference lines, and nothing else: a page may put its own text colour in its place."""

FAINT = "#D9D9D9"
"""Grids."""


def clean(ax: Axes) -> None:
    """Axes without a box, in :data:`INK`; to be called last.

    Args:
        ax: where to draw.
    """
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(which="both", color=INK, labelcolor=INK)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set_color(INK)
    ax.set_axisbelow(True)


def legend_above(ax: Axes) -> None:
    """A legend outside the axes, where it covers no data.

    Args:
        ax: where to draw.
    """
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small", labelcolor=INK)


def percent(axis: Axis) -> None:
    """Writes an axis' ticks as per cent of 1.

    Args:
        axis: ``ax.xaxis`` or ``ax.yaxis``.
    """
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1))


def whole(axis: Axis) -> None:
    """Puts an axis' ticks at whole numbers.

    Args:
        axis: ``ax.xaxis`` or ``ax.yaxis``.
    """
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def next_line(ax: Axes, color: str | None) -> dict[str, Any]:
    """The colour and dash of the next curve on an Axes, so that curves drawn one by one stay apart.

    Args:
        ax: where to draw; its curves are the lines that have a label for the legend.
        color: instead of the palette's next.
    """
    curves = sum(not str(line.get_label()).startswith("_") for line in ax.lines)
    return {
        "color": color or PALETTE[curves % len(PALETTE)],
        "linestyle": "-" if curves < len(PALETTE) else "--",
    }


def diagonal(ax: Axes) -> None:
    """The line from (0, 0) to (1, 1), drawn once however often it is asked for.

    Args:
        ax: where to draw.
    """
    if all(line.get_label() != "_diagonal" for line in ax.lines):
        ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="_diagonal")

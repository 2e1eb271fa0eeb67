"""Charts for a page: SVG inside HTML that follows the page's colours and keeps its text as text."""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_panns.core.text import printable
from bayes_panns.metrics.plotting import FAINT, INK, PALETTE

DEPTH = ("#f2a900", "#d98f1b", "#b87a4b", "#8f6d74", "#6f6593", "#5560a8", "#3459b5", "#0047ab")
"""Colours from the first layer to the last."""

_COLOURS = {
    "#000000": "ink",
    INK: "ink",
    FAINT: "grid",
    "#ffffff": "paper",
    **dict(zip(PALETTE, ("blue", "vermilion", "green", "pink", "sky", "orange", "grey"), strict=True)),
    **{colour: f"depth-{place}" for place, colour in enumerate(DEPTH)},
}
"""The name of each colour in the page's style sheet, which has a light and a dark value for it."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    # With a fixed salt, the identifiers in an SVG depend on its content only: the same drawing is the same text.
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
        title: Its heading.
        svg: The drawing.
        caption: How to read it; may be empty.
        wide: Whether it takes the whole width of the page.
    """

    title: str
    svg: Markup
    caption: str = ""
    wide: bool = False


class Charts:
    """Draws the charts of one page; identifiers are unique across its charts."""

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
            title: Its heading.
            draw: Draws on the axes it is given.
            alt: A description for readers who cannot see it.
            caption: How to read it.
            size: Width and height in inches. Text keeps its size, so a chart for phones is at most 3.4 inches wide.
            wide: Whether it takes the whole width of the page.

        Returns:
            The chart.
        """
        self._count += 1
        return Chart(title, _svg(draw, alt, size, f"chart{self._count}-"), caption, wide)


def plain(text: str, limit: int = 28) -> str:
    r"""Text that Matplotlib shows letter by letter: no formulas, no control characters, at most ``limit`` letters.

    Example:
        >>> plain("a$b")
        'a\\$b'
    """
    shown = printable(text)
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    # Legends leave out names that start with an underscore.
    return ("\u200a" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def _svg(draw: Callable[[Axes], object], alt: str, size: tuple[float, float], prefix: str) -> Markup:
    """What ``draw`` draws, as an ``<svg>`` element for an HTML page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The browser has fonts for the letters that this font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        ax = figure.add_subplot()
        draw(ax)
        for strip in ax.child_axes:
            # The lowest tick label would overlap the highest one of the axes below.
            if strip.get_yscale() == "linear":
                strip.yaxis.set_major_locator(MaxNLocator(2, integer=True, prune="lower"))
        for each in figure.findobj(Axes):
            each.patch.set_alpha(0)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A style for all elements of the drawing would apply to the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r"#[0-9a-f]{6}\b(?=[;\"])", lambda found: _variable(found[0]), text)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None, "Matplotlib gives every SVG one"
    width = round(size[0] * 96)
    return Markup(
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box[0]} style="max-width: {width}px" role="img" aria-label="{escape(alt)}">{body}'
    )


_BY_HEX = {colour.lower(): name for colour, name in _COLOURS.items()}


def _variable(colour: str) -> str:
    return f"var(--{_BY_HEX[colour]})" if colour in _BY_HEX else colour

"""The windows of a sound over time: a lane for each of the most probable labels, with its band."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.text import printable
from bayes_panns.metrics.plotting import PALETTE

if TYPE_CHECKING:
    from bayes_panns.notebook.predictions import Predictions

COLUMNS = 400
"""The most steps of a lane; of more windows each step shows the one in which the label is most probable."""

_WIDTH, _HEIGHT = 1000, 30


def lanes(tags: "Predictions", top: int, style: str) -> Iterator[str]:
    """A name and a drawing for each label, and an axis below.

    Args:
        tags: Predictions for several windows of one sound.
        top: How many labels.
        style: The style of a name's element.
    """
    first, last = tags.windows[0].start, max(window.end for window in tags.windows)
    middle = np.array([(window.start + window.end) / 2 for window in tags.windows])
    # Windows may overlap: each counts from half-way to the one before to half-way to the next.
    edges = _WIDTH * (np.array([first, *(middle[1:] + middle[:-1]) / 2, last]) - first) / (last - first)
    for place, each in enumerate(tags.top(top)):
        k, colour = tags.labels.index(each.label), PALETTE[place % len(PALETTE)]
        p, low, high, bounds = _steps(tags.probability[:, k], tags.low[:, k], tags.high[:, k], edges)
        band = _path(bounds, high, low)
        mean = _path(bounds, p, np.zeros_like(p))
        events = "".join(
            f'<rect x="{left:.1f}" y="{_HEIGHT - 2}" width="{right - left:.1f}" height="2" fill="{colour}"/>'
            for event in (tags.found or ())[:COLUMNS]
            if event.label == each.label
            for left, right in [_WIDTH * (np.array([event.onset, event.offset]) - first) / (last - first)]
        )
        yield f'<div style="{style}">{escape(printable(each.label))} {each.probability:.2f}</div>'
        yield (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" style="width:100%;height:{_HEIGHT}px">'
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="currentColor" opacity=".06"/>'
            f'<path d="{mean}" fill="{colour}" opacity=".4"/><path d="{band}" fill="{colour}" opacity=".75"/>{events}'
            "</svg>"
        )
    ticks = "".join(f"<span>{first + (last - first) * share:.4g}</span>" for share in (0, 0.25, 0.5, 0.75, 1))
    yield f'<div style="{style}">seconds</div>'
    yield f'<div style="display:flex;justify-content:space-between;font-size:80%;opacity:.65">{ticks}</div>'


def _steps(
    p: NDArray[np.float64], low: NDArray[np.float32], high: NDArray[np.float32], edges: NDArray[np.float64]
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """At most :data:`COLUMNS` steps of N windows, and their N + 1 edges."""
    size = -(-len(p) // COLUMNS)
    if size == 1:
        return p, low, high, edges
    firsts = np.arange(0, len(p), size)
    best = np.array([first + int(p[first : first + size].argmax()) for first in firsts])
    return p[best], low[best], high[best], np.append(edges[firsts], edges[-1])


def _path(edges: NDArray, upper: NDArray, lower: NDArray) -> str:
    """The outline between two step functions, as the path of a drawing."""
    x = np.repeat(edges, 2)[1:-1]
    above, below = (_HEIGHT * (1 - np.repeat(values, 2)) for values in (upper, lower))
    points = [*zip(x, above, strict=True), *zip(x[::-1], below[::-1], strict=True)]
    return "M" + "L".join(f"{left:.1f} {down:.1f}" for left, down in points) + "Z"

"""Drawings of predictions."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from bayes_panns.core.text import printable
from bayes_panns.metrics.plotting import PALETTE, clean, legend_above

if TYPE_CHECKING:
    from bayes_panns.notebook.predictions import Predictions

_HEADROOM = 1.02


def draw(tags: "Predictions", ax: Axes | None, top: int) -> Axes:
    """Draw predictions; see :meth:`~bayes_panns.notebook.Predictions.plot`."""
    labels = [tags.labels.index(each.label) for each in tags.top(top)]
    if ax is None:
        # In a notebook pyplot shows the figure.
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    if len(tags) == 1:
        _bars(tags, ax, labels)
    elif len(tags.files) == 1:
        _lines(tags, ax, labels)
    else:
        _rows(tags, ax, labels)
    clean(ax)
    return ax


def _bars(tags: "Predictions", ax: Axes, labels: list[int]) -> None:
    """A bar for each label of one window."""
    p, low, high = (values[0, labels] for values in (tags.probability, tags.low, tags.high))
    places = np.arange(len(labels))
    ax.barh(places, p, color=PALETTE[0], alpha=0.35)
    ax.hlines(places, low, high, color=PALETTE[0], linewidth=2)
    ax.plot(p, places, "o", color=PALETTE[0], markersize=5)
    ax.set_yticks(places, [printable(tags.labels[k]) for k in labels])
    ax.set(xlim=(0, _HEADROOM), xlabel="probability, with the central 90 % of the draws")
    ax.invert_yaxis()


def _lines(tags: "Predictions", ax: Axes, labels: list[int]) -> None:
    """A line over the windows of one sound for each label, with its band."""
    middle = [(window.start + window.end) / 2 for window in tags.windows]
    for place, k in enumerate(labels):
        colour = PALETTE[place % len(PALETTE)]
        ax.fill_between(middle, tags.low[:, k], tags.high[:, k], color=colour, alpha=0.2, linewidth=0)
        ax.plot(middle, tags.probability[:, k], color=colour, label=printable(tags.labels[k]))
    ax.set(xlabel="seconds", ylabel="probability", ylim=(0, _HEADROOM))
    legend_above(ax)


def _rows(tags: "Predictions", ax: Axes, labels: list[int]) -> None:
    """A row for each sound: each label at its most probable window."""
    names = [window.file for window in tags.windows]
    best = np.array(
        [tags.probability[np.array(names, dtype=object) == file][:, labels].max(axis=0) for file in tags.files]
    )
    image = ax.imshow(best, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks(range(len(labels)), [printable(tags.labels[k]) for k in labels], rotation=30, ha="right")
    if len(tags.files) <= 30:
        ax.set_yticks(range(len(tags.files)), [printable(file) for file in tags.files])
    ax.figure.colorbar(image, ax=ax, label="probability, highest of the windows")

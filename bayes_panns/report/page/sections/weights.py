"""The signal-to-noise ratio of the weights."""

import numpy as np
from numpy.typing import NDArray

from bayes_panns.report.formatting import number, percent
from bayes_panns.report.page import drawings
from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.sources import Source, SourcePart

TITLE = "Weights"

QUANTILES = (5, 25, 50, 75, 95)
"""The quantiles of |loc| / scale that are shown, in per cent."""

_SAMPLE = 1 << 20
"""The most weights of a tensor that its quantiles are computed from."""


def section(source: Source, context: Context) -> Section | None:
    """Quantiles of |loc| / scale of each weight tensor; None without a posterior.

    Raises:
        PosteriorError: A posterior is damaged or needs a guide function.
    """
    parts = [part for part in source.parts if part.posterior is not None]
    if not parts:
        return None
    measured = [found for part in parts if (found := _signal_to_noise(part))]
    if not measured:
        return Section("weights", TITLE, "No weight has a Normal posterior, so there is no |loc| / scale to show.")
    names = list(measured[0])
    quantiles = {name: np.mean([found[name][0] for found in measured], axis=0) for name in names}
    below = {name: float(np.mean([found[name][1] for found in measured])) for name in names}
    count = {name: measured[0][name][2] for name in names}
    total = sum(count.values())
    uncertain = sum(below[name] * count[name] for name in names) / total
    medians = ", ".join(f"{name} {values[2]:.2f}" for name, values in quantiles.items())
    chart = context.draw(
        "Signal-to-noise ratio by layer",
        drawings.signal_to_noise(quantiles),
        f"Quantiles of |loc| / scale of each weight tensor. Medians: {medians}.",
        caption=(
            "Thin line: 5 to 95 % of a tensor's weights; thick line: 25 to 75 %; dot: the median. "
            "The first layer is at the top."
        ),
        size=(6.4, 0.8 + 0.24 * len(names)),
        wide=True,
    )
    rows = [
        [
            Cell(name, float(place)),
            Cell(f"{count[name]:,}", float(count[name])),
            *[Cell(number(float(value)), float(value)) for value in quantiles[name]],
            Cell.share(below[name]),
        ]
        for place, name in enumerate(names)
    ]
    columns = [
        ("tensor", ""),
        ("weights", "The number of weights."),
        *[(f"{q} %", "Quantile of |loc| / scale.") for q in QUANTILES],
        ("below 1", "The share of weights whose |loc| is below their scale."),
    ]
    table = Table("Signal-to-noise ratio by layer", columns, rows, folded=True)
    text = (
        f"{total:,} weights have a Normal posterior. For {percent(uncertain)} of them the mean is closer to 0 than one "
        "standard deviation: the data say little about these weights."
    )
    if len(measured) > 1:
        text += f" Quantiles are averages over the {len(measured)} posteriors."
    return Section("weights", TITLE, text, charts=[chart], tables=[table])


def _signal_to_noise(part: SourcePart) -> dict[str, tuple[NDArray[np.float64], float, int]]:
    """Of each weight tensor: quantiles of |loc| / scale, the share below 1, and the number of weights."""
    found = {}
    for name, (loc, scale) in part.load().gaussians().items():
        ratio = (loc.abs() / scale).flatten()
        # Regularly spaced weights of a large tensor stand for all.
        sample = ratio[:: -(-len(ratio) // _SAMPLE)].double().numpy()
        quantiles = np.quantile(sample, np.array(QUANTILES) / 100)
        found[name] = (np.maximum(quantiles, 1e-6), float((sample < 1).mean()), len(ratio))
    return found

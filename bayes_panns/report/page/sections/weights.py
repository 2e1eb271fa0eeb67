"""The weights: their signal-to-noise ratio, how many of them the data determine, and what is left of the start."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bayes_panns.bayes import Effective
from bayes_panns.jobs import StartMemory, determined
from bayes_panns.report.formatting import number, percent
from bayes_panns.report.names import WIDTH_NAMES
from bayes_panns.report.page import drawings
from bayes_panns.report.page.content import Cell, Context, Section, Table
from bayes_panns.report.sources import Source, SourcePart
from bayes_panns.svi import AT_PRIOR, EFFECTIVE

TITLE = "Weights"

QUANTILES = (5, 25, 50, 75, 95)
"""The quantiles of |loc| / scale that are shown, in per cent."""

_SAMPLE = 1 << 20
"""The most weights of a tensor that its quantiles are computed from."""


def section(source: Source, context: Context) -> Section | None:
    """Quantiles of |loc| / scale of each weight tensor, and what its width says; None without a posterior.

    Logs of older versions say nothing about the widths: then it is left out.

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
    shares = _shares([part.metrics[-1] for part in parts if part.metrics])
    rows = [
        [
            Cell(name, float(place)),
            Cell(f"{count[name]:,}", float(count[name])),
            *[Cell(number(float(value)), float(value)) for value in quantiles[name]],
            Cell.share(below[name]),
            *[_share_cell(values.get(name)) for values in shares.values()],
        ]
        for place, name in enumerate(names)
    ]
    columns = [
        ("tensor", ""),
        ("weights", "The number of weights."),
        *[(f"{q} %", "Quantile of |loc| / scale.") for q in QUANTILES],
        ("below 1", "The share of weights whose |loc| is below their scale."),
        *[(WIDTH_NAMES[key].short, WIDTH_NAMES[key].reading) for key in shares],
    ]
    table = Table("Signal-to-noise ratio by layer", columns, rows, folded=True)
    text = (
        f"{total:,} weights have a Normal posterior. For {percent(uncertain)} of them the mean is closer to 0 than one "
        "standard deviation: the data say little about these weights."
    )
    if len(measured) > 1:
        text += f" Quantiles are averages over the {len(measured)} posteriors."
    effective = [each for part in parts if (each := determined(part.header.get("provenance", {})))]
    if effective:
        text += _in_words(effective)
    memories = [part.start for part in parts if part.start is not None]
    tables = [table]
    if memories:
        tables.append(_start_table(memories))
        text += _of_start(memories)
    return Section("weights", TITLE, text, charts=[chart], tables=tables)


def _in_words(found: Sequence[Effective]) -> str:
    """How many weights the data determine; over several posteriors, on average."""
    total = sum(found, Effective())
    count = len(found)
    mean = Effective(total.weights // count, total.gamma / count, total.at_prior // count)
    words = str(mean)
    average = f" On average over the {count} posteriors, " if count > 1 else " "
    return f"{average}{words if count > 1 else words[0].upper() + words[1:]}."


def _shares(lines: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of the last lines of the logs: each share of :data:`WIDTH_NAMES` by the name of the tensor, as an average."""
    shares = {}
    for key, prefix in (("effective", EFFECTIVE), ("at_prior", AT_PRIOR)):
        names = {name.removeprefix(prefix) for line in lines for name in line if name.startswith(prefix)}
        known = {name: [each for line in lines if (each := line.get(prefix + name)) is not None] for name in names}
        if known:
            shares[key] = {name: float(np.mean(values)) for name, values in known.items()}
    return shares


def _share_cell(share: float | None) -> Cell:
    """A share, without a bar where it is below 0; empty where it is unknown."""
    if share is None:
        return Cell("", -1.0)
    return Cell.share(share) if 0 <= share <= 1 else Cell(percent(share).replace("-", "−"), share)


def _of_start(memories: Sequence[StartMemory]) -> str:
    """What is left of the start over all weights."""
    left = float(np.mean([each.left for each in memories]))
    factors = " or ".join(f"{factor:g}" for factor in sorted({each.factor for each in memories}))
    return (
        f" A second fit started from widths {factors} times as large: {percent(left)} of that factor is left at the "
        "end, on a logarithmic scale. Where much is left, the epistemic uncertainty is a choice of the start."
    )


def _start_table(memories: Sequence[StartMemory]) -> Table:
    """What is left of the start, a row for each weight tensor; averages over several posteriors."""
    columns = [("tensor", ""), ("weights", "The number of weights.")]
    columns += [(WIDTH_NAMES[key].short, WIDTH_NAMES[key].reading) for key in ("left", "rank_correlation")]
    rows = []
    for place, name in enumerate(memories[0].parameters):
        found = [each.parameters[name] for each in memories if name in each.parameters]
        ranks = [each.rank_correlation for each in found if each.rank_correlation is not None]
        rows.append(
            [
                Cell(name, float(place)),
                Cell(f"{found[0].weights:,}", float(found[0].weights)),
                _share_cell(float(np.mean([each.left for each in found]))),
                Cell(number(float(np.mean(ranks))), float(np.mean(ranks))) if ranks else Cell("", -1.0),
            ]
        )
    return Table("What is left of the starting widths", columns, rows, folded=True)


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

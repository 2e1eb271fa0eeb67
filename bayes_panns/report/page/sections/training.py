"""What the fit logged."""

from collections.abc import Iterable, Mapping, Sequence

from bayes_panns.report.figures import training_panels
from bayes_panns.report.page import drawings
from bayes_panns.report.page.content import Context, Section
from bayes_panns.report.sources import Source

TITLE = "Training"

_SCALE = "scale/"
"""What starts the keys of the posterior's scales in ``metrics.jsonl``, before the parameter's name."""


def section(source: Source, context: Context) -> Section | None:
    """Losses, validation metrics and posterior scales over the epochs; None without a log."""
    runs = [part.metrics for part in source.parts if part.metrics]
    if not runs:
        return None
    logged = [{key for line in lines for key, value in line.items() if value is not None} for lines in runs]
    keys = [key for key in dict.fromkeys(key for line in runs[0] for key in line) if all(key in run for run in logged)]
    shared = [{key: value for key, value in line.items() if key in keys} for line in runs[0]]
    charts = []
    for title, curves in training_panels(shared).items():
        ends = "; ".join(f"{name} {_from_to(runs[0], key)}" for key, name in curves.items())
        alt = f"{title} over the epochs: {ends}."
        charts.append(context.draw(title, drawings.curve(runs, curves), alt, size=(3.4, 2.4)))
    groups = _groups(key for key in keys if key.startswith(_SCALE))
    if groups:
        first, *_, last = [*groups, *groups]
        charts.append(
            context.draw(
                "Posterior scale by layer",
                drawings.scales(runs[0], groups),
                f"Posterior scale over the epochs, a line for each part of the network from {first} to {last}.",
                caption="The geometric mean of the posterior's standard deviations, for each part of the network.",
                size=(3.4, 2.4),
            )
        )
    text = "The fit minimises the NLL plus the KL divergence from the prior, times the weight of the KL."
    if len(runs) > 1:
        text += f" There is a line for each of the {len(runs)} runs."
    if len(runs) > 1 and groups:
        text += " The posterior scales are those of the first run."
    if not groups:
        text += " The log has no posterior scales: no weight is variational, or an older version wrote it."
    return Section("training", TITLE, text, charts=charts)


def _groups(keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys of the scales by the part of the network that the weights belong to, in order.

    A part is a module of the network; a module that holds most of the weight tensors is taken apart once more.
    """
    modules = {key: key.removeprefix(_SCALE).split(".")[:-1] for key in keys}
    tops = [module[0] for module in modules.values() if module]
    groups: dict[str, list[str]] = {}
    for key, module in modules.items():
        large = bool(module) and 2 * tops.count(module[0]) > len(tops)
        groups.setdefault(".".join(module[: 2 if large else 1]), []).append(key)
    return groups


def _from_to(lines: Sequence[Mapping[str, float]], key: str) -> str:
    values = [line[key] for line in lines if line.get(key) is not None]
    return f"from {values[0]:.4g} to {values[-1]:.4g}"

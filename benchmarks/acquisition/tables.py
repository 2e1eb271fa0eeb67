"""The tables and the plot of the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from benchmarks.acquisition.games import STRATEGIES

METRICS = {"accuracy": "accuracy", "recall": "mean recall of the classes", "nll": "NLL in nats"}
_BASE = "random"


def summary(games: Sequence[Mapping[str, Any]], note: str) -> dict[str, Any]:
    """The learning curves, and how the area under each differs from that of random clips.

    A pair is the same data, fold and seed, so the difficulty of the fold and of the first labels cancels. The area is
    the mean over the rounds after the first labels. The interval is Student's t over folds, after seeds are averaged;
    ``together`` is the same over all folds of all data, each data set's folds taken as pairs of their own.

    Args:
        games: Results of :func:`~benchmarks.acquisition.games.play`, each with its ``game``.
        note: What to say above the tables.
    """
    found: dict[str, Any] = {"note": note, "data": {}, "together": {}}
    names = list(dict.fromkeys(game["game"][0] for game in games))
    played = [each for each in STRATEGIES if any(game["game"][1] == each for game in games)]
    for name in names:
        mine = {tuple(game["game"][1:4]): game for game in games if game["game"][0] == name}
        folds, seeds = (sorted({key[place] for key in mine}) for place in (1, 2))
        rows = {}
        for strategy in played:
            these = [[mine[(strategy, fold, seed)] for seed in seeds] for fold in folds]
            row: dict[str, Any] = {
                "recordings": float(np.mean([game["recordings"] for line in these for game in line])),
                "rarest": float(np.mean([game["rarest"] for line in these for game in line])),
            }
            for metric in METRICS:
                curve, base = (
                    np.array([[mine[(each, fold, seed)][metric] for seed in seeds] for fold in folds]).mean(axis=1)
                    for each in (strategy, _BASE)
                )
                row[metric] = {"curve": curve.mean(axis=0).tolist(), "area": float(curve[:, 1:].mean())}
                if strategy != _BASE:
                    row[metric]["by_fold"] = (curve - base)[:, 1:].mean(axis=1).tolist()
                    row[metric]["difference"] = interval(row[metric]["by_fold"])
            rows[strategy] = row
        labels = next(iter(mine.values()))["labels"]
        found["data"][name] = {"folds": folds, "seeds": seeds, "labels": labels, "strategies": rows}
    if len(names) > 1:
        for strategy in played:
            if strategy != _BASE:
                found["together"][strategy] = {
                    metric: interval(
                        [
                            value
                            for each in found["data"].values()
                            for value in each["strategies"][strategy][metric]["by_fold"]
                        ]
                    )
                    for metric in METRICS
                }
    return found


def interval(values: Sequence[float]) -> list[float]:
    """Mean, and the ends of the 95 % interval."""
    array: NDArray[np.float64] = np.array(values)
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.nan
    return [float(array.mean()), float(array.mean() - half), float(array.mean() + half)]


def tables(record: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    parts = ["# Which clips to label next", ""]
    if record["note"]:
        parts += [record["note"], ""]
    for name, each in record["data"].items():
        seeds = ", ".join(map(str, each["seeds"]))
        parts += [f"## {name}: {len(each['folds'])} folds, seeds {seeds}", ""]
        for metric, title in METRICS.items():
            heads = " | ".join(f"{count} labels" for count in each["labels"])
            parts += [f"| {title} | {heads} | minus {_BASE}, mean of the rounds (95 %) |"]
            parts += ["|---" * (len(each["labels"]) + 2) + "|"]
            for strategy, row in each["strategies"].items():
                curve = " | ".join(f"{value:.3f}" for value in row[metric]["curve"])
                parts.append(f"| {strategy} | {curve} | {_difference(row[metric].get('difference'), metric)} |")
            parts.append("")
        parts += ["| | recordings among the labels | labels of the rarest class |", "|---|---|---|"]
        parts += [
            f"| {strategy} | {row['recordings']:.0f} | {row['rarest']:.1f} |"
            for strategy, row in each["strategies"].items()
        ]
        parts.append("")
    if record["together"]:
        parts += ["## All together", "", "| minus " + _BASE + " | " + " | ".join(METRICS.values()) + " |"]
        parts += ["|---" * (len(METRICS) + 1) + "|"]
        for strategy, row in record["together"].items():
            cells = " | ".join(_difference(row[metric], metric) for metric in METRICS)
            parts.append(f"| {strategy} | {cells} |")
        parts.append("")
    return "\n".join(parts)


def _difference(interval: Sequence[float] | None, metric: str) -> str:
    """A difference with its interval; bold where it is better for certain, in italics where it is worse."""
    if interval is None:
        return ""
    mean, low, high = interval
    text = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
    sign = -1 if metric == "nll" else 1
    certain = sign * low > 0 and sign * high > 0, sign * low < 0 and sign * high < 0
    return f"**{text}**" if certain[0] else f"*{text}*" if certain[1] else text


def plot(record: Mapping[str, Any], path: Path) -> None:
    """Draw the learning curves, a column for each data set."""
    import matplotlib.pyplot as plt

    from bayes_panns.core.files import whole_file
    from bayes_panns.metrics.plotting import PALETTE, clean

    sets = record["data"]
    figure, panels = plt.subplots(2, len(sets), figsize=(4.2 * len(sets), 6.5), squeeze=False, layout="constrained")
    for column, (name, each) in enumerate(sets.items()):
        for ax, metric in zip(panels[:, column], ("accuracy", "nll"), strict=True):
            for number, (strategy, row) in enumerate(each["strategies"].items()):
                plain = strategy in ("uniform", _BASE)
                style = {"color": "0.55" if strategy == "uniform" else "0.1" if plain else PALETTE[number - 2]}
                line = "--" if plain else "-"
                ax.plot(each["labels"], row[metric]["curve"], line, marker="o", ms=3.5, label=strategy, **style)
            ax.set_ylabel("NLL / nats" if metric == "nll" else metric)
            clean(ax)
        panels[0, column].set_title(name)
        panels[1, column].set_xlabel("labels")
    panels[0, 0].legend(frameon=False, fontsize="small")
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)

"""What the loader's benchmark has found, as a table and a picture."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bayes_panns.report import figures
from benchmarks.loader.contenders import CONTENDERS

BASELINE = next(iter(CONTENDERS))

_WARM_COLD = {"cold": "cold page cache", "warm": "warm page cache"}


def _names(run: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Who took turns, with how many workers."""
    keys = [key.split() for key in run["rounds"][0]]
    return sorted(
        {(name, int(workers)) for name, workers, _ in keys}, key=lambda each: (list(CONTENDERS).index(each[0]), each[1])
    )


def rates(run: Mapping[str, Any], name: str, workers: int, cache: str) -> list[float]:
    """Clips a second in each round."""
    return [turns[f"{name} {workers} {cache}"]["rate"] for turns in run["rounds"]]


def ratios(run: Mapping[str, Any], name: str, workers: int, cache: str) -> list[float]:
    """Times as many clips a second as PANNs' way with as many workers, in each round; empty if it has none."""
    key = f"{BASELINE} {workers} {cache}"
    if key not in run["rounds"][0]:
        return []
    return [turns[f"{name} {workers} {cache}"]["rate"] / turns[key]["rate"] for turns in run["rounds"]]


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(run: Mapping[str, Any]) -> str:
    """The record as Markdown tables, with what they mean."""
    settings, rounds = run["settings"], run["rounds"]
    cold = max(turn["resident"] for turns in rounds for key, turn in turns.items() if key.endswith("cold"))
    left = max(turn["left"] for turns in rounds for key, turn in turns.items() if key.endswith("cold"))
    warm = min(turn["resident"] for turns in rounds for key, turn in turns.items() if key.endswith("warm"))
    times = "one round" if len(rounds) == 1 else f"median and range of {len(rounds)} rounds"
    lines = [
        f"{settings['clips']} clips of {settings['seconds']:g} s at 32 kHz ({settings['gigabytes']:.2g} GB of "
        f"int16), in batches of {settings['batch']}; {run['hardware']}, {run['cores']} cores, torch "
        f"{run['versions']['torch']}, h5py {run['versions']['h5py']}. Clips a second from the first batches on, for "
        f"{settings['read_seconds']:g} s or until the pass ends; {times}. Cold: each clip was put out of the page "
        "cache once it had been read, as from a store that the page cache cannot hold. Before a turn at most "
        f"{cold:.1%} of the files was there, at its end at most {left:.1%}, clips on their way among them. What a disk "
        f"or the host of a virtual machine keeps is not known. Warm: before a turn at least {warm:.0%} was there. "
        f"Ratios are to `{BASELINE}` with as many workers in the same round.",
        "",
    ]
    if run["note"]:
        lines = [run["note"], "", *lines]
    lines += [
        f"| what | workers | cold: clips/s | times `{BASELINE}` | warm: clips/s | times `{BASELINE}` | meaning |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, workers in _names(run):
        cells = [
            cell
            for cache in _WARM_COLD
            for cell in (_spread(rates(run, name, workers, cache), 0), _spread(ratios(run, name, workers, cache), 2))
        ]
        lines.append(f"| `{name}` | {workers} | {' | '.join(cells)} | {CONTENDERS[name].summary} |")
    lines += [
        "",
        f"A whole pass with {settings['watched_workers']} workers, cold, once: clips a second, and the memory of all "
        "processes (PSS) at a quarter of the pass and at most after that.",
        "",
        "| what | clips/s | at a quarter / MiB | at most after / MiB |",
        "|---|---|---|---|",
    ]
    for name, turn in run["memory"].items():
        curve = [(clips, memory) for _, memory, clips in turn["memory"]]
        later = [memory for clips, memory in curve if clips >= settings["clips"] / 4]
        later = later or [memory for _, memory in curve[-1:]] or [0.0]
        lines.append(f"| `{name}` | {turn['rate']:.0f} | {later[0]:.0f} | {max(later):.0f} |")
    return "\n".join(lines) + "\n"


def figure(run: Mapping[str, Any]) -> Figure:
    """Clips a second by workers, cold and warm; and memory over a pass."""
    drawn = Figure(figsize=(13, 4), layout="constrained")
    panels = drawn.subplots(1, 3)
    colors = dict(zip(CONTENDERS, figures.PALETTE, strict=False))
    for ax, (cache, title) in zip(panels, _WARM_COLD.items(), strict=False):
        for name, color in colors.items():
            mine = [workers for each, workers in _names(run) if each == name]
            if not mine:
                continue
            values = [statistics.median(rates(run, name, workers, cache)) for workers in mine]
            if CONTENDERS[name].alone:
                ax.axhline(values[0], color=color, linestyle=(0, (4, 3)), label=name)
            else:
                ax.plot(mine, values, color=color, marker="o", label=name)
        ax.set(title=title, xlabel="workers", ylabel="clips of 10 s a second", ylim=(0, None))
        ax.set_xticks(run["settings"]["workers"])
    for name, turn in run["memory"].items():
        curve = [(clips, memory) for _, memory, clips in turn["memory"]]
        if curve:
            panels[2].plot(*zip(*curve, strict=True), color=colors[name], label=name)
    panels[2].set(title="memory of all processes (PSS)", xlabel="clips read", ylabel="MiB", ylim=(0, None))
    for ax in panels:
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize="small")
    return drawn


def write(run: Mapping[str, Any], out: Path) -> None:
    """Write ``out`` with the endings ``.json``, ``.md`` and ``.png``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(f"{out.name}.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    out.with_name(f"{out.name}.md").write_text(table(run), encoding="utf-8")
    figures.save(figure(run), out.with_name(f"{out.name}.png"))

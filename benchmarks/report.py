"""A run's record, and its table and picture."""

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from bayes_panns.report import figures
from benchmarks.contenders import Contender, Work
from benchmarks.measure import SEED, Measured, Plan, Result, clocks
from benchmarks.ratios import CONFIDENCE, WIDTH, interval
from benchmarks.versions import version

PACKAGES = ("torch", "pyro-ppl", "bayes-panns", "bayesian-torch", "ivon-opt", "posteriors", "torchopt")

_COLORS = {
    "baseline": "#999999",
    "bayes-panns": figures.PALETTE[0],
    "bayesian-torch": figures.PALETTE[1],
    "pyro-ppl": figures.PALETTE[5],
    "ivon-opt": figures.PALETTE[2],
    "posteriors": figures.PALETTE[3],
}
"""The bars, by whose they are."""


def record(
    command: str, work: Work, plan: Plan, contenders: Mapping[str, Contender], measured: Measured
) -> dict[str, Any]:
    """All that a run found out, as JSON holds it: the machine, the settings, every time in seconds, memory in GiB."""
    return {
        "benchmark": command,
        "hardware": measured.hardware,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "settings": {**asdict(work), **asdict(plan), "seed": SEED, "confidence": CONFIDENCE, "width": WIDTH},
        "contenders": {
            name: {
                "summary": contenders[name].summary,
                "package": contenders[name].package,
                "baseline": contenders[name].baseline,
                "settled": result.settled(clocks(work)) if result.baseline_steps else None,
                "wall": _clock(result, "wall"),
                "cpu": _clock(result, "cpu"),
                "peak_gib": result.peak,
            }
            for name, result in measured.results.items()
        },
        "failed": measured.failed,
    }


def _clock(result: Result, clock: str) -> dict[str, Any]:
    """What a contender took by one clock."""
    seconds, baseline = ([getattr(times, clock) for times in each] for each in (result.steps, result.baseline_steps))
    ratios = result.ratios(clock)
    return {
        "ratio": statistics.median(ratios) if ratios else None,
        "interval": interval(ratios),
        "ratio_of_minima": result.of_minima(clock) if ratios else None,
        "median_seconds": statistics.median(seconds),
        "least_seconds": min(seconds),
        "ratios": ratios,
        "seconds": seconds,
        "baseline_seconds": baseline,
    }


def _setting(run: Mapping[str, Any]) -> str:
    """What was run on what, in a line."""
    settings, versions = run["settings"], run["versions"]
    threads = settings["threads"]
    cores = "" if settings["device"] == "cuda" else f", {threads} {'thread' if threads == 1 else 'threads'}"
    what = {"train": "training step", "predict": "prediction"}[run["benchmark"]]
    return (
        f"{settings['net']}, {what} on {settings['clips']} clips of {settings['seconds']:g} s, "
        f"{settings['precision']}, {run['hardware']}{cores}, torch {versions['torch']}"
    )


def _ratio(times: Mapping[str, Any]) -> str:
    if times["ratio"] is None:
        return "1 | -"
    ends = "no interval" if times["interval"] is None else "{:.2f}-{:.2f}".format(*times["interval"])
    return f"{times['ratio']:.2f} ({ends}) | {times['ratio_of_minima']:.2f}"


def _seconds(times: Mapping[str, Any]) -> str:
    return f"{times['median_seconds']:.3g} ({times['least_seconds']:.3g})"


def table(run: Mapping[str, Any]) -> str:
    """The record as a Markdown table, with what it means."""
    lines = [
        f"{_setting(run)}. Times are over those of the baseline's step in the same round: the median of the rounds and "
        f"its {CONFIDENCE:.0%} confidence interval; then the least time over the baseline's least. CPU time is that of "
        f"all threads. A star: the time ended before the intervals were narrower than {WIDTH:.0%}.",
        "",
        "| contender | baseline | rounds | wall time | of minima | CPU time | of minima | CPU s: median (least) "
        "| peak memory / GiB | what it is |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in run["contenders"].items():
        star = "*" if row["settled"] is False else ""
        lines.append(
            f"| `{name}` | {row['baseline'] or '-'} | {len(row['wall']['seconds'])}{star} | {_ratio(row['wall'])} "
            f"| {_ratio(row['cpu'])} | {_seconds(row['cpu'])} | {row['peak_gib']:.2f} | {row['summary']} |"
        )
    lines += [f"| `{name}` | left out: {reason} | | | | | | | | |" for name, reason in run["failed"].items()]
    return "\n".join(lines) + "\n"


def figure(run: Mapping[str, Any]) -> Figure:
    """Times and memory as bars, coloured by whose they are; a line is the confidence interval."""
    names = list(run["contenders"])
    rows = [run["contenders"][name] for name in names]
    colors = [_COLORS["baseline" if row["baseline"] is None else row["package"] or "bayes-panns"] for row in rows]
    place = range(len(names))
    drawn = Figure(figsize=(12, 1.6 + 0.42 * len(names)), layout="constrained")
    panels = drawn.subplots(1, 3, sharey=True)
    for ax, clock, label in zip(panels, ("wall", "cpu"), ("wall time", "CPU time"), strict=False):
        values = [row[clock]["ratio"] or 1.0 for row in rows]
        ends = [row[clock]["interval"] or (value, value) for row, value in zip(rows, values, strict=True)]
        bars = [(value - low, high - value) for value, (low, high) in zip(values, ends, strict=True)]
        ax.barh(
            place,
            values,
            xerr=list(zip(*bars, strict=True)),
            color=colors,
            ecolor=figures.INK,
            capsize=2,
            error_kw={"lw": 1},
        )
        ax.axvline(1, color=figures.INK, linewidth=1, linestyle=(0, (4, 3)))
        ax.set_xlabel(f"{label} / the baseline's")
        _annotate(ax, values, [high for _, high in ends])
    peaks = [row["peak_gib"] for row in rows]
    panels[2].barh(place, peaks, color=colors)
    panels[2].set_xlabel("peak memory / GiB")
    _annotate(panels[2], peaks, peaks)
    one = sum(row["baseline"] is None for row in rows) == 1
    labels = [
        name if one or row["baseline"] is None else f"{name} / {row['baseline']}"
        for name, row in zip(names, rows, strict=True)
    ]
    panels[0].set_yticks(place, labels)
    panels[0].invert_yaxis()
    drawn.suptitle(_setting(run), fontsize="small")
    shown = [Patch(color=color, label=whose) for whose, color in _COLORS.items() if color in colors]
    drawn.legend(handles=shown, loc="outside lower center", ncols=len(shown), frameon=False, fontsize="small")
    return drawn


def _annotate(ax: Axes, values: Sequence[float], ends: Sequence[float]) -> None:
    """Write each value where its bar ends."""
    for y, (value, end) in enumerate(zip(values, ends, strict=True)):
        ax.annotate(f"{value:.2f}", (end, y), (4, 0), textcoords="offset points", va="center", fontsize="small")
    ax.set_xlim(0, 1.15 * max(ends))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.spines[["top", "right"]].set_visible(False)


def write(run: Mapping[str, Any], out: Path) -> None:
    """Write ``out`` with the endings ``.json``, ``.md`` and ``.png``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(f"{out.name}.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    out.with_name(f"{out.name}.md").write_text(table(run), encoding="utf-8")
    figures.save(figure(run), out.with_name(f"{out.name}.png"))

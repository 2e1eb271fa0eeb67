"""A run's record, and its table and picture."""

import importlib.metadata
import json
import platform
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from bayes_panns.report import figures
from benchmarks.contenders import Contender, Work
from benchmarks.measure import Measured

PACKAGES = ("torch", "pyro-ppl", "bayes-panns", "bayesian-torch")

_COLORS = {
    "baseline": "#999999",
    "bayes-panns": figures.PALETTE[0],
    "bayesian-torch": figures.PALETTE[1],
    "pyro-ppl": figures.PALETTE[5],
}
"""The bars, by whose they are."""


def version(package: str) -> str | None:
    """The installed version of a distribution, or ``None``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def record(
    command: str, work: Work, rounds: int, contenders: Mapping[str, Contender], measured: Measured
) -> dict[str, Any]:
    """All that a run found out, as JSON holds it: the machine, the settings, every time in seconds, memory in GiB."""
    return {
        "benchmark": command,
        "hardware": measured.hardware,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "settings": {**asdict(work), "rounds": rounds},
        "contenders": {
            name: {
                "summary": contenders[name].summary,
                "package": contenders[name].package,
                "baseline": contenders[name].baseline,
                "ratio": statistics.median(result.ratios) if result.ratios else None,
                "ratios": result.ratios,
                "seconds": result.seconds,
                "baseline_seconds": result.baseline_seconds,
                "peak_gib": result.peak,
            }
            for name, result in measured.results.items()
        },
        "failed": measured.failed,
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


def _times(contender: Mapping[str, Any]) -> str:
    if contender["ratio"] is None:
        return "1"
    return f"{contender['ratio']:.2f} ({min(contender['ratios']):.2f}-{max(contender['ratios']):.2f})"


def table(run: Mapping[str, Any]) -> str:
    """The record as a Markdown table, with what it means."""
    lines = [
        f"{_setting(run)}. Time: over that of the baseline's step right before, the median and the range "
        f"(rounds: {run['settings']['rounds']}).",
        "",
        "| contender | time / baseline's | baseline | peak memory / GiB | what it is |",
        "|---|---|---|---|---|",
    ]
    for name, contender in run["contenders"].items():
        lines.append(
            f"| `{name}` | {_times(contender)} | {contender['baseline'] or '-'} | {contender['peak_gib']:.2f} "
            f"| {contender['summary']} |"
        )
    lines += [f"| `{name}` | left out: {reason} | | | |" for name, reason in run["failed"].items()]
    return "\n".join(lines) + "\n"


def figure(run: Mapping[str, Any]) -> Figure:
    """Times and memory as bars, coloured by whose they are."""
    names = list(run["contenders"])
    rows = [run["contenders"][name] for name in names]
    colors = [_COLORS["baseline" if row["baseline"] is None else row["package"] or "bayes-panns"] for row in rows]
    drawn = Figure(figsize=(9, 1.6 + 0.42 * len(names)), layout="constrained")
    time, memory = drawn.subplots(1, 2, sharey=True)
    ratios = [row["ratio"] or 1.0 for row in rows]
    low = [ratio - min(row["ratios"], default=ratio) for ratio, row in zip(ratios, rows, strict=True)]
    high = [max(row["ratios"], default=ratio) - ratio for ratio, row in zip(ratios, rows, strict=True)]
    place = range(len(names))
    time.barh(place, ratios, xerr=(low, high), color=colors, ecolor=figures.INK, capsize=2, error_kw={"lw": 1})
    time.axvline(1, color=figures.INK, linewidth=1, linestyle=(0, (4, 3)))
    time.set_xlabel("time / the baseline's")
    peaks = [row["peak_gib"] for row in rows]
    memory.barh(place, peaks, color=colors)
    memory.set_xlabel("peak memory / GiB")
    for ax, values, ends in (
        (time, ratios, [a + b for a, b in zip(ratios, high, strict=True)]),
        (memory, peaks, peaks),
    ):
        for y, (value, end) in enumerate(zip(values, ends, strict=True)):
            ax.annotate(f"{value:.2f}", (end, y), (4, 0), textcoords="offset points", va="center", fontsize="small")
        ax.set_xlim(0, 1.15 * max(ends))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.spines[["top", "right"]].set_visible(False)
    one = sum(row["baseline"] is None for row in rows) == 1
    labels = [
        name if one or row["baseline"] is None else f"{name} / {row['baseline']}"
        for name, row in zip(names, rows, strict=True)
    ]
    time.set_yticks(place, labels)
    time.invert_yaxis()
    drawn.suptitle(_setting(run), fontsize="small")
    shown = [Patch(color=color, label=whose) for whose, color in _COLORS.items() if color in colors]
    drawn.legend(handles=shown, loc="outside lower center", ncols=len(shown), frameon=False, fontsize="small")
    return drawn


def write(run: Mapping[str, Any], out: Path) -> None:
    """Write ``out`` with the endings ``.json``, ``.md`` and ``.png``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(f"{out.name}.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    out.with_name(f"{out.name}.md").write_text(table(run), encoding="utf-8")
    figures.save(figure(run), out.with_name(f"{out.name}.png"))

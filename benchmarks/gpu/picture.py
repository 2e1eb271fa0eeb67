"""Ratios with their targets, and memory, as bars. It needs Matplotlib, which a run does without."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bayes_panns.report import figures
from benchmarks.gpu.results import rows_of

_COLORS = {"met": figures.PALETTE[0], "missed": figures.PALETTE[1], "not measured": "#999999", "": "#999999"}


def draw(run: Mapping[str, Any], path: Path) -> str:
    """Save the picture of a run.

    Returns:
        Why there is none; empty if there is one.
    """
    rows = [row for row in rows_of(run) if " / " in row["name"]]
    if not rows:
        return "no picture: no ratio was measured"
    drawn = Figure(figsize=(9, 1.4 + 0.36 * len(rows)), layout="constrained")
    ax = drawn.subplots()
    for place, row in enumerate(rows):
        low, high = row["interval"] or (row["value"], row["value"])
        error = [[row["value"] - low], [high - row["value"]]]
        ax.barh(place, row["value"], xerr=error, color=_COLORS[row["verdict"]], ecolor=figures.INK, capsize=2)
        ax.annotate(f"{row['value']:.2f}", (high, place), (4, 0), textcoords="offset points", va="center", size="small")
        if row["most"] is not None:
            ax.plot([row["most"]] * 2, [place - 0.45, place + 0.45], color=figures.INK, linewidth=2)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.invert_yaxis()
    ax.axvline(1, color=figures.INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.set_xlabel("time / baseline's; thick lines are targets")
    ax.set_xlim(0, 1.15 * max(max(row["value"], (row["interval"] or (0, 0))[1]) for row in rows))
    ax.spines[["top", "right"]].set_visible(False)
    what = "dry run, " if run["dry_run"] else ""
    ax.set_title(f"{what}{run['hardware']}, torch {run['versions']['torch']}", fontsize="small")
    figures.save(drawn, path)
    return ""

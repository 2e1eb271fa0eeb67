"""A run as JSON, as a table and as a picture, written again after each row."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bayes_panns.core.files import whole_file
from benchmarks.gpu.run import Outcome, Part
from benchmarks.gpu.setting import Setting
from benchmarks.versions import version
from benchmarks.worker import hardware

PACKAGES = ("torch", "triton", "pyro-ppl", "bayesian-torch")

WORDS = {"met": "met", "missed": "**missed**", "not measured": "not measured", "": ""}
"""Verdicts, as the table shows them."""


def record(setting: Setting, parts: Mapping[str, Part], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """All that a run has found out so far, as JSON holds it."""
    return {
        "benchmark": "gpu",
        "hardware": hardware(setting.on_gpu),
        "memory_gib": torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
        if setting.on_gpu
        else None,
        "cuda": torch.version.cuda if setting.on_gpu else None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "dry_run": not setting.on_gpu or setting.tiny,
        "parts": {
            name: {
                "summary": parts[name].summary,
                "measures": parts[name].measures,
                "seconds": round(outcome.seconds, 2),
                "reason": outcome.reason,
                "failed": outcome.failed,
                "rows": [{**asdict(row), "verdict": row.verdict} for row in outcome.rows],
            }
            for name, outcome in outcomes.items()
        },
    }


def table(run: Mapping[str, Any]) -> str:
    """The record as Markdown."""
    versions = run["versions"]
    lines = [f"{run['hardware']}, torch {versions['torch']}" + (f", CUDA {run['cuda']}" if run["cuda"] else "") + "."]
    if run["dry_run"]:
        lines += ["", "**A dry run: no time in it says anything of a GPU, and no target of a time is judged.**"]
        if not run["cuda"]:
            lines += [
                "",
                "The device is a CPU: what is checked is that the checks run, and that a CPU agrees with itself.",
            ]
    rows = [row for part in run["parts"].values() for row in part["rows"] if row["verdict"]]
    counts = [f"{sum(row['verdict'] == word for row in rows)} {word}" for word in ("met", "missed", "not measured")]
    lines += ["", f"Of {len(rows)} tolerances and targets: {', '.join(counts)}."]
    for name, part in run["parts"].items():
        kind = "measured" if part["measures"] else "checked"
        lines += ["", f"## {name}", "", f"{part['summary']} ({kind} in {part['seconds']:.0f} s)."]
        if part["rows"]:
            lines += ["", "| what | value | 95 % interval | target | verdict | note |", "|---|---|---|---|---|---|"]
            lines += [_line(row) for row in part["rows"]]
        if part["reason"]:
            lines += ["", f"{'Failed' if part['failed'] else 'Left out'}: {part['reason']}."]
    return "\n".join(lines) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    unit = f" {row['unit']}" if row["unit"] else ""
    value = "-" if row["value"] is None else f"{row['value']:.4g}{unit}"
    interval = "" if row["interval"] is None else "{:.3g}-{:.3g}".format(*row["interval"])
    bounds = [f"≤ {row['most']:g}"] if row["most"] is not None else []
    bounds += [f"≥ {row['least']:.4g}"] if row["least"] is not None else []
    return f"| {row['name']} | {value} | {interval} | {', '.join(bounds)} | {WORDS[row['verdict']]} | {row['note']} |"


def write(run: Mapping[str, Any], out: Path, *, picture: bool) -> str:
    """Write ``out`` with the endings ``.json`` and ``.md``, and ``.png`` if asked.

    Returns:
        Why there is no picture; empty otherwise.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    # NaN has no place in JSON; a row that is NaN has missed its target.
    for ending, text in (("json", json.dumps(_plain(run), indent=1) + "\n"), ("md", table(run))):
        with whole_file(out.with_name(f"{out.name}.{ending}")) as part:
            part.write_text(text, encoding="utf-8")
    if not picture:
        return ""
    try:
        from benchmarks.gpu.picture import draw
    except ImportError as error:
        return f"no picture: {error.name} is not installed"
    return draw(run, out.with_name(f"{out.name}.png"))


def _plain(value: Any) -> Any:
    """The value, with numbers that JSON does not have as text."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value


def rows_of(run: Mapping[str, Any], *, ending: str = "") -> list[Mapping[str, Any]]:
    """Rows of measured ratios, in order; with ``ending`` those whose name ends so."""
    rows = [row for part in run["parts"].values() if part["measures"] for row in part["rows"]]
    return [row for row in rows if row["value"] is not None and row["name"].endswith(ending)]

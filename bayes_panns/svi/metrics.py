"""The file that a fit appends its metrics to: ``metrics.jsonl``, a line of JSON an epoch."""

import json
from collections.abc import Mapping
from pathlib import Path

from bayes_panns.core.files import whole_file
from bayes_panns.core.strict_json import defined, dumps

METRICS = "metrics.jsonl"


def append_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Append a line; metrics that are not finite numbers are left out.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(dumps(defined(metrics)))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl``, oldest first; none if there is no file.

    Lines that are damaged, such as one that a killed process left half-written, are left out.
    """
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def drop_metrics_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and damaged ones.

    Raises:
        OSError: The file cannot be written.
    """
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    with whole_file(path) as part:
        part.write_text("".join(dumps(line) for line in kept), encoding="utf-8")

"""The file that a fit appends its metrics to: ``metrics.jsonl``, a line of JSON an epoch, each with its digest."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bayes_panns.bayes import BayesianNet, EffectiveParameters, Part
from bayes_panns.core.files import whole_file
from bayes_panns.core.json_lines import append_lines, line_of, read_line
from bayes_panns.core.strict_json import defined

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

SCALE, EFFECTIVE, AT_PRIOR = OF_PARAMETERS = ("scale/", "effective/", "at_prior/")
"""What the keys of values of a parameter start with, before its name."""


@torch.no_grad()
def widths(model: BayesianNet, guide: Part) -> dict[str, float]:
    """Geometric mean widths: ``scale/<parameter>`` of posteriors, and ``prior/<parameter>`` of learned priors."""
    found = {
        f"{SCALE}{site.removeprefix('net.')}": scale.log().mean().exp().item()
        for site, (_, scale) in guide.gaussians().items()
    }
    return found | {
        f"prior/{site.removeprefix('net.')}": model.prior(site).variance.log().mean().div(2).exp().item()
        for site in model.learned
    }


def effective_shares(effective: EffectiveParameters) -> dict[str, float]:
    """Of each weight tensor, as shares of its weights: ``effective/<parameter>``, ``at_prior/<parameter>``."""
    shares = {f"{EFFECTIVE}{name}": each.share for name, each in effective.by_parameter.items()}
    return shares | {f"{AT_PRIOR}{name}": each.at_prior_share for name, each in effective.by_parameter.items()}


def append_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Append a line, whole or not at all; metrics that are not finite numbers are left out.

    Raises:
        OSError: The file cannot be written, or the disk is full.
    """
    append_lines(path, [defined(metrics)])


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a ``metrics.jsonl``, oldest first; none if there is no file.

    Lines that are damaged, such as one that a killed process left half-written, are left out with a warning.
    """
    lines, damaged = _parsed(path)
    if damaged:
        logger.warning(f"{path}: {damaged} damaged {'line is' if damaged == 1 else 'lines are'} left out")
    return lines


def damaged_lines(path: Path) -> int:
    """How many lines of a ``metrics.jsonl`` are damaged."""
    return _parsed(path)[1]


def _parsed(path: Path) -> tuple[list[dict[str, float]], int]:
    """The lines that are whole, and how many are not."""
    lines, damaged = list[dict[str, float]](), 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        line = read_line(text, without_digest=True)
        if line is not None and _is_line(line):
            lines.append(line)
        else:
            damaged += 1
    return lines, damaged


def _is_line(line: Any) -> bool:
    """Whether it is an object of numbers with an epoch and a step."""
    if not isinstance(line, dict) or line.get("epoch") is None or not isinstance(line.get("step"), int):
        return False
    return all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in line.values())


def drop_metrics_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and damaged ones.

    Raises:
        OSError: The file cannot be written.
    """
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    with whole_file(path) as part:
        part.write_text("".join(line_of(defined(line)) for line in kept), encoding="utf-8")

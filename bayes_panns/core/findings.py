"""What ``doctor`` finds."""

from collections.abc import Sequence
from dataclasses import dataclass

from bayes_panns.core.choices import Health


@dataclass(frozen=True)
class Finding:
    """How one thing is.

    Attributes:
        area: What it is a part of, such as ``decoders``.
        name: What was looked at, such as ``ffmpeg``.
        health: How it is.
        text: What was found, in a few words.
        todo: What to do about it; empty where nothing has to be done.
    """

    area: str
    name: str
    health: Health
    text: str
    todo: str = ""


def problems(findings: Sequence[Finding]) -> int:
    """How many of the findings are problems."""
    return sum(finding.health == Health.PROBLEM for finding in findings)

"""The bootstrap intervals of a page."""

from collections.abc import Mapping

import numpy as np

from bayes_panns.evaluations import Evaluation
from bayes_panns.metrics import Interval
from bayes_panns.metrics.bootstrap import RESAMPLES
from bayes_panns.report.formatting import count_of

_CELLS = 200_000_000
"""Clips times labels times resamples: beyond this, a page takes fewer resamples."""


def resamples_for(evaluation: Evaluation) -> int:
    """How many resamples to take; fewer where each takes seconds."""
    return max(RESAMPLES // 10, min(RESAMPLES, _CELLS // evaluation.target.size))


def intervals_of(evaluation: Evaluation | None) -> Mapping[str, Interval]:
    """Every metric with its interval; empty without an evaluation."""
    return {} if evaluation is None else evaluation.intervals(resamples=resamples_for(evaluation))


def how_intervals(evaluation: Evaluation, resamples: int) -> str:
    """How the intervals of an evaluation were computed, and what they leave out."""
    clips, recordings = len(evaluation.names), len(np.unique(evaluation.groups))
    unit = count_of(clips, "clip")
    if recordings != clips:
        unit = f"{count_of(recordings, 'recording')} from which the {count_of(clips, 'clip')} were cut"
    return (
        f"Intervals are 95 % bootstrap intervals from {resamples} resamples of the {unit}. They show how much a metric "
        "would vary with other clips of the same kind. They do not show how much it would vary with another fit."
    )

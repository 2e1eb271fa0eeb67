"""The events of hours, found by each way to decide, at every rule that is tried."""

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bayes_panns.core.files import whole_file
from bayes_panns.metrics import Span
from bayes_panns.posterior import Posterior
from bayes_panns.predictions import Event, EventFinder, EventRules, FileTags, Window
from bayes_panns.predictions.clip_sets import predict_waveforms
from benchmarks.hours.embedded import HOP, Hour

logger = logging.getLogger(__name__)

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
GAPS = (0.0, 1.0, 2.0)
"""Rules that are tried, in every combination; gaps in seconds."""


@dataclass(frozen=True)
class Found:
    """An event that was found, with what each way to decide makes of it.

    Attributes:
        event: The event, with its probability from the draws.
        mean: The largest mean of the draws at any moment of it.
    """

    event: Event
    mean: float


Rule = tuple[float, float]
"""A threshold, and a gap."""


@dataclass(frozen=True)
class Searched:
    """An hour, searched at every rule.

    Attributes:
        name: The hour's.
        seconds: How long it is.
        truth: Its events.
        found: What was found at each rule.
    """

    name: str
    seconds: float
    truth: list[Span]
    found: Mapping[Rule, list[Found]]


def searched(posterior: Posterior, hour: Hour, kept: Path, thresholds: Sequence[float] = THRESHOLDS) -> Searched:
    """Find the events of an hour at every rule; what was kept in a file is read.

    Args:
        posterior: A last layer.
        hour: The hour.
        kept: The file.
        thresholds: The thresholds of the rules.
    """
    truth = [Span(hour.name, event.label, event.onset, event.offset) for event in hour.truth]
    if not kept.is_file():
        draws = posterior.draws_for(None)
        predicted = predict_waveforms(posterior, torch.from_numpy(hour.embedding), draws, samples=True)
        tags = FileTags(hour.name, tuple(Window(hour.name, low, high) for low, high in hour.windows), predicted)
        assert predicted.samples is not None
        means = _timeline(predicted.samples.mean(axis=1, dtype=np.float64))
        number = {label: k for k, label in enumerate(posterior.labels)}
        rows = []
        for threshold, gap in itertools.product(thresholds, GAPS):
            for event in EventFinder(posterior.labels, EventRules(threshold, gap)).add(tags):
                first, last = round(event.onset / HOP), round(event.offset / HOP)
                mean = float(means[first:last, number[event.label]].max())
                rows.append({"rule": (threshold, gap), "event": asdict(event), "mean": mean})
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept) as part:
            part.write_text(json.dumps(rows))
    found: dict[Rule, list[Found]] = {rule: [] for rule in itertools.product(thresholds, GAPS)}
    for row in json.loads(kept.read_text()):
        found[tuple(row["rule"])].append(Found(Event(**row["event"]), row["mean"]))
    return Searched(hour.name, hour.seconds, truth, found)


def _timeline(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(N + 1, K)``: the means of the two windows that cover each second."""
    ends = np.concatenate([windows[:1], windows]), np.concatenate([windows, windows[-1:]])
    return (ends[0] + ends[1]) / 2

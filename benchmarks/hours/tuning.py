"""The rules of each way to decide, chosen on development hours, and what it then finds in others."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics import Units, by_events, f1
from bayes_panns.predictions import Event
from benchmarks.hours.embedded import HOP
from benchmarks.hours.finding import GAPS, THRESHOLDS, Found, Rule, Searched

WAYS: Mapping[str, str] = {
    "threshold": "windows whose mean probability reaches a threshold, one a label",
    "maximum of means": "of these events those whose largest mean reaches a level, one a label",
    "draws": "of these events those whose probability, from the draws, reaches a level, one a label",
}
"""The ways to decide which events are reported."""

LEASTS = (0.0, 1.5, 2.5)
LEVELS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
COLLAR = HOP
"""Seconds by which an onset may be off; more than the 0.2 s of sed_eval, for windows come each second."""


@dataclass(frozen=True)
class Chosen:
    """The rules of a way to decide.

    Attributes:
        way: Which.
        gap, least: In seconds.
        threshold: ``(K,)``, of the windows.
        level: ``(K,)``, of the events.
        f1: On the development hours.
    """

    way: str
    gap: float
    least: float
    threshold: tuple[float, ...]
    level: tuple[float, ...]
    f1: float


def reported(way: str, hour: Searched, labels: Sequence[str], chosen: Chosen) -> list[Event]:
    """The events that a way reports in an hour; their probability is what it would be thresholded by."""
    found = list[Event]()
    for k, label in enumerate(labels):
        mine = [each for each in hour.found[chosen.threshold[k], chosen.gap] if each.event.label == label]
        found += _kept(way, mine, chosen.least, chosen.level[k])
    return found


def choose(way: str, hours: Sequence[Searched], labels: Sequence[str]) -> Chosen:
    """The rules with the largest F1 of all labels' events together."""
    units = Units({hour.name: hour.seconds for hour in hours})
    truth = [event for hour in hours for event in hour.truth]
    best: Chosen | None = None
    # Each label has its own threshold and level: whichever are best for it under the gap and least length of all.
    for gap, least in itertools.product(GAPS, LEASTS):
        options = [
            ((threshold, gap), level)
            for threshold in THRESHOLDS
            for level in ((0.0,) if way == "threshold" else LEVELS)
            if level == 0 or level > threshold
        ]
        totals = [_totals(way, hours, truth, labels, units, rule, least, level) for rule, level in options]
        scores = np.array([np.nan_to_num(f1(*each)) for each in totals])
        of_label = scores.argmax(axis=0)
        hits, alarms, misses = (
            np.array([totals[option][part][k] for k, option in enumerate(of_label)]) for part in range(3)
        )
        value = float(f1(hits.sum(), alarms.sum(), misses.sum()))
        if best is None or value > best.f1:
            picked = [options[option] for option in of_label]
            thresholds = tuple(rule[0] for rule, _ in picked)
            best = Chosen(way, gap, least, thresholds, tuple(level for _, level in picked), value)
    assert best is not None
    return best


def _totals(
    way: str,
    hours: Sequence[Searched],
    truth: Sequence,
    labels: Sequence[str],
    units: Units,
    rule: Rule,
    least: float,
    level: float,
) -> tuple[NDArray, NDArray, NDArray]:
    found = [event for hour in hours for event in _kept(way, hour.found[rule], least, level)]
    return by_events(truth, found, labels, units, collar=COLLAR).of(np.arange(units.count))


def _kept(way: str, found: Sequence[Found], least: float, level: float) -> list[Event]:
    kept = list[Event]()
    for each in found:
        event = each.event
        score = event.probability if way == "draws" else each.mean
        if event.offset - event.onset >= least and (way == "threshold" or score >= level):
            kept.append(Event(event.file, event.label, event.onset, event.offset, score, event.low, event.high))
    return kept

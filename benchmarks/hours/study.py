"""The study of the hours: which head, which way to decide, how well, how calibrated, and what the counts hold."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics import (
    Counts,
    EventCounts,
    Finding,
    Span,
    Units,
    by_events,
    by_intersection,
    by_overlap,
    by_segments,
    count_events,
    f1,
    matched_any,
    psds,
)
from bayes_panns.metrics.bootstrap import RESAMPLES, Interval, Sample, percentiles
from bayes_panns.predictions import Event
from benchmarks.hours.finding import THRESHOLDS, Searched
from benchmarks.hours.tuning import COLLAR, LEVELS, WAYS, Chosen, choose, reported

LEVEL = 0.9
"""Of the intervals of the counts."""

SCORES = ("event F1", "segment F1", "intersection F1", "PSDS")


def compare_heads(development: dict[str, list[Searched]], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """The F1 of each head's events with each way, on the hours that its rules are chosen on."""
    return {head: {way: choose(way, hours, labels).f1 for way in WAYS} for head, hours in development.items()}


def examine(
    development: Sequence[Searched], test: Sequence[Searched], labels: Sequence[str], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Choose rules on development hours, and score them, their probabilities and their counts on test hours.

    Args:
        development: The hours to choose by.
        test: The others.
        labels: K label names.
        resamples: Of the bootstrap over test hours.
    """
    chosen = {way: choose(way, development, labels) for way in WAYS}
    return {
        "rules": {way: vars(each) for way, each in chosen.items()},
        "scores": _scores(chosen, test, labels, resamples),
        "calibration": _calibration(chosen["draws"], test, resamples),
        "counts": _counts(chosen["draws"], development, test, labels),
    }


def _units(hours: Sequence[Searched]) -> tuple[Units, list[Span]]:
    return Units({hour.name: hour.seconds for hour in hours}), [event for hour in hours for event in hour.truth]


class _Scored:
    """A way's events in the test hours, counted by hour."""

    def __init__(self, way: str, rules: Chosen, hours: Sequence[Searched], labels: Sequence[str]) -> None:
        units, truth = _units(hours)
        found = [event for hour in hours for event in reported(way, hour, labels, rules)]
        self.event = by_events(truth, found, labels, units, collar=COLLAR)
        self.segment = by_segments(truth, found, labels, units)
        self.intersection = by_intersection(truth, found, labels, units).counts()
        # One threshold for all labels moves; gap and least stay.
        self.points = [
            by_intersection(truth, each, labels, units) for each in _operating_points(way, rules, hours, labels)
        ]

    def values(self, hours: NDArray[np.intp]) -> NDArray[np.float64]:
        """The scores of some hours, in the order of ``SCORES``."""
        return np.array(
            [*(_micro(each, hours) for each in (self.event, self.segment, self.intersection)), self.psds(hours)]
        )

    def psds(self, hours: NDArray[np.intp]) -> float:
        """The polyphonic sound detection score, with the paper's parameters."""
        return psds(self.points, units=hours).value


def _operating_points(way: str, rules: Chosen, hours: Sequence[Searched], labels: Sequence[str]) -> list[list[Event]]:
    count = len(labels)
    if way == "threshold":
        moved = [Chosen(way, rules.gap, rules.least, (each,) * count, (0.0,) * count, 0.0) for each in THRESHOLDS]
    else:
        moved = [Chosen(way, rules.gap, rules.least, rules.threshold, (each,) * count, 0.0) for each in LEVELS]
    return [[event for hour in hours for event in reported(way, hour, labels, each)] for each in moved]


def _micro(counts: EventCounts, hours: NDArray[np.intp]) -> float:
    return float(f1(*(part.sum() for part in counts.of(hours))))


def _scores(chosen: dict[str, Chosen], test: Sequence[Searched], labels: Sequence[str], resamples: int) -> dict:
    scored = {way: _Scored(way, rules, test, labels) for way, rules in chosen.items()}
    baselines = [way for way in WAYS if way != "draws"]

    def statistic(hours: NDArray[np.intp]) -> NDArray[np.float64]:
        values = {way: each.values(hours) for way, each in scored.items()}
        return np.concatenate([*values.values(), *(values["draws"] - values[way] for way in baselines)])

    found = _bounds(statistic, len(test), resamples)
    rows = [*WAYS, *(f"draws - {way}" for way in baselines)]
    width = len(SCORES)
    return {
        row: dict(zip(SCORES, map(_plain, found[width * i : width * (i + 1)]), strict=True))
        for i, row in enumerate(rows)
    }


def _bounds(statistic: Callable[[NDArray[np.intp]], NDArray[np.float64]], hours: int, resamples: int) -> list[Interval]:
    many = len(statistic(np.arange(hours)))
    return percentiles(statistic, [Sample(hours)], resamples, 0.95, 0, np.zeros(many, dtype=bool))


def _plain(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


def _calibration(rules: Chosen, test: Sequence[Searched], resamples: int) -> dict[str, Any]:
    """Whether as many of the candidates are there as their probabilities say; no level leaves any out."""
    hour, there, draws, mean = list[int](), list[bool](), list[float](), list[float]()
    for index, each in enumerate(test):
        found = each.found[min(rules.threshold), rules.gap]
        found = [one for one in found if one.event.offset - one.event.onset >= rules.least]
        there += matched_any(each.truth, [one.event for one in found]).tolist()
        draws += [one.event.probability for one in found]
        mean += [one.mean for one in found]
        hour += [index] * len(found)
    of_hour, true = np.array(hour), np.array(there, dtype=np.float64)
    said = {"draws": np.array(draws), "maximum of means": np.array(mean)}

    def statistic(hours: NDArray[np.intp]) -> NDArray[np.float64]:
        index = np.concatenate([np.flatnonzero(of_hour == each) for each in hours])
        errors = [np.mean((each[index] - true[index]) ** 2) for each in said.values()]
        return np.array(
            [*errors, errors[0] - errors[1], *(each[index].mean() - true[index].mean() for each in said.values())]
        )

    names = ["Brier, draws", "Brier, maximum of means", "difference", "too sure, draws", "too sure, maximum of means"]
    bounds = dict(zip(names, map(_plain, _bounds(statistic, len(test), resamples)), strict=True))
    edges = np.quantile(said["draws"], np.linspace(0, 1, 6))
    place = np.clip(np.searchsorted(edges, said["draws"], side="right") - 1, 0, 4)
    bins = [
        [float(said["draws"][place == i].mean()), float(true[place == i].mean()), int((place == i).sum())]
        for i in range(5)
    ]
    return {"candidates": len(true), "there": float(true.mean()), "bounds": bounds, "reliability": bins}


def _counts(
    rules: Chosen, development: Sequence[Searched], test: Sequence[Searched], labels: Sequence[str]
) -> dict[str, Any]:
    """How often the intervals of the counts hold the truth, by label and for all labels together."""
    known, seconds = _overlaps(rules, development, labels), np.array([hour.seconds for hour in development])
    finding = Finding.of(known.hits, known.misses, known.alarms, seconds / 3600)
    rows: dict[str, list[Any]] = {"one recall": [], "recordings differ": []}
    for hour in test:
        there = np.array([sum(event.label == label for event in hour.truth) for label in labels])
        found = reported("draws", hour, labels, rules)
        called = np.array([sum(event.label == label for event in found) for label in labels])
        hits, misses, alarms = known.hits.sum(axis=0), known.misses.sum(axis=0), known.alarms.sum(axis=0)
        hours = hour.seconds / 3600
        alike = count_events(called, hits, misses, alarms, share=hour.seconds / seconds.sum(), level=LEVEL)
        rows["one recall"].append((there, called, alike, None))
        each, together = finding.count(called, hours, level=LEVEL)
        rows["recordings differ"].append((there, called, each, together))
    return {
        "recall": (known.hits.sum(axis=0) / np.maximum(1, (known.hits + known.misses).sum(axis=0))).tolist(),
        "alarms an hour": (known.alarms.sum(axis=0) / (seconds.sum() / 3600)).tolist(),
        "concentration": finding.concentration,
        "shape": finding.shape,
        **{name: _held(each, labels) for name, each in rows.items()},
    }


def _overlaps(rules: Chosen, hours: Sequence[Searched], labels: Sequence[str]) -> EventCounts:
    units, truth = _units(hours)
    return by_overlap(
        truth, [event for hour in hours for event in reported("draws", hour, labels, rules)], labels, units
    )


def _held(rows: Sequence[tuple[NDArray, NDArray, Counts, Counts | None]], labels: Sequence[str]) -> dict[str, Any]:
    there = np.stack([row[0] for row in rows])
    low, high, value = (np.stack([getattr(row[2], name) for row in rows]) for name in ("low", "high", "value"))
    inside = (low <= there) & (there <= high)
    found: dict[str, Any] = {
        "held": float(inside.mean()),
        "of a label": dict(zip(labels, inside.mean(axis=0).tolist(), strict=True)),
        "width": float((high - low).mean()),
        "error": float(np.abs(value - there).mean()),
        "error of what was called": float(np.abs(np.stack([row[1] for row in rows]) - there).mean()),
    }
    if rows[0][3] is not None:
        found["hours"] = [
            [float(together.low[0]), float(together.high[0]), int(truth.sum()), int(called.sum())]
            for truth, called, _, together in rows
            if together is not None
        ]
        found["hours held"] = sum(low <= truth <= high for low, high, truth, _ in found["hours"])
    return found

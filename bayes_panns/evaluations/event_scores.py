"""Found events beside annotated ones: their scores, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.choices import Task
from bayes_panns.metrics import (
    EventCounts,
    Finding,
    Interval,
    Psds,
    Timed,
    Units,
    brier,
    by_events,
    by_intersection,
    by_overlap,
    by_segments,
    error_rate,
    f1,
    matched_any,
    precision,
    psds,
    recall,
)
from bayes_panns.metrics.bootstrap import RESAMPLES, Sample, percentiles
from bayes_panns.predictions import Event

POINTS = 50
"""Thresholds on the events' probabilities at most, for the polyphonic sound detection score."""

KINDS = ("segment", "event", "intersection")
"""The ways to compare, in the order of the tables."""


@dataclass(frozen=True)
class Matching:
    """How found events are compared with annotated ones.

    Attributes:
        segment: Seconds of a segment.
        collar: Seconds by which an onset may be off.
        offset_share: The share of an event's length by which its offset may be off, if that is more than the collar;
            None if offsets do not matter.
        tolerance, coverage, cross: Of the intersections; see :func:`~bayes_panns.metrics.by_intersection`.
    """

    segment: float = 1.0
    collar: float = 0.2
    offset_share: float | None = 0.5
    tolerance: float = 0.5
    coverage: float = 0.5
    cross: float = 0.3


@dataclass(frozen=True)
class EventScores:
    """The scores of found events.

    Attributes:
        labels: K label names.
        annotated: ``(K,)``, how many events are annotated.
        found: ``(K,)``, how many were found.
        counts: Hits, alarms and misses by ``segment``, ``event`` and ``intersection``; and by ``overlap``, for
            :meth:`finding`.
        psds: The polyphonic sound detection score, over thresholds on the events' probabilities.
        there: ``(M,)``, whether each found event overlaps an annotated one of its label.
        probability: ``(M,)``, the probability that each was said to be there with.
        seconds: ``(U,)``, of the units that are resampled: recordings, or parts of them.
        matching: How they were compared.
        intervals: 95 % bootstrap intervals by name, such as ``dog/event_f1`` or ``psds``; empty if there are none.
    """

    labels: tuple[str, ...]
    annotated: NDArray[np.int64]
    found: NDArray[np.int64]
    counts: Mapping[str, EventCounts]
    psds: Psds
    there: NDArray[np.bool_]
    probability: NDArray[np.float64]
    seconds: NDArray[np.float64]
    matching: Matching
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def hours(self) -> float:
        """Of all recordings."""
        return float(self.seconds.sum()) / 3600

    def finding(self) -> Finding:
        """How well events are found and how that varies, for counting the events of other recordings."""
        counts = self.counts["overlap"]
        return Finding.of(counts.hits, counts.misses, counts.alarms, self.seconds / 3600)

    def metrics(self) -> dict[str, Any]:
        """All numbers in a flat table, as ``score --json`` writes them; NaN where one is undefined."""
        flat: dict[str, Any] = {"hours": self.hours, "annotated": int(self.annotated.sum())}
        flat["found"] = int(self.found.sum())
        everything = np.arange(len(next(iter(self.counts.values())).hits))
        for name, counts in self.counts.items():
            hits, alarms, misses = counts.of(everything)
            total = (hits.sum(), alarms.sum(), misses.sum())
            flat |= _shares(f"{name}_", *(np.array(each) for each in total))
            flat[f"{name}_f1_macro"] = _mean(f1(hits, alarms, misses))
            if counts.substituted is not None:
                flat[f"{name}_error_rate"] = error_rate(counts)
        flat["psds"] = self.psds.value
        if len(self.there):
            flat["mean_probability"] = float(self.probability.mean())
            flat["share_there"] = float(self.there.mean())
            flat["brier"] = brier(self.probability[:, None], self.there[:, None], Task.MULTI_LABEL)
        for k, label in enumerate(self.labels):
            flat[f"{label}/annotated"], flat[f"{label}/found"] = int(self.annotated[k]), int(self.found[k])
            for name, counts in self.counts.items():
                hits, alarms, misses = (each[k] for each in counts.of(everything))
                flat |= _shares(f"{label}/{name}_", hits, alarms, misses)
        ends = {f"{name}/{end}": getattr(each, end) for name, each in self.intervals.items() for end in ("low", "high")}
        return flat | ends


def score_events(
    truth: Sequence[Timed],
    found: Sequence[Event],
    labels: Sequence[str],
    seconds: Mapping[str, float],
    *,
    matching: Matching | None = None,
    part: float | None = None,
    resamples: int = RESAMPLES,
) -> EventScores:
    """Compare found events with annotated ones.

    The polyphonic sound detection score takes the events of at least each of some probabilities as its operating
    points. Intervals resample recordings, or parts of recordings.

    Args:
        truth: The annotated events.
        found: The found events.
        labels: K label names; events of others are left out.
        seconds: How long each recording is. All events are of one of these.
        matching: How to compare.
        part: Seconds of the parts that are resampled; by default whole recordings.
        resamples: Of the bootstrap; 0 for no intervals.
    """
    how, labels = matching or Matching(), tuple(labels)
    units = Units(seconds, part)
    truth = [event for event in truth if event.label in labels]
    found = [event for event in found if event.label in labels]
    probability = np.array([event.probability for event in found], dtype=np.float64)
    places = [
        by_intersection(
            truth,
            [event for event in found if event.probability >= least],
            labels,
            units,
            tolerance=how.tolerance,
            coverage=how.coverage,
            cross=how.cross,
        )
        for least in operating_points(probability)
    ]
    counts = {
        "segment": by_segments(truth, found, labels, units, seconds=how.segment),
        "event": by_events(truth, found, labels, units, collar=how.collar, offset_share=how.offset_share),
        "intersection": places[0].counts(),
        "overlap": by_overlap(truth, found, labels, units),
    }
    scores = EventScores(
        labels,
        _number(truth, labels),
        _number(found, labels),
        counts,
        psds(places),
        matched_any(truth, found),
        probability,
        units.lengths(),
        how,
    )
    if resamples < 1 or units.count < 2:
        return scores
    names = [f"{each}{kind}_f1" for kind in KINDS for each in ("", *(f"{label}/" for label in labels))] + ["psds"]

    def statistic(chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        values = list[NDArray[np.float64]]()
        for kind in KINDS:
            hits, alarms, misses = counts[kind].of(chosen)
            values += [np.atleast_1d(f1(hits.sum(), alarms.sum(), misses.sum())), f1(hits, alarms, misses)]
        return np.concatenate([*values, [psds(places, units=chosen).value]])

    centred = np.zeros(len(names), dtype=bool)
    bounds = percentiles(statistic, [Sample(units.count)], resamples, 0.95, 0, centred)
    return EventScores(**{**vars(scores), "intervals": dict(zip(names, bounds, strict=True))})


def operating_points(probability: NDArray[np.float64]) -> list[float]:
    """The least probabilities that events are kept from: at most ``POINTS`` different ones, the lowest first."""
    if not len(probability):
        return [0.0]
    levels = np.unique(np.quantile(probability, np.linspace(0, 1, POINTS), method="inverted_cdf"))
    return [float(level) for level in levels]


def _number(events: Sequence[Timed], labels: tuple[str, ...]) -> NDArray[np.int64]:
    return np.array([sum(event.label == label for event in events) for label in labels], dtype=np.int64)


def _shares(
    prefix: str, hits: NDArray[np.int64], alarms: NDArray[np.int64], misses: NDArray[np.int64]
) -> dict[str, float]:
    return {
        f"{prefix}f1": float(f1(hits, alarms, misses)),
        f"{prefix}precision": float(precision(hits, alarms)),
        f"{prefix}recall": float(recall(hits, misses)),
    }


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

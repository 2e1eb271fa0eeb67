"""Found events against annotated ones by how far they intersect (Bilen et al., 2020, arXiv:1910.08440).

The numbers are those of ``psds_eval``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.metrics.events import EventCounts, Timed, Units, grouped, shared, times_of


@dataclass(frozen=True)
class Intersections:
    """How far found events intersect annotated ones, at one operating point; see :func:`by_intersection`.

    Attributes:
        hits: ``(U, K)``, annotated events that are covered.
        alarms: ``(U, K)``, found events that are not tolerated.
        crossed: ``(U, K, K)``, alarms of a label (rows) on events of another one (columns).
        there: ``(U, K)``, annotated events.
        heard: ``(U, K)``, the seconds of these.
        seconds: ``(U,)``, of the units.
    """

    hits: NDArray[np.int64]
    alarms: NDArray[np.int64]
    crossed: NDArray[np.int64]
    there: NDArray[np.int64]
    heard: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def counts(self) -> EventCounts:
        """As counts, for an F1 score; an event that is tolerated but covers none is neither a hit nor an alarm."""
        return EventCounts(self.hits, self.alarms, self.there - self.hits)


def by_intersection(
    truth: Iterable[Timed],
    found: Iterable[Timed],
    labels: Sequence[str],
    units: Units,
    *,
    tolerance: float = 0.5,
    coverage: float = 0.5,
    cross: float = 0.3,
) -> Intersections:
    """Compare by how far events intersect, so that an event may be found in pieces.

    A found event is *tolerated* if annotated events of its label fill at least the share ``tolerance`` of it. An
    annotated event is a hit if tolerated ones fill at least ``coverage`` of it. What is not tolerated is an alarm; it
    crosses each label whose annotated events fill at least ``cross`` of it.

    Args:
        truth: The annotated events; those of a label do not overlap in a file.
        found: The found events; likewise.
        labels: K label names; events of others are left out.
        units: What to count by.
        tolerance: The detection tolerance criterion of the paper.
        coverage: The ground truth intersection criterion.
        cross: The cross-trigger tolerance criterion.

    Raises:
        KeyError: An event is of a recording that ``units`` does not have.
    """
    shape = (units.count, len(labels))
    hits, alarms, there = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    crossed, heard = np.zeros((*shape, len(labels)), dtype=np.int64), np.zeros(shape)
    real, called = grouped(truth, labels, units), grouped(found, labels, units)
    lengths = {key: times_of(events) for key, events in real.items()}
    for (file, k), events in real.items():
        for event in events:
            unit = units.of(file, event.onset)
            there[unit, k] += 1
            heard[unit, k] += event.offset - event.onset
    for (file, k), events in called.items():
        times = times_of(events)
        length = times[:, 1] - times[:, 0]
        mine = lengths.get((file, k), np.zeros((0, 2)))
        held = shared(times, mine)
        # A rounding error must not decide at the threshold itself.
        tolerated = (length > 0) & (held.sum(axis=1) >= tolerance * length - 1e-9) & (held.sum(axis=1) > 0)
        covered = held[tolerated].sum(axis=0)
        own = mine[:, 1] - mine[:, 0]
        for index in np.flatnonzero((covered >= coverage * own - 1e-9) & (covered > 0)):
            hits[units.of(file, mine[index, 0]), k] += 1
        for index in np.flatnonzero((length > 0) & ~tolerated):
            unit = units.of(file, times[index, 0])
            alarms[unit, k] += 1
            for other in range(len(labels)):
                theirs = lengths.get((file, other)) if other != k else None
                if theirs is not None:
                    share = shared(times[index : index + 1], theirs).sum()
                    crossed[unit, k, other] += share >= cross * length[index] - 1e-9 and share > 0
    return Intersections(hits, alarms, crossed, there, heard, units.lengths())

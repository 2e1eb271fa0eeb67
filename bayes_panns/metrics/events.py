"""Scores of found events against annotated ones, a segment at a time or event by event.

The scores are those of Mesaros, Heittola and Virtanen, 2016 (doi:10.3390/app6060162), as ``sed_eval`` computes them.

Everything is counted by *units*: recordings, or parts of recordings. Units are what a bootstrap resamples.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Timed(Protocol):
    """Something that is heard in a file from when to when, in seconds, such as an event."""

    @property
    def file(self) -> str:
        """The recording's name."""

    @property
    def label(self) -> str:
        """What is heard."""

    @property
    def onset(self) -> float:
        """From when."""

    @property
    def offset(self) -> float:
        """To when."""


@dataclass(frozen=True)
class Span:
    """An annotated event: what is heard in a file, from when to when in seconds."""

    file: str
    label: str
    onset: float
    offset: float


class Units:
    """Recordings, or parts of them of equal length, by number. The last part of a recording may be shorter.

    An event is of the part in which it begins.

    Args:
        seconds: How long each recording is.
        part: Seconds of a part; by default a recording is one.
    """

    def __init__(self, seconds: Mapping[str, float], part: float | None = None) -> None:
        self.seconds = dict(seconds)
        self._part = math.inf if part is None else part
        self._first, count = dict[str, int](), 0
        self._many = dict[str, int]()
        for file, length in self.seconds.items():
            self._first[file] = count
            self._many[file] = max(1, math.ceil(length / self._part - 1e-9))
            count += self._many[file]
        self.count = count
        """How many there are."""

    def of(self, file: str, time: float) -> int:
        """The unit of a time in a file.

        Raises:
            KeyError: There is no such file.
        """
        return self._first[file] + min(self._many[file] - 1, math.floor(time / self._part))

    def lengths(self) -> NDArray[np.float64]:
        """``(U,)``, the seconds of each unit."""
        found = np.zeros(self.count)
        for file, first in self._first.items():
            many, length = self._many[file], self.seconds[file]
            found[first : first + many] = self._part if many > 1 else length
            found[first + many - 1] = length - (many - 1) * self._part if many > 1 else length
        return found


@dataclass(frozen=True)
class EventCounts:
    """What was found and what was not, by unit and label.

    Attributes:
        hits: ``(U, K)``, true positives.
        alarms: ``(U, K)``, false positives.
        misses: ``(U, K)``, false negatives.
        substituted: ``(U,)``, for segments: how many labels were taken for another one.
    """

    hits: NDArray[np.int64]
    alarms: NDArray[np.int64]
    misses: NDArray[np.int64]
    substituted: NDArray[np.int64] | None = None

    def of(self, units: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Hits, alarms and misses of some units together, each ``(K,)``."""
        return self.hits[units].sum(axis=0), self.alarms[units].sum(axis=0), self.misses[units].sum(axis=0)


def f1(hits: NDArray[np.number], alarms: NDArray[np.number], misses: NDArray[np.number]) -> NDArray[np.float64]:
    """The harmonic mean of precision and recall, 2 hits / (2 hits + alarms + misses); NaN where there is nothing.

    Example:
        >>> f1(np.array([3, 0]), np.array([1, 0]), np.array([1, 0]))
        array([0.75,  nan])
    """
    return _share(2 * hits, 2 * hits + alarms + misses)


def precision(hits: NDArray[np.number], alarms: NDArray[np.number]) -> NDArray[np.float64]:
    """Hits among what was found; NaN where nothing was."""
    return _share(hits, hits + alarms)


def recall(hits: NDArray[np.number], misses: NDArray[np.number]) -> NDArray[np.float64]:
    """Hits among what there is; NaN where there is nothing."""
    return _share(hits, hits + misses)


def error_rate(counts: EventCounts) -> float:
    """The errors a label that there is: substitutions, deletions and insertions; only of segments, all labels together.

    Raises:
        ValueError: The counts are not of segments.
    """
    if counts.substituted is None:
        raise ValueError("an error rate with substitutions is one of segments")
    hits, alarms, misses = counts.of(np.arange(len(counts.hits)))
    there = int(hits.sum() + misses.sum())
    # An error that is both an alarm and a miss is one substitution.
    return float(alarms.sum() + misses.sum() - counts.substituted.sum()) / there if there else math.nan


def by_segments(
    truth: Iterable[Timed], found: Iterable[Timed], labels: Sequence[str], units: Units, *, seconds: float = 1.0
) -> EventCounts:
    """Compare segment by segment: is a label anywhere in it?

    Args:
        truth: The annotated events.
        found: The found events.
        labels: K label names; events of others are left out.
        units: What to count by. A segment is of the unit in which it begins.
        seconds: Of a segment.

    Raises:
        KeyError: An event is of a recording that ``units`` does not have.
    """
    hits, alarms, misses = (np.zeros((units.count, len(labels)), dtype=np.int64) for _ in range(3))
    substituted = np.zeros(units.count, dtype=np.int64)
    of_file = _by_file(truth), _by_file(found)
    _require_known({*of_file[0], *of_file[1]}, units)
    for file, length in units.seconds.items():
        there, here = (_roll(each.get(file, ()), labels, length, seconds) for each in of_file)
        unit = np.array([units.of(file, index * seconds) for index in range(len(there))], dtype=np.intp)
        np.add.at(hits, unit, there & here)
        np.add.at(alarms, unit, here & ~there)
        np.add.at(misses, unit, there & ~here)
        np.add.at(substituted, unit, np.minimum((here & ~there).sum(axis=1), (there & ~here).sum(axis=1)))
    return EventCounts(hits, alarms, misses, substituted)


def by_events(
    truth: Iterable[Timed],
    found: Iterable[Timed],
    labels: Sequence[str],
    units: Units,
    *,
    collar: float = 0.2,
    offset_share: float | None = 0.5,
) -> EventCounts:
    """Compare event by event: as many as possible are matched one to one.

    A found event matches an annotated one of its label if its onset is at most ``collar`` away, and its offset at most
    ``collar`` or a share of the annotated event's length, whichever is longer.

    Args:
        truth: The annotated events.
        found: The found events.
        labels: K label names; events of others are left out.
        units: What to count by. A match is of the annotated event's unit.
        collar: Seconds.
        offset_share: The share of the length; None if offsets do not matter.

    Raises:
        KeyError: An event is of a recording that ``units`` does not have.
    """

    def fitting(there: NDArray[np.float64], here: NDArray[np.float64]) -> NDArray[np.bool_]:
        fits = np.abs(there[:, None, 0] - here[None, :, 0]) <= collar
        if offset_share is not None:
            allowed = np.maximum(collar, offset_share * (there[:, 1] - there[:, 0]))
            fits &= np.abs(there[:, None, 1] - here[None, :, 1]) <= allowed[:, None]
        return fits

    return _one_to_one(truth, found, labels, units, fitting)


def _one_to_one(
    truth: Iterable[Timed],
    found: Iterable[Timed],
    labels: Sequence[str],
    units: Units,
    fitting: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]],
) -> EventCounts:
    """Match the events of each file and label, of which ``fitting`` says which may be: ``(A, 2)``, ``(B, 2)`` times."""
    hits, alarms, misses = (np.zeros((units.count, len(labels)), dtype=np.int64) for _ in range(3))
    there, here = grouped(truth, labels, units), grouped(found, labels, units)
    for key in {*there, *here}:
        file, k = key
        real, called = there.get(key, []), here.get(key, [])
        fits = fitting(times_of(real), times_of(called))
        pairs = _matched([np.flatnonzero(row).tolist() for row in fits])
        for index, event in enumerate(real):
            (hits if index in pairs else misses)[units.of(file, event.onset), k] += 1
        taken = set(pairs.values())
        for index, event in enumerate(called):
            if index not in taken:
                alarms[units.of(file, event.onset), k] += 1
    return EventCounts(hits, alarms, misses)


def by_overlap(truth: Iterable[Timed], found: Iterable[Timed], labels: Sequence[str], units: Units) -> EventCounts:
    """Compare event by event, where any overlap is enough: what counting events needs.

    As many as possible are matched one to one, so an event that is found in two pieces is a hit and an alarm.

    Args:
        truth: The annotated events.
        found: The found events.
        labels: K label names; events of others are left out.
        units: What to count by. A match is of the annotated event's unit.

    Raises:
        KeyError: An event is of a recording that ``units`` does not have.
    """
    return _one_to_one(truth, found, labels, units, _overlapping)


def matched_any(truth: Iterable[Timed], found: Sequence[Timed]) -> NDArray[np.bool_]:
    """``(M,)``, whether each found event overlaps an annotated one of its label: whether it is there at all.

    Example:
        >>> real, called = Span("a.wav", "dog", 1, 2), Span("a.wav", "dog", 1.5, 4)
        >>> matched_any([real], [called, Span("a.wav", "cat", 1, 2)])
        array([ True, False])
    """
    of_label = defaultdict[tuple[str, str], list[Timed]](list)
    for event in truth:
        of_label[event.file, event.label].append(event)
    times = {key: times_of(events) for key, events in of_label.items()}
    none = np.zeros((0, 2))
    return np.array(
        [bool((shared(times_of([each]), times.get((each.file, each.label), none)) > 0).any()) for each in found],
        dtype=bool,
    )


def _share(part: NDArray[np.number], of: NDArray[np.number]) -> NDArray[np.float64]:
    part, of = np.asarray(part, dtype=np.float64), np.asarray(of, dtype=np.float64)
    return np.divide(part, of, out=np.full(np.broadcast_shapes(part.shape, of.shape), np.nan), where=of > 0)


def _by_file(events: Iterable[Timed]) -> dict[str, list[Timed]]:
    found = defaultdict[str, list[Timed]](list)
    for event in events:
        found[event.file].append(event)
    return dict(found)


def _require_known(files: Iterable[str], units: Units) -> None:
    for file in files:
        if file not in units.seconds:
            raise KeyError(file)


def grouped(events: Iterable[Timed], labels: Sequence[str], units: Units) -> dict[tuple[str, int], list[Timed]]:
    """The events of each file and label, by onset."""
    number = {label: k for k, label in enumerate(labels)}
    found = defaultdict[tuple[str, int], list[Timed]](list)
    for event in events:
        if event.label in number:
            found[event.file, number[event.label]].append(event)
    _require_known({file for file, _ in found}, units)
    return {key: sorted(each, key=lambda event: (event.onset, event.offset)) for key, each in found.items()}


def _roll(events: Iterable[Timed], labels: Sequence[str], length: float, seconds: float) -> NDArray[np.bool_]:
    """``(segments, K)``, in which segments each label is."""
    number = {label: k for k, label in enumerate(labels)}
    roll = np.zeros((math.ceil(length / seconds), len(labels)), dtype=bool)
    for event in events:
        if event.label in number:
            roll[math.floor(event.onset / seconds) : math.ceil(event.offset / seconds), number[event.label]] = True
    return roll


def times_of(events: Sequence[Timed]) -> NDArray[np.float64]:
    """``(A, 2)``, the onsets and offsets."""
    return np.array([(event.onset, event.offset) for event in events], dtype=np.float64).reshape(-1, 2)


def shared(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(A, B)``, the seconds that each of some times shares with each of others."""
    both = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    return np.maximum(both, 0)


def _overlapping(there: NDArray[np.float64], here: NDArray[np.float64]) -> NDArray[np.bool_]:
    return shared(there, here) > 0


def _matched(fitting: Sequence[Sequence[int]]) -> dict[int, int]:
    """A largest matching: annotated event to found event, by augmenting paths."""
    of_found = dict[int, int]()

    def augment(event: int, seen: set[int]) -> bool:
        for other in fitting[event]:
            if other not in seen:
                seen.add(other)
                if other not in of_found or augment(of_found[other], seen):
                    of_found[other] = event
                    return True
        return False

    for event in range(len(fitting)):
        augment(event, set())
    return {event: other for other, event in of_found.items()}

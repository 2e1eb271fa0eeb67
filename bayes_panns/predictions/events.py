"""Windows that follow each other as events: from when to when a label is heard, and how probable it is that it is."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayes_panns.core.errors import PredictionError, SettingError
from bayes_panns.predictions.tagging import FileTags

BACKGROUND = ("background", "none", "silence")
"""Labels of these names, in any letter case, make no events."""

BAND = 0.9
"""The share of the draws between an event's ``low`` and ``high``."""

_SHARPNESS = 32
"""The exponent of the soft maximum over an event's time; chosen on the development hours of ``docs/events.md``."""

_SLACK = 1e-6
"""Seconds; times that differ by less are the same."""


@dataclass(frozen=True)
class Event:
    """A stretch of a recording in which a label is heard.

    Attributes:
        file: The recording's name.
        label: The label's name.
        onset, offset: From when to when, in seconds from the recording's start.
        probability: How probable it is that the event is there at all: the mean over the draws.
        low, high: The central 90 % of the draws.
    """

    file: str
    label: str
    onset: float
    offset: float
    probability: float
    low: float
    high: float


@dataclass(frozen=True)
class EventRules:
    """What makes an event.

    Attributes:
        threshold: A label is heard where its probability is at least this; one for all labels, or one for each of K.
        gap: Seconds; an interruption that is no longer is part of the event.
        least: Seconds; a shorter event is left out.
        probability: An event of a lower probability is left out; one for all labels, or one for each of K.
        background: Labels of these names make no events, in any letter case: such as the class of a one-of-K task that
            stands for everything else.

    Raises:
        SettingError: A value makes no sense.
    """

    threshold: float | tuple[float, ...] = 0.5
    gap: float = 0.0
    least: float = 0.0
    probability: float | tuple[float, ...] = 0.0
    background: tuple[str, ...] = BACKGROUND

    def __post_init__(self) -> None:
        for value in _each(self.threshold):
            if not 0 < value <= 1:
                raise SettingError(f"a threshold of {value:g}: must be above 0 and at most 1")
        for name in ("gap", "least"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SettingError(f"{name} {value:g} s: must be 0 s or more")
        for value in _each(self.probability):
            if not 0 <= value <= 1:
                raise SettingError(f"a least probability of {value:g}: must be from 0 to 1")

    def thresholds(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """The threshold of each of K labels, ``(K,)``; infinite for those that make no events.

        Raises:
            SettingError: There are thresholds for another number of labels.
        """
        found = _a_label(self.threshold, labels, "thresholds")
        names = {name.casefold() for name in self.background}
        found[[label.casefold() in names for label in labels]] = np.inf
        return found

    def least_probabilities(self, labels: Sequence[str]) -> NDArray[np.float64]:
        """The least probability of an event of each of K labels, ``(K,)``.

        Raises:
            SettingError: There are some for another number of labels.
        """
        return _a_label(self.probability, labels, "least probabilities")


def _each(values: float | tuple[float, ...]) -> tuple[float, ...]:
    return values if isinstance(values, tuple) else (values,)


def _a_label(values: float | tuple[float, ...], labels: Sequence[str], what: str) -> NDArray[np.float64]:
    if isinstance(values, tuple) and len(values) != len(labels):
        raise SettingError(f"{len(values)} {what} for {len(labels)} labels; give one for each, or one for all")
    return np.broadcast_to(np.asarray(values, dtype=np.float64), (len(labels),)).copy()


class EventFinder:
    """Finds the events of recordings in the predictions for their windows, as these come; in constant memory.

    Windows may overlap. At each time t draw d gives a label the mean probability of the windows that cover t, p_d(t).
    A label is heard where the mean over the draws is at least its threshold. Stretches with at most ``gap`` seconds
    between them are one event. Time that no window covers is such a gap.

    The event is there with probability::

        mean_d [ mean_{t in event} p_d(t)^32 ]^(1/32)

    with the mean over the time in which the label is heard. The brackets are a soft maximum within a draw, at least the
    mean over the event and at most its maximum: draws that each hear the label, if not at the same moment, make an
    event more probable than the mean at any moment. The maximum itself is too sure, for it takes the luckiest moment.
    ``low`` and ``high`` are quantiles of the draws' soft maxima. The probability is never below the threshold.

    Example:
        >>> import torch
        >>> from bayes_panns.predictions.accumulate import UncertaintyAccumulator
        >>> from bayes_panns.predictions.windows import Window
        >>> accumulator = UncertaintyAccumulator("multi-label", samples=True)
        >>> for p in (0.9, 0.7):
        ...     accumulator.update(torch.tensor([[0.1], [p], [p], [0.2]]))
        >>> windows = tuple(Window("night.wav", start, start + 1.0) for start in range(4))
        >>> finder = EventFinder(["wren"])
        >>> for event in finder.add(FileTags("night.wav", windows, accumulator.result())):
        ...     print(event.label, event.onset, event.offset, round(event.probability, 2))
        wren 1.0 3.0 0.8

    Args:
        labels: K label names, in the order of the predictions.
        rules: What makes an event.

    Raises:
        SettingError: The rules have thresholds for another number of labels.
    """

    def __init__(self, labels: Sequence[str], rules: EventRules | None = None) -> None:
        self.labels = tuple(labels)
        self.rules = EventRules() if rules is None else rules
        self._threshold = self.rules.thresholds(self.labels)
        self._least = self.rules.least_probabilities(self.labels)
        self.drop()

    def drop(self) -> None:
        """Forget what has come of a recording that will not be completed."""
        count = len(self.labels)
        self._file: str | None = None
        self._covering = deque[tuple[float, NDArray[np.float32]]]()
        self._time = -math.inf
        self._open = np.zeros(count, dtype=bool)
        self._onset, self._offset = np.zeros(count), np.zeros(count)
        self._heard = np.zeros(count)
        self._powers: NDArray[np.float64] | None = None

    def add(self, tags: FileTags) -> list[Event]:
        """Take the next windows of a recording.

        Args:
            tags: Predictions with samples: all windows of a recording, or some that follow those before. If those
                before were of another recording that was not complete, what came of it is forgotten.

        Returns:
            The events that are known to have ended, in the order in which this is known; all that are left where the
            recording is complete. They do not depend on how a recording comes in parts.

        Raises:
            PredictionError: The predictions have no samples.
            ValueError: The windows are not in the order of their starts, or the labels are not K.
        """
        samples = tags.uncertainty.samples
        if samples is None:
            raise PredictionError("events need every draw's probabilities; predict with draws, and with samples=True")
        if samples.shape[2] != len(self.labels):
            raise ValueError(f"predictions of {samples.shape[2]} labels: expected {len(self.labels)}")
        if self._file not in (None, tags.file):
            self.drop()
        self._file = tags.file
        found = list[Event]()
        for window, drawn in zip(tags.windows, samples, strict=True):
            if window.start < self._time:
                raise ValueError(f"a window at {window.start:g} s follows one at {self._time:g} s: expected an order")
            found += self._advance(window.start)
            self._time = window.start
            self._covering.append((window.end, drawn))
        if tags.complete:
            found += self._advance(math.inf)
            found += self._close(self._open.copy())
            self.drop()
        return found

    def _advance(self, until: float) -> Iterator[Event]:
        """Take the stretches between windows' edges that lie before a time; no window will start before it."""
        while self._covering and self._time < until:
            end = min(until, min(each for each, _ in self._covering))
            # Edges that only rounding tells apart have no time between them.
            if end > self._time + _SLACK:
                drawn = np.asarray(np.mean([each for _, each in self._covering], axis=0, dtype=np.float64))
                yield from self._stretch(self._time, end, drawn)
            self._time = max(self._time, end)
            self._covering = deque(each for each in self._covering if each[0] > end)

    def _stretch(self, start: float, end: float, drawn: NDArray[np.float64]) -> Iterator[Event]:
        """Take a stretch over which the same windows lie, with its ``(T, K)`` probabilities."""
        heard = drawn.mean(axis=0) >= self._threshold
        apart = start - self._offset > self.rules.gap + _SLACK
        yield from self._close(self._open & (apart | ~heard & (end - self._offset > self.rules.gap + _SLACK)))
        if self._powers is None:
            self._powers = np.zeros_like(drawn)
        begins = heard & ~self._open
        self._onset[begins], self._heard[begins], self._powers[:, begins] = start, 0, 0
        self._open |= heard
        self._offset[heard] = end
        self._heard[heard] += end - start
        self._powers[:, heard] += (end - start) * drawn[:, heard] ** _SHARPNESS

    def _close(self, which: NDArray[np.bool_]) -> Iterator[Event]:
        """End the open events of some labels."""
        self._open &= ~which
        for k in np.flatnonzero(which):
            assert self._powers is not None
            assert self._file is not None
            of_draws = (self._powers[:, k] / self._heard[k]) ** (1 / _SHARPNESS)
            event = _event(self._file, self.labels[k], self._onset[k], self._offset[k], of_draws)
            long = event.offset - event.onset >= self.rules.least - _SLACK
            # Rounding must not drop an event at the very threshold.
            if long and event.probability >= self._least[k] - 1e-9:
                yield event


def _event(file: str, label: str, onset: float, offset: float, of_draws: NDArray[np.float64]) -> Event:
    low, high = np.quantile(of_draws, [(1 - BAND) / 2, (1 + BAND) / 2])
    return Event(file, label, float(onset), float(offset), float(of_draws.mean()), float(low), float(high))


def find_events(labels: Sequence[str], tags: Sequence[FileTags], rules: EventRules | None = None) -> list[Event]:
    """The events of predictions that are in memory, in the order of files and onsets.

    Args:
        labels: K label names.
        tags: As :func:`~bayes_panns.predictions.tag_each` gives them, without the files that were skipped.
        rules: What makes an event.

    Raises:
        PredictionError: The predictions have no samples.
        SettingError: The rules have thresholds for another number of labels.
    """
    finder, found, of_file = EventFinder(labels, rules), list[Event](), list[Event]()
    for each in tags:
        if of_file and of_file[0].file != each.file:
            # It was never completed.
            of_file = []
        of_file += finder.add(each)
        if each.complete:
            found += sorted(of_file, key=lambda event: (event.onset, event.offset, event.label))
            of_file = []
    return found

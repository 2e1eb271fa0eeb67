"""What a timeline shows of a recording's windows, held so that any piece of it is there at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_panns.predictions.records import Record

PIECE = 256
"""Bins of a piece of a timeline."""

_SLICE = 1024
"""Windows that are read from a record at a time."""

_FULL = 255
"""What 1 is kept as: a byte is enough for a drawing."""


@dataclass(frozen=True)
class Track:
    """The N windows of a recording with K labels.

    Attributes:
        start, end: ``(N,)``, seconds.
        probability, low, high: ``(N, K)``, 0 to 255.
        aleatoric, epistemic: ``(N,)``, variances, summed over labels.
        outside, left: ``(N,)``, whether.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    probability: NDArray[np.uint8]
    low: NDArray[np.uint8]
    high: NDArray[np.uint8]
    aleatoric: NDArray[np.float32]
    epistemic: NDArray[np.float32]
    outside: NDArray[np.bool_]
    left: NDArray[np.bool_]

    @classmethod
    def of(cls, record: Record) -> "Track":
        """The track of a record, which is read slice by slice."""
        count, labels = len(record), len(record.labels)
        kinds = {"start": np.float64, "end": np.float64, "outside": np.bool_, "left": np.bool_}
        made: dict[str, Any] = {name: np.empty(count, kind) for name, kind in kinds.items()}
        made |= {name: np.empty((count, labels), np.uint8) for name in ("probability", "low", "high")}
        made |= {name: np.empty(count, np.float32) for name in ("aleatoric", "epistemic")}
        for first in range(0, count, _SLICE):
            windows = record.windows(first, min(first + _SLICE, count))
            for name, values in made.items():
                read = getattr(windows, name)
                if values.dtype == np.uint8:
                    read = np.rint(read.clip(0, 1) * _FULL)
                elif read.ndim == 2:
                    read = read.sum(axis=1)
                values[first : first + len(windows)] = read
        return cls(**made)

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return sum(values.nbytes for values in vars(self).values())

    def peaks(self) -> NDArray[np.float64]:
        """The highest probability of each label, ``(K,)``; 0 without windows."""
        return self.probability.max(axis=0, initial=0) / _FULL

    def scales(self) -> dict[str, float]:
        """The highest aleatoric and epistemic variance: what the strips' darkest colour stands for."""
        return {name: float(getattr(self, name).max(initial=0)) for name in ("aleatoric", "epistemic")}

    def piece(self, level: int, number: int, labels: list[int]) -> dict[str, Any]:
        """A piece of the timeline: up to :data:`PIECE` bins of ``2**level`` windows each.

        A bin shows each label by the window in which it is most probable, so that no peak is lost from afar, and the
        highest variances. It is outside or left if any of its windows is.

        Args:
            level: How far away the timeline is seen from.
            number: Which piece, from 0.
            labels: Indices of the labels to show.

        Returns:
            ``start`` and ``end`` in seconds, and ``aleatoric``, ``epistemic``, ``outside`` and ``left``, lists of B
            bins; ``probability``, ``low`` and ``high`` in thousandths, lists of B for each label.
        """
        size = 1 << level
        first = number * PIECE * size
        last = min(len(self.start), first + PIECE * size)
        edges = np.arange(first, last, size)
        if first >= last:
            return {name: [] for name in (*_OF_WINDOWS, *_OF_LABELS)}
        inside = slice(first, last)
        found: dict[str, Any] = {
            "start": self.start[edges].round(3).tolist(),
            "end": self.end[np.minimum(edges + size, last) - 1].round(3).tolist(),
        }
        for name in ("aleatoric", "epistemic"):
            highest = np.maximum.reduceat(getattr(self, name)[inside], edges - first)
            found[name] = [float(f"{value:.3g}") for value in highest.tolist()]
        for name in ("outside", "left"):
            found[name] = np.maximum.reduceat(getattr(self, name)[inside], edges - first).astype(int).tolist()
        shown = self.probability[inside][:, labels]
        # The rest of the last bin never wins.
        padded = np.full((len(edges) * size, len(labels)), -1, np.int16)
        padded[: len(shown)] = shown
        best = padded.reshape(len(edges), size, len(labels)).argmax(axis=1) + edges[:, None]
        for name in _OF_LABELS:
            values = getattr(self, name)[best, np.asarray(labels, dtype=int)[None]].astype(np.int32)
            found[name] = (np.rint(values * (1000 / _FULL)).astype(int)).T.tolist()
        return found


_OF_WINDOWS = ("start", "end", "aleatoric", "epistemic", "outside", "left")
_OF_LABELS = ("probability", "low", "high")

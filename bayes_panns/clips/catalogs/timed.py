"""Labelled stretches of recordings, cut into clips."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayes_panns.audio.recording import duration
from bayes_panns.clips.catalogs.catalog import Clip, span_name
from bayes_panns.clips.catalogs.labels import labels_of
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import AudioError, StoreError

logger = logging.getLogger(__name__)

SLIVER = 0.1
"""A smaller share is too little: for a rest of a clip's length, or for an overlap of clip and stretch."""

SLACK = 0.1
"""Seconds by which a stretch may end after its recording: programs differ in how long they say that a file is."""

LEAST = 0.01
"""Seconds; the shortest clips. Of shorter ones an hour would make millions."""

_POINT = 1e-6
"""Seconds; a stretch of less is a point, and times are rounded to it."""


@dataclass(frozen=True)
class Stretch:
    """A part of a recording, and what is heard in it.

    Attributes:
        path: The recording; it may be missing.
        name: What the recording is called.
        labels: The labels' names; none says that none of the labels is heard.
        start: In seconds.
        end: In seconds, not before ``start``; None for the recording's end.
        table: The file that says so.
        line: Its line there.
        fold: The recording's fold.
        source: The recording that the file itself was cut from.
        exhaustive: Whether all that is heard in the recording is labelled.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    start: float
    end: float | None
    table: Path
    line: int
    fold: int | None = None
    source: str | None = None
    exhaustive: bool = False

    @property
    def where(self) -> str:
        """The table and the line, for errors."""
        return f"{self.table}: line {self.line}"


@dataclass(frozen=True)
class Cutting:
    """How stretches become clips.

    Attributes:
        seconds: Length of a clip.
        context: Whether the clip of a shorter stretch has the sound around it; otherwise it is filled up with silence.
        exhaustive: Whether every recording's labels are complete, so that clips between the stretches have no label.
    """

    seconds: float = 10.0
    context: bool = True
    exhaustive: bool = False


def cut(stretches: Sequence[Stretch], cutting: Cutting) -> tuple[tuple[str, ...], Task, tuple[Clip, ...]]:
    """The clips of labelled stretches, with all labels and what they mean.

    A stretch that is longer than a clip becomes several, evenly spread over it, which overlap where its length is no
    multiple of theirs; a rest of up to a tenth of a clip is left out. One that is not becomes a clip with the stretch
    in its middle, moved where the recording begins or ends; a stretch that lies whole in an earlier clip gets none of
    its own. A clip has the labels of all stretches of which it holds a tenth, or which fill a tenth of it.

    Where labels are exhaustive, whole clips from between the stretches follow, without a label.

    Args:
        stretches: What is heard where.
        cutting: How to cut.

    Returns:
        Labels, task and clips, as :func:`~bayes_panns.clips.catalogs.labels.labels_of`.

    Raises:
        StoreError: A stretch ends before it begins or after its recording, or two lines on a recording contradict each
            other.
    """
    if not (math.isfinite(cutting.seconds) and cutting.seconds >= LEAST):
        raise StoreError(f"clips of {cutting.seconds} s cannot be cut; ask for {LEAST} s or more")
    of_recording: dict[Path, list[Stretch]] = {}
    for stretch in stretches:
        of_recording.setdefault(stretch.path, []).append(stretch)
    pieces: list[_Piece] = []
    for path, each in of_recording.items():
        pieces += _cut_recording(path, each, cutting)
    names, task, of_clips = labels_of([piece.labels for piece in pieces])
    clips = tuple(
        Clip(
            path=piece.of.path,
            name=span_name(piece.of.name, piece.start, piece.end) if math.isfinite(piece.end) else piece.of.name,
            labels=labels,
            fold=piece.of.fold,
            source=piece.of.source or piece.of.name,
            start=piece.start,
            seconds=piece.end - piece.start if math.isfinite(piece.end) else None,
        )
        for piece, labels in zip(pieces, of_clips, strict=True)
    )
    empty = sum(not clip.labels for clip in clips)
    logger.info(
        f"labelled stretches: {len(stretches)} of {len(of_recording)} recordings; clips of {cutting.seconds:g} s: "
        f"{len(clips)}, {empty} of them without a label"
    )
    return names, task, clips


@dataclass(frozen=True)
class _Piece:
    of: Stretch
    start: float
    end: float
    labels: tuple[str, ...]


def _cut_recording(path: Path, stretches: list[Stretch], cutting: Cutting) -> list[_Piece]:
    """The clips of one recording, in order of time."""
    length = _seconds(path)
    first = stretches[0]
    for stretch in stretches:
        _check(stretch, first, length)
        if stretch.end is not None and 0 <= stretch.end - stretch.start < _POINT and not cutting.context:
            raise StoreError(f"{stretch.where} is a point in time; it needs the sound around it to be a clip")
    exhaustive = cutting.exhaustive or any(stretch.exhaustive for stretch in stretches)
    if length is None:
        # It is missing or cannot be read; one clip of it is left, to be skipped and counted.
        return [_Piece(first, first.start, first.end or math.inf, first.labels)]
    # Raven lists a selection once for each view.
    seen = {(stretch.start, _end(stretch, length), stretch.labels): stretch for stretch in reversed(stretches)}
    ordered = sorted(seen.items(), key=lambda item: item[0])
    start = np.array([key[0] for key, _ in ordered])
    end = np.array([key[1] for key, _ in ordered])
    windows: dict[tuple[float, float], Stretch] = {}
    lately: list[tuple[float, float]] = []
    for (begins, ends, labels), stretch in ordered:
        # The sound around a stretch without a label may hold anything.
        context = cutting.context and bool(labels)
        lately = [(low, high) for low, high in lately if high > begins]
        if context and any(low <= begins and ends <= high for low, high in lately):
            continue
        for window in _windows(begins, ends, cutting.seconds, length, context):
            windows.setdefault(window, stretch)
            if labels:
                lately.append(window)
    pieces = []
    for (low, high), stretch in windows.items():
        held = np.minimum(end, high) - np.maximum(start, low)
        enough = SLIVER * np.minimum(end - start, high - low)
        point = (end - start < _POINT) & (held > -_POINT)
        heard = np.flatnonzero(((held > _POINT) & (held >= enough - _POINT)) | point)
        names = dict.fromkeys(stretch.labels)
        names |= dict.fromkeys(label for row in heard for label in ordered[row][0][2])
        pieces.append(_Piece(stretch, low, high, tuple(names)))
    if exhaustive:
        # How long the sound at a point is, is not known: its clip is taken.
        points = [window for window, stretch in windows.items() if _end(stretch, length) - stretch.start < _POINT]
        taken = sorted([*zip(start.tolist(), end.tolist(), strict=True), *points])
        pieces += [_Piece(first, low, high, ()) for low, high in _between(taken, length, cutting.seconds)]
    return sorted(pieces, key=lambda piece: (piece.start, piece.end))


def _windows(start: float, end: float, seconds: float, length: float, context: bool) -> list[tuple[float, float]]:
    """Where the clips of a stretch begin and end."""
    count = max(1, math.ceil((end - start) / seconds - SLIVER - 1e-9))
    if count > 1:
        return [(round(low, 6), round(low + seconds, 6)) for low in np.linspace(start, end - seconds, count).tolist()]
    if end - start <= seconds and not context:
        return [(start, end)]
    low = max(0.0, min((start + end - seconds) / 2, length - seconds))
    return [(round(low, 6), round(min(low + seconds, length), 6))]


def _between(taken: list[tuple[float, float]], length: float, seconds: float) -> list[tuple[float, float]]:
    """Whole clips from between what is taken, which is sorted by its start."""
    found = []
    low = 0.0
    for begins, ends in [*taken, (length, length)]:
        count = math.floor((begins - low) / seconds + 1e-6)
        found += [(round(low + i * seconds, 6), round(low + (i + 1) * seconds, 6)) for i in range(count)]
        low = max(low, ends)
    return found


def _check(stretch: Stretch, first: Stretch, length: float | None) -> None:
    where = stretch.where
    if stretch.end is not None and stretch.end < stretch.start:
        raise StoreError(
            f"{where} ends at {stretch.end:g} s, before it starts at {stretch.start:g} s; correct the line"
        )
    if length is not None and (stretch.start >= length or (stretch.end or 0) > length + SLACK):
        last = stretch.start if stretch.end is None else stretch.end
        raise StoreError(
            f"{where} is about {stretch.start:g} to {last:g} s, but {stretch.path} is {length:.2f} s long; correct the "
            "line, or name the recording that it is of"
        )
    for what in ("fold", "source"):
        if getattr(stretch, what) != getattr(first, what):
            raise StoreError(
                f"{where} gives {stretch.name} the {what} {getattr(stretch, what)!r}, and {first.where} "
                f"{getattr(first, what)!r}; give a recording one {what}"
            )


def _end(stretch: Stretch, length: float) -> float:
    return length if stretch.end is None else min(stretch.end, length)


def _seconds(path: Path) -> float | None:
    """How long a recording is; None if it is missing or cannot be read."""
    try:
        return duration(path)
    except (AudioError, OSError):
        return None

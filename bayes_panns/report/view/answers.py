"""What the page asks for, as JSON: recordings, pieces of timelines, windows, events, labels."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bayes_panns.core.errors import AudioError, SettingError, reason
from bayes_panns.core.text import readable
from bayes_panns.predictions.events import Event
from bayes_panns.report.view.labels import Mark
from bayes_panns.report.view.library import Item, Library
from bayes_panns.report.view.sound import PART_SECONDS
from bayes_panns.report.view.tiles import LEVELS, span
from bayes_panns.report.view.tracks import PIECE

PEAKS = 60
"""How many labels a recording's list has: those with events, and the most probable of the others."""

PAGE, MOST = 200, 5000
"""How many events an answer has, by default and at most."""

SHOWN = 8
"""How many labels of a window are told."""


def overview(library: Library) -> dict[str, Any]:
    """The results folder and all its recordings."""
    manifest, items = library.folder.manifest, library.items()
    counts = library.book.counts()
    return {
        "name": library.folder.path.absolute().name,
        "labels": [readable(label) for label in library.labels],
        "window": manifest.get("window"),
        "problem": library.book.problem,
        "recordings": [
            {
                "key": item.key,
                "file": readable(item.entry.file),
                "seconds": item.entry.seconds,
                "windows": item.entry.windows,
                "events": item.entry.events,
                "labelled": counts.get(item.key, 0),
                "recorded_at": item.entry.recorded_at,
                "skipped": item.entry.skipped,
            }
            for item in items
        ],
    }


def recording(library: Library, item: Item) -> dict[str, Any]:
    """What the page needs to show a recording's timeline."""
    track, events = library.track(item), library.events(item)
    peaks = track.peaks()
    number = {label: index for index, label in enumerate(library.labels)}
    heard: dict[int, int] = {}
    lasting = [0.0] * len(peaks)
    for event in events:
        heard[number[event.label]] = heard.get(number[event.label], 0) + 1
        lasting[number[event.label]] += event.offset - event.onset
    # In an hour nearly every label is certain somewhere, so peaks do not say which are heard most.
    order = sorted(range(len(peaks)), key=lambda index: (index not in heard, -lasting[index], -peaks[index], index))
    try:
        library.sound(item)
        missing = None
    except AudioError as error:
        missing = reason(error)
    return {
        "key": item.key,
        "file": readable(item.entry.file),
        "seconds": item.entry.seconds,
        "recorded_at": item.entry.recorded_at,
        "notes": [note.text for note in item.entry.notes],
        "windows": len(track.start),
        "bins": PIECE,
        "labels": [
            {"index": index, "peak": round(float(peaks[index]), 3), "events": heard.get(index, 0)}
            for index in order[: max(PEAKS, len(heard))]
        ],
        "scales": track.scales(),
        "outside": int(track.outside.sum()),
        "left": int(track.left.sum()),
        "missing": missing,
        "part": PART_SECONDS,
        "tiles": [span(level) for level in range(LEVELS)],
        "marks": [_mark(each) for each in library.book.of(item.key)],
    }


def piece(library: Library, item: Item, level: int, number: int, labels: Sequence[int]) -> dict[str, Any]:
    """A piece of a timeline, see :meth:`~bayes_panns.report.view.tracks.Track.piece`.

    Raises:
        IndexError: There is no such level, piece or label.
    """
    if not (0 <= level < 32 and 0 <= number < 2**31 and all(0 <= each < len(library.labels) for each in labels)):
        raise IndexError(number)
    return library.track(item).piece(level, number, list(labels))


def window(library: Library, item: Item, start: float, end: float, label: int | None) -> dict[str, Any] | None:
    """The exact numbers of one window: of those that touch a stretch, the one where the label is most probable.

    Args:
        library: The results.
        item: The recording.
        start: Of the stretch, in seconds.
        end: Of the stretch.
        label: The index of the label; by default the most probable one.

    Returns:
        Its times, its most probable labels with their band and variances, and whether it is outside or left; None if
        no window touches the stretch.
    """
    track = library.track(item)
    touched = np.flatnonzero((track.start < max(end, start + 1e-6)) & (track.end > start))
    if not len(touched):
        return None
    # The middle of the stretch decides between windows that are alike.
    middle = np.abs((track.start + track.end)[touched] / 2 - (start + end) / 2)
    peak = track.probability[touched].max(axis=1) if label is None else track.probability[touched, label]
    # At a moment, it is the window around it.
    place = int(touched[np.lexsort((middle, -peak.astype(int)))[0] if end > start else middle.argmin()])
    with library.folder.record(item.entry) as record:
        found = record.windows(place, place + 1)
    order = np.argsort(-found.probability[0], kind="stable")[:SHOWN].tolist()
    if label is not None and label not in order:
        order[-1] = label
    return {
        "start": round(float(found.start[0]), 6),
        "end": round(_end(item, float(found.end[0])), 6),
        "outside": bool(found.outside[0]),
        "left": bool(found.left[0]),
        "entropy": float(found.entropy[0]),
        "labels": [
            {
                "index": index,
                **{
                    name: round(float(getattr(found, name)[0, index]), 4)
                    for name in ("probability", "low", "high", "aleatoric", "epistemic")
                },
                "in_set": None if found.in_set is None else bool(found.in_set[0, index]),
                "called": None if found.called is None else bool(found.called[0, index]),
            }
            for index in order
        ],
    }


_ORDERS = {
    "time": lambda row: (row[1], row[2].onset, row[2].label),
    "uncertainty": lambda row: (row[2].low - row[2].high, row[1], row[2].onset, row[2].label),
    "likely": lambda row: (-row[2].probability, row[1], row[2].onset, row[2].label),
    "unlikely": lambda row: (row[2].probability, row[1], row[2].onset, row[2].label),
}
"""The orders of a list of events: by time; widest band first; most and least probable first."""

_VERDICTS = {"all": (True, False, None), "open": (None,), "heard": (True,), "refuted": (False,)}


def events(
    library: Library,
    items: Sequence[Item],
    *,
    order: str = "time",
    show: str = "all",
    label: int | None = None,
    least: float = 0.0,
    offset: int = 0,
    limit: int = PAGE,
) -> dict[str, Any]:
    """A part of the list of events of some recordings.

    Args:
        library: The results.
        items: The recordings.
        order: ``time``, ``uncertainty`` (the widest band first), ``likely`` or ``unlikely``.
        show: ``all``, or those that are ``open``, ``heard`` or ``refuted``.
        label: The index of the only label.
        least: The least probability.
        offset: How many to pass over.
        limit: How many to tell, at most :data:`MOST`.

    Returns:
        How many there are, these, and how many each label has whatever ``label`` is.

    Raises:
        SettingError: There is no such order or kind.
    """
    if order not in _ORDERS or show not in _VERDICTS:
        raise SettingError(f"events by {order}, {show}: there is no such list")
    wanted = None if label is None else library.labels[label]
    rows: list[tuple[Item, int, Event, bool | None]] = []
    counts: Counter[str] = Counter()
    for place, item in enumerate(items):
        marks = library.book.of(item.key)
        for event in library.events(item):
            verdict = _verdict(item, event, marks)
            if event.probability < least or verdict not in _VERDICTS[show]:
                continue
            counts[event.label] += 1
            if wanted in (None, event.label):
                rows.append((item, place, event, verdict))
    rows.sort(key=_ORDERS[order])
    number = {name: index for index, name in enumerate(library.labels)}
    return {
        "total": len(rows),
        "labels": {number[name]: count for name, count in counts.items()},
        "events": [
            {
                **_told(item, event, number, verdict),
                "probability": round(event.probability, 4),
                "low": round(event.low, 4),
                "high": round(event.high, 4),
            }
            for item, _, event, verdict in rows[offset : offset + min(limit, MOST)]
        ],
    }


def say(library: Library, item: Item, said: Mapping[str, Any]) -> dict[str, Any]:
    """Write down what a person says of a stretch.

    Args:
        library: The results.
        item: The recording.
        said: ``start`` and ``end`` in seconds; ``labels``, names or None to take back what was said; ``refuted``.

    Returns:
        The recording's marks now, what was said of the stretch before, and the verdicts on its events.

    Raises:
        SettingError: It cannot be understood.
        StoreError: ``labels.csv`` cannot be read.
        OSError: It cannot be written.
    """
    start, end, labels, refuted = (said.get(name) for name in ("start", "end", "labels", "refuted"))
    if not (isinstance(start, int | float) and isinstance(end, int | float) and 0 <= start < end < float("inf")):
        raise SettingError(f"from {start} to {end} s: is no stretch of a recording")
    if not (labels is None or _are_names(labels)) or not _are_names(refuted or []):
        raise SettingError("labels are a list of names")
    end = _end(item, float(end))
    before = library.book.put(item.key, float(start), end, labels, refuted or [])
    marks = library.book.of(item.key)
    number = {name: index for index, name in enumerate(library.labels)}
    touched = [
        event for event in library.events(item) if Mark(event.onset, _end(item, event.offset), (), ()).about(start, end)
    ]
    return {
        "marks": [_mark(each) for each in marks],
        "before": None if before is None else _mark(before),
        "verdicts": [_told(item, event, number, _verdict(item, event, marks)) for event in touched],
    }


def labels(library: Library) -> dict[str, Any]:
    """How much is labelled, and the command that makes clips of it."""
    counts = library.book.counts()
    seconds = library.folder.manifest.get("window") or 10
    words = ["bayes-panns", "pack", "timed", str(library.book.path), "-o", "labelled.h5", "--seconds", f"{seconds:g}"]
    if library.outside:
        words.append("--allow-outside")
    if library.book.separator != ";":
        words += ["--separator", library.book.separator]
    posterior = library.posterior
    # A new label is none of the posterior's.
    if posterior is not None and library.book.names() <= set(library.folder.labels):
        words += ["--labels", str(posterior)]
    return {"stretches": sum(counts.values()), "recordings": len(counts), "command": readable(shlex.join(words))}


def _verdict(item: Item, event: Event, marks: Sequence[Mark]) -> bool | None:
    """Whether a person has heard an event; None if that is not said."""
    said = next((mark for mark in marks if mark.about(event.onset, _end(item, event.offset))), None)
    return None if said is None else said.verdict(event.label)


def _told(item: Item, event: Event, number: Mapping[str, int], verdict: bool | None) -> dict[str, Any]:
    return {
        "recording": item.key,
        "label": number[event.label],
        "onset": round(event.onset, 6),
        "offset": round(_end(item, event.offset), 6),
        "verdict": verdict,
    }


def _end(item: Item, end: float) -> float:
    """An end that is not after the recording's, as that of its last window may be."""
    return min(end, item.entry.seconds or end)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _mark(mark: Mark) -> dict[str, Any]:
    end = None if mark.end == float("inf") else mark.end
    return {"start": mark.start, "end": end, "labels": mark.labels, "refuted": mark.refuted}

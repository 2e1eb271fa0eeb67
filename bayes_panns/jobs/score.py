"""The score of found events against annotations."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bayes_panns.audio.recording import duration
from bayes_panns.clips.catalogs import Annotations, read_annotations
from bayes_panns.clips.catalogs.tables import Name, PublishedRow, Seconds, read_table
from bayes_panns.core.errors import AudioError, ResultsError, StoreError
from bayes_panns.core.text import printable
from bayes_panns.evaluations import EventScores, Matching, score_events
from bayes_panns.jobs.results import EVENTS, ResultsFolder
from bayes_panns.metrics import Span
from bayes_panns.metrics.bootstrap import RESAMPLES
from bayes_panns.predictions import Event

logger = logging.getLogger(__name__)

_FEW, _PART = 8, 300.0
"""With fewer recordings than this, their parts of so many seconds are resampled instead."""


class _Row(PublishedRow):
    file: Name
    label: Name
    onset: Seconds
    offset: Seconds
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    low: float = 1.0
    high: float = 1.0


def score(
    results: str | Path,
    annotations: str | Path,
    *,
    matching: Matching | None = None,
    exhaustive: bool = False,
    part: float | None = None,
    resamples: int = RESAMPLES,
    separator: str = ";",
    label_column: str | None = None,
) -> EventScores:
    """Compare the events of a prediction with annotated ones.

    Scored are the recordings that the annotations mention; with ``exhaustive`` all of the results.

    Args:
        results: A results folder of ``predict``, or an ``events.csv``.
        annotations: A CSV, a Raven selection table, an Audacity label track, or a folder of them; see
            :func:`~bayes_panns.clips.catalogs.read_annotations`.
        matching: How to compare.
        exhaustive: Whether a recording that the annotations do not mention holds none of the labels.
        part: Seconds of the parts of recordings that are resampled for intervals; by default whole recordings, or
            5 minutes where there are fewer than 8.
        resamples: Of the bootstrap; 0 for no intervals.
        separator: What stands between several labels.
        label_column: The column of Raven's tables that holds the labels.

    Raises:
        ResultsError: The folder holds no results.
        StoreError: A table is missing, damaged or not understood; or no annotated recording is among the results.
    """
    labels, seconds, events = _results(Path(results))
    read = read_annotations(annotations, list(seconds), separator=separator, label_column=label_column)
    scored = _scored(Path(annotations), read, seconds, exhaustive=exhaustive)
    lengths = {file: _length(file, seconds[file], read, events) for file in scored}
    beyond = [
        f"{file} at {stretch.start:g} s"
        for file, length in lengths.items()
        for stretch in read.stretches.get(file, ())
        if stretch.labels and stretch.start >= length
    ]
    if beyond:
        logger.warning(
            f"{annotations}: {len(beyond)} annotated events start behind the end of their recording, such as in "
            f"{printable(beyond[0])}; these are not scored"
        )
    truth = [
        Span(file, label, stretch.start, lengths[file] if stretch.end is None else min(stretch.end, lengths[file]))
        for file, stretches in read.stretches.items()
        if file in lengths
        for stretch in stretches
        if stretch.start < lengths[file]
        for label in stretch.labels
    ]
    if labels is None:
        labels = tuple(sorted({span.label for span in truth} | {event.label for event in events}))
    unknown = sorted({span.label for span in truth} - set(labels))
    if unknown:
        logger.warning(f"{annotations}: the posterior does not know {', '.join(unknown)}; these are not scored")
    kept = [event for event in events if event.file in lengths]
    if part is None and len(lengths) < _FEW:
        part = _PART
    return score_events(_united(truth), kept, labels, lengths, matching=matching, part=part, resamples=resamples)


def _results(path: Path) -> tuple[tuple[str, ...] | None, dict[str, float | None], list[Event]]:
    """The labels and recordings that are known, with their lengths, and the events."""
    if path.is_dir():
        folder = ResultsFolder(path)
        lengths: dict[str, float | None] = {
            entry.file: entry.seconds for entry in folder.recordings() if entry.skipped is None
        }
        return folder.labels, lengths, _read(path / EVENTS, may_be_empty=True)
    if not path.exists():
        raise ResultsError(f"{path}: no such file or folder; name a results folder of predict, or its {EVENTS}")
    events = _read(path, may_be_empty=True)
    if not events:
        raise ResultsError(f"{printable(str(path))}: lists no event, so no recording is known; name the results folder")
    return None, dict.fromkeys(event.file for event in events), events


def _read(table: Path, *, may_be_empty: bool = False) -> list[Event]:
    if may_be_empty and table.is_file() and len(table.read_text(encoding="utf-8").splitlines()) < 2:
        return []
    found = list[Event]()
    for line, row in read_table(table, _Row):
        if row.offset < row.onset:
            raise StoreError(f"{table}: line {line} ends at {row.offset:g} s, before it starts at {row.onset:g} s")
        found.append(Event(row.file, row.label, row.onset, row.offset, row.probability, row.low, row.high))
    return found


def _scored(source: Path, read: Annotations, seconds: Mapping[str, float | None], *, exhaustive: bool) -> list[str]:
    if read.others:
        logger.warning(
            f"{source}: {len(read.others)} annotated recordings are not among the results, such as {read.others[0]}"
        )
    if not read.stretches:
        raise StoreError(f"{source}: is of none of the {len(seconds)} recordings in the results; compare their names")
    if exhaustive:
        return list(seconds)
    without = [file for file in seconds if file not in read.stretches]
    if without:
        logger.warning(
            f"{source}: does not mention {len(without)} of {len(seconds)} recordings, which are not scored; with "
            "--exhaustive they count as without any event"
        )
    return [file for file in seconds if file in read.stretches]


def _length(file: str, known: float | None, read: Annotations, events: Iterable[Event]) -> float:
    """How long a recording is: as the results say, as the sound is, or up to the last event."""
    if known is not None:
        return known
    try:
        return duration(file)
    except (AudioError, OSError):
        ends = [event.offset for event in events if event.file == file]
        ends += [stretch.end or stretch.start for stretch in read.stretches.get(file, ())]
        logger.warning(f"{file}: is not there; its length is taken to be {max(ends):g} s, where its last event ends")
        return max(ends)


def _united(truth: Iterable[Span]) -> list[Span]:
    """The annotated events, with those of a recording and label that overlap as one: Raven lists a selection twice."""
    found = list[Span]()
    for event in sorted(truth, key=lambda each: (each.file, each.label, each.onset, each.offset)):
        last = found[-1] if found else None
        if last is not None and (last.file, last.label) == (event.file, event.label) and event.onset < last.offset:
            found[-1] = Span(last.file, last.label, last.onset, max(last.offset, event.offset))
        else:
            found.append(event)
    return found

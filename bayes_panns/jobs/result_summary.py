"""What a results folder says in all: made from its records in one pass, so that an interruption changes nothing."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from bayes_panns.core.files import whole_file
from bayes_panns.core.strict_json import write_json
from bayes_panns.core.text import cell, printable
from bayes_panns.jobs.results import EVENTS, SUMMARY_JSON, SUMMARY_TEXT, Entry, ResultsFolder
from bayes_panns.posterior import Predictor
from bayes_panns.predictions.deciding import Decided
from bayes_panns.predictions.events import Event
from bayes_panns.predictions.record_windows import RecordWindows
from bayes_panns.predictions.tally import Tally, Totals

_WINDOWS = 1024
"""Windows of a record that are read together."""

_NAMED = 20
"""Labels and skipped recordings that the text names; all are in the JSON file."""

EVENT_COLUMNS = (
    "file",
    "onset",
    "offset",
    "label",
    "probability",
    "low",
    "high",
    "start_time",
    "end_time",
)


@dataclass(frozen=True)
class Summary:
    """What was found in recordings, in all.

    Attributes:
        recordings: How many have results.
        skipped: Those that were skipped.
        hours: How long the recordings are.
        totals: What was decided, what is left, and how many windows there are of each label.
        deciding: Whether decisions were asked for.
        marking: Whether the posterior knows what is out of distribution.
        events: How many events there are of each label, in the labels' order; None if none were looked for.
        notes: How many recordings have each kind of note.
    """

    recordings: int
    skipped: tuple[Entry, ...]
    hours: float
    totals: Totals
    deciding: bool
    marking: bool
    events: Mapping[str, int] | None
    notes: Mapping[str, int]

    def table(self) -> dict[str, Any]:
        """The content of ``summary.json``."""
        totals, windows = self.totals, max(1, self.totals.windows)
        return {
            "recordings": self.recordings,
            "skipped": [{"file": entry.file, "reason": entry.skipped} for entry in self.skipped],
            "hours": self.hours,
            "windows": totals.windows,
            "decided": totals.decided if self.deciding else None,
            "decided_share": totals.decided / windows if self.deciding else None,
            "left": totals.left if self.deciding else None,
            "left_share": totals.left / windows if self.deciding else None,
            "outside": totals.outside if self.marking else None,
            "outside_share": totals.outside / windows if self.marking else None,
            "labels": [
                {
                    "label": each.label,
                    "called": each.called if self.deciding else None,
                    "windows": each.count,
                    "low": each.low,
                    "high": each.high,
                    "events": None if self.events is None else self.events[each.label],
                }
                for each in totals.counts
            ],
            "notes": dict(self.notes),
            "shift_p": totals.shift_p,
            "warning": totals.warning or None,
        }

    def text(self) -> str:
        """The content of ``summary.txt``, lines to read."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        totals, windows = self.totals, max(1, self.totals.windows)
        of = "recording" if self.recordings == 1 else "recordings"
        yield f"{self.recordings} {of}, {duration_text(3600 * self.hours)}, {totals.windows} windows"
        if self.skipped:
            yield f"{len(self.skipped)} skipped:"
            yield from (f"  {printable(entry.skipped or '')}" for entry in self.skipped[:_NAMED])
            if len(self.skipped) > _NAMED:
                yield f"  and {len(self.skipped) - _NAMED} more, which {SUMMARY_JSON} names"
        if self.notes:
            yield ", ".join(f"{count} {kind}" for kind, count in sorted(self.notes.items()))
        if self.deciding:
            yield f"decided: {totals.decided} windows ({totals.decided / windows:.1%})"
            yield f"left to a person: {totals.left} windows ({totals.left / windows:.1%})"
        else:
            yield "decided: nothing, for no target was set; see calibrate --precision, or give --abstain-above"
        if self.marking:
            yield f"out of distribution: {totals.outside} windows ({totals.outside / windows:.1%})"
        else:
            yield "out of distribution: not known, for the posterior was not calibrated for it; see calibrate"
        if totals.warning:
            yield f"warning: {totals.warning}"
        yield from self._labels()

    def _labels(self) -> Iterator[str]:
        rows = [["label"]]
        counted = any(each.count is not None for each in self.totals.counts)
        rows[0] += ["events"] if self.events is not None else []
        rows[0] += ["windows called"] if self.deciding else []
        rows[0] += ["windows with it (90 % interval)"] if counted else []
        found = [
            each
            for each in self.totals.counts
            if each.called or (self.events or {}).get(each.label) or (each.high or 0) >= 1
        ]
        found.sort(key=lambda each: (-(self.events or {}).get(each.label, 0), -each.called, -(each.count or 0)))
        for each in found[:_NAMED]:
            row = [printable(each.label)]
            row += [str(self.events[each.label])] if self.events is not None else []
            row += [str(each.called)] if self.deciding else []
            row += [f"{each.count:.0f} ({each.low:.0f} to {each.high:.0f})"] if counted else []
            rows.append(row)
        if len(rows) == 1:
            yield "no label was found"
            return
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        if len(found) > _NAMED:
            yield f"and {len(found) - _NAMED} more labels, which {SUMMARY_JSON} names"
        if counted and self.totals.outside:
            inside = self.totals.windows - self.totals.outside
            yield f"windows with a label: of the {inside} that are not out of distribution; events: of all"


def duration_text(seconds: float) -> str:
    """How long recordings are, in words.

    Example:
        >>> duration_text(2.4), duration_text(90.0), duration_text(9000.0)
        ('2.4 seconds', '1.5 minutes', '2.50 hours')
    """
    if seconds < 60:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.2f} hours"


def summarise(results: ResultsFolder, entries: Sequence[Entry], posterior: Predictor) -> Summary:
    """Write ``events.csv`` and the summary of finished recordings, from their records.

    Args:
        results: The folder.
        entries: The recordings, in order.
        posterior: The posterior that predicted them.

    Raises:
        ResultsError: A record is missing or damaged.
        OSError: A file cannot be written.
    """
    manifest = results.manifest
    events = None if manifest["events"] is None else Counter[str]()
    tally = Tally(posterior, together=max(1.0, manifest["window"] / manifest["hop"]))
    finished = [entry for entry in entries if entry.skipped is None]
    with whole_file(results.path / EVENTS) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(EVENT_COLUMNS)
        for entry in finished:
            with results.record(entry) as record:
                for first in range(0, len(record), _WINDOWS):
                    windows = record.windows(first, first + _WINDOWS)
                    complete = first + _WINDOWS >= len(record)
                    tally.add(windows.uncertainty(posterior.task), _decided(windows), complete=complete)
                for event in record.events():
                    writer.writerow(event_row(event, record.recorded_at))
                    if events is not None:
                        events[event.label] += 1
    kinds = Counter(str(kind) for entry in finished for kind in {note.kind for note in entry.notes})
    summary = Summary(
        recordings=len(finished),
        skipped=tuple(entry for entry in entries if entry.skipped is not None),
        hours=sum(entry.seconds for entry in finished) / 3600,
        totals=tally.result(),
        deciding=manifest["decisions"] is not None,
        marking=posterior.calibration is not None and posterior.calibration.usual is not None,
        events=events,
        notes=kinds,
    )
    write_json(summary.table(), results.path / SUMMARY_JSON)
    with whole_file(results.path / SUMMARY_TEXT) as part:
        part.write_text(summary.text(), encoding="utf-8")
    return summary


def event_row(event: Event, recorded_at: datetime | None) -> list[str]:
    """A row of ``events.csv``."""
    times = ["", ""]
    if recorded_at is not None:
        times = [_clock(recorded_at, seconds) for seconds in (event.onset, event.offset)]
    numbers = [f"{value:.6g}" for value in (event.probability, event.low, event.high)]
    return [
        cell(event.file),
        f"{event.onset:.3f}",
        f"{event.offset:.3f}",
        cell(event.label),
        *numbers,
        *times,
    ]


def _decided(windows: RecordWindows) -> Decided:
    called = np.zeros(windows.probability.shape, dtype=bool) if windows.called is None else windows.called
    return Decided(called, windows.left, windows.outside)


def _clock(recorded_at: datetime, seconds: float) -> str:
    return (recorded_at + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")

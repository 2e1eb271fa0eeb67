"""The folder of results of a prediction: every path in it, what is finished, and its lock.

====================== ==========================================================================================
``results.json``       what was predicted and how
``recordings.jsonl``   a line for each finished or skipped recording
``records/NAME.h5``    all numbers of a recording: :class:`~bayes_panns.predictions.records.Record`
``NAME.csv``, ...      what ``--format`` asked for; NAME keeps the folders of the input
``events.csv``         all events
``summary.json``       recordings, hours, what was decided, counts
``summary.txt``        the same, to read
====================== ==========================================================================================

A file that is there is whole. A recording is finished once it has its line, which is written last.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from bayes_panns.audio.notes import Note
from bayes_panns.core.choices import SoundNote
from bayes_panns.core.errors import ResultsError
from bayes_panns.core.files import is_part, locked, remove_abandoned, require_folder, whole_file
from bayes_panns.core.strict_json import dumps, write_json
from bayes_panns.core.text import printable
from bayes_panns.predictions.records import Record

FORMAT = 1

MANIFEST, RECORDINGS, RECORDS = "results.json", "recordings.jsonl", "records"
EVENTS, SUMMARY_JSON, SUMMARY_TEXT = "events.csv", "summary.json", "summary.txt"

OWN = (MANIFEST, RECORDINGS, RECORDS, EVENTS, SUMMARY_JSON, SUMMARY_TEXT)
"""The names at the top of the folder that no recording's results may have."""


@dataclass(frozen=True)
class Entry:
    """What has become of a recording.

    Attributes:
        file: Its name, as it was given.
        path: Where it is, absolute; empty for standard input.
        record: The path of its record below the results folder, with ``/``; empty if it was skipped.
        seconds: Its length.
        windows: How many windows it has.
        recorded_at: When it was recorded, ISO 8601; None if that is unknown.
        notes: What a user should know of it.
        events: How many events it has.
        skipped: Why it was skipped; None if it was not.
        size: Its bytes.
        mtime: When it was last changed, in seconds since 1970.
    """

    file: str
    record: str = ""
    path: str = ""
    seconds: float = 0.0
    windows: int = 0
    recorded_at: str | None = None
    notes: tuple[Note, ...] = ()
    events: int = 0
    skipped: str | None = None
    size: int = 0
    mtime: float = 0.0

    @property
    def name(self) -> str:
        """What its results are called: ``NAME.csv`` and so on."""
        return self.record.removeprefix(f"{RECORDS}/").removesuffix(".h5")

    def line(self) -> str:
        """The entry as a line of JSON."""
        notes = [{"kind": str(note.kind), "text": note.text} for note in self.notes]
        return dumps({**vars(self), "notes": notes})

    @classmethod
    def of_line(cls, line: str) -> "Entry":
        """The entry of a line.

        Raises:
            ValueError: It is none.
        """
        try:
            table = json.loads(line)
            notes = tuple(Note(SoundNote(note["kind"]), note["text"]) for note in table.pop("notes"))
            made = cls(**table, notes=notes)
            made._check()
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError("no entry of a recording") from error
        return made

    def _check(self) -> None:
        """Check what a line of a stranger says: kinds, and that the record is in the folder of records.

        Raises:
            ValueError: Something is amiss.
        """
        texts = [self.file, self.record, self.path, self.recorded_at or "", self.skipped or ""]
        texts += [note.text for note in self.notes]
        counts = (self.windows, self.events, self.size)
        if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
            raise ValueError("no entry of a recording")
        if min(counts) < 0 or not all(math.isfinite(number) for number in (self.seconds, self.mtime)):
            raise ValueError("numbers out of range")
        parts = PurePosixPath(self.record).parts
        if self.skipped is None and (len(parts) < 2 or parts[0] != RECORDS or ".." in parts or "\0" in self.record):
            raise ValueError("a record elsewhere")


class ResultsFolder:
    """The folder of results of a prediction, to read or to write.

    To go through all that was found::

        results = ResultsFolder("results")
        for entry in results.recordings():
            if entry.skipped is None:
                with results.record(entry) as record:
                    print(record.file, len(record), record.events())

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        """Whether results were begun here."""
        return (self.path / MANIFEST).is_file()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was predicted and how: the content of ``results.json``.

        Raises:
            ResultsError: The folder holds no results, or they are damaged or of a newer version.
        """
        if not self.exists:
            what = f"{MANIFEST} is missing" if self.path.is_dir() else "no such folder"
            raise ResultsError(
                f"{printable(str(self.path))}: holds no results of predict ({what}); make them with predict -o FOLDER/"
            )
        place = self.path / MANIFEST
        try:
            table = json.loads(place.read_text(encoding="utf-8"))
            version = int(table["format_version"])
            if version > FORMAT:
                raise ResultsError(f"{printable(str(place))}: was written by a newer version of bayes_panns; update it")
            _check_manifest(table)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ResultsError(f"{printable(str(place))}: is damaged; predict into another folder") from error
        return table

    @property
    def labels(self) -> tuple[str, ...]:
        """The K label names."""
        return tuple(self.manifest["labels"])

    def recordings(self) -> list[Entry]:
        """The finished and the skipped recordings, in the order in which they were named once all are done.

        Raises:
            ResultsError: ``recordings.jsonl`` is damaged.
        """
        place = self.path / RECORDINGS
        if not place.is_file():
            return []
        try:
            # The last line is empty, or was cut off by a kill, perhaps within a letter.
            return [Entry.of_line(line.decode()) for line in place.read_bytes().split(b"\n")[:-1]]
        except ValueError as error:
            raise ResultsError(f"{printable(str(place))}: is damaged; predict into another folder") from error

    def record(self, entry: Entry) -> AbstractContextManager[Record]:
        """The record of a recording that was not skipped, open in a ``with`` block.

        Raises:
            ResultsError: It was skipped; or its record is missing, damaged or of other labels.
        """
        if entry.skipped is not None:
            raise ResultsError(f"{printable(entry.file)}: was skipped, and has no record")
        return self._record(self.path / entry.record)

    @contextmanager
    def _record(self, place: Path) -> Iterator[Record]:
        with Record.open(place) as record:
            if record.labels != self.labels:
                raise ResultsError(f"{printable(str(place))}: has other labels than {MANIFEST}; predict again")
            yield record

    def require(self, *, resume: bool) -> None:
        """Check, before any work, that results can be written here.

        Args:
            resume: Whether to go on with results that are here.

        Raises:
            ResultsError: The folder holds results and ``resume`` is False, or it holds something else.
            OutputError: It cannot be written.
        """
        require_folder(self.path)
        shown = printable(str(self.path))
        if self.exists and not resume:
            raise ResultsError(f"{shown}: holds results already; go on with --resume, or choose another folder")
        others = (
            []
            if self.exists or not self.path.is_dir()
            else [place for place in self.path.iterdir() if not is_part(place)]
        )
        if others:
            raise ResultsError(
                f"{shown}: is a folder with other files, such as {printable(others[0].name)}; choose another"
            )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The folder, made if it is missing, for this block alone; what killed writers left half-written is removed.

        Raises:
            ResultsError: Another process writes it.
            OutputError: It cannot be written.
        """
        require_folder(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path) as ours:
            if not ours:
                raise ResultsError(
                    f"{printable(str(self.path))}: another process is writing it; wait for it, or choose another folder"
                )
            self._sweep()
            try:
                yield
            except BaseException:
                # Other processes that wrote here were ended too.
                self._sweep()
                raise

    def _sweep(self) -> None:
        for folder, _, _ in os.walk(self.path):
            remove_abandoned(Path(folder))

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write down what is predicted; the folder is claimed.

        Raises:
            OSError: It cannot be written.
        """
        write_json({"format_version": FORMAT, **manifest}, self.path / MANIFEST)
        self.__dict__.pop("manifest", None)

    def write_recordings(self, entries: Iterable[Entry]) -> None:
        """Replace all entries.

        Raises:
            OSError: They cannot be written.
        """
        with whole_file(self.path / RECORDINGS) as part, part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(entry.line() for entry in entries)

    def append(self, entry: Entry) -> None:
        """Add the entry of a recording whose results are all written; it survives a kill.

        Raises:
            OSError: It cannot be written.
        """
        with (self.path / RECORDINGS).open("a", encoding="utf-8", newline="") as file:
            file.write(entry.line())
            file.flush()
            os.fsync(file.fileno())


def _check_manifest(table: Mapping[str, Any]) -> None:
    """Check the kinds of what readers use.

    Raises:
        ValueError: Something is amiss.
        KeyError: There are no labels.
    """
    labels, channel = table["labels"], table.get("channel")
    if not (isinstance(labels, list) and labels and all(isinstance(label, str) for label in labels)):
        raise ValueError("labels are a list of names")
    if not (channel is None or isinstance(channel, str)):
        raise ValueError("a channel has a name")
    for name in ("window", "hop", "sample_rate"):
        value = table.get(name)
        if value is not None and (isinstance(value, bool) or not (math.isfinite(value) and value > 0)):
            raise ValueError(f"{name} is a positive number")

"""All numbers of one recording in a file: written as they come in constant memory, read from anywhere.

The file is HDF5, for N windows, K labels and E events:

==========================  =========  =====  ==================================================================
dataset                     shape      type   what
==========================  =========  =====  ==================================================================
start, end                  (N,)       f8     seconds
probability                 (N, K)     f4     the mean of the draws
aleatoric, epistemic        (N, K)     f4     their variances: :class:`~bayes_panns.predictions.Uncertainty`
low, high                   (N, K)     f4     the central 90 % of the draws
entropy,                    (N,)       f4     in nats
mutual_information
outside                     (N,)       bool   out of distribution
left                        (N,)       bool   left to a person
in_set                      (N, K)     bool   in the label set, for a calibrated posterior
called                      (N, K)     bool   decided to be there, where decisions were asked for
events/onset, offset        (E,)       f8     seconds
events/label                (E,)       i4     its index
events/probability,         (E,)       f4     :class:`~bayes_panns.predictions.events.Event`
events/low, high
==========================  =========  =====  ==================================================================

The dataset labels is one text, the names in JSON. The attributes are file, path (absolute), recorded_at (ISO 8601, or
null; these are JSON texts too, so that names of any bytes survive), seconds and format_version. All texts are of fixed
width: HDF5 may never return from a damaged heap of texts of varying length.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from bayes_panns.clips.hdf5 import StoreFile
from bayes_panns.core.errors import ResultsError, StoreError
from bayes_panns.core.files import require_space, whole_file
from bayes_panns.core.text import printable
from bayes_panns.predictions.events import Event
from bayes_panns.predictions.record_windows import RecordWindows

FORMAT = 1

_CHUNK = 1 << 16
"""Bytes of a dataset that are compressed together."""

_MARGIN = 1 << 22
"""Bytes of disk that stay free, for what HDF5 holds back until the file is closed."""

_PACKED = 1100
"""How many times its size deflate can pack at most, and a little more."""

_LARGEST_CHUNK = 1 << 26
"""Bytes of a chunk, which HDF5 unpacks as a whole."""

_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError, StoreError)
"""What reading a damaged file raises."""

_EVENT_FIELDS = {"onset": "f8", "offset": "f8", "label": "i4", "probability": "f4", "low": "f4", "high": "f4"}


_COLUMNS = tuple(field.name for field in fields(RecordWindows))
_ALWAYS = frozenset(_COLUMNS) - {"in_set", "called"}
_OF_LABELS = frozenset({"probability", "aleatoric", "epistemic", "low", "high", "in_set", "called"})
_KINDS = dict.fromkeys(_COLUMNS, "f4") | dict.fromkeys(("start", "end"), "f8")
_KINDS |= dict.fromkeys(("outside", "left", "in_set", "called"), "bool")


class RecordWriter:
    """Writes a recording's numbers as they come, in constant memory; the file is there whole or not at all.

    A context manager. The same parts in the same order make the same bytes.

    Args:
        path: The file; its folder exists. One that is there is replaced.
        labels: K label names.
        file: The recording's name in results.
        source: Its path.
        recorded_at: When it was recorded, if that is known.

    Raises:
        OSError: The file cannot be written, or the disk is full.
    """

    def __init__(
        self,
        path: Path,
        *,
        labels: Sequence[str],
        file: str,
        source: Path,
        recorded_at: datetime | None = None,
    ) -> None:
        self.windows, self.seconds = 0, 0.0
        self.events = 0
        self._path, self._labels = path, tuple(labels)
        self._attributes = {
            "format_version": FORMAT,
            "file": json.dumps(file),
            "path": json.dumps(str(source.absolute())),
            "recorded_at": json.dumps(None if recorded_at is None else recorded_at.isoformat()),
        }
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._part = self._stack.enter_context(whole_file(self._path))
        self._file = self._stack.enter_context(h5py.File(self._part, "w"))
        for name, value in self._attributes.items():
            self._file.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
        # An attribute holds less than 64 KB.
        self._file.create_dataset("labels", data=np.bytes_(json.dumps(self._labels)))
        group = self._file.create_group("events")
        for name, kind in _EVENT_FIELDS.items():
            group.create_dataset(name, shape=(0,), maxshape=(None,), dtype=kind, chunks=(256,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the file into place, unless there was an error."""
        if error is None:
            self._file.attrs["seconds"] = self.seconds
        self._stack.__exit__(kind, error, trace)

    def add(self, windows: RecordWindows, events: Sequence[Event] = ()) -> None:
        """Add the next windows, and events that were found by then.

        Raises:
            OSError: The disk is full.
        """
        columns = {name: value for name in _COLUMNS if (value := getattr(windows, name)) is not None}
        require_space(self._part, sum(value.nbytes for value in columns.values()) + _MARGIN)
        if not self.windows:
            for name, value in columns.items():
                self._create(name, value)
        for name, value in columns.items():
            _append(self._file[name], value)
        if events:
            number = {label: index for index, label in enumerate(self._labels)}
            for name, data in self._file["events"].items():
                values = [getattr(event, name) for event in events]
                _append(data, np.array([number[value] for value in values] if name == "label" else values))
        self.windows += len(windows)
        self.events += len(events)
        self.seconds = max(self.seconds, float(windows.end.max(initial=0)))

    def _create(self, name: str, value: NDArray[Any]) -> None:
        rest = value.shape[1:]
        rows = max(1, _CHUNK // (value.itemsize * max(1, *rest, 1)))
        self._file.create_dataset(
            name,
            shape=(0, *rest),
            maxshape=(None, *rest),
            dtype=value.dtype,
            chunks=(min(rows, 1 << 10), *(max(1, each) for each in rest)),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
        )


class Record:
    """A recording's numbers on disk.

    Any part of them can be read::

        with Record.open("results/records/night.h5") as record:
            print(record.labels, len(record), record.windows(0, 10).probability)

    Attributes:
        labels: K label names.
        file: The recording's name in results.
        path: Where the recording was.
        seconds: Up to where it was predicted.
        recorded_at: When it was recorded, if that is known.
    """

    def __init__(self, file: StoreFile) -> None:
        self._file = file
        self.labels: tuple[str, ...] = tuple(json.loads(file.scalar("labels")))
        self.file: str = json.loads(file.attribute("file"))
        self.path = Path(json.loads(file.attribute("path")))
        self.seconds = float(file.attribute("seconds"))
        recorded = json.loads(file.attribute("recorded_at"))
        self.recorded_at = datetime.fromisoformat(recorded) if recorded else None
        if not (isinstance(self.file, str) and all(isinstance(label, str) for label in self.labels)):
            raise ValueError("a name that is no text")
        if not math.isfinite(self.seconds):
            raise ValueError("a length that is no number")
        self._columns = {name: self._dataset(name) for name in _COLUMNS if name in _ALWAYS or file.has(name)}
        self._of_events = {name: self._dataset(f"events/{name}") for name in _EVENT_FIELDS}
        for lengths in ({len(data) for data in each.values()} for each in (self._columns, self._of_events)):
            if len(lengths) != 1:
                raise ValueError("columns that differ in their length")

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator["Record"]:
        """The record in a file, open in this block.

        Raises:
            ResultsError: The file is missing, damaged, or of a newer version.
        """
        shown = printable(str(path))
        try:
            file = h5py.File(path, "r", locking="best-effort")
        except FileNotFoundError as error:
            raise ResultsError(f"{shown}: is missing; predict again with --resume") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise _damaged(path) from error
        with file:
            try:
                stored = StoreFile(Path(path), file)
                version = int(stored.attribute("format_version"))
                if version > FORMAT:
                    raise ResultsError(f"{shown}: was written by a newer version of bayes_panns; update it")
                record = cls(stored)
            except _DAMAGE as error:
                raise _damaged(path) from error
            yield record

    def __len__(self) -> int:
        """How many windows there are."""
        return len(self._columns["start"])

    def windows(self, first: int = 0, last: int | None = None) -> RecordWindows:
        """The windows from ``first`` up to, and without, ``last``; by default all.

        Raises:
            ResultsError: They are damaged.
        """
        try:
            return RecordWindows(**{name: data[first:last] for name, data in self._columns.items()})
        except _DAMAGE as error:
            raise _damaged(self._file.path) from error

    def events(self) -> list[Event]:
        """All events, in the order of their onsets.

        Raises:
            ResultsError: They are damaged.
        """
        try:
            columns = {name: data[:] for name, data in self._of_events.items()}
        except _DAMAGE as error:
            raise _damaged(self._file.path) from error
        if not ((columns["label"] >= 0) & (columns["label"] < len(self.labels))).all():
            raise _damaged(self._file.path)
        found = [
            Event(
                file=self.file,
                label=self.labels[int(columns["label"][index])],
                **{name: float(columns[name][index]) for name in _EVENT_FIELDS if name != "label"},
            )
            for index in range(len(columns["onset"]))
        ]
        return sorted(found, key=lambda event: (event.onset, event.offset, self.labels.index(event.label)))

    def _dataset(self, name: str) -> h5py.Dataset:
        """A column, if it is what is written under its name, and no larger than the file can hold."""
        if name.startswith("events/"):
            self._file.require_own("events")
        data = self._file.own(name)
        kind = _EVENT_FIELDS.get(name.removeprefix("events/")) if "/" in name else _KINDS[name]
        rest = (len(self.labels),) if name in _OF_LABELS else ()
        stored = min(data.id.get_storage_size(), self._file.path.stat().st_size)
        most = stored * (_PACKED if data.compression else 1)
        chunk = math.prod(data.chunks or ()) * data.dtype.itemsize
        if data.dtype != np.dtype(kind) or data.shape[1:] != rest or data.nbytes > most or chunk > _LARGEST_CHUNK:
            raise ValueError(f"{name} is not what is written")
        return data


def _damaged(path: str | Path) -> ResultsError:
    return ResultsError(
        f"{printable(str(path))}: is no record of predictions, or is damaged; remove it, and predict again with "
        "--resume"
    )


def _append(data: h5py.Dataset, values: NDArray[Any]) -> None:
    there = len(data)
    data.resize(there + len(values), axis=0)
    data[there:] = values

"""A recording's results as files of other programs: tables, and tracks of its events."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayes_panns.core.choices import TagFormat
from bayes_panns.core.errors import OutputError
from bayes_panns.core.files import whole_file
from bayes_panns.core.text import printable, readable
from bayes_panns.jobs.recording_results import RecordingFormat
from bayes_panns.predictions import FileTags, Window
from bayes_panns.predictions.record_windows import RecordWindows, windows_of
from bayes_panns.predictions.records import Record
from bayes_panns.report.text.tags import tag_text
from bayes_panns.report.timeline import Picture

_WINDOWS = 256
"""Windows that are read and written together."""

_RAVEN = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Label",
    "Probability",
    "Low",
    "High",
    "Begin Path",
)


@dataclass(frozen=True)
class TagFile:
    """The windows of a recording as text, as the command prints it."""

    form: TagFormat
    ending: str

    def write(self, record: Record, path: Path, manifest: Mapping[str, Any]) -> None:
        """See :class:`~bayes_panns.jobs.recording_results.RecordingFormat`."""
        text = tag_text(self.form, record.labels)
        with path.open("w", encoding="utf-8", newline="") as file:
            for windows in _parts(record):
                spans = zip(windows.start.tolist(), windows.end.tolist(), strict=True)
                named = tuple(Window(record.file, start, end) for start, end in spans)
                uncertainty = windows.uncertainty(manifest["task"])
                file.write(text.add(FileTags(record.file, named, uncertainty, windows.in_set)))
            file.write(text.end())


@dataclass(frozen=True)
class AudacityFile:
    """The events of a recording as a label track of Audacity."""

    ending: str = ".audacity.txt"

    def write(self, record: Record, path: Path, manifest: Mapping[str, Any]) -> None:
        """See :class:`~bayes_panns.jobs.recording_results.RecordingFormat`."""
        lines = [
            f"{each.onset:.6f}\t{each.offset:.6f}\t{printable(each.label)} {each.probability:.2f} "
            f"({each.low:.2f}-{each.high:.2f})\n"
            for each in record.events()
        ]
        path.write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class RavenFile:
    """The events of a recording as a selection table of Raven."""

    ending: str = ".raven.txt"

    def write(self, record: Record, path: Path, manifest: Mapping[str, Any]) -> None:
        """See :class:`~bayes_panns.jobs.recording_results.RecordingFormat`."""
        highest = f"{manifest['sample_rate'] / 2:.1f}"
        lines = ["\t".join(_RAVEN)]
        for number, each in enumerate(record.events(), start=1):
            span = [f"{each.onset:.6f}", f"{each.offset:.6f}", "0.0", highest]
            sure = [f"{value:.4f}" for value in (each.probability, each.low, each.high)]
            row = [str(number), "Spectrogram 1", "1", *span, printable(each.label), *sure, printable(str(record.path))]
            lines.append("\t".join(row))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class ParquetFile:
    """The windows of a recording as Parquet, a row for each window and label."""

    ending: str = ".parquet"

    def write(self, record: Record, path: Path, manifest: Mapping[str, Any]) -> None:
        """See :class:`~bayes_panns.jobs.recording_results.RecordingFormat`.

        Raises:
            OutputError: pyarrow is not installed.
        """
        arrow = _pyarrow()
        writer = None
        # Arrow opens no path that is not valid UTF-8.
        with path.open("wb") as file:
            for windows in _parts(record):
                table = arrow.table(_columns(record.file, record.labels, windows, arrow))
                if writer is None:
                    writer = arrow.parquet.ParquetWriter(file, table.schema)
                writer.write_table(table)
            if writer is not None:
                writer.close()


@contextmanager
def parquet_tags(path: Path, labels: Sequence[str]) -> Iterator[Callable[[FileTags], None]]:
    """A Parquet file of the windows of several recordings, as :class:`ParquetFile` writes it; whole or not at all.

    Args:
        path: The file; its folder exists.
        labels: K label names.

    Yields:
        A function that writes more windows, predicted with samples.

    Raises:
        OutputError: pyarrow is not installed.
        OSError: The file cannot be written.
    """
    arrow, writer = _pyarrow(), None
    with whole_file(path) as part, part.open("wb") as file:

        def write(tags: FileTags) -> None:
            nonlocal writer
            table = arrow.table(_columns(tags.file, labels, windows_of(tags), arrow))
            writer = writer or arrow.parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)

        yield write
        if writer is not None:
            writer.close()


RECORDING_FORMATS: dict[TagFormat, RecordingFormat] = {
    TagFormat.CSV: TagFile(TagFormat.CSV, ".csv"),
    TagFormat.JSON: TagFile(TagFormat.JSON, ".json"),
    TagFormat.PARQUET: ParquetFile(),
    TagFormat.AUDACITY: AudacityFile(),
    TagFormat.RAVEN: RavenFile(),
    TagFormat.PICTURE: Picture(),
}
"""What can be written of each recording of a results folder; what an ``--format`` means there."""


def require_format(form: TagFormat) -> RecordingFormat:
    """The format of that name, if all that it needs is installed.

    Raises:
        OutputError: pyarrow is not.
    """
    if form == TagFormat.PARQUET:
        _pyarrow()
    return RECORDING_FORMATS[form]


def _parts(record: Record) -> Iterator[RecordWindows]:
    for first in range(0, len(record), _WINDOWS):
        yield record.windows(first, first + _WINDOWS)


def _columns(file: str, labels: Sequence[str], windows: RecordWindows, arrow: Any) -> dict[str, Any]:
    """N x K rows."""
    count, each = windows.probability.shape
    numbers = np.zeros(count * each, dtype=np.int32), np.tile(np.arange(each, dtype=np.int32), count)
    # Arrow's text has no place for bytes that are not valid UTF-8.
    names = [readable(file)], [readable(label) for label in labels]
    files, kinds = (
        arrow.DictionaryArray.from_arrays(arrow.array(index), arrow.array(values))
        for index, values in zip(numbers, names, strict=True)
    )
    columns = {
        "file": files,
        "start": np.repeat(windows.start, each),
        "end": np.repeat(windows.end, each),
        "label": kinds,
    }
    for name in ("probability", "aleatoric", "epistemic", "low", "high"):
        columns[name] = getattr(windows, name).ravel()
    for name in ("entropy", "mutual_information", "outside", "left"):
        columns[name] = np.repeat(getattr(windows, name), each)
    for name in ("in_set", "called"):
        if (values := getattr(windows, name)) is not None:
            columns[name] = values.ravel()
    return columns


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OutputError("--format parquet needs pyarrow; run pip install 'bayes-panns[parquet]'") from error
    return pyarrow

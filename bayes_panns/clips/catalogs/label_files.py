"""Files that say what is heard when: CSV tables, Raven's selection tables, Audacity's label tracks, crowsetta's CSV."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path, PurePosixPath

from bayes_panns.audio.walking import folded
from bayes_panns.clips.catalogs.catalog import exists
from bayes_panns.clips.catalogs.labels import separated
from bayes_panns.clips.catalogs.listed import ListedFiles, leaves, native
from bayes_panns.clips.catalogs.tables import (
    Name,
    Seconds,
    UserRow,
    columns_of,
    encoding_of,
    one_line_errors,
    read_table,
)
from bayes_panns.clips.catalogs.timed import Stretch
from bayes_panns.clips.catalogs.timed_table import read_timed_table
from bayes_panns.core.errors import StoreError


class LabelFile(Enum):
    """The kinds of files, each with what it is called."""

    TABLE = "CSV table with start and end"
    RAVEN = "Raven selection table"
    AUDACITY = "Audacity label track"
    GENERIC = "generic-seq of crowsetta"
    SIMPLE = "simple-seq of crowsetta"


ENDINGS = frozenset({".txt", ".tsv", ".csv"})
"""How the files' names end, lower case."""

OF_ONE_RECORDING = (LabelFile.RAVEN, LabelFile.AUDACITY, LabelFile.SIMPLE)
"""The kinds that lie beside their recording; the others name theirs."""

BEGIN, END, OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
"""Raven's columns of times. The offset is that in the file, where several files were opened as one sound."""

LABEL_COLUMNS = ("annotation", "annotations", "species", "common name", "label", "labels", "class", "tags")
"""Raven's label column has the name that its user gave it; these are taken without being named, in any letter case."""

_TRACK = re.compile(r"-?\d+(?:[.,]\d+)?\t-?\d+(?:[.,]\d+)?(?:\t.*)?")
"""A line of a label track."""

_START = 4096
"""Characters of a file that are looked at to recognise it."""


@dataclass(frozen=True)
class Reading:
    """How label files are read.

    Attributes:
        separator: What stands between several labels.
        label_column: The column of Raven's tables that holds the labels.
        allow_outside: Whether a table may name recordings outside its folder.
    """

    separator: str = ";"
    label_column: str | None = None
    allow_outside: bool = False


def recognise(path: Path) -> LabelFile | None:
    """What kind of label file this is, by its ending and its first line; None if it is none."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        columns = set(columns_of(path))
        if "notated_path" in columns:
            return LabelFile.GENERIC
        if {"onset_s", "offset_s"} <= columns and "file" not in columns:
            return LabelFile.SIMPLE
        return LabelFile.TABLE if columns & {"start", "end"} and "file" in columns else None
    if suffix not in {".txt", ".tsv"}:
        return None
    try:
        with path.open(encoding=encoding_of(path), errors="replace") as file:
            start = file.read(_START)
    except (OSError, UnicodeError):
        return None
    first = next((line for line in start.split("\n") if line.strip()), "")
    if {BEGIN, END} <= {name.strip() for name in first.split("\t")}:
        return LabelFile.RAVEN
    return LabelFile.AUDACITY if _TRACK.fullmatch(first) else None


class Recordings:
    """Finds the recording that a label file lies beside.

    Args:
        files: All recordings that are to be labelled.

    Attributes:
        files: These.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self._called: dict[str, list[Path]] = {}
        self._begins: dict[str, list[Path]] = {}
        for file in files:
            self._called.setdefault(folded(file.name), []).append(file)
            for name in {folded(file.name), folded(file.stem)}:
                self._begins.setdefault(name, []).append(file)

    def of(self, table: Path) -> Path | None:
        """The recording whose name the table's begins with, in its folder or else anywhere; None if there is none.

        ``day.wav`` has the tables ``day.txt``, ``day.wav.txt`` and ``day.Table.1.selections.txt``.

        Raises:
            StoreError: It may be one of several.
        """
        parts = folded(table.name).split(".")
        fitting = [self._begins.get(".".join(parts[:count]), []) for count in range(len(parts) - 1, 0, -1)]
        near = [[file for file in files if file.parent == table.parent] for files in fitting]
        # The longest name first.
        found = next(filter(None, [*near, *fitting]), [])
        if len(found) > 1:
            raise StoreError(
                f"{table}: may be of {found[0]} or of {found[1]}; rename the one that it is not of, or give the table "
                "the whole name of its recording, as in a.wav.txt"
            )
        return found[0] if found else None

    def called(self, name: str, where: str) -> Path | None:
        """The recording of this name, in any folder; None if there is none.

        Raises:
            StoreError: There are several.
        """
        found = self._called.get(folded(name), [])
        if len(found) > 1:
            raise StoreError(f"{where} names {name!r}, and both {found[0]} and {found[1]} are called so; rename one")
        return found[0] if found else None


def read_stretches(table: Path, kind: LabelFile, recordings: Recordings, root: Path, reading: Reading) -> list[Stretch]:
    """The labelled stretches in a file.

    Args:
        table: The file.
        kind: What it is.
        recordings: Where a recording is looked for that the file does not name.
        root: The folder that the names of recordings are relative to, of kinds that do not name theirs.
        reading: How to read it.

    Raises:
        StoreError: The file is damaged, a column or a time is not understood, or its recording is not there.
    """
    if kind is LabelFile.TABLE:
        return _table(table, reading)
    if kind is LabelFile.GENERIC:
        return _generic(table, recordings, root, reading)
    if kind is LabelFile.RAVEN:
        return _raven(table, recordings, root, reading)
    recording = recordings.of(table)
    if recording is None:
        raise StoreError(f"{table}: there is no recording beside this {kind.value}; put it there, with the same stem")
    read = _audacity if kind is LabelFile.AUDACITY else _simple
    return read(table, recording, _name(recording, root), reading)


def _table(table: Path, reading: Reading) -> list[Stretch]:
    rows = read_timed_table(table)
    listed = ListedFiles(table, [row.file for _, row in rows], allow_outside=reading.allow_outside)
    found = []
    for line, row in rows:
        where = f"line {line}"
        if (row.start is None) != (row.end is None):
            raise StoreError(f"{table}: {where} has a start or an end, but not both; give both, or none for all of it")
        found.append(
            Stretch(
                path=listed.locate(row.file, where),
                name=row.file,
                labels=separated(row.labels, reading.separator),
                start=row.start or 0.0,
                end=row.end,
                table=table,
                line=line,
                fold=row.fold,
                source=row.source or None,
                exhaustive=row.exhaustive,
            )
        )
    return found


class _GenericRow(UserRow):
    label: Name
    onset_s: Seconds
    offset_s: Seconds
    onset_sample: str = ""
    offset_sample: str = ""
    notated_path: Name
    annot_path: str = ""
    sequence: str = ""
    annotation: str = ""


class _SimpleRow(UserRow):
    onset_s: Seconds
    offset_s: Seconds
    label: Name


def _generic(table: Path, recordings: Recordings, root: Path, reading: Reading) -> list[Stretch]:
    rows = read_table(table, _GenericRow)
    locate = _locator(table, [row.notated_path for _, row in rows], recordings, reading)
    found = []
    for line, row in rows:
        path = locate(row.notated_path, f"line {line}")
        labels = separated(row.label, reading.separator)
        found.append(Stretch(path, _name(path, root), labels, row.onset_s, row.offset_s, table, line))
    return found


def _simple(table: Path, recording: Path, name: str, reading: Reading) -> list[Stretch]:
    return [
        Stretch(recording, name, separated(row.label, reading.separator), row.onset_s, row.offset_s, table, line)
        for line, row in read_table(table, _SimpleRow)
    ]


def _audacity(table: Path, recording: Path, name: str, reading: Reading) -> list[Stretch]:
    with one_line_errors(table):
        lines = table.read_text(encoding=encoding_of(table)).split("\n")
    found = []
    for (_, before), (number, line) in pairwise([(0, ""), *enumerate(lines, 1)]):
        where = f"{table}: line {number}"
        if not line.strip():
            continue
        if line.startswith("\\"):
            # The frequencies of the label before.
            if not _TRACK.fullmatch(before):
                raise StoreError(f"{where} has frequencies, but follows no label; correct the file")
            continue
        if not _TRACK.fullmatch(line):
            raise StoreError(f"{where} is not a start, an end and a label with tabs between them; correct the line")
        start, end, *text = line.split("\t", 2)
        labels = separated(text[0], reading.separator) if text else ()
        if not labels:
            raise StoreError(f"{where} has no label; name what is heard there, or remove the line")
        found.append(Stretch(recording, name, labels, _time(start, where), _time(end, where), table, number))
    return found


def _raven(table: Path, recordings: Recordings, root: Path, reading: Reading) -> list[Stretch]:
    columns, rows = _raven_rows(table)
    label = _label_column(table, columns, reading.label_column)
    named = next((column for column in ("Begin Path", "Begin File") if column in columns), None)
    names = [_raven_name(values, named) for _, values in rows]
    recording = None if named is not None and all(names) else recordings.of(table)
    locate = _locator(table, [name for name in names if name], recordings, reading)
    found = []
    for (number, values), name in zip(rows, names, strict=True):
        where = f"{table}: line {number}"
        if not name and recording is None:
            raise StoreError(f"{where} names no recording, and there is none beside the table; put it there")
        labels = separated(values[label], reading.separator)
        if not labels:
            raise StoreError(f"{where} has no {label!r}; name what is heard there, or remove the line")
        start, end = _time(values[BEGIN], where), _time(values[END], where)
        if name and values.get(OFFSET):
            # Times are of all files together, which Raven opens as one sound.
            offset = _time(values[OFFSET], where)
            start, end = offset, offset + end - start
        path = locate(name, f"line {number}") if name or recording is None else recording
        found.append(Stretch(path, _name(path, root), labels, start, end, table, number))
    return found


def _raven_rows(table: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns, and each row with its line number. Raven quotes nothing, and may end each line with a tab."""
    with one_line_errors(table), table.open(newline="", encoding=encoding_of(table)) as file:
        lines = list(enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), 1))
    (_, header), *rest = [(number, values) for number, values in lines if any(map(str.strip, values))]
    columns = [name.strip() for name in header]
    rows = []
    for number, values in rest:
        if any(value.strip() for value in values[len(columns) :]):
            raise StoreError(f"{table}: line {number} has more fields than the first line; correct the line")
        filled = [*values, *[""] * (len(columns) - len(values))]
        rows.append((number, {name: value.strip() for name, value in zip(columns, filled, strict=False)}))
    return [name for name in columns if name], rows


def _label_column(table: Path, columns: list[str], asked: str | None) -> str:
    if asked is not None:
        fitting = [name for name in columns if name.lower() == asked.lower()]
    else:
        fitting = [name for name in columns if name.lower() in LABEL_COLUMNS]
    if len(fitting) != 1:
        what = f"has no column {asked!r}" if asked else "has no column of labels that is known"
        if fitting:
            what = f"has more than one column of labels ({', '.join(fitting)})"
        raise StoreError(f"{table}: {what}; name one of {', '.join(columns)} with --label-column")
    return fitting[0]


def _raven_name(values: dict[str, str], column: str | None) -> str:
    """The recording that a row names: the file, or the path, which may end in a folder."""
    if column is None:
        return ""
    path, file = native(values[column]), values.get("Begin File", "")
    return f"{path.rstrip('/')}/{file}" if path and file and PurePosixPath(path).name != file else path or file


def _locator(table: Path, names: list[str], recordings: Recordings, reading: Reading) -> Callable[[str, str], Path]:
    """Finds recordings by paths of the computer on which they were labelled: by their names alone, if need be."""
    short = {name: PurePosixPath(native(name)).name for name in names}
    listed = ListedFiles(table, [*names, *short.values()], allow_outside=reading.allow_outside)

    def locate(name: str, where: str) -> Path:
        if reading.allow_outside or not leaves(name):
            path = listed.locate(name, where)
            if exists(path):
                return path
        path = listed.locate(short[name], where)
        if not exists(path):
            beside = recordings.called(short[name], f"{table}: {where}")
            path = path if beside is None else beside
        return path

    return locate


def _name(recording: Path, root: Path) -> str:
    return recording.relative_to(root).as_posix() if recording.is_relative_to(root) else recording.name


def _time(text: str, where: str) -> float:
    """Seconds; some programs write the decimal sign of their country."""
    try:
        time = float(text.replace(",", "."))
    except ValueError:
        time = float("nan")
    if not 0 <= time < float("inf"):
        raise StoreError(f"{where} has the time {text!r}, which is not a number of seconds from 0 up; correct the line")
    return time

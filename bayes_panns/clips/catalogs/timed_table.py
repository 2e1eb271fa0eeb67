"""The CSV table of labels with times: what ``pack timed`` reads, and what the page of ``view`` writes."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from bayes_panns.clips.catalogs.tables import Fold, Name, Seconds, UserRow, read_table
from bayes_panns.core.files import whole_file
from bayes_panns.core.text import readable

SEPARATORS = ";|/"
"""What may stand between several labels; the first that is in none of them."""


def _or_none(value: object) -> object:
    return None if value == "" else value


class TimedRow(UserRow):
    """A stretch of a recording and its labels.

    Attributes:
        file: The recording, relative to the table's folder, its parent or the parent's parent; or anywhere.
        labels: The labels that are heard, with a separator between them; none says that none of the labels is heard.
        start: In seconds; None, with ``end``, for all of the recording.
        end: In seconds.
        fold: The recording's fold.
        source: The recording that the file itself was cut from.
        exhaustive: Whether all that is heard in the recording is labelled.
        refuted: Labels that were proposed for the stretch and are not heard. A clip has none of the labels that it is
            not given, so they change no clip; they are kept for whoever reads the table.
    """

    file: Name
    labels: str
    start: Annotated[Seconds | None, BeforeValidator(_or_none)]
    end: Annotated[Seconds | None, BeforeValidator(_or_none)]
    fold: Annotated[Fold | None, BeforeValidator(_or_none)] = None
    source: str = ""
    exhaustive: bool = False
    refuted: str = ""


_ALWAYS = ("file", "labels", "start", "end")


def read_timed_table(table: Path) -> list[tuple[int, TimedRow]]:
    """The rows of a table, each with its line number.

    Raises:
        StoreError: It cannot be read, or a row or a column is not understood.
    """
    return read_table(table, TimedRow)


def timed_text(rows: Sequence[TimedRow]) -> str:
    """The table as text, without the columns that say nothing.

    Example:
        >>> print(timed_text([TimedRow(file="a.wav", labels="owl", start=0.0, end=2.5, refuted="dog")]), end="")
        file,labels,start,end,refuted
        a.wav,owl,0,2.5,dog
    """
    columns = [
        name
        for name, field in TimedRow.model_fields.items()
        if name in _ALWAYS or any(getattr(row, name) != field.default for row in rows)
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_written(getattr(row, name)) for name in columns] for row in rows])
    return buffer.getvalue()


def write_timed_table(table: Path, rows: Sequence[TimedRow]) -> None:
    """Write a table, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with whole_file(table) as part:
        # A name that is no Unicode is written with escapes: its recording is then not found, and all others are.
        part.write_text(readable(timed_text(rows)), encoding="utf-8", newline="")


def separator_for(labels: Iterable[str]) -> str:
    """What to put between several of these labels in one field.

    Example:
        >>> separator_for(["dog", "rain; thunder"])
        '|'
    """
    text = "".join(labels)
    return next((sign for sign in SEPARATORS if sign not in text), SEPARATORS[0])


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)

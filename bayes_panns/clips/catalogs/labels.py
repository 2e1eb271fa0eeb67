"""Label names and their numbers, as published tables list them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bayes_panns.clips.catalogs.tables import PublishedRow, read_table
from bayes_panns.core.errors import StoreError


class LabelRow(PublishedRow):
    """A row of AudioSet's ``class_labels_indices.csv``."""

    index: Annotated[int, Field(ge=0)]
    display_name: str


def read_labels(table: str | Path) -> tuple[str, ...]:
    """The label names of AudioSet's ``class_labels_indices.csv``, or of any CSV file with its columns.

    For stores that hold no names, such as PANNs' own packs.

    Args:
        table: A CSV file with the columns ``index``, counting from 0 without a gap, and ``display_name``.

    Raises:
        StoreError: There is no such file, or it is damaged.
    """
    table = Path(table)
    if not table.is_file():
        raise StoreError(f"{table}: no such file; name AudioSet's class_labels_indices.csv, or one like it")
    rows = [(line, row.index, row.display_name) for line, row in read_table(table, LabelRow)]
    labels, _ = numbered_labels(table, rows)
    for line, number, _ in rows:
        if number >= len(rows):
            raise StoreError(f"{table}: line {line} has index {number}; number {len(rows)} labels from 0 without a gap")
    if len(labels) < len(rows):
        raise StoreError(f"{table}: two labels have the same index; number them from 0 without a gap")
    return labels


def numbered_labels(table: Path, rows: Iterable[tuple[int, int, str]]) -> tuple[tuple[str, ...], dict[int, int]]:
    """The label names in the order of their numbers, and each number's column.

    Args:
        table: The file that the rows are from, for errors.
        rows: Line number, label number and label name.

    Raises:
        StoreError: Two rows give one number two names.
    """
    names: dict[int, str] = {}
    for line, number, name in rows:
        if names.setdefault(number, name) != name:
            raise StoreError(
                f"{table}: line {line} calls label {number} {name!r}, an earlier line {names[number]!r}; correct one"
            )
    numbers = sorted(names)
    return tuple(names[number] for number in numbers), {number: index for index, number in enumerate(numbers)}

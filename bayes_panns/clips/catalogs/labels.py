"""Label names and their numbers: as published tables list them, and as users' tables name them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bayes_panns.clips.catalogs.catalog import Clip
from bayes_panns.clips.catalogs.tables import PublishedRow, read_table
from bayes_panns.core.choices import Task
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


def separated(text: str) -> tuple[str, ...]:
    """The labels in a text, in which ``;`` stands between them.

    Example:
        >>> separated("Dog; Rain;Dog;")
        ('Dog', 'Rain')
    """
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(";")))))


def labels_of(named: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], Task, list[tuple[int, ...]]]:
    """What the names of the clips' labels make: all labels, sorted by name, their task, and the labels of each clip.

    If every clip has exactly one label the task is one-of-k; if none has any it is unlabelled; otherwise multi-label.

    Example:
        >>> labels_of([("dog",), ("rain", "dog"), ()])
        (('dog', 'rain'), <Task.MULTI_LABEL: 'multi-label'>, [(0,), (0, 1), ()])

    Args:
        named: The names of each clip's labels.
    """
    labels = tuple(sorted({label for names in named for label in names}))
    column = {label: index for index, label in enumerate(labels)}
    if not labels:
        task = Task.UNLABELLED
    else:
        task = Task.ONE_OF_K if all(len(names) == 1 for names in named) else Task.MULTI_LABEL
    return labels, task, [tuple(sorted(column[name] for name in names)) for names in named]


def without_rare(
    source: Path, labels: tuple[str, ...], task: Task, clips: tuple[Clip, ...], min_count: int
) -> tuple[tuple[str, ...], tuple[Clip, ...]]:
    """The labels that enough clips have, and the clips with these.

    A clip that has none of them left stays, if the task is multi-label.

    Args:
        source: Where the clips are from, for errors.
        labels: All labels.
        task: What they mean.
        clips: The clips.
        min_count: The fewest clips of a label that is kept.

    Raises:
        StoreError: No label has so many.
    """
    counts = Counter(label for clip in clips for label in clip.labels)
    kept = [index for index in range(len(labels)) if counts[index] >= min_count]
    if not kept:
        raise StoreError(f"{source}: no label has {min_count} clips or more; lower the minimum")
    column = {old: new for new, old in enumerate(kept)}
    trimmed = (
        Clip(clip.path, clip.name, tuple(column[old] for old in clip.labels if old in column), clip.fold, clip.source)
        for clip in clips
    )
    return tuple(labels[old] for old in kept), tuple(
        clip for clip in trimmed if clip.labels or task == Task.MULTI_LABEL
    )

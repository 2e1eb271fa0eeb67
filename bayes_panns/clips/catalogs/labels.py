"""Label names and their numbers: as published tables list them, and as users' tables name them."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from bayes_panns.clips.catalogs.catalog import Catalog, Clip
from bayes_panns.clips.catalogs.tables import PublishedRow, encoding_of, one_line_errors, read_table
from bayes_panns.clips.splits import recording_folds
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError

logger = logging.getLogger(__name__)


class LabelRow(PublishedRow):
    """A row of AudioSet's ``class_labels_indices.csv``."""

    index: Annotated[int, Field(ge=0)]
    display_name: str


def read_labels(table: str | Path) -> tuple[str, ...]:
    """The label names in a file: a text of one name a line, or a CSV like AudioSet's ``class_labels_indices.csv``.

    For stores that hold no names, such as PANNs' own packs, and for a fixed set of labels.

    Args:
        table: A CSV file with the columns ``index``, counting from 0 without a gap, and ``display_name``; or a file
            with another ending, in UTF-8.

    Raises:
        StoreError: There is no such file, or it is damaged.
    """
    table = Path(table)
    if not table.is_file():
        raise StoreError(f"{table}: no such file; name AudioSet's class_labels_indices.csv, or one like it")
    if table.suffix.lower() != ".csv":
        return _listed_labels(table)
    rows = [(line, row.index, row.display_name) for line, row in read_table(table, LabelRow)]
    labels, _ = numbered_labels(table, rows)
    for line, number, _ in rows:
        if number >= len(rows):
            raise StoreError(f"{table}: line {line} has index {number}; number {len(rows)} labels from 0 without a gap")
    if len(labels) < len(rows):
        raise StoreError(f"{table}: two labels have the same index; number them from 0 without a gap")
    return labels


def _listed_labels(table: Path) -> tuple[str, ...]:
    with one_line_errors(table):
        lines = [line.strip() for line in table.read_text(encoding=encoding_of(table)).split("\n")]
    first: dict[str, int] = {}
    for number, label in enumerate(lines, 1):
        if label in first:
            raise StoreError(f"{table}: line {number} lists {label!r} again, after line {first[label]}; remove one")
        if label:
            first[label] = number
    if not first:
        raise StoreError(f"{table}: lists no labels; write one in each line")
    return tuple(first)


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


def separated(text: str, separator: str = ";") -> tuple[str, ...]:
    """The labels in a text, in which ``separator`` stands between them.

    Example:
        >>> separated("Dog; Rain;Dog;")
        ('Dog', 'Rain')
    """
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(separator)))))


def warn_of_separator(source: Path, labels: Sequence[str]) -> None:
    """Warn of labels that look like several, joined by another sign than the one that was taken.

    ``Guitar,Music`` does, ``Male speech, man speaking`` does not, unless one of its parts is a label too.
    """
    for sign in ",|;":
        joined = [label for label in labels if sign in label]
        parts = {part.strip() for label in joined for part in label.split(sign)}
        if joined and (parts & set(labels) or any(re.search(re.escape(sign) + r"\S", label) for label in joined)):
            logger.warning(
                f"{source}: {len(joined)} of {len(labels)} labels, such as {joined[0]!r}, look like several joined by "
                f"{sign!r}; if they are, pack again with --separator '{sign}'"
            )


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
    trimmed = (replace(clip, labels=tuple(column[old] for old in clip.labels if old in column)) for clip in clips)
    return tuple(labels[old] for old in kept), tuple(
        clip for clip in trimmed if clip.labels or task == Task.MULTI_LABEL
    )


def with_labels(catalog: Catalog, labels: Sequence[str], task: Task | None = None) -> Catalog:
    """The catalog with a fixed set of labels, in their order; some may have no clip.

    Args:
        catalog: A catalog with labels.
        labels: All labels.
        task: What they mean; by default what they mean in the catalog. For one-of-K a clip in which none of them is
            heard says nothing that can be learned: it is left out, and counted in a message.

    Raises:
        StoreError: The catalog has no labels, or one that is not in the set; or a clip of a one-of-K task has several,
            or none has any.
    """
    if catalog.task is Task.UNLABELLED:
        raise StoreError(f"{catalog.root}: its clips have no labels, so a set of labels says nothing of them")
    column = {label: index for index, label in enumerate(labels)}
    task = task or catalog.task
    clips = []
    for clip in catalog.clips:
        names = [catalog.labels[index] for index in clip.labels]
        unknown = [name for name in names if name not in column]
        if unknown:
            raise StoreError(
                f"{catalog.root}: {clip.name} has the label {unknown[0]!r}, which is not one of the {len(labels)} "
                "labels asked for; add it to them, or exclude such clips from the source"
            )
        if task is Task.ONE_OF_K and not names:
            continue
        if task is Task.ONE_OF_K and len(names) > 1:
            raise StoreError(f"{catalog.root}: {clip.name} has {len(names)} labels, and one-of-k takes one a clip")
        clips.append(replace(clip, labels=tuple(sorted(column[name] for name in names))))
    if left := len(catalog.clips) - len(clips):
        what = "clip has none of the labels and is" if left == 1 else "clips have none of the labels and are"
        logger.info(f"{catalog.root}: {left} {what} left out, for each clip of a one-of-k task has one")
    if not clips:
        raise StoreError(f"{catalog.root}: no clip has one of the {len(labels)} labels asked for")
    return replace(catalog, labels=tuple(labels), task=task, clips=tuple(clips))


def with_folds(catalog: Catalog, folds: int, seed: int = 0, *, fewer: bool = False) -> Catalog:
    """The catalog with folds 1 to ``folds``, each of whole recordings; of one-of-K clips each has all labels alike.

    A clip without a source is a recording of its own. :func:`~bayes_panns.clips.splits.recording_folds` says how.

    Args:
        catalog: A catalog without folds.
        folds: How many, 2 or more.
        seed: The same seed gives the same folds.
        fewer: Whether there may be fewer, where there are too few recordings for so many.

    Raises:
        StoreError: The catalog has folds, or too few recordings.
    """
    if any(clip.fold is not None for clip in catalog.clips):
        raise StoreError(f"{catalog.root}: its clips have folds already; pack it without --folds")
    numbers: dict[tuple[str, str], int] = {}
    recording = np.array(
        [
            numbers.setdefault(("", clip.name) if not clip.source else (clip.source, ""), len(numbers))
            for clip in catalog.clips
        ]
    )
    label = None
    if catalog.task is Task.ONE_OF_K:
        label = np.array([clip.labels[0] for clip in catalog.clips])
    found = recording_folds(recording, label, folds, seed)
    made = int(found.max()) + 1
    if made < (2 if fewer else folds):
        raise StoreError(
            f"{catalog.root}: its {len(numbers)} recordings make no more than {made} folds, so that a fold has most "
            f"labels; ask for {made} at most"
            if made > 1
            else f"{catalog.root}: all clips are of one recording, which cannot be divided into folds"
        )
    clips = tuple(replace(clip, fold=1 + int(fold)) for clip, fold in zip(catalog.clips, found, strict=True))
    logger.info(f"{len(clips)} clips of {len(numbers)} recordings in {made} folds, by the seed {seed}")
    return replace(catalog, clips=clips, options={**catalog.options, "folds": made, "seed": seed})

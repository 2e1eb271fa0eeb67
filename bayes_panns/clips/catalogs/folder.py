"""Recordings of one's own: a folder of class folders, a folder without classes, or a CSV file."""

import logging
from pathlib import Path
from typing import Any

from bayes_panns.clips.catalogs.catalog import Catalog, Clip, find_sounds, named_files, require_any_file
from bayes_panns.clips.catalogs.labels import labels_of, separated, without_rare
from bayes_panns.clips.catalogs.tables import Fold, Name, UserRow, read_table, require_distinct
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError
from bayes_panns.core.text import readable

logger = logging.getLogger(__name__)


class _Row(UserRow):
    file: Name
    labels: str
    fold: Fold | None = None
    source: str = ""


def folder(source: Path, *, min_count: int = 1) -> Catalog:
    """Your own recordings: a folder with a sub-folder a class, a folder without classes, or a CSV file.

    A folder in which two or more sub-folders hold sound is one-of-K, with the sub-folders' names as labels; any other
    folder of recordings is unlabelled. A CSV file has the columns ``file`` and ``labels`` and, if wanted, ``fold`` and
    ``source``; others are refused. Several labels are joined by ``;``; if any row has several or none, the task is
    multi-label. Paths in it are relative to the CSV's folder, or else to its parent or the parent's parent: the first
    in which one of the files exists. Labels are sorted by name.

    Args:
        source: The folder, or the CSV file.
        min_count: Labels with fewer clips are dropped. Their clips stay, with the labels that are left, if the task is
            multi-label; if it is one-of-K they are dropped too.

    Raises:
        StoreError: There is no such folder or CSV file, it holds no sound, the CSV is damaged, or no label is left.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() == ".csv":
        root, labels, task, clips = _labelled_by_table(source)
        options: dict[str, Any] = {"csv": source.name}
    elif source.is_dir():
        root, (labels, task, clips) = source, _labelled_by_folder(source)
        options = {}
    elif source.is_file():
        raise StoreError(f"{source}: is not a CSV file; name a folder of recordings, or a file ending in .csv")
    else:
        raise StoreError(f"{source}: no such folder or CSV file; name a folder of recordings, or a CSV that lists them")
    if min_count > 1:
        options["min_count"] = min_count
        labels, clips = without_rare(source, labels, task, clips, min_count)
    return Catalog("folder", labels, task, 10.0, clips, root, options)


def _labelled_by_folder(source: Path) -> tuple[tuple[str, ...], Task, tuple[Clip, ...]]:
    found = {path: path.relative_to(source) for path in find_sounds(source)}
    labels = sorted({place.parts[0] for place in found.values() if len(place.parts) > 1})
    _warn_of_empty(source, labels)
    if len(labels) < 2:
        return (), Task.UNLABELLED, tuple(Clip(path, readable(place.as_posix())) for path, place in found.items())
    loose = [place.name for place in found.values() if len(place.parts) == 1]
    if loose:
        raise StoreError(
            f"{source}: {named_files(loose)} beside the class folders ({', '.join(labels[:3])}, ...); move each into "
            "one of them"
        )
    column = {label: index for index, label in enumerate(labels)}
    clips = tuple(Clip(path, readable(place.as_posix()), (column[place.parts[0]],)) for path, place in found.items())
    return tuple(readable(label) for label in labels), Task.ONE_OF_K, clips


def _warn_of_empty(source: Path, labels: list[str]) -> None:
    """Warn of folders that could be classes, and hold no sound."""
    others = sorted(
        each.name
        for each in source.iterdir()
        if not each.name.startswith(".") and each.is_dir() and each.name not in labels
    )
    if labels and others:
        lost = "the recordings have no labels" if len(labels) == 1 else "they are no labels"
        logger.warning(
            f"{source}: has {named_files(others, 'folder')} without sound, so {lost}; put sound there, or ignore this "
            "if that is no class"
        )


def _labelled_by_table(table: Path) -> tuple[Path, tuple[str, ...], Task, tuple[Clip, ...]]:
    rows = read_table(table, _Row)
    require_distinct(table, rows, lambda row: row.file)
    labels, task, columns = labels_of([separated(row.labels) for _, row in rows])
    here = table.absolute().parent
    # The folder as the user wrote it, where the files are there: messages then show what was typed.
    bases = (table.parent, *here.parents[:2])
    root = next((base for base in bases if any((base / row.file).is_file() for _, row in rows)), table.parent)
    clips = tuple(
        Clip(
            path=root / row.file,
            name=row.file,
            labels=of_clip,
            fold=row.fold,
            source=row.source or None,
        )
        for (_, row), of_clip in zip(rows, columns, strict=True)
    )
    return root, labels, task, require_any_file(table, clips)

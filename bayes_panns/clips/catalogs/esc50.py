"""ESC-50 and ESC-10 (Piczak, 2015, https://doi.org/10.1145/2733373.2806390)."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bayes_panns.clips.catalogs.catalog import (
    Catalog,
    Clip,
    SoundFiles,
    first_there,
    first_with,
    require_any_file,
    require_folder,
)
from bayes_panns.clips.catalogs.labels import numbered_labels
from bayes_panns.clips.catalogs.tables import FileName, Fold, PublishedRow, read_table, require_distinct
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError


class _Row(PublishedRow):
    filename: FileName
    fold: Fold
    target: Annotated[int, Field(ge=0, lt=50)]
    category: str
    src_file: str


class _MarkedRow(_Row):
    esc10: bool


def esc50(source: Path, *, esc10: bool = False) -> Catalog:
    """ESC-50, or a part of it such as ESC-10: ``meta/esc50.csv`` and ``audio/``.

    Kaggle's layout is read too: ``esc50.csv`` and ``audio/audio/``. Labels are the categories that the CSV file lists,
    in the order of their target ids.

    Args:
        source: The folder that holds ``meta/`` and ``audio/``.
        esc10: Take only the clips that the CSV file marks as part of ESC-10.

    Raises:
        StoreError: The folder is not ESC-50's, its CSV file is damaged, or none of its files exists.
    """
    source = require_folder(source, "ESC-50", "meta/esc50.csv and audio/")
    table = first_there(source, "meta/esc50.csv", "esc50.csv")
    rows: list[tuple[int, _Row]]
    if esc10:
        rows = [(line, row) for line, row in read_table(table, _MarkedRow) if row.esc10]
        if not rows:
            raise StoreError(f"{table}: marks no clip as part of ESC-10; pack all of it, without --esc10")
    else:
        rows = list(read_table(table, _Row))
    require_distinct(table, rows, lambda row: row.filename)
    labels, column = numbered_labels(table, ((line, row.target, row.category) for line, row in rows))
    # Of each layout the original recordings rather than a copy at 16 kHz.
    folders = [source / place for place in ("audio", "audio/audio", "audio/44100", "audio/audio/44100", ".")]
    folders += [source / place for place in ("audio/16000", "audio/audio/16000")]
    folder = first_with(folders, [Path(row.filename) for _, row in rows])
    sounds = SoundFiles()
    clips = tuple(
        Clip(
            path=sounds.locate(folder / row.filename),
            name=row.filename,
            labels=(column[row.target],),
            fold=row.fold,
            source=row.src_file or None,
        )
        for _, row in rows
    )
    options = {"esc10": True} if esc10 else {}
    return Catalog("esc50", labels, Task.ONE_OF_K, 5.0, require_any_file(table, clips), source, options)

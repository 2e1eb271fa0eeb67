"""UrbanSound8K (Salamon, Jacoby and Bello, 2014, https://doi.org/10.1145/2647868.2655045)."""

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


class _Row(PublishedRow):
    slice_file_name: FileName
    fs_id: Annotated[str, Field(alias="fsID")]
    fold: Fold
    class_id: Annotated[int, Field(alias="classID", ge=0, lt=10)]
    class_name: Annotated[str, Field(alias="class")]


def urbansound8k(source: Path) -> Catalog:
    """UrbanSound8K: ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``audio/fold10``.

    Kaggle's layout is read too, which lacks these two folders. Labels are the classes that the CSV file lists, in the
    order of their class ids.

    Args:
        source: The folder that holds ``metadata/`` and ``audio/``.

    Raises:
        StoreError: The folder is not UrbanSound8K's, its CSV file is damaged, or none of its files exists.
    """
    source = require_folder(source, "UrbanSound8K", "metadata/UrbanSound8K.csv and audio/")
    table = first_there(source, "metadata/UrbanSound8K.csv", "UrbanSound8K.csv")
    rows = read_table(table, _Row)
    require_distinct(table, rows, lambda row: row.slice_file_name)
    labels, column = numbered_labels(table, ((line, row.class_id, row.class_name) for line, row in rows))
    places = [Path(f"fold{row.fold}", row.slice_file_name) for _, row in rows]
    folder = first_with([source / "audio", source], places)
    sounds = SoundFiles()
    clips = tuple(
        Clip(
            path=sounds.locate(folder / place),
            name=row.slice_file_name,
            labels=(column[row.class_id],),
            fold=row.fold,
            source=row.fs_id or None,
        )
        for (_, row), place in zip(rows, places, strict=True)
    )
    return Catalog("urbansound8k", labels, Task.ONE_OF_K, 4.0, require_any_file(table, clips), source)

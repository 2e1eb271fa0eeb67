"""FSD50K (Fonseca, Favory, Pons, Font and Serra, 2022, https://doi.org/10.1109/TASLP.2021.3133208)."""

from pathlib import Path
from typing import Literal

from bayes_panns.clips.catalogs.catalog import Catalog, Clip, SoundFiles, first_there, require_any_file, require_folder
from bayes_panns.clips.catalogs.labels import numbered_labels, separated
from bayes_panns.clips.catalogs.tables import FileName, PublishedRow, read_lines, read_table, require_distinct
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError


class _Row(PublishedRow):
    fname: FileName
    labels: str


class _DevelopmentRow(_Row):
    split: Literal["train", "val"]


def fsd50k(source: str | Path) -> Catalog:
    """FSD50K: ``FSD50K.ground_truth/`` and the folders of sound beside it; one part alone will do.

    Folds 1 and 2 are the development set's training and validation clips, fold 3 is the evaluation set. Labels are in
    the order of ``vocabulary.csv`` where it is there, and otherwise sorted.

    Args:
        source: The folder that holds ``FSD50K.ground_truth/`` with ``dev.csv`` or ``eval.csv``, ``FSD50K.dev_audio/``
            and ``FSD50K.eval_audio/``.

    Raises:
        StoreError: The folder is not FSD50K's, a table is damaged, or none of its files exists.
    """
    source = require_folder(source, "FSD50K", "FSD50K.ground_truth/ and FSD50K.dev_audio/")
    tables = {part: first_there(source, f"FSD50K.ground_truth/{part}.csv", f"{part}.csv") for part in ("dev", "eval")}
    rows: list[tuple[str, int, _Row]] = []
    if tables["dev"].is_file() or not tables["eval"].is_file():
        development = read_table(tables["dev"], _DevelopmentRow)
        rows += [("dev", 1 if row.split == "train" else 2, row) for _, row in development]
        require_distinct(tables["dev"], development, lambda row: row.fname)
    if tables["eval"].is_file():
        evaluation = read_table(tables["eval"], _Row)
        rows += [("eval", 3, row) for _, row in evaluation]
        require_distinct(tables["eval"], evaluation, lambda row: row.fname)
    of_clips = [separated(row.labels, ",") for _, _, row in rows]
    labels = _vocabulary(source, {name for names in of_clips for name in names})
    column = {label: index for index, label in enumerate(labels)}
    sounds = SoundFiles()
    folders = {part: first_there(source, f"FSD50K.{part}_audio", f"{part}_audio") for part in tables}
    clips = tuple(
        Clip(
            path=sounds.locate(folders[part] / f"{row.fname}.wav"),
            name=f"{row.fname}.wav",
            labels=tuple(sorted(column[name] for name in names)),
            fold=fold,
            source=row.fname,
        )
        for (part, fold, row), names in zip(rows, of_clips, strict=True)
    )
    return Catalog("fsd50k", labels, Task.MULTI_LABEL, 10.0, require_any_file(source, clips), source)


def _vocabulary(source: Path, named: set[str]) -> tuple[str, ...]:
    """All labels: ``vocabulary.csv`` has their number, name and machine id in each line, without a header."""
    table = first_there(source, "FSD50K.ground_truth/vocabulary.csv", "vocabulary.csv")
    if not table.is_file():
        return tuple(sorted(named))
    rows = []
    for line, row in read_lines(table, ("index", "label", "mid")):
        if not row["index"].isdecimal():
            raise StoreError(
                f"{table}: line {line} has the index {row['index']!r}, which is not a whole number; correct it"
            )
        rows.append((line, int(row["index"]), row["label"]))
    labels, _ = numbered_labels(table, rows)
    unknown = sorted(named - set(labels))
    if unknown:
        raise StoreError(f"{table}: lacks the label {unknown[0]!r}, which a clip has; download both again")
    return labels

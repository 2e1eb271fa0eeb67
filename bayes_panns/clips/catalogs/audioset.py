"""AudioSet (Gemmeke et al., 2017, https://research.google.com/audioset)."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bayes_panns.clips.catalogs.catalog import Catalog, Clip, find_sounds, require_any_file, require_folder
from bayes_panns.clips.catalogs.labels import LabelRow, read_labels
from bayes_panns.clips.catalogs.tables import read_lines, read_table
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError

SPLITS = {
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
"""AudioSet's three parts and the files that list them; their clips are in folds 1, 2 and 3."""


class _LabelRow(LabelRow):
    mid: str


def audioset(source: Path, *, split: str | None = None) -> Catalog:
    """AudioSet: its CSV files, and a folder of the clips that you have.

    The CSV files, as Google publishes them, are in the folder itself or in one of its sub-folders; the recordings, each
    cut to its segment, anywhere below. A recording is found by its name, whatever its sound format: ``Y<id>`` as PANNs'
    script names them, ``<id>``, or either with the segment's start, and perhaps its end, in seconds or milliseconds
    behind it, as in ``<id>_30000_40000`` or ``<id>_30.0-40.0``. Clips are called ``Y<id>.wav``, as in PANNs' own packs.

    Args:
        source: The folder that holds ``class_labels_indices.csv`` and the segments' CSV files.
        split: ``balanced``, ``unbalanced`` or ``eval``; by default every one whose list is there.

    Raises:
        StoreError: A CSV file is missing or damaged, the split is not one of AudioSet's, or no recording is there.
    """
    source = require_folder(source, "AudioSet", "class_labels_indices.csv and the segments' CSV files")
    if split is not None and split not in SPLITS:
        raise StoreError(f"AudioSet has no split {split!r}; choose one of {', '.join(SPLITS)}")
    index = _listed_below(source, "class_labels_indices.csv")
    columns = {row.mid: row.index for _, row in read_table(index, _LabelRow)}
    labels = read_labels(index)
    tables = {
        name: table
        for name, file in SPLITS.items()
        if split in (None, name) and (table := _listed_below(source, file)).is_file()
    }
    if not tables:
        wanted = SPLITS[split] if split else f"any of {', '.join(SPLITS.values())}"
        raise StoreError(f"{source}: lacks {wanted}; put Google's CSV files there, or in a sub-folder")
    recordings = _Recordings(find_sounds(source))
    clips = tuple(
        Clip(
            path=recordings.locate(name, start) or source / f"Y{name}.wav",
            name=f"Y{name}.wav",
            labels=tuple(sorted({_known(table, line, columns, mid) for mid in mids})),
            fold=1 + list(SPLITS).index(part),
            source=name,
        )
        for part, table in tables.items()
        for line, name, start, mids in _segments(table)
    )
    options = {"split": split} if split else {}
    where = next(iter(tables.values())) if split else source
    return Catalog("audioset", labels, Task.MULTI_LABEL, 10.0, require_any_file(where, clips), source, options)


_SEGMENT_NAME = re.compile(r"Y?(?P<id>[\w-]{11})(_(?P<start>\d+(\.\d+)?)([_-]\d+(\.\d+)?)?)?", re.ASCII)
"""How downloaders call a segment's file: a YouTube id has 11 characters."""


_ID = re.compile(r"[\w-]{11}", re.ASCII)


class _Recordings:
    """Finds the recording of a segment among files."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._by_id: dict[str, list[tuple[float | None, Path]]] = {}
        for file in files:
            if named := _SEGMENT_NAME.fullmatch(file.stem):
                start = None if named["start"] is None else float(named["start"])
                self._by_id.setdefault(named["id"], []).append((start, file))

    def locate(self, name: str, start: float) -> Path | None:
        """The first file of the video ``name`` that states no other start, in seconds or milliseconds; or None."""
        fitting = (None, start, 1000 * start)
        return next((file for stated, file in self._by_id.get(name, ()) if stated in fitting), None)


def _listed_below(source: Path, name: str) -> Path:
    """The file ``name`` in ``source`` or in a sub-folder of it; where there is none, where it should be."""
    return next((path for path in (source / name, *sorted(source.glob(f"*/{name}"))) if path.is_file()), source / name)


def _segments(table: Path) -> Iterator[tuple[int, str, float, list[str]]]:
    """The rows of a segments' CSV file: line number, YouTube id, start in seconds, and the labels' machine ids."""
    first: dict[str, int] = {}
    for line, row in read_lines(table, ("id", "start", "end", "labels")):
        name, start = row["id"], row["start"]
        if not _ID.fullmatch(name):
            raise StoreError(f"{table}: line {line} has the id {name!r}, which is no id of YouTube's; correct the line")
        if name in first:
            raise StoreError(f"{table}: line {line} lists {name!r} again, after line {first[name]}; remove one of them")
        first[name] = line
        try:
            seconds = float(start)
        except ValueError as error:
            raise StoreError(
                f"{table}: line {line} starts at {start!r}, not a number of seconds; correct the line"
            ) from error
        yield line, name, seconds, row["labels"].split(",")
    if not first:
        raise StoreError(f"{table}: lists no segments; download it again")


def _known(table: Path, line: int, columns: dict[str, int], mid: str) -> int:
    if mid not in columns:
        raise StoreError(f"{table}: line {line} has the label {mid!r}, which class_labels_indices.csv does not list")
    return columns[mid]

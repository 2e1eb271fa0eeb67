"""Embeddings that another model has made, from a file of its own: vectors with labels, folds and recordings."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayes_panns.clips.catalogs.catalog import Catalog, Clip, span_name
from bayes_panns.clips.catalogs.embedding_files import Columns, read_csv, read_npz, read_parquet
from bayes_panns.clips.catalogs.hoplite import DATABASE, read_hoplite
from bayes_panns.clips.catalogs.labels import labels_of, separated, warn_of_separator, without_rare
from bayes_panns.clips.embedding_writer import checked_embedding
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError

logger = logging.getLogger(__name__)

NAME = "embeddings"
"""What the catalog is called on the command line."""

READERS = {
    ".npz": read_npz,
    ".parquet": read_parquet,
    ".pq": read_parquet,
    ".csv": read_csv,
    ".sqlite": read_hoplite,
}
"""The reader of a file, by its ending."""


@dataclass(frozen=True)
class EmbeddingTable:
    """Embeddings, and what is known of the clips that they were made of.

    Attributes:
        catalog: The N clips, with their labels; there may be no sound files.
        embedding: float32, shape ``(N, width)``.
        model: The model that made them; empty where that is unknown.
    """

    catalog: Catalog
    embedding: np.ndarray
    model: str


def embeddings(
    source: str | Path, *, model: str | None = None, min_count: int = 1, separator: str = ";"
) -> EmbeddingTable:
    """Read embeddings: an ``.npz`` file, a Parquet or CSV file, or a database of perch-hoplite.

    ``docs/data/embeddings.md`` says which arrays and columns they have. Labels follow the rules of
    :func:`~bayes_panns.clips.folder`.

    Args:
        source: The file; of a database, the folder that holds ``hoplite.sqlite``, or that file.
        model: The name of the model that made them; by default what the file says.
        min_count: Labels with fewer clips are dropped, as in :func:`~bayes_panns.clips.folder`.
        separator: What stands between several labels in one text.

    Raises:
        StoreError: There is no such file, it is damaged or lacks the embeddings; they are not finite numbers of one
            width; its columns are not of one length; a name is there twice; or no label is left.

    Example:
        >>> np.savez("birds.npz", embeddings=np.ones((2, 1024)), labels=["wren", "lark"], model="BirdNET 2.4")
        >>> table = embeddings("birds.npz")
        >>> table.embedding.shape, table.model, table.catalog.labels
        ((2, 1024), 'BirdNET 2.4', ('lark', 'wren'))
    """
    source = Path(source)
    path = source / DATABASE if source.is_dir() else source
    if not path.is_file():
        what = f"holds no {DATABASE}" if source.is_dir() else "no such file"
        raise StoreError(f"{source}: {what}; name a file ({', '.join(READERS)}) or the folder of a hoplite database")
    if path.suffix.lower() not in READERS:
        raise StoreError(f"{source}: is none of the files that are read: {', '.join(READERS)}")
    columns = READERS[path.suffix.lower()](path)
    table = _table(source, columns, model, separator)
    if min_count > 1:
        catalog = table.catalog
        labels, clips = without_rare(source, catalog.labels, catalog.task, catalog.clips, min_count)
        options = {**catalog.options, "min_count": min_count}
        rows = rows_of(catalog, clips)
        table = EmbeddingTable(
            Catalog(NAME, labels, catalog.task, 0.0, clips, catalog.root, options), table.embedding[rows], table.model
        )
    return table


def rows_of(catalog: Catalog, clips: Sequence[Clip]) -> np.ndarray:
    """The places of some clips of a catalog among all its clips, int64; their names differ."""
    row = {clip.name: index for index, clip in enumerate(catalog.clips)}
    return np.array([row[clip.name] for clip in clips], dtype=np.int64)


def _table(source: Path, columns: Columns, model: str | None, separator: str) -> EmbeddingTable:
    embedding = checked_embedding(source, columns.embedding)
    count = len(embedding)
    for name, column in columns.of_clips.items():
        if len(column) != count:
            raise StoreError(f"{source}: has {count} embeddings, but {len(column)} rows of {name!r}; give one a clip")
    files = _texts(columns, "file")
    names = _texts(columns, "name") or _names(columns, files, count)
    repeated = next((name for name, times in Counter(names).items() if times > 1), None)
    if repeated is not None or "" in names:
        what = "a clip without a name" if repeated is None else f"the name {repeated!r} more than once"
        raise StoreError(f"{source}: has {what}; give each clip a name of its own")
    labels, task, of_clips = _labels(source, columns, count, separator)
    if task == Task.UNLABELLED:
        logger.info(f"{source}: has no labels, so the store can be scored as out of distribution, but not fitted to")
    folds, sources = _folds(source, columns), _texts(columns, "source") or files
    clips = tuple(
        Clip(
            path=Path(files[index] if files else name),
            name=name,
            labels=of_clips[index],
            fold=None if folds is None else folds[index],
            source=sources[index] or None if sources else None,
        )
        for index, name in enumerate(names)
    )
    chosen = columns.model if model is None else model
    return EmbeddingTable(Catalog(NAME, labels, task, 0.0, clips, source, columns.options), embedding, chosen)


def _texts(columns: Columns, name: str) -> list[str]:
    """A column as text, empty where the file has none."""
    return ["" if each is None else str(each) for each in columns.of_clips.get(name, ())]


def _names(columns: Columns, files: list[str], count: int) -> list[str]:
    """The names of clips that have none: their file and, where they are known, their seconds in it."""
    if not files:
        return [f"clip {index}" for index in range(count)]
    if not {"start", "end"} <= columns.of_clips.keys():
        return files
    spans = zip(files, columns.of_clips["start"], columns.of_clips["end"], strict=True)
    try:
        return [span_name(file, float(start), float(end)) for file, start, end in spans]
    except (TypeError, ValueError) as error:
        raise StoreError(f"{columns.path}: has a start or an end that is not a number of seconds ({error})") from error


def _labels(
    source: Path, columns: Columns, count: int, separator: str
) -> tuple[tuple[str, ...], Task, list[tuple[int, ...]]]:
    """All labels, their task, and the labels of each clip."""
    found = columns.of_clips.get("label")
    if found is None:
        if columns.label_names is not None:
            raise StoreError(f"{source}: has label_names, but no labels; add one a clip")
        return (), Task.UNLABELLED, [()] * count
    given = columns.label_names
    if isinstance(found, np.ndarray) and found.ndim == 2:
        if given is None or len(given) != found.shape[1]:
            have = "none" if given is None else str(len(given))
            raise StoreError(f"{source}: labels have {found.shape[1]} columns, label_names {have}; name each column")
        if found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
            raise StoreError(f"{source}: labels of {found.shape[1]} columns are 0 or 1, and one here is neither")
        target = found.astype(bool)
        one = bool((target.sum(axis=1) == 1).all())
        task = Task.UNLABELLED if not given else Task.ONE_OF_K if one else Task.MULTI_LABEL
        chosen: list[tuple[int, ...]] = [tuple(np.flatnonzero(row).tolist()) for row in target]
        return given, columns.task or task, chosen
    whole = isinstance(found, np.ndarray) and found.dtype.kind in "iu"
    if whole and given is not None:
        if ((found < 0) | (found >= len(given))).any():
            raise StoreError(f"{source}: has a label that is no index of the {len(given)} label_names")
        return given, Task.ONE_OF_K, [(int(each),) for each in found]
    if isinstance(found, np.ndarray) and (found.ndim != 1 or found.dtype.kind not in "iuUSO"):
        raise StoreError(f"{source}: labels are {found.dtype} of shape {found.shape}, not text or whole numbers")
    labels, task, of_clips = labels_of([_named(each, separator) for each in found])
    warn_of_separator(source, labels)
    return labels, task, of_clips


def _named(label: Any, separator: str) -> tuple[str, ...]:
    """The names in one clip's label: a text, a list of texts, or nothing."""
    if label is None:
        return ()
    if isinstance(label, list | tuple):
        return tuple(dict.fromkeys(str(each) for each in label))
    return separated(label.decode("utf-8") if isinstance(label, bytes) else str(label), separator)


def _folds(source: Path, columns: Columns) -> list[int] | None:
    found = columns.of_clips.get("fold")
    if found is None:
        return None
    try:
        folds = [int(each) for each in found]
        whole = all(number == float(each) and 0 <= number < 2**31 for number, each in zip(folds, found, strict=True))
    except (TypeError, ValueError):
        whole = False
    if not whole:
        raise StoreError(f"{source}: has a fold that is not a whole number from 0 up; give every clip one, or none")
    return folds

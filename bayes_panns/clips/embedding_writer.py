"""Writing a store of embeddings. :mod:`~bayes_panns.clips.store_format` describes the file."""

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayes_panns.audio.magnitude import LARGEST, usable
from bayes_panns.clips.store_format import (
    DATASETS,
    DIGEST_BYTES,
    check_new_labels,
    check_task,
    check_width,
    digests,
)
from bayes_panns.clips.store_table import write_table
from bayes_panns.clips.writer import BUFFER, prepare_place, require_space, writing
from bayes_panns.core import progress
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import StoreError
from bayes_panns.core.files import whole_file

_CHUNK = 1 << 17
"""About the bytes of a chunk on disk."""

_ROWS = 4096
"""Clips that are written at once."""


def write_embeddings(
    path: str | Path,
    embedding: np.ndarray,
    target: np.ndarray,
    labels: Sequence[str],
    task: Task | str,
    *,
    model: str = "",
    names: Sequence[str] | None = None,
    fold: Sequence[int] | np.ndarray | None = None,
    source: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a store of embeddings from arrays in memory, whole or not at all.

    Args:
        path: The store to write; a store that is there is replaced. Missing folders above it are made.
        embedding: Numbers, shape ``(clips, width)``; they are kept as float32.
        target: bool, shape ``(clips, K)``.
        labels: K label names; none for an unlabelled store.
        task: What the labels mean.
        model: The model that made the embeddings, in a few words.
        names: One a clip; by default ``clip 0`` and on.
        fold: One a clip, from 0 up.
        source: The recording each clip was cut from, empty where it is unknown.
        provenance: How the embeddings were made, as JSON values.

    Raises:
        StoreError: The arrays do not fit each other, a number is not finite, or the place cannot be written.
        OutputError: ``path`` is a folder.

    Example:
        >>> target = np.eye(2, dtype=bool)[[0, 1, 0]]
        >>> write_embeddings("birds.h5", np.ones((3, 512)), target, ["wren", "lark"], "one-of-k", model="BirdNET")
        >>> from bayes_panns.clips import Store
        >>> Store("birds.h5").contents
        'embeddings of 512 numbers (BirdNET)'
    """
    path = Path(path)
    rows = checked_embedding(path, embedding)
    clips = len(rows)
    names = [f"clip {index}" for index in range(clips)] if names is None else list(names)
    columns: dict[str, Sized | None] = {"target": target, "names": names, "fold": fold, "source": source}
    for what, column in columns.items():
        if column is not None and len(column) != clips:
            raise StoreError(f"{path}: {clips} embeddings, but {len(column)} rows of {what}; give one a clip")
    if "" in names:
        raise StoreError(f"{path}: clip {names.index('')} has no name; give it one")
    labels, folds = check_new_labels(path, labels), None if fold is None else np.asarray(fold)
    task = check_task(path, task, labels)
    if target.dtype != bool or target.shape != (clips, len(labels)):
        raise StoreError(f"{path}: the targets are {target.dtype} of shape {target.shape}, not bool (clips, K)")
    if task == Task.ONE_OF_K and not (valid := target.sum(axis=1) == 1).all():
        first = int(np.flatnonzero(~valid)[0])
        raise StoreError(f"{path}: {names[first]!r} has {target[first].sum()} labels; one-of-k takes exactly one")
    if folds is not None and (folds.dtype.kind not in "iu" or ((folds < 0) | (folds >= 2**31)).any()):
        raise StoreError(f"{path}: the folds are not whole numbers from 0 up")
    prepare_place(path)
    with writing(path), whole_file(path) as part, h5py.File(part, "w", locking=False) as file:
        require_space(path, rows.nbytes + target.nbytes, after=0)
        _write_rows(file, rows, target)
        write_table(
            file,
            model=model,
            names=names,
            labels=labels,
            task=task,
            folds=None if folds is None else folds.tolist(),
            sources=[""] * clips if source is None else source,
            holds=Holds.EMBEDDINGS,
            provenance=provenance or {},
        )
        # A failure to write surfaces here; closing may hide it.
        file.flush()


def checked_embedding(path: Path, embedding: np.ndarray) -> np.ndarray:
    """Embeddings as float32, shape ``(clips, width)``.

    Args:
        path: Where they are from, or go, for errors.
        embedding: Any numbers of that shape.

    Raises:
        StoreError: They are of another shape or type, there are none, or one is not a finite number in float32.
    """
    given = np.asarray(embedding)
    if given.ndim != 2 or given.dtype.kind not in "fiu":
        raise StoreError(f"{path}: the embeddings are {given.dtype} of shape {given.shape}, not numbers (clips, width)")
    if not len(given):
        raise StoreError(f"{path}: holds no embeddings; a store needs at least one")
    check_width(path, given.shape[1])
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(given, dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        fine = usable(rows[start : start + _ROWS]).all(axis=1)
        if not fine.all():
            row = start + int(np.flatnonzero(~fine)[0])
            raise StoreError(
                f"{path}: the embedding in row {row}, counted from 0, holds numbers that are not finite in float32, or "
                f"beyond {LARGEST:g}; leave it out"
            )
    return rows


def _write_rows(file: h5py.File, rows: np.ndarray, target: np.ndarray) -> None:
    clips, width = rows.shape
    kept_digests = np.empty((clips, DIGEST_BYTES), dtype=np.uint8)
    per_chunk = max(1, min(clips, _CHUNK // (4 * width)))
    dataset = file.create_dataset(
        DATASETS[Holds.EMBEDDINGS], shape=rows.shape, chunks=(per_chunk, width), dtype=np.float32
    )
    # A chunk must not be empty, even where K is 0.
    labels = max(target.shape[1], 1)
    kept = file.create_dataset(
        "target", shape=target.shape, maxshape=(None, labels), chunks=(BUFFER, labels), dtype=bool
    )
    kept[:] = target
    with progress.task("writing", total=clips, unit="clip") as bar:
        for start in range(0, clips, _ROWS):
            part = rows[start : start + _ROWS]
            dataset[start : start + len(part)] = part
            kept_digests[start : start + len(part)] = digests(part)
            bar.advance(len(part))
    file["digest"] = kept_digests

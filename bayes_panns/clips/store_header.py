"""What a store says of its clips, all but the clips themselves and their targets."""

import json
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from bayes_panns.clips.hdf5 import StoreFile
from bayes_panns.clips.seals import ATTRIBUTES, SEAL, SEALED, checked, of_attributes, read_seal
from bayes_panns.clips.store_format import (
    DATASETS,
    DIGEST_BYTES,
    FORMAT_VERSION,
    check_labels,
    check_size,
    check_task,
    check_width,
    one_each,
    text_of,
    whole_number,
)
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import StoreError
from bayes_panns.core.strict_json import strict


@dataclass(frozen=True)
class StoreHeader:
    """The attributes of a :class:`~bayes_panns.clips.Store` of the same names; and what follows.

    Attributes:
        verifiable: Whether there is a digest of each clip.
        seal: The digests of what the store says; None in stores of earlier versions and of other programs.
        rows: The rows that are clips, int64: those with a name.
        all_rows: How many rows there are.
        dtype: Of what type the numbers of the clips are.
    """

    names: list[str]
    labels: tuple[str, ...]
    named: bool
    task: Task
    holds: Holds
    width: int
    model: str
    sample_rate: int
    folds: np.ndarray | None
    sources: np.ndarray | None
    seconds: np.ndarray | None
    provenance: dict[str, Any]
    verifiable: bool
    seal: dict[str, str] | None
    rows: np.ndarray
    all_rows: int
    dtype: np.dtype


def read_header(file: StoreFile, given_labels: tuple[str, ...] | None) -> StoreHeader:
    """Read and check the header.

    Args:
        file: The open file.
        given_labels: Label names for a store that has none.

    Raises:
        StoreError: The file is no clip store, is damaged or of a newer format, or the labels do not fit.
        ValueError, TypeError: It is damaged.
    """
    attributes = _attributes(file)
    seal = read_seal(attributes.pop(SEAL)) if SEAL in attributes else None
    embedded = file.has(DATASETS[Holds.EMBEDDINGS]) and not file.has(DATASETS[Holds.WAVEFORMS])
    holds = Holds.EMBEDDINGS if embedded else Holds.WAVEFORMS
    columns = _columns(file, holds)
    clips, target = columns[DATASETS[holds]], columns["target"]
    if seal is not None:
        there = {name for name in SEALED if name in columns}
        if there != seal.keys() - {ATTRIBUTES} or of_attributes(attributes, clips) != seal[ATTRIBUTES]:
            raise ValueError("what it says of its clips is not what was packed")

    def texts(name: str) -> list[str]:
        return file.texts(checked(file.path, columns[name], seal))

    all_names = texts("audio_name")
    rows = np.array([row for row, name in enumerate(all_names) if name], dtype=np.int64)
    if len(rows) == 0:
        raise StoreError(f"{file.path}: no clip has a name, as if every file had been missing; pack it again")
    own = tuple(texts("label_names")) if "label_names" in columns else None
    labels = _labels(file, target.shape[1], own, given_labels)
    task = attributes.get("task")
    if task is None:
        single = len(labels) > 1 and one_each(target)
        task = Task.ONE_OF_K if single else Task.MULTI_LABEL if labels else Task.UNLABELLED
    provenance = json.loads(attributes.get("provenance", "{}"))
    if not isinstance(provenance, dict):
        raise StoreError(f"{file.path}: its attribute 'provenance' is not a JSON object; pack it again")
    return StoreHeader(
        names=[name for name in all_names if name],
        labels=labels,
        named=own is not None or given_labels is not None,
        task=check_task(file.path, task, labels),
        holds=holds,
        width=clips.shape[1],
        model=attributes.get("model", "") if embedded else "",
        sample_rate=0 if embedded else attributes.get("sample_rate", 0),
        folds=_folds(file, checked(file.path, columns["fold"], seal))[rows] if "fold" in columns else None,
        sources=np.array(texts("source"))[rows] if "source" in columns else None,
        seconds=_seconds(file, checked(file.path, columns["seconds"], seal))[rows] if "seconds" in columns else None,
        provenance=strict(provenance),
        verifiable="digest" in columns,
        seal=seal,
        rows=rows,
        all_rows=len(clips),
        dtype=clips.dtype,
    )


def _attributes(file: StoreFile) -> dict[str, Any]:
    """The attributes that are read, those that there are: two whole numbers, and texts."""
    version = file.attribute("format_version")
    if version is not None and int(version) > FORMAT_VERSION:
        raise StoreError(
            f"{file.path}: has store format {int(version)}, this version reads up to {FORMAT_VERSION}; "
            "upgrade bayes_panns"
        )
    found: dict[str, Any] = {} if version is None else {"format_version": whole_number(version)}
    if (rate := file.attribute("sample_rate")) is not None:
        found["sample_rate"] = whole_number(rate)
    for name in ("task", "model", "provenance", SEAL):
        text = file.attribute(name)
        if text is None and name == "provenance" and file.has(name):
            text = file.scalar(name)
        if text is not None:
            found[name] = text_of(text)
    return found


def _columns(file: StoreFile, holds: Holds) -> dict[str, h5py.Dataset]:
    """The datasets of a store, those that there are, with a row a clip or a label."""
    what = DATASETS[holds]
    required = {"audio_name": 1, what: 2, "target": 2}
    optional = {"fold": 1, "source": 1, "seconds": 1, "digest": 2, "label_names": 1}
    columns = {name: _dataset(file, name, ndim) for name, ndim in required.items()}
    columns |= {name: _dataset(file, name, ndim) for name, ndim in optional.items() if file.has(name)}
    clips, target, digests = columns[what], columns["target"], columns.get("digest")
    rows, width = clips.shape
    if rows == 0 or width == 0:
        raise StoreError(f"{file.path}: holds no clips; pack it again")
    if clips.dtype.kind != "f" and (clips.dtype != np.int16 or holds == Holds.EMBEDDINGS):
        wanted = "float32" if holds == Holds.EMBEDDINGS else "int16 or float32"
        raise StoreError(f"{file.path}: {what!r} is {clips.dtype}, not {wanted}; pack it again")
    if target.dtype.kind not in "biuf":
        raise StoreError(f"{file.path}: 'target' is {target.dtype}, not bool; pack it again")
    for name, dataset in columns.items():
        if name != "label_names" and len(dataset) != rows:
            raise StoreError(f"{file.path}: {name!r} has {len(dataset)} rows, {what!r} {rows}; pack it again")
    if digests is not None and (digests.dtype != np.uint8 or digests.shape[1] != DIGEST_BYTES):
        raise StoreError(
            f"{file.path}: 'digest' is {digests.dtype} of shape {digests.shape}, not uint8 of shape "
            f"({rows}, {DIGEST_BYTES}); pack it again"
        )
    if holds == Holds.EMBEDDINGS:
        check_width(file.path, width)
    else:
        rate = file.attribute("sample_rate")
        check_size(file.path, 1 if rate is None else whole_number(rate), width)
    return columns


def _dataset(file: StoreFile, name: str, ndim: int) -> h5py.Dataset:
    if not file.has(name):
        raise StoreError(
            f"{file.path}: lacks the dataset {name!r} (it holds {', '.join(file.names()) or 'nothing'}), so it is not "
            "a clip store; make one with `bayes-panns pack`"
        )
    dataset = file.dataset(name, clips=name in DATASETS.values())
    if dataset.ndim != ndim:
        raise StoreError(f"{file.path}: {name!r} has {dataset.ndim} dimensions, not {ndim}; pack it again")
    return dataset


def _labels(file: StoreFile, count: int, own: tuple[str, ...] | None, given: tuple[str, ...] | None) -> tuple[str, ...]:
    labels = given if own is None else own
    if labels is None:
        return tuple(f"label {index}" for index in range(count))
    if len(labels) != count:
        raise StoreError(f"{file.path}: has {count} labels, but {len(labels)} label names; give one a label")
    if given is not None and given != labels:
        raise StoreError(f"{file.path}: has label names of its own, and they differ from those given; give none")
    return check_labels(file.path, labels)


def _folds(file: StoreFile, fold: h5py.Dataset) -> np.ndarray:
    if fold.dtype.kind not in "iu":
        raise StoreError(f"{file.path}: 'fold' is {fold.dtype}, not int32; pack it again")
    folds = fold[:]
    if not (folds == folds.astype(np.int32)).all():
        raise StoreError(f"{file.path}: 'fold' holds numbers beyond int32; pack it again")
    return folds.astype(np.int32)


def _seconds(file: StoreFile, seconds: h5py.Dataset) -> np.ndarray:
    if seconds.dtype.kind not in "biuf":
        raise StoreError(f"{file.path}: 'seconds' is {seconds.dtype}, not float32; pack it again")
    lengths = seconds[:].astype(np.float32)
    if not (np.isfinite(lengths) & (lengths >= 0)).all():
        raise StoreError(f"{file.path}: 'seconds' holds numbers that are not lengths; pack it again")
    return lengths

"""Reading a store: an HDF5 file of labelled clips or of their embeddings.

:mod:`~bayes_panns.clips.store_format` describes the file.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch

from bayes_panns.clips.rows import read_rows
from bayes_panns.clips.store_format import (
    DATASETS,
    DIGEST_BYTES,
    FORMAT_VERSION,
    FULL_SCALE,
    check_indices,
    check_labels,
    check_size,
    check_task,
    check_width,
    digest,
    in_words,
    one_line,
    text_of,
    whole_number,
)
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import StoreError
from bayes_panns.core.strict_json import strict


class Store:
    """A clip store. Names, labels and folds are read at once; the clips stay on disk until they are asked for.

    A clip is a waveform, or the embedding that another model has made of it: see :attr:`holds`.

    The file is opened at the first read of a waveform, once a process, so a store can be pickled and survives a fork.
    PANNs' packer leaves a row without a name where a file was missing; such rows are not clips and are left out.

    Args:
        path: The HDF5 file.
        labels: The K label names of a store that holds none, such as PANNs' own; by default they are called
            ``label 0`` to ``label K-1``.

    Attributes:
        path: The HDF5 file.
        names: One name a clip.
        labels: K label names.
        named: Whether the labels have names: the store's own, or those given.
        task: What the labels mean; multi-label where the store does not say.
        holds: What it has of each clip: one of :class:`~bayes_panns.core.choices.Holds`.
        width: How many numbers it has of each clip: its samples, or those of its embedding.
        model: The model that made the embeddings; empty where that is unknown, and for waveforms.
        sample_rate: In Hz; 0 for embeddings.
        samples: Length of each clip, in samples; 0 for embeddings.
        folds: The clips' folds, int32, shape ``(clips,)``, or None where the store has none.
        sources: The recording each clip was cut from, str, shape ``(clips,)``, empty where unknown; None where the
            store does not say.
        seconds: Each sound's own length before padding or cutting, float32, shape ``(clips,)``, in seconds, or None.
        provenance: How the store was made; empty where the store does not say.

    Raises:
        StoreError: The file is missing, damaged, not a clip store, or of a newer format, or ``labels`` do not fit.

    Example:
        >>> from bayes_panns.clips import write
        >>> target = np.eye(2, dtype=bool)[[0, 1, 0]]
        >>> write("pets.h5", np.zeros((3, 16000)), target, ["cat", "dog"], "one-of-k", 16000)
        >>> with Store("pets.h5") as store:
        ...     store.labels, store.waveform([0, 2]).shape
        (('cat', 'dog'), (2, 16000))
    """

    def __init__(self, path: str | Path, *, labels: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self._given_labels = None if labels is None else tuple(labels)
        self._file: h5py.File | None = None
        self._process = 0
        with self._one_line_errors(), self._open() as file:
            self._bytes = _size(file)
            self._layout = _layout(file)
            self._read_header(file)

    def __len__(self) -> int:
        return len(self.names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Store, self.path.absolute(), labels=self._given_labels), ()

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def seconds_per_clip(self) -> float:
        """Length of each clip, in seconds; 0 for embeddings."""
        return self.samples / self.sample_rate if self.samples else 0.0

    def target(self) -> np.ndarray:
        """The labels of every clip, read into memory: bool, shape ``(clips, K)``.

        Raises:
            StoreError: The file is damaged, or a clip of a one-of-K store does not have exactly one label.
        """
        with self._one_line_errors():
            target = self._handle()["target"][:].astype(bool)[self._rows]
        if self.task == Task.ONE_OF_K and not (valid := target.sum(axis=1) == 1).all():
            first = int(np.flatnonzero(~valid)[0])
            raise StoreError(
                f"{self.path}: clip {self.names[first]!r} has {target[first].sum()} labels in a one-of-k store; "
                "pack it again"
            )
        return target

    def waveform(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Read clips, in any order and with repeats.

        Args:
            indices: Which clips, shape ``(n,)``, each in ``[0, len(self))``.

        Returns:
            float32 waveforms, shape ``(n, samples)``.

        Raises:
            IndexError: An index is out of range.
            StoreError: The store holds embeddings; or the file is damaged, has changed since the store was opened, or
                holds samples that are not finite numbers.
        """
        if self.holds != Holds.WAVEFORMS:
            raise StoreError(f"{self.path}: holds {self.contents}, not sound; name a store of sound")
        return self.inputs(indices)

    def embedding(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Read embeddings, in any order and with repeats.

        Args:
            indices: Which clips, shape ``(n,)``, each in ``[0, len(self))``.

        Returns:
            float32 embeddings, shape ``(n, width)``.

        Raises:
            IndexError: An index is out of range.
            StoreError: The store holds sound; or as :meth:`waveform`.
        """
        if self.holds != Holds.EMBEDDINGS:
            raise StoreError(f"{self.path}: holds sound, not embeddings; make some with `bayes-panns embed`")
        return self.inputs(indices)

    def inputs(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Read what the store has of some clips, waveforms or embeddings: what a network takes.

        Args:
            indices: Which clips, shape ``(n,)``, each in ``[0, len(self))``.

        Returns:
            float32, shape ``(n, width)``.

        Raises:
            IndexError: An index is out of range.
            StoreError: As :meth:`waveform`.
        """
        rows = self._rows[check_indices(indices, len(self))]
        with self._one_line_errors():
            raw = read_rows(self._handle()[DATASETS[self.holds]], rows)
        if raw.dtype.kind == "f":
            if not (finite := np.isfinite(raw).all(axis=1)).all():
                name = self.names[int(np.asarray(indices)[~finite][0])]
                what = "samples" if self.samples else "values"
                raise StoreError(f"{self.path}: clip {name!r} holds {what} that are not finite numbers; pack it again")
            return raw.astype(np.float32, copy=False)
        return np.divide(raw, np.float32(FULL_SCALE), dtype=np.float32)

    @property
    def contents(self) -> str:
        """What the store holds, in words, such as ``embeddings of 1024 numbers (BirdNET)``."""
        return in_words(self.holds, self.sample_rate, self.width, self.model)

    @property
    def keeps_digests(self) -> bool:
        """Whether the file has a digest of every clip, so that :meth:`digests` is quick."""
        return "digest" in self._layout

    def digests(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> list[bytes]:
        """What tells clips apart by their content alone: the SHA-256 of each clip's numbers as stored, 32 bytes.

        They are read from the store where it keeps them, as this package's stores do, and computed otherwise.

        Args:
            indices: Which clips, shape ``(n,)``, each in ``[0, len(self))``.

        Raises:
            IndexError: An index is out of range.
            StoreError: The file is damaged, or has changed since the store was opened.
        """
        rows = self._rows[check_indices(indices, len(self))]
        with self._one_line_errors():
            file = self._handle()
            if "digest" in file:
                return [each.tobytes() for each in file["digest"][:][rows]]
            dataset = file[DATASETS[self.holds]]
            return [digest(dataset[row]) for row in rows]

    def summary(self) -> dict[str, Any]:
        """What the store holds, as plain JSON values.

        Returns:
            ``file``, ``clips``, ``task``, ``holds``; ``sample_rate`` (Hz), ``seconds_per_clip``, ``total_seconds`` (as
            stored), or of embeddings ``model`` and ``width``; ``labels`` (clips a label), ``clips_without_label``,
            ``folds`` (clips a fold), ``sources`` (how many), ``padded`` and ``cut`` (clips whose sound was shorter, or
            longer, than the clip), ``nameless`` (rows left out) and ``provenance``. Folds, sources, padded and cut are
            None where unknown.
        """
        target = self.target()
        what: dict[str, Any] = {"model": self.model or None, "width": self.width}
        if self.holds == Holds.WAVEFORMS:
            what = {
                "sample_rate": self.sample_rate,
                "seconds_per_clip": self.seconds_per_clip,
                "total_seconds": len(self) * self.seconds_per_clip,
            }
        exact = None if self.seconds is None else np.rint(self.seconds * np.float64(self.sample_rate))
        return {
            "file": self.path.name,
            "clips": len(self),
            "task": str(self.task),
            "holds": str(self.holds),
            **what,
            "labels": dict(zip(self.labels, target.sum(axis=0).tolist(), strict=True)),
            "clips_without_label": int((~target.any(axis=1)).sum()),
            "folds": None if self.folds is None else dict(sorted(Counter(self.folds.tolist()).items())),
            "sources": None if self.sources is None else len(set(self.sources.tolist()) - {""}),
            "padded": None if exact is None else int((exact < self.samples).sum()),
            "cut": None if exact is None else int((exact > self.samples).sum()),
            "nameless": self._nameless,
            "provenance": self.provenance,
        }

    def _read_header(self, file: h5py.File) -> None:
        version = int(file.attrs.get("format_version", FORMAT_VERSION))
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: has store format {version}, this version reads up to {FORMAT_VERSION}; "
                "upgrade bayes_panns"
            )
        other = DATASETS[Holds.EMBEDDINGS] in file and DATASETS[Holds.WAVEFORMS] not in file
        self.holds = Holds.EMBEDDINGS if other else Holds.WAVEFORMS
        what = DATASETS[self.holds]
        names, clips, target = (
            self._dataset(file, name, ndim) for name, ndim in (("audio_name", 1), (what, 2), ("target", 2))
        )
        rows, self.width = clips.shape
        if rows == 0 or self.width == 0:
            raise StoreError(f"{self.path}: holds no clips; pack it again")
        if clips.dtype.kind != "f" and (clips.dtype != np.int16 or other):
            wanted = "float32" if other else "int16 or float32"
            raise StoreError(f"{self.path}: {what!r} is {clips.dtype}, not {wanted}; pack it again")
        if target.dtype.kind not in "biu":
            raise StoreError(f"{self.path}: 'target' is {target.dtype}, not bool; pack it again")
        fold, source, seconds, digests = (
            self._dataset(file, name, ndim) if name in file else None
            for name, ndim in (("fold", 1), ("source", 1), ("seconds", 1), ("digest", 2))
        )
        for dataset in (names, target, *filter(None, (fold, source, seconds, digests))):
            if len(dataset) != rows:
                raise StoreError(
                    f"{self.path}: {dataset.name[1:]!r} has {len(dataset)} rows, {what!r} {rows}; pack it again"
                )

        all_names = self._texts(names)
        self._rows = np.array([row for row, name in enumerate(all_names) if name], dtype=np.int64)
        self._nameless = rows - len(self._rows)
        if len(self._rows) == 0:
            raise StoreError(f"{self.path}: no clip has a name, as if every file had been missing; pack it again")
        self.names: list[str] = [name for name in all_names if name]

        self.sample_rate, self.samples, self.model = 0, 0, ""
        if other:
            self.model = text_of(file.attrs.get("model", ""))
            check_width(self.path, self.width)
        else:
            if "sample_rate" not in file.attrs:
                raise StoreError(f"{self.path}: lacks the attribute 'sample_rate'; pack it again")
            self.sample_rate, self.samples = whole_number(file.attrs["sample_rate"]), self.width
            check_size(self.path, self.sample_rate, self.samples)

        self.labels: tuple[str, ...] = self._label_names(file, target.shape[1])
        default = Task.MULTI_LABEL if self.labels else Task.UNLABELLED
        self.task: Task = check_task(self.path, text_of(file.attrs.get("task", default)), self.labels)

        self.folds: np.ndarray | None = None if fold is None else self._checked_folds(fold)[self._rows]
        self.sources: np.ndarray | None = None if source is None else np.array(self._texts(source))[self._rows]
        self.seconds: np.ndarray | None = None if seconds is None else self._checked_seconds(seconds)[self._rows]
        if digests is not None and (digests.dtype != np.uint8 or digests.shape[1] != DIGEST_BYTES):
            raise StoreError(
                f"{self.path}: 'digest' is {digests.dtype} of shape {digests.shape}, not uint8 of shape "
                f"({rows}, {DIGEST_BYTES}); pack it again"
            )
        provenance = json.loads(text_of(file.attrs.get("provenance", "{}")))
        if not isinstance(provenance, dict):
            raise StoreError(f"{self.path}: its attribute 'provenance' is not a JSON object; pack it again")
        self.provenance: dict[str, Any] = strict(provenance)

    def _label_names(self, file: h5py.File, count: int) -> tuple[str, ...]:
        own = self._dataset(file, "label_names", 1) if "label_names" in file else None
        given = self._given_labels
        named = own if own is not None else given
        if named is not None and len(named) != count:
            raise StoreError(f"{self.path}: has {count} labels, but {len(named)} label names; give one a label")
        labels = given if own is None else tuple(self._texts(own))
        self.named: bool = labels is not None
        if labels is None:
            return tuple(f"label {index}" for index in range(count))
        if given is not None and given != labels:
            raise StoreError(f"{self.path}: has label names of its own, and they differ from those given; give none")
        return check_labels(self.path, labels)

    def _checked_folds(self, fold: h5py.Dataset) -> np.ndarray:
        if fold.dtype.kind not in "iu":
            raise StoreError(f"{self.path}: 'fold' is {fold.dtype}, not int32; pack it again")
        folds = fold[:]
        if not (folds == folds.astype(np.int32)).all():
            raise StoreError(f"{self.path}: 'fold' holds numbers beyond int32; pack it again")
        return folds.astype(np.int32)

    def _checked_seconds(self, seconds: h5py.Dataset) -> np.ndarray:
        lengths = seconds[:].astype(np.float32)
        if not (np.isfinite(lengths) & (lengths >= 0)).all():
            raise StoreError(f"{self.path}: 'seconds' holds numbers that are not lengths; pack it again")
        return lengths

    def _dataset(self, file: h5py.File, name: str, ndim: int) -> h5py.Dataset:
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise StoreError(
                f"{self.path}: lacks the dataset {name!r} (it holds {', '.join(file) or 'nothing'}), so it is not a "
                "clip store; make one with `bayes-panns pack`"
            )
        if dataset.ndim != ndim:
            raise StoreError(f"{self.path}: {name!r} has {dataset.ndim} dimensions, not {ndim}; pack it again")
        return dataset

    def _texts(self, dataset: h5py.Dataset) -> list[str]:
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise StoreError(f"{self.path}: {dataset.name[1:]!r} is {dataset.dtype}, not text; pack it again")
        return [text.decode("utf-8") for text in dataset[:]]

    def _open(self) -> h5py.File:
        if self.path.is_dir():
            raise StoreError(f"{self.path}: is a folder, not a clip store; make a store of it with `bayes-panns pack`")
        if not self.path.exists():
            raise StoreError(f"{self.path}: no such file; make a clip store with `bayes-panns pack`")
        try:
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened ({error.strerror}); check its permissions") from error
        if not h5py.is_hdf5(self.path):
            raise StoreError(f"{self.path}: is not an HDF5 file; make a clip store with `bayes-panns pack`")
        # Stores appear complete, by a rename, so readers need no lock, and some network file systems have none.
        return h5py.File(self.path, "r", locking="best-effort")

    def _handle(self) -> h5py.File:
        """The open file of this process; a handle inherited through a fork is not used."""
        if self._file is None or self._process != os.getpid():
            self.close()
            self._file, self._process = self._open(), os.getpid()
            if _layout(self._file) != self._layout:
                self.close()
                raise StoreError(f"{self.path}: was replaced by another store while it was in use; start again")
        # Beyond the end of a file HDF5 reads zeros.
        if _size(self._file) < self._bytes:
            raise StoreError(f"{self.path}: was cut short while it was in use; copy or pack it again")
        return self._file

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn what h5py raises on a damaged file into one line."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
            what = "truncated" if "truncated file" in str(error) else f"damaged ({one_line(error)})"
            raise StoreError(f"{self.path}: is {what}; copy or pack it again") from error


def _size(file: h5py.File) -> int:
    return os.fstat(file.id.get_vfd_handle()).st_size


def _layout(file: h5py.File) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and type of every dataset."""
    return {name: (each.shape, str(each.dtype)) for name, each in file.items() if isinstance(each, h5py.Dataset)}

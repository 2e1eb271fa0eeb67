"""Reading a store: an HDF5 file of labelled clips or of their embeddings.

:mod:`~bayes_panns.clips.store_format` describes the file. It may be a stranger's: see :mod:`~bayes_panns.clips.hdf5`.
"""

import math
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

from bayes_panns.audio.magnitude import usable
from bayes_panns.clips.hdf5 import StoreFile
from bayes_panns.clips.rows import read_rows
from bayes_panns.clips.seals import checked
from bayes_panns.clips.store_format import DATASETS, FULL_SCALE, check_indices, digest, digests, in_words, one_line
from bayes_panns.clips.store_header import read_header
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import StoreError

_BLOCK = 1 << 26
"""Bytes of clips that are read at once to verify them."""


class Store:
    """A clip store. Names, labels and folds are read at once; the clips stay on disk until they are asked for.

    A clip is a waveform, or the embedding that another model has made of it: see :attr:`holds`.

    The file is opened at the first read of a waveform, once a process, so a store can be pickled and survives a fork.
    PANNs' packer leaves a row without a name where a file was missing; such rows are not clips and are left out. What
    has a digest in the file is checked when it is first read.

    Args:
        path: The HDF5 file.
        labels: The K label names of a store that holds none, such as PANNs' own; by default they are called
            ``label 0`` to ``label K-1``.

    Attributes:
        path: The HDF5 file.
        names: One name a clip.
        labels: K label names.
        named: Whether the labels have names: the store's own, or those given.
        task: What the labels mean. Where the store does not say, one-of-k if every clip has exactly one label, and
            multi-label otherwise.
        holds: What it has of each clip: one of :class:`~bayes_panns.core.choices.Holds`.
        width: How many numbers it has of each clip: its samples, or those of its embedding.
        model: The model that made the embeddings; empty where that is unknown, and for waveforms.
        sample_rate: In Hz; 0 for embeddings, and for sound whose rate the store does not say.
        samples: Length of each clip, in samples; 0 for embeddings.
        folds: The clips' folds, int32, shape ``(clips,)``, or None where the store has none.
        sources: The recording each clip was cut from, str, shape ``(clips,)``, empty where unknown; None where the
            store does not say.
        seconds: Each sound's own length before padding or cutting, float32, shape ``(clips,)``, in seconds, or None.
        provenance: How the store was made; empty where the store does not say.
        verifiable: Whether it has digests of its clips, by which damage to them is noticed.
        sealed: Whether it has digests of all that it says of them.

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
            self._identity = _identity(file)
            header = read_header(StoreFile(self.path, file), self._given_labels)
        self.names, self.labels, self.named, self.task = header.names, header.labels, header.named, header.task
        self.holds, self.width, self.model, self.sample_rate = (
            header.holds,
            header.width,
            header.model,
            header.sample_rate,
        )
        self.samples = self.width if self.holds == Holds.WAVEFORMS else 0
        self.folds, self.sources, self.seconds = header.folds, header.sources, header.seconds
        self.provenance = header.provenance
        self.verifiable, self.sealed = header.verifiable, header.seal is not None
        self._seal, self._rows, self._nameless = header.seal, header.rows, header.all_rows - len(header.rows)
        self._digests: np.ndarray | None = None
        self._read = np.zeros(header.all_rows, dtype=bool)

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
        return self.samples / self.sample_rate if self.sample_rate else 0.0

    def target(self) -> np.ndarray:
        """The labels of every clip, read into memory: bool, shape ``(clips, K)``.

        Raises:
            StoreError: The file is damaged, or a clip of a one-of-K store does not have exactly one label.
        """
        with self._one_line_errors():
            dataset = self._column("target")
            target = dataset[:][self._rows]
            self._require_unchanged()
        flags = target.astype(bool)
        if target.dtype != bool and (wrong := np.argwhere(target != flags)).size:
            clip, label = wrong[0]
            raise StoreError(
                f"{self.path}: clip {self.names[clip]!r} has the target {target[clip, label]} for the label "
                f"{self.labels[label]!r}; targets are 0 or 1"
            )
        target = flags
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
            StoreError: The store holds embeddings, or does not say its rate; or the file is damaged, has changed since
                the store was opened, or holds samples that are not finite numbers.
        """
        if self.holds != Holds.WAVEFORMS:
            raise StoreError(f"{self.path}: holds {self.contents}, not sound; name a store of sound")
        self.require_rate()
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
            raw = read_rows(self._clips(), rows)
            self._require_unchanged()
            self._check_digests(raw, rows)
        if raw.dtype.kind == "f":
            if not (fine := usable(raw)).all():
                row = int(np.flatnonzero(~fine.all(axis=1))[0])
                name, first = self.names[int(np.asarray(indices)[row])], float(raw[row][~fine[row]][0])
                what = f"as large as {first:.2g}" if math.isfinite(first) else "that are not finite numbers"
                kind = "samples" if self.samples else "values"
                raise StoreError(f"{self.path}: clip {name!r} holds {kind} {what}; pack it again")
            return raw.astype(np.float32, copy=False)
        return np.divide(raw, np.float32(FULL_SCALE), dtype=np.float32)

    def require_rate(self) -> None:
        """Check that it is known at what rate sound was sampled.

        Raises:
            StoreError: It is not.
        """
        if self.holds == Holds.WAVEFORMS and not self.sample_rate:
            raise StoreError(
                f"{self.path}: lacks the attribute 'sample_rate'; write it again with the rate of its clips: "
                f"bayes-panns repack {self.path} -o NEW.h5 --sample-rate 32000"
            )

    def damaged(self) -> Iterator[str]:
        """The names of the clips whose samples are not those that were packed; all clips are read, some at a time.

        Raises:
            StoreError: The store has no digests of them; or as :meth:`waveform`.
        """
        if not self.verifiable:
            raise StoreError(f"{self.path}: has no digests of its clips to verify them against")
        with self._one_line_errors():
            clips = self._clips()
            each = max(1, _BLOCK // (self.width * clips.dtype.itemsize))
            for start in range(0, len(self), each):
                rows = self._rows[start : start + each]
                for index in self._differing(read_rows(clips, rows), rows):
                    yield self.names[start + index]
                self._require_unchanged()

    @property
    def contents(self) -> str:
        """What the store holds, in words, such as ``embeddings of 1024 numbers (BirdNET)``."""
        return in_words(self.holds, self.sample_rate, self.width, self.model)

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
            if self.verifiable:
                self._handle()
                return [each.tobytes() for each in self._kept_digests()[rows]]
            dataset = self._clips()
            found = [digest(dataset[row]) for row in rows]
            self._require_unchanged()
            return found

    def summary(self) -> dict[str, Any]:
        """What the store holds, as plain JSON values.

        Returns:
            ``file``, ``clips``, ``task``, ``holds``; ``sample_rate`` (Hz), ``seconds_per_clip``, ``total_seconds`` (as
            stored), or of embeddings ``model`` and ``width``; ``labels`` (clips a label), ``clips_without_label``,
            ``folds`` (clips a fold), ``sources`` (how many), ``padded`` and ``cut`` (clips whose sound was shorter, or
            longer, than the clip), ``nameless`` (rows left out) and ``provenance``. The rate, the lengths, folds,
            sources, padded and cut are None where unknown.
        """
        target = self.target()
        what: dict[str, Any] = {"model": self.model or None, "width": self.width}
        if self.holds == Holds.WAVEFORMS:
            what = {
                "sample_rate": self.sample_rate or None,
                "seconds_per_clip": self.seconds_per_clip or None,
                "total_seconds": len(self) * self.seconds_per_clip or None,
            }
        exact = (
            None
            if self.seconds is None or not self.sample_rate
            else np.rint(self.seconds * np.float64(self.sample_rate))
        )
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

    def _column(self, name: str) -> h5py.Dataset:
        """A dataset of the open file that has a digest in its seal, checked."""
        return checked(self.path, StoreFile(self.path, self._handle()).dataset(name), self._seal)

    def _clips(self) -> h5py.Dataset:
        return StoreFile(self.path, self._handle()).dataset(DATASETS[self.holds], clips=True)

    def _kept_digests(self) -> np.ndarray:
        """The digest of every row, uint8 ``(rows, 32)``."""
        if self._digests is None:
            self._digests = self._column("digest")[:]
        return self._digests

    def _differing(self, raw: np.ndarray, rows: np.ndarray) -> list[int]:
        """Which of some clips, as stored, do not have their digests."""
        differs = (digests(raw) != self._kept_digests()[rows]).any(axis=1)
        return np.flatnonzero(differs).tolist()

    def _check_digests(self, raw: np.ndarray, rows: np.ndarray) -> None:
        """Check the clips that are read for the first time.

        Raises:
            StoreError: One is not what was packed.
        """
        fresh = ~self._read[rows]
        if not self.verifiable or not fresh.any():
            return
        if wrong := self._differing(raw[fresh], rows[fresh]):
            row = rows[fresh][wrong[0]]
            name = self.names[int(np.searchsorted(self._rows, row))]
            raise StoreError(
                f"{self.path}: is damaged (clip {name!r} is not what was packed); copy or pack it again, and see "
                "`bayes-panns inspect --verify` for the others"
            )
        self._read[rows] = True

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
            if _identity(self._file)[:2] != self._identity[:2]:
                self.close()
                raise StoreError(f"{self.path}: was replaced by another store while it was in use; start again")
        self._require_unchanged()
        return self._file

    def _require_unchanged(self) -> None:
        """Check, before and after each read, that the open file is the one that the store was opened with.

        Raises:
            StoreError: It is not.
        """
        if self._file is None:
            return
        now, there = _identity(self._file), self.path.stat() if self.path.exists() else None
        # Beyond the end of a file HDF5 reads zeros.
        if now[2] < self._identity[2]:
            raise StoreError(f"{self.path}: was cut short while it was in use; copy or pack it again")
        if there is not None and (there.st_dev, there.st_ino) != self._identity[:2]:
            raise StoreError(f"{self.path}: was replaced by another store while it was in use; start again")
        if now != self._identity:
            raise StoreError(f"{self.path}: was changed while it was in use; start again")

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn what h5py raises on a damaged file into one line."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
            what = "truncated" if "truncated file" in str(error) else f"damaged ({one_line(error)})"
            raise StoreError(f"{self.path}: is {what}; copy or pack it again") from error


def _identity(file: h5py.File) -> tuple[int, int, int, int]:
    """The device, the number, the bytes and the time of the last change of an open file."""
    stat = os.fstat(file.id.get_vfd_handle())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns

"""Reading a store: an HDF5 file of labelled clips or of their embeddings.

:mod:`~bayes_panns.clips.store_format` describes the file. It may be a stranger's: see :mod:`~bayes_panns.clips.hdf5`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from bayes_panns.clips.clip_file import ClipFile, floats_of
from bayes_panns.clips.rows import read_rows
from bayes_panns.clips.store_format import check_indices, in_words
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
        file: The open file, for what reads clips without the rest of the store.
        rows: The clips' rows in the file, int64 ``(clips,)``.
        dtype: Of what type the numbers are in the file: int16, or a float.

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
        self.file = ClipFile(self.path)
        with self.file.one_line_errors():
            try:
                header = read_header(self.file.handle(), self._given_labels)
            finally:
                self.file.close()
        self.file.describe(header.holds, rows=header.all_rows, verifiable=header.verifiable, seal=header.seal)
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
        self.rows, self.dtype = header.rows, header.dtype
        self._nameless = header.all_rows - len(header.rows)

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
        self.file.close()

    @property
    def seconds_per_clip(self) -> float:
        """Length of each clip, in seconds; 0 for embeddings."""
        return self.samples / self.sample_rate if self.sample_rate else 0.0

    def target(self) -> np.ndarray:
        """The labels of every clip, read into memory: bool, shape ``(clips, K)``.

        Raises:
            StoreError: The file is damaged, or a clip of a one-of-K store does not have exactly one label.
        """
        with self.file.one_line_errors():
            target = self.file.column("target")[:][self.rows]
            self.file.require_unchanged()
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
        return floats_of(self.file.read(self.rows[check_indices(indices, len(self))]))

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
        with self.file.one_line_errors():
            clips = self.file.clips()
            each = max(1, _BLOCK // (self.width * clips.dtype.itemsize))
            for start in range(0, len(self), each):
                rows = self.rows[start : start + each]
                for index in self.file.differing(read_rows(clips, rows), rows):
                    yield self.names[start + index]
                self.file.require_unchanged()

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
        return self.file.digests_of(self.rows[check_indices(indices, len(self))])

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

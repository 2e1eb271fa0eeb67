"""Writing a clip store. :mod:`~bayes_panns.clips.store_format` describes the file."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

import h5py
import numpy as np
import torch

from bayes_panns.clips.store_format import (
    DIGEST_BYTES,
    check_new_labels,
    check_size,
    check_task,
    digest,
    one_line,
    stored,
)
from bayes_panns.clips.store_table import write_table
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import StoreError
from bayes_panns.core.files import require_parent, whole_file

BUFFER = 64
"""The most clips that a writer holds in memory before it writes them out."""

BUFFER_BYTES = 2**26
"""The most memory that these clips take, in bytes; a longer clip is held alone."""

MARGIN = 2**24
"""Bytes of disk that a writer leaves free, for what HDF5 holds back until a file is closed."""

Array: TypeAlias = np.ndarray | torch.Tensor | Sequence[Any]


class StoreWriter:
    """Writes a store clip by clip, in constant memory, and whole or not at all.

    A context manager. The place is checked when the block begins. The store takes its place when the block ends without
    an error; after an error, or an interrupt, nothing is left of it, and a store that was there before stays.

    Args:
        path: The store to write; a store that is there is replaced. Missing folders above it are made.
        labels: K label names; none for an unlabelled store.
        task: What the labels mean.
        sample_rate: In Hz.
        samples: Length of every clip, in samples.
        provenance: How the store is made, as JSON values; numbers that are not finite are written as null. It stays
            open to additions, as :attr:`provenance`, until the block ends.

    Raises:
        StoreError: The place cannot be written, an argument or a clip does not fit, or no clip was added.
        OutputError: ``path`` is a folder.

    Example:
        >>> with StoreWriter(
        ...     "dogs.h5", labels=["dog", "cat"], task="one-of-k", sample_rate=32000, samples=160000
        ... ) as writer:
        ...     writer.add("rex.wav", np.zeros(64000), [0], fold=1)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        labels: Sequence[str],
        task: Task | str,
        sample_rate: int,
        samples: int,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.labels = check_new_labels(self.path, labels)
        self.task = check_task(self.path, task, self.labels)
        check_size(self.path, sample_rate, samples)
        self.sample_rate = sample_rate
        self.samples = samples
        self.provenance: dict[str, Any] = dict(provenance or {})
        self._part = ExitStack()
        self._file: h5py.File | None = None
        buffer = max(1, min(BUFFER, BUFFER_BYTES // (2 * samples)))
        self._waveform = np.zeros((buffer, samples), dtype=np.int16)
        self._target = np.zeros((buffer, len(self.labels)), dtype=bool)
        self._digests = np.zeros((buffer, DIGEST_BYTES), dtype=np.uint8)
        self._names: list[str] = []
        self._folds: list[int | None] = []
        self._sources: list[str] = []
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._names)

    def __enter__(self) -> Self:
        prepare_place(self.path)
        try:
            with self._one_line_errors():
                self._file = self._begin()
                self._create(self._file)
        except BaseException:
            self._abandon(*sys.exc_info())
            raise
        return self

    def _begin(self) -> h5py.File:
        """The file to write into, which takes the store's place when :attr:`_part` is closed without an error."""
        part = self._part.enter_context(whole_file(self.path))
        # The part is locked as a whole; HDF5's own lock fails on file systems without locks.
        return h5py.File(part, "w", locking=False)

    def _create(self, file: h5py.File) -> None:
        file.create_dataset(
            "waveform", shape=(0, self.samples), maxshape=(None, self.samples), chunks=(1, self.samples), dtype=np.int16
        )
        # A chunk must not be empty, even where K is 0.
        width = max(len(self.labels), 1)
        file.create_dataset(
            "target", shape=(0, len(self.labels)), maxshape=(None, width), chunks=(BUFFER, width), dtype=bool
        )
        file.create_dataset(
            "digest",
            shape=(0, DIGEST_BYTES),
            maxshape=(None, DIGEST_BYTES),
            chunks=(BUFFER, DIGEST_BYTES),
            dtype=np.uint8,
        )

    def add(
        self,
        name: str,
        waveform: Array,
        target: Array,
        *,
        fold: int | None = None,
        source: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Append one clip.

        Args:
            name: The clip's name, such as its file's.
            waveform: Float samples in [-1, 1], shape ``(any,)``. Values beyond are clipped; the clip is brought to the
                store's length by :func:`~bayes_panns.clips.fit_length`.
            target: K bools, or the indices of the labels that hold.
            fold: The clip's fold, from 0 up. Either all clips of a store have one, or none has.
            source: The recording that the clip was cut from, where it is known.
            seconds: The sound's own length, if the samples are not all of it or more.

        Raises:
            StoreError: The clip does not fit, or the disk is full.
        """
        sound = np.asarray(waveform)
        try:
            samples = stored(sound, self.samples)
        except ValueError as error:
            raise StoreError(f"{self.path}: {name!r} {error}") from error
        self.add_stored(
            name,
            samples,
            digest(samples),
            target,
            fold=fold,
            source=source,
            seconds=len(sound) / self.sample_rate if seconds is None else seconds,
        )

    def add_stored(
        self,
        name: str,
        samples: np.ndarray,
        sha256: bytes,
        target: Array,
        *,
        fold: int | None,
        source: str | None,
        seconds: float,
    ) -> None:
        """Append one clip whose samples are as a store has them; otherwise as :meth:`add`.

        Args:
            name: The clip's name.
            samples: What :func:`~bayes_panns.clips.store_format.stored` has made, int16, of the store's length.
            sha256: Their :func:`~bayes_panns.clips.store_format.digest`.
            target: As for :meth:`add`.
            fold: As for :meth:`add`.
            source: As for :meth:`add`.
            seconds: The sound's own length.

        Raises:
            StoreError: As :meth:`add`.
        """
        if self._file is None:
            raise RuntimeError("StoreWriter.add is for use inside a `with` block")
        if not name:
            raise StoreError(f"{self.path}: clip {len(self)} has no name; give it one")
        if self._folds and (fold is None) != (self._folds[0] is None):
            has, others = ("no fold", "have one") if fold is None else ("a fold", "have none")
            raise StoreError(
                f"{self.path}: {name!r} has {has} and earlier clips {others}; give all of them one, or none"
            )
        if fold is not None and not 0 <= fold < 2**31:
            raise StoreError(f"{self.path}: {name!r} has fold {fold}; folds count up from 0")
        mask = self._mask(name, target)

        row = len(self) % len(self._waveform)
        self._waveform[row] = samples
        self._target[row] = mask
        self._digests[row] = np.frombuffer(sha256, dtype=np.uint8)
        self._names.append(name)
        self._folds.append(fold)
        self._sources.append(source or "")
        self._seconds.append(seconds)
        if row == len(self._waveform) - 1:
            with self._one_line_errors():
                self._flush(self._file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon(kind, error, trace)
            return
        try:
            with self._one_line_errors():
                self._finish()
        except BaseException:
            self._abandon(*sys.exc_info())
            raise
        with self._one_line_errors():
            self._part.close()

    def _mask(self, name: str, target: Array) -> np.ndarray:
        """``target`` as K bools, checked."""
        given, count = np.asarray(target), len(self.labels)
        if given.dtype == bool:
            if given.shape != (count,):
                raise StoreError(f"{self.path}: {name!r} has a target of shape {given.shape}, not ({count},)")
            mask = given
        else:
            chosen = given.astype(np.int64) if given.size == 0 or given.dtype.kind in "iu" else None
            if (
                chosen is None
                or chosen.ndim != 1
                or len(np.unique(chosen)) < len(chosen)
                or ((chosen < 0) | (chosen >= count)).any()
            ):
                raise StoreError(
                    f"{self.path}: {name!r} has the target {one_line(target)}, which is neither {count} bools nor "
                    f"distinct label indices below {count}"
                )
            mask = np.zeros(count, dtype=bool)
            mask[chosen] = True
        if self.task == Task.ONE_OF_K and mask.sum() != 1:
            raise StoreError(f"{self.path}: {name!r} has {mask.sum()} labels; one-of-k takes exactly one")
        return mask

    def _abandon(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and remove the part."""
        if self._file is not None:
            # A file that could not be written, on a full disk say, may not close cleanly either.
            with suppress(OSError, RuntimeError):
                self._file.close()
            self._file = None
        self._part.__exit__(kind, error, trace)

    def _flush(self, file: h5py.File) -> None:
        """Write out the buffered clips."""
        require_space(self.path, self._waveform.nbytes + self._target.nbytes, after=len(self))
        start = len(file["waveform"])
        for name, buffer in (("waveform", self._waveform), ("target", self._target), ("digest", self._digests)):
            file[name].resize(len(self), axis=0)
            file[name][start:] = buffer[: len(self) - start]

    def _finish(self) -> None:
        """Write out the rest and close the file."""
        file = self._file
        if file is None or not self._names:
            raise StoreError(f"{self.path}: no clip to write; a store needs at least one")
        if len(file["waveform"]) < len(self):
            self._flush(file)
        file["seconds"] = np.array(self._seconds, dtype=np.float32)
        file.attrs.create("sample_rate", self.sample_rate, dtype=np.int32)
        write_table(
            file,
            names=self._names,
            labels=self.labels,
            task=self.task,
            folds=None if self._folds[0] is None else cast(list[int], self._folds),
            sources=self._sources,
            holds=Holds.WAVEFORMS,
            provenance=self.provenance,
        )
        # A failure to write surfaces here; closing may hide it.
        file.flush()
        file.close()
        self._file = None

    def _one_line_errors(self) -> AbstractContextManager[None]:
        return writing(self.path)


def prepare_place(path: Path) -> None:
    """Make the folders above a store, and check that it can be written there.

    Raises:
        StoreError: It cannot.
        OutputError: ``path`` is a folder.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    require_parent(path)


def require_space(path: Path, needed: int, after: int) -> None:
    """Check that a disk has room for the next bytes of a store.

    On a full disk HDF5 itself may crash the process, or lose data without an error.

    Raises:
        StoreError: It has not.
    """
    if shutil.disk_usage(path.parent).free < needed + MARGIN:
        raise StoreError(f"{path}: the disk is full after {after} clips; write it elsewhere")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A block in which what h5py and the file system raise becomes one line about the store ``path``.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise StoreError(f"{path}: cannot be written ({reason}); write it elsewhere") from error


def write(
    path: str | Path,
    waveform: Array,
    target: Array,
    labels: Sequence[str],
    task: Task | str,
    sample_rate: int,
    *,
    names: Sequence[str] | None = None,
    fold: Sequence[int] | np.ndarray | None = None,
    source: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a store from arrays in memory.

    Args:
        path: The store to write; a store that is there is replaced. Missing folders above it are made.
        waveform: Float samples in [-1, 1], shape ``(clips, samples)``.
        target: bool, shape ``(clips, K)``.
        labels: K label names.
        task: What the labels mean.
        sample_rate: In Hz.
        names: One a clip; by default ``clip 0`` and on.
        fold: One a clip.
        source: The recording each clip was cut from.
        provenance: How the clips were made, as JSON values.

    Raises:
        StoreError: The arrays do not fit each other, or the place cannot be written.
        OutputError: ``path`` is a folder.
    """
    waveforms, targets = np.asarray(waveform), np.asarray(target)
    clips = len(waveforms)
    columns = {"target": targets, "names": names, "fold": fold, "source": source}
    for what, column in columns.items():
        if column is not None and len(column) != clips:
            raise StoreError(f"{path}: {clips} waveforms, but {len(column)} rows of {what}; give one a clip")
    if waveforms.ndim != 2:
        raise StoreError(f"{path}: the waveforms have shape {waveforms.shape}, not (clips, samples)")
    with StoreWriter(
        path,
        labels=labels,
        task=task,
        sample_rate=sample_rate,
        samples=waveforms.shape[1],
        provenance=provenance,
    ) as writer:
        for index in range(clips):
            writer.add(
                f"clip {index}" if names is None else names[index],
                waveforms[index],
                targets[index],
                fold=None if fold is None else int(fold[index]),
                source=None if source is None else source[index],
            )

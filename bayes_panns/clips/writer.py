"""Writing a clip store. :mod:`~bayes_panns.clips.store_format` describes the file."""

import json
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

from bayes_panns.audio.length import fit_length
from bayes_panns.clips.store_format import (
    DIGEST_BYTES,
    FULL_SCALE,
    VERSIONS,
    check_labels,
    check_size,
    check_task,
    digest,
    one_line,
)
from bayes_panns.core.choices import Holds, Task
from bayes_panns.core.errors import StoreError
from bayes_panns.core.files import require_parent, whole_file
from bayes_panns.core.strict_json import strict
from bayes_panns.core.text import readable

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
        self.labels = check_labels(self.path, labels)
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
        with self._one_line_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        require_parent(self.path)
        with self._one_line_errors():
            part = self._part.enter_context(whole_file(self.path))
        try:
            with self._one_line_errors():
                self._create(part)
        except BaseException:
            self._abandon(*sys.exc_info())
            raise
        return self

    def _create(self, part: Path) -> None:
        # The part is locked as a whole; HDF5's own lock fails on file systems without locks.
        self._file = h5py.File(part, "w", locking=False)
        self._file.create_dataset(
            "waveform", shape=(0, self.samples), maxshape=(None, self.samples), chunks=(1, self.samples), dtype=np.int16
        )
        # A chunk must not be empty, even where K is 0.
        width = max(len(self.labels), 1)
        self._file.create_dataset(
            "target", shape=(0, len(self.labels)), maxshape=(None, width), chunks=(BUFFER, width), dtype=bool
        )
        self._file.create_dataset(
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
        sound = np.asarray(waveform)
        if sound.ndim != 1 or sound.dtype.kind != "f":
            raise StoreError(f"{self.path}: {name!r} is {sound.dtype} of shape {sound.shape}, not mono float samples")
        if len(sound) == 0 or not np.isfinite(sound).all():
            raise StoreError(f"{self.path}: {name!r} is empty or holds samples that are not finite numbers")
        mask = self._mask(name, target)

        row = len(self) % len(self._waveform)
        self._waveform[row] = np.rint(np.clip(fit_length(sound, self.samples), -1, 1) * FULL_SCALE)
        self._target[row] = mask
        self._digests[row] = np.frombuffer(digest(self._waveform[row]), dtype=np.uint8)
        self._names.append(name)
        self._folds.append(fold)
        self._sources.append(source or "")
        self._seconds.append(len(sound) / self.sample_rate if seconds is None else seconds)
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


def write_table(
    file: h5py.File,
    *,
    names: Sequence[str],
    labels: Sequence[str],
    task: Task,
    folds: Sequence[int] | None,
    sources: Sequence[str],
    holds: Holds,
    provenance: Mapping[str, Any],
) -> None:
    """Write all that a store says of its clips beside the clips, their targets and digests.

    Args:
        file: The open file.
        names: One a clip.
        labels: K label names.
        task: What the labels mean.
        folds: One a clip, if they have any.
        sources: The recording of each clip, empty where unknown.
        holds: What the store has of each clip.
        provenance: How the store was made; numbers that are not finite are written as null.
    """
    file["audio_name"] = np.array([_utf8(name) for name in names])
    # Of fixed width, as `audio_name` is: HDF5 may never return from a damaged heap of strings of varying length.
    file["label_names"] = np.array([_utf8(label) for label in labels], dtype=np.bytes_)
    if folds is not None:
        file["fold"] = np.array(folds, dtype=np.int32)
    if any(sources):
        file["source"] = np.array([_utf8(source) for source in sources])
    file.attrs["task"] = str(task)
    # In ASCII: the name of a file that is not UTF-8 cannot be encoded.
    file.attrs["provenance"] = json.dumps(strict(provenance), allow_nan=False)
    file.attrs["format_version"] = VERSIONS[holds]


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


def _utf8(text: str) -> bytes:
    return readable(text).encode()

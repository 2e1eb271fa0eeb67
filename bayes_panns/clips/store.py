"""Clip stores: HDF5 files of labelled clips in PANNs' layout, written, read, and joined into sets.

A store holds the datasets ``audio_name`` (bytes), ``waveform`` (clips, samples; int16, in old PANNs packs float32) and
``target`` (clips, K; bool) and the attribute ``sample_rate``, as PANNs' ``utils/dataset.py`` writes them. Beside these
this package keeps ``label_names`` (K,), ``seconds`` (clips,), ``fold`` and ``source`` where they are known, and the
attributes ``task``, ``provenance`` (JSON) and ``format_version``. A store without the extras is read as well.
"""

import copy
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import h5py
import numpy as np
import torch

from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError

FORMAT_VERSION = 1
FULL_SCALE = 32767
"""The int16 value of a sample of 1.0, as in PANNs."""

BUFFER = 64
"""Clips that a writer holds in memory before it writes them out."""

MARGIN = 2**24
"""Bytes of disk that a writer leaves free, for what HDF5 holds back until a file is closed."""

Array: TypeAlias = np.ndarray | torch.Tensor | Sequence[Any]


class Store:
    """A clip store, read lazily: waveforms stay on disk until they are asked for.

    The file is opened at the first read of a waveform, once a process, so that a store can be pickled and survives a
    fork. Rows without a name, which PANNs' packer leaves where a file was missing, are no clips and are left out.

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
        sample_rate: In Hz.
        samples: Length of each clip, in samples.
        folds: The clips' folds, int32, shape ``(clips,)``, or None where the store has none.
        sources: The recording each clip was cut from, str, shape ``(clips,)``, empty where unknown; None where the
            store does not say.
        seconds: Each sound's own length before padding or cutting, float32, shape ``(clips,)``, in seconds, or None.
        provenance: How the store was made; empty where the store does not say.

    Raises:
        StoreError: The file is missing, damaged, not a clip store, or of a newer format, or ``labels`` do not fit.

    Example:
        >>> with Store("esc10.h5") as store:  # doctest: +SKIP
        ...     store.waveform([0, 7]).shape
        (2, 160000)
    """

    def __init__(self, path: str | Path, *, labels: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self._given_labels = None if labels is None else tuple(labels)
        self._file: h5py.File | None = None
        self._process = 0
        with self._explained(), self._opened() as file:
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
        """Length of each clip, in seconds."""
        return self.samples / self.sample_rate

    def target(self) -> np.ndarray:
        """The labels of every clip, read into memory: bool, shape ``(clips, K)``.

        Raises:
            StoreError: The file is damaged, or a clip of a one-of-k store has not exactly one label.
        """
        with self._explained():
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
            StoreError: The file is damaged.
        """
        rows = self._rows[_checked_indices(indices, len(self))]
        with self._explained():
            dataset = self._handle()["waveform"]
            raw = np.empty((len(rows), self.samples), dtype=dataset.dtype)
            # One hyperslab a clip: h5py's own selection by a list of rows is some 25 times slower.
            for position, row in enumerate(rows):
                dataset.read_direct(raw, np.s_[row], np.s_[position])
        if raw.dtype.kind == "f":
            return raw.astype(np.float32, copy=False)
        return np.divide(raw, np.float32(FULL_SCALE), dtype=np.float32)

    def digests(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> list[bytes]:
        """What tells clips apart by their sound alone: SHA-256 of each one's samples as they are stored, 32 bytes.

        Args:
            indices: Which clips, shape ``(n,)``, each in ``[0, len(self))``.

        Raises:
            IndexError: An index is out of range.
            StoreError: The file is damaged.
        """
        rows = self._rows[_checked_indices(indices, len(self))]
        with self._explained():
            dataset = self._handle()["waveform"]
            raw = np.empty(self.samples, dtype=dataset.dtype)
            kind, found = str(raw.dtype).encode(), []
            for row in rows:
                dataset.read_direct(raw, np.s_[row])
                digest = hashlib.sha256(kind)
                digest.update(raw.data)
                found.append(digest.digest())
        return found

    def summary(self) -> dict[str, Any]:
        """What the store holds, as plain JSON values.

        Returns:
            ``file``, ``clips``, ``task``, ``sample_rate`` (Hz), ``seconds_per_clip``, ``total_seconds`` (as stored),
            ``labels`` (clips a label), ``clips_without_label``, ``folds`` (clips a fold), ``sources`` (how many),
            ``padded`` and ``cut`` (clips whose sound was shorter, or longer, than the clip), ``nameless`` (rows left
            out) and ``provenance``. Folds, sources, padded and cut are None where unknown.
        """
        target = self.target()
        exact = None if self.seconds is None else np.rint(self.seconds * np.float64(self.sample_rate))
        return {
            "file": self.path.name,
            "clips": len(self),
            "task": str(self.task),
            "sample_rate": self.sample_rate,
            "seconds_per_clip": self.seconds_per_clip,
            "total_seconds": len(self) * self.seconds_per_clip,
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
        names, waveform, target = (
            self._dataset(file, name, ndim) for name, ndim in (("audio_name", 1), ("waveform", 2), ("target", 2))
        )
        rows, self.samples = waveform.shape
        if rows == 0 or self.samples == 0:
            raise StoreError(f"{self.path}: holds no clips; pack it again")
        if waveform.dtype != np.int16 and waveform.dtype.kind != "f":
            raise StoreError(f"{self.path}: 'waveform' is {waveform.dtype}, not int16 or float32; pack it again")
        if target.dtype.kind not in "biu":
            raise StoreError(f"{self.path}: 'target' is {target.dtype}, not bool; pack it again")
        optional = {
            name: self._dataset(file, name, 1) if name in file else None for name in ("fold", "source", "seconds")
        }
        for dataset in (names, target, *filter(None, optional.values())):
            if len(dataset) != rows:
                raise StoreError(
                    f"{self.path}: {dataset.name[1:]!r} has {len(dataset)} rows, 'waveform' {rows}; pack it again"
                )

        all_names = self._texts(names)
        self._rows = np.array([row for row, name in enumerate(all_names) if name], dtype=np.int64)
        self._nameless = rows - len(self._rows)
        if len(self._rows) == 0:
            raise StoreError(f"{self.path}: no clip has a name, as if every file had been missing; pack it again")
        self.names: list[str] = [name for name in all_names if name]

        if "sample_rate" not in file.attrs:
            raise StoreError(f"{self.path}: lacks the attribute 'sample_rate'; pack it again")
        self.sample_rate = int(file.attrs["sample_rate"])
        if self.sample_rate <= 0:
            raise StoreError(f"{self.path}: has sample rate {self.sample_rate} Hz; pack it again")

        self.labels: tuple[str, ...] = self._label_names(file, target.shape[1])
        default = Task.MULTI_LABEL if self.labels else Task.UNLABELLED
        self.task: Task = _checked_task(self.path, file.attrs.get("task", default), self.labels)

        fold, source, seconds = optional.values()
        if fold is not None and fold.dtype.kind not in "iu":
            raise StoreError(f"{self.path}: 'fold' is {fold.dtype}, not int32; pack it again")
        self.folds: np.ndarray | None = None if fold is None else fold[:].astype(np.int32)[self._rows]
        self.sources: np.ndarray | None = None if source is None else np.array(self._texts(source))[self._rows]
        self.seconds: np.ndarray | None = None if seconds is None else seconds[:].astype(np.float32)[self._rows]
        self.provenance: dict[str, Any] = dict(json.loads(file.attrs.get("provenance", "{}")))

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
        return _checked_labels(self.path, labels)

    def _dataset(self, file: h5py.File, name: str, ndim: int) -> h5py.Dataset:
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise StoreError(
                f"{self.path}: lacks the dataset {name!r} (it holds {', '.join(file) or 'nothing'}), so it is no "
                "clip store; make one with `bayes-panns pack`"
            )
        if dataset.ndim != ndim:
            raise StoreError(f"{self.path}: {name!r} has {dataset.ndim} dimensions, not {ndim}; pack it again")
        return dataset

    def _texts(self, dataset: h5py.Dataset) -> list[str]:
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise StoreError(f"{self.path}: {dataset.name[1:]!r} is {dataset.dtype}, not text; pack it again")
        return [text.decode("utf-8") for text in dataset[:]]

    def _opened(self) -> h5py.File:
        if self.path.is_dir():
            raise StoreError(f"{self.path}: is a folder, not a clip store; make one of it with `bayes-panns pack`")
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
            self._file, self._process = self._opened(), os.getpid()
        return self._file

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what h5py raises on a damaged file into one line."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            what = "truncated" if "truncated file" in str(error) else f"damaged ({_one_line(error)})"
            raise StoreError(f"{self.path}: is {what}; copy or pack it again") from error


class ClipSet:
    """Clips of one or several stores as one set, and views of it.

    Args:
        stores: Stores, or paths of stores; all with the same sample rate, clip length, labels and task.
        folds: Keep only the clips of these folds; None keeps all.
        labels: Label names for stores that hold none, as in :class:`Store`.

    Raises:
        StoreError: There is no store, one cannot be read or is given twice, two do not agree, or a fold does not exist.
    """

    def __init__(
        self,
        stores: str | Path | Store | Sequence[str | Path | Store],
        *,
        folds: Collection[int] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        members = [stores] if isinstance(stores, str | Path | Store) else list(stores)
        if not members:
            raise StoreError("no clip store is given; name at least one")
        self.stores: tuple[Store, ...] = tuple(
            member
            if isinstance(member, Store) and labels is None
            else Store(member.path if isinstance(member, Store) else member, labels=labels)
            for member in members
        )
        self._check_agreement()
        self._offsets = np.cumsum([0, *map(len, self.stores)])
        self._clips = np.arange(self._offsets[-1])
        if folds is not None:
            self._clips = self.select(folds=folds)._clips

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def labels(self) -> tuple[str, ...]:
        """K label names."""
        return self.stores[0].labels

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return self.stores[0].task

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.stores[0].sample_rate

    @property
    def samples(self) -> int:
        """Length of each clip, in samples."""
        return self.stores[0].samples

    @property
    def seconds_per_clip(self) -> float:
        """Length of each clip, in seconds."""
        return self.stores[0].seconds_per_clip

    @property
    def names(self) -> list[str]:
        """One name a clip."""
        names = [name for store in self.stores for name in store.names]
        return [names[clip] for clip in self._clips]

    @property
    def folds(self) -> np.ndarray | None:
        """The clips' folds, int32, shape ``(clips,)``; None where a store has none."""
        folds = [store.folds for store in self.stores if store.folds is not None]
        return np.concatenate(folds)[self._clips] if len(folds) == len(self.stores) else None

    @property
    def sources(self) -> np.ndarray | None:
        """The recording each clip was cut from, str, shape ``(clips,)``, empty where unknown; None if no store says."""
        if all(store.sources is None for store in self.stores):
            return None
        return np.concatenate(
            [np.full(len(store), "") if store.sources is None else store.sources for store in self.stores]
        )[self._clips]

    def target(self) -> np.ndarray:
        """The labels of every clip, read into memory: bool, shape ``(clips, K)``.

        Raises:
            StoreError: A store is damaged.
        """
        return np.concatenate([store.target() for store in self.stores])[self._clips]

    def waveform(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Read clips, in any order and with repeats.

        Args:
            indices: Which clips of this set, shape ``(n,)``, each in ``[0, len(self))``.

        Returns:
            float32 waveforms, shape ``(n, samples)``.

        Raises:
            IndexError: An index is out of range.
            StoreError: A store is damaged.
        """
        chosen = self.select(indices=np.asarray(indices))
        waveform = np.empty((len(chosen), self.samples), dtype=np.float32)
        for store, positions, rows in chosen.by_store():
            waveform[positions] = store.waveform(rows)
        return waveform

    def by_store(self) -> Iterator[tuple[Store, np.ndarray, np.ndarray]]:
        """The clips, one store after the other.

        Yields:
            A store that holds some of them, their positions in this set, and their indices in the store, both int64 of
            shape ``(n,)``.
        """
        owner = np.searchsorted(self._offsets, self._clips, side="right") - 1
        for number in np.unique(owner):
            positions = np.flatnonzero(owner == number)
            yield self.stores[number], positions, self._clips[positions] - self._offsets[number]

    def select(
        self, folds: Collection[int] | None = None, indices: Sequence[int] | np.ndarray | None = None
    ) -> "ClipSet":
        """A view of some of the clips.

        Args:
            folds: Keep the clips of these folds.
            indices: Keep these clips of this set, in this order. With ``folds``, both must hold.

        Raises:
            IndexError: An index is out of range.
            StoreError: No clip of this set is in one of the folds, or a store has no folds.
        """
        view = copy.copy(self)
        if indices is not None:
            view._clips = self._clips[_checked_indices(indices, len(self))]
        if folds is not None:
            known = self.folds
            if known is None:
                path = next(store.path for store in self.stores if store.folds is None)
                raise StoreError(f"{path}: has no folds to choose from; leave the folds out")
            unknown = sorted(set(folds) - set(known.tolist()))
            if unknown or len(folds) == 0:
                asked = f"no clip is in fold {', '.join(map(str, unknown))}" if unknown else "no fold is chosen"
                there = ", ".join(map(str, sorted(set(known.tolist()))))
                raise StoreError(f"{', '.join(str(store.path) for store in self.stores)}: {asked}; there are {there}")
            chosen = self._clips[np.isin(known, list(folds))]
            view._clips = view._clips[np.isin(view._clips, chosen)]
        return view

    def split(self, fraction: float, seed: int) -> tuple["ClipSet", "ClipSet"]:
        """Split at random, with all clips of one source on one side.

        A clip of unknown source counts as a source of its own.

        Args:
            fraction: Share of the clips for the first set, in (0, 1); met as nearly as the sources allow.
            seed: The same seed gives the same split.

        Returns:
            Two views, neither empty, which together hold every clip.

        Raises:
            StoreError: ``fraction`` is out of range, or all clips come from one source.
        """
        if not 0 < fraction < 1:
            raise StoreError(f"a split takes a fraction between 0 and 1, not {fraction}")
        sources = self.sources
        keys = [
            clip if sources is None or not sources[position] else sources[position]
            for position, clip in enumerate(self._clips.tolist())
        ]
        index = {key: group for group, key in enumerate(dict.fromkeys(keys))}
        if len(index) < 2:
            raise StoreError(
                f"{self.stores[0].path}: its {len(self)} clips come from {len(index)} source, so they cannot be split "
                "without a leak; add clips of other sources"
            )
        group = np.array([index[key] for key in keys])
        order = np.random.default_rng(seed).permutation(len(index))
        size = np.cumsum(np.bincount(group)[order])[:-1]
        first = order[: 1 + np.abs(size - fraction * len(self)).argmin()]
        mask = np.isin(group, first)
        return self.select(indices=np.flatnonzero(mask)), self.select(indices=np.flatnonzero(~mask))

    def sample(self, share: float, seed: int) -> "ClipSet":
        """A random part of the clips, with the same share of each label, and at least one clip, where each has one.

        A smaller share's clips are among a larger one's, for the same seed. Clips with several labels, or none, are
        drawn without regard to them.

        Args:
            share: Share of the clips, in (0, 1].
            seed: The same seed gives the same clips.

        Raises:
            StoreError: ``share`` is out of range.
        """
        if not 0 < share <= 1:
            raise StoreError(f"a sample takes a share above 0 and up to 1, not {share}")
        target = self.target()
        one_of_k = self.task is Task.ONE_OF_K and target.shape[1] > 0
        group = target.argmax(axis=1) if one_of_k else np.zeros(len(self), dtype=int)
        order = np.random.default_rng(seed).permutation(len(self))
        members = [order[group[order] == each] for each in np.unique(group)]
        chosen = [each[: max(1, round(share * len(each)))] for each in members]
        return self.select(indices=np.sort(np.concatenate(chosen)))

    def _check_agreement(self) -> None:
        reference, *others = self.stores
        seen = {reference.path.resolve()}
        for other in others:
            if other.path.resolve() in seen:
                raise StoreError(f"{other.path}: is given twice; name each store once")
            seen.add(other.path.resolve())
            for what in ("sample_rate", "samples", "task"):
                here, there = getattr(reference, what), getattr(other, what)
                if here != there:
                    raise StoreError(
                        f"{reference.path} and {other.path} differ in {what.replace('_', ' ')}: {here} and {there}; "
                        "pack them alike"
                    )
            if len(reference.labels) != len(other.labels):
                raise StoreError(
                    f"{reference.path} and {other.path} differ in labels: {len(reference.labels)} and "
                    f"{len(other.labels)} of them; pack them alike"
                )
            for index, (here, there) in enumerate(zip(reference.labels, other.labels, strict=True)):
                if here != there:
                    raise StoreError(
                        f"{reference.path} and {other.path} differ in labels: label {index} is {here!r} and {there!r}; "
                        "pack them alike"
                    )


class StoreWriter:
    """Writes a store clip by clip, in constant memory, and whole or not at all.

    A context manager. The clips go to a hidden temporary file in the same folder, which takes the store's name when the
    block ends well, and is removed when an exception, an interrupt included, ends it.

    Args:
        path: The store to write; one that is there is replaced. Missing folders on the way are made.
        labels: K label names; none for an unlabelled store.
        task: What the labels mean.
        sample_rate: In Hz.
        samples: Length of every clip, in samples.
        provenance: How the store is made, as JSON values. It stays open to additions, as :attr:`provenance`, until the
            block ends.

    Raises:
        StoreError: The place cannot be written, an argument or a clip does not fit, or no clip was added.

    Example:
        >>> with StoreWriter(
        ...     "dogs.h5", labels=["dog", "cat"], task="one-of-k", sample_rate=32000, samples=160000
        ... ) as w:  # doctest: +SKIP
        ...     w.add("rex.wav", waveform, [0], fold=1)
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
        self.labels = _checked_labels(self.path, labels)
        self.task = _checked_task(self.path, task, self.labels)
        if sample_rate <= 0 or samples <= 0:
            raise StoreError(f"{self.path}: cannot hold clips of {samples} samples at {sample_rate} Hz; give more")
        self.sample_rate = sample_rate
        self.samples = samples
        self.provenance: dict[str, Any] = dict(provenance or {})
        # In the same folder, so that the rename at the end is atomic.
        self._temporary = self.path.parent / f".{self.path.name}.{os.getpid()}.partial"
        self._file: h5py.File | None = None
        self._waveform = np.zeros((BUFFER, samples), dtype=np.int16)
        self._target = np.zeros((BUFFER, len(self.labels)), dtype=bool)
        self._names: list[str] = []
        self._folds: list[int | None] = []
        self._sources: list[str] = []
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._names)

    def __enter__(self) -> Self:
        if self.path.is_dir():
            raise StoreError(f"{self.path}: is a folder; name the file to write, such as {self.path / 'clips.h5'}")
        try:
            self._create()
        except BaseException:
            self._discard()
            raise
        return self

    def _create(self) -> None:
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self._temporary, "w")
            self._file.create_dataset(
                "waveform",
                shape=(0, self.samples),
                maxshape=(None, self.samples),
                chunks=(1, self.samples),
                dtype=np.int16,
            )
            # A chunk must not be empty, even where K is 0.
            width = max(len(self.labels), 1)
            self._file.create_dataset(
                "target", shape=(0, len(self.labels)), maxshape=(None, width), chunks=(BUFFER, width), dtype=bool
            )

    def add(
        self, name: str, waveform: Array, target: Array, *, fold: int | None = None, source: str | None = None
    ) -> None:
        """Append one clip.

        Args:
            name: The clip's name, such as its file's.
            waveform: Float samples in [-1, 1], shape ``(any,)``; what lies beyond is clipped, what is longer than the
                store's clips is cut, what is shorter is padded with silence.
            target: K bools, or the indices of the labels that hold.
            fold: The clip's fold. All clips of a store have one, or none has.
            source: The recording that the clip was cut from, where it is known.

        Raises:
            StoreError: The clip does not fit, or the disk is full.
        """
        if self._file is None:
            raise RuntimeError("StoreWriter.add is for use inside a `with` block")
        if not name:
            raise StoreError(f"{self.path}: clip {len(self)} has no name; give it one")
        if self._folds and (fold is None) != (self._folds[0] is None):
            raise StoreError(
                f"{self.path}: some clips have a fold and {name!r} is not alike; give all of them one or none"
            )
        if fold is not None and not 0 <= fold < 2**31:
            raise StoreError(f"{self.path}: {name!r} has fold {fold}; folds count up from 0")
        sound = np.asarray(waveform)
        if sound.ndim != 1 or sound.dtype.kind != "f":
            raise StoreError(f"{self.path}: {name!r} is {sound.dtype} of shape {sound.shape}, not mono float samples")
        if len(sound) == 0 or not np.isfinite(sound).all():
            raise StoreError(f"{self.path}: {name!r} is empty or holds samples that are not finite numbers")
        mask = self._mask(name, target)

        row = len(self) % BUFFER
        kept = min(len(sound), self.samples)
        self._waveform[row, :kept] = np.rint(np.clip(sound[:kept], -1, 1) * FULL_SCALE)
        self._waveform[row, kept:] = 0
        self._target[row] = mask
        self._names.append(name)
        self._folds.append(fold)
        self._sources.append(source or "")
        self._seconds.append(len(sound) / self.sample_rate)
        if row == BUFFER - 1:
            with self._explained():
                self._flush(self._file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._file is not None:
                if not self._names:
                    raise StoreError(f"{self.path}: no clip to write; an empty store is of no use")
                with self._explained():
                    self._finish(self._file)
        finally:
            self._discard()

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
                    f"{self.path}: {name!r} has the target {_one_line(target)}, which is neither {count} bools nor "
                    f"distinct label indices below {count}"
                )
            mask = np.zeros(count, dtype=bool)
            mask[chosen] = True
        if self.task == Task.ONE_OF_K and mask.sum() != 1:
            raise StoreError(f"{self.path}: {name!r} has {mask.sum()} labels; one-of-k takes exactly one")
        return mask

    def _discard(self) -> None:
        """Close the file and remove the temporary, if it is still there."""
        if self._file is not None:
            # A file that could not be written, on a full disk say, may not close cleanly either.
            with suppress(OSError, RuntimeError):
                self._file.close()
            self._file = None
        with suppress(OSError):
            self._temporary.unlink()

    def _flush(self, file: h5py.File) -> None:
        """Write out the buffered clips."""
        # HDF5 itself may crash the process on a full disk, or lose data without a word.
        if shutil.disk_usage(self.path.parent).free < self._waveform.nbytes + self._target.nbytes + MARGIN:
            raise StoreError(f"{self.path}: the disk is full after {len(self)} clips; write it elsewhere")
        start = len(file["waveform"])
        for dataset, buffer in ((file["waveform"], self._waveform), (file["target"], self._target)):
            dataset.resize(len(self), axis=0)
            dataset[start:] = buffer[: len(self) - start]

    def _finish(self, file: h5py.File) -> None:
        if len(file["waveform"]) < len(self):
            self._flush(file)
        file["audio_name"] = np.array([_utf8(name) for name in self._names])
        file["seconds"] = np.array(self._seconds, dtype=np.float32)
        # Of fixed width, as `audio_name` is: HDF5 may read for ever in a damaged heap of strings of varying length.
        file["label_names"] = np.array([_utf8(label) for label in self.labels], dtype=np.bytes_)
        if self._folds[0] is not None:
            file["fold"] = np.array(self._folds, dtype=np.int32)
        if any(self._sources):
            file["source"] = np.array([_utf8(source) for source in self._sources])
        file.attrs.create("sample_rate", self.sample_rate, dtype=np.int32)
        file.attrs["task"] = str(self.task)
        file.attrs["provenance"] = json.dumps(self.provenance)
        file.attrs["format_version"] = FORMAT_VERSION
        # A failure to write surfaces here; closing may hide it.
        file.flush()
        file.close()
        self._temporary.replace(self.path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what h5py and the file system raise into one line."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or _one_line(error)
            raise StoreError(f"{self.path}: cannot be written ({reason}); write it elsewhere") from error


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
        path: The store to write; one that is there is replaced.
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
    # A file name that is no UTF-8 reaches Python with surrogates, which cannot be encoded as they are.
    return text.encode("utf-8", "backslashreplace")


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _checked_labels(path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise StoreError(f"{path}: the label {repeated[0]!r} is there more than once; label names must differ")
    return tuple(labels)


def _checked_task(path: Path, task: str, labels: Sequence[str]) -> Task:
    if task not in list(Task):
        raise StoreError(f"{path}: has the unknown task {task!r}; known are {', '.join(Task)}")
    if (task == Task.UNLABELLED) != (len(labels) == 0):
        raise StoreError(f"{path}: has {len(labels)} labels, which does not fit the task {str(task)!r}")
    return Task(task)


def _checked_indices(indices: Sequence[int] | np.ndarray | torch.Tensor, count: int) -> np.ndarray:
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise IndexError(f"clips are chosen by a list of whole numbers, not by {chosen.dtype} of shape {chosen.shape}")
    chosen = chosen.astype(np.int64)
    if ((chosen < 0) | (chosen >= count)).any():
        raise IndexError(f"clip {chosen[(chosen < 0) | (chosen >= count)][0]} of {count} does not exist")
    return chosen

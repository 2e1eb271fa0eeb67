"""The file of a store: opened once a process, watched for changes, and its clips read by row."""

import copy
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from bayes_panns.audio.magnitude import usable
from bayes_panns.clips.hdf5 import StoreFile
from bayes_panns.clips.rows import read_rows
from bayes_panns.clips.samples import as_floats
from bayes_panns.clips.seals import checked
from bayes_panns.clips.store_format import DATASETS, digest, digests, one_line
from bayes_panns.core.choices import Holds
from bayes_panns.core.errors import StoreError

Identity = tuple[int, int, int, int]
"""The device, the number, the bytes and the time of the last change of a file."""


class ClipFile:
    """The file of a store.

    It is opened at the first read, once a process, so it can be pickled and survives a fork. It holds no names and no
    labels: what is pickled is small, whatever the number of clips.

    Args:
        path: The HDF5 file.

    Attributes:
        path: The file.
        digests: The SHA-256 of every row, uint8 ``(rows, 32)``, once they are read.
        checked: Which rows have been found to have their digests, bool ``(rows,)``. Processes may share it.

    Raises:
        StoreError: The file is missing, or no HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        self._process = 0
        self._identity: Identity | None = None
        self._holds, self._verifiable = Holds.WAVEFORMS, False
        self._seal: Mapping[str, str] | None = None
        self.digests: np.ndarray | None = None
        self.checked = np.zeros(0, dtype=bool)

    def describe(self, holds: Holds, *, rows: int, verifiable: bool, seal: Mapping[str, str] | None) -> None:
        """Say what the header says.

        Args:
            holds: What the store has of each clip.
            rows: How many rows there are.
            verifiable: Whether there is a digest of each.
            seal: The digests of what the store says of its clips.
        """
        self._holds, self._verifiable, self._seal = holds, verifiable, seal
        self.checked = np.zeros(rows, dtype=bool)

    def bare(self) -> "ClipFile":
        """The same file, not open, without digests and what was checked: small to send."""
        found = copy.copy(self)
        found.digests, found.checked = None, np.zeros(0, dtype=bool)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"path": self.path.absolute(), "_file": None, "_process": 0}

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def handle(self) -> StoreFile:
        """The open file of this process; one that was inherited through a fork is not used.

        Raises:
            StoreError: The file has changed since it was first opened.
        """
        if self._file is None or self._process != os.getpid():
            self.close()
            self._file, self._process = self._open(), os.getpid()
            now = _identity(self._file)
            if self._identity is None:
                self._identity = now
            if now[:2] != self._identity[:2]:
                self.close()
                raise StoreError(f"{self.path}: was replaced by another store while it was in use; start again")
        self.require_unchanged()
        return StoreFile(self.path, self._file)

    def column(self, name: str) -> h5py.Dataset:
        """A dataset that has a digest in the store's seal, checked."""
        return checked(self.path, self.handle().dataset(name), self._seal)

    def clips(self) -> h5py.Dataset:
        """The dataset of the clips themselves."""
        return self.handle().dataset(DATASETS[self._holds], clips=True)

    def read(self, rows: np.ndarray, found: np.ndarray | None = None) -> np.ndarray:
        """Clips as they are stored; those that have a digest are checked when they are first read.

        Args:
            rows: int64, shape ``(n,)``, each one that there is.
            found: Where they go, of the type and shape that is returned; by default new memory.

        Returns:
            int16 or float32, shape ``(n, width)``.

        Raises:
            StoreError: The file is damaged, has changed since it was opened, or holds samples that are not finite
                numbers.
        """
        with self.one_line_errors():
            dataset = self.clips()
            plain = found is not None and found.dtype == dataset.dtype
            raw = read_rows(dataset, rows, found if plain else None)
            self.require_unchanged()
            self._check_digests(raw, rows)
        if raw.dtype.kind == "f":
            self._check_numbers(raw, rows)
            raw = raw.astype(np.float32, copy=False)
        if found is None or plain:
            return raw
        found[:] = floats_of(raw)
        return found

    def digests_of(self, rows: np.ndarray) -> list[bytes]:
        """The SHA-256 of some clips as stored: kept in the store, or computed.

        Raises:
            StoreError: The file is damaged, or has changed since it was opened.
        """
        with self.one_line_errors():
            if self._verifiable:
                self.handle()
                return [each.tobytes() for each in self.kept_digests()[rows]]
            dataset = self.clips()
            found = [digest(dataset[row]) for row in rows]
            self.require_unchanged()
            return found

    def kept_digests(self) -> np.ndarray:
        """The digests that the store has of every row, uint8 ``(rows, 32)``."""
        if self.digests is None:
            self.digests = self.column("digest")[:]
        return self.digests

    @property
    def verifiable(self) -> bool:
        """Whether there is a digest of each clip."""
        return self._verifiable

    def differing(self, raw: np.ndarray, rows: np.ndarray) -> list[int]:
        """Which of some clips, as stored, do not have their digests."""
        differs = (digests(raw) != self.kept_digests()[rows]).any(axis=1)
        return np.flatnonzero(differs).tolist()

    def _check_digests(self, raw: np.ndarray, rows: np.ndarray) -> None:
        fresh = ~self.checked[rows]
        if not self._verifiable or not fresh.any():
            return
        # Most often all are, and selecting them would copy them.
        read, those = (raw, rows) if fresh.all() else (raw[fresh], rows[fresh])
        if wrong := self.differing(read, those):
            raise StoreError(
                f"{self.path}: is damaged (clip {self._name(those[wrong[0]])!r} is not what was packed); copy or pack "
                "it again, and see `bayes-panns inspect --verify` for the others"
            )
        self.checked[rows] = True

    def _check_numbers(self, raw: np.ndarray, rows: np.ndarray) -> None:
        if (fine := usable(raw)).all():
            return
        row = int(np.flatnonzero(~fine.all(axis=1))[0])
        first = float(raw[row][~fine[row]][0])
        what = f"as large as {first:.2g}" if math.isfinite(first) else "that are not finite numbers"
        kind = "samples" if self._holds == Holds.WAVEFORMS else "values"
        raise StoreError(f"{self.path}: clip {self._name(rows[row])!r} holds {kind} {what}; pack it again")

    def _name(self, row: int) -> str:
        """The name of a clip, which is only needed for messages."""
        file = self.handle()
        return file.texts(file.dataset("audio_name"))[row]

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

    def require_unchanged(self) -> None:
        """Check, before and after each read, that the open file is the one that was opened first.

        Raises:
            StoreError: It is not.
        """
        if self._file is None or self._identity is None:
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
    def one_line_errors(self) -> Iterator[None]:
        """Turn what h5py raises on a damaged file into one line."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
            what = "truncated" if "truncated file" in str(error) else f"damaged ({one_line(error)})"
            raise StoreError(f"{self.path}: is {what}; copy or pack it again") from error


def floats_of(raw: np.ndarray) -> np.ndarray:
    """Clips as they are stored, as float32: what is int16 over full scale."""
    return as_floats(torch.from_numpy(raw)).numpy() if raw.dtype == np.int16 else raw.astype(np.float32, copy=False)


def _identity(file: h5py.File) -> Identity:
    stat = os.fstat(file.id.get_vfd_handle())
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns

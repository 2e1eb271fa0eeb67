"""The clips that are read, in a store and as tar files for WebDataset; and how a disk is made to read them."""

import ctypes
import io
import mmap
import os
import queue
import tarfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from bayes_panns.clips import StoreWriter, Task

RATE, SECONDS, LABELS = 32000, 10.0, 527
_DIFFERENT = 16
"""How many different sounds there are; a disk does not look for copies."""

_A_SHARD = 256

_VIEW = 1 << 28
"""Bytes of a file that are looked at together."""


def store_of(path: Path, clips: int, seconds: float = SECONDS) -> Path:
    """Write a store of ``clips`` clips of noise, each with three labels, as ``pack`` would."""
    random, samples = np.random.default_rng(0), round(RATE * seconds)
    sounds = 0.1 * random.standard_normal((_DIFFERENT, samples)).astype(np.float32)
    with StoreWriter(
        path,
        labels=[f"label {number}" for number in range(LABELS)],
        task=Task.MULTI_LABEL,
        sample_rate=RATE,
        samples=samples,
    ) as writer:
        for clip in range(clips):
            writer.add(
                f"Y{clip:011d}.wav", sounds[clip % _DIFFERENT], random.choice(LABELS, 3, replace=False), seconds=seconds
            )
    return path


def shards_of(store: Path, folder: Path) -> list[Path]:
    """Write the clips of a store in tar files, in a random order as WebDataset asks for: samples and targets, raw."""
    folder.mkdir(exist_ok=True)
    paths = []
    with h5py.File(store) as file:
        sounds, targets = file["waveform"], file["target"][:]
        order = np.random.default_rng(0).permutation(len(sounds))
        for start in range(0, len(order), _A_SHARD):
            paths.append(folder / f"{start // _A_SHARD:05d}.tar")
            with tarfile.open(paths[-1], "w") as tar:
                for clip in order[start : start + _A_SHARD]:
                    target = np.packbits(targets[clip]).tobytes()
                    for ending, content in (("pcm", sounds[clip].tobytes()), ("target", target)):
                        entry = tarfile.TarInfo(f"{clip:08d}.{ending}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    return paths


def forget(path: Path) -> float:
    """Put a file out of the page cache; returns the share of it that is still there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident(path)


def places_of(store: Path, shards: Sequence[Path] = ()) -> dict[int, tuple[Path, int, int]]:
    """Where each clip lies: the file, and the first byte and the one after the last; in ``shards`` if there are any.

    A tar file is read from front to back, so a clip's place there is all up to its end.
    """
    if shards:
        found = {}
        for path in shards:
            with tarfile.open(path) as tar:
                for entry in tar:
                    name, _, ending = entry.name.partition(".")
                    if ending == "pcm":
                        found[int(name)] = path, 0, entry.offset_data + entry.size
        return found
    with h5py.File(store) as file:
        sounds = file["waveform"]
        chunks = (sounds.id.get_chunk_info_by_coord((row, 0)) for row in range(len(sounds)))
        return {row: (store, chunk.byte_offset, chunk.byte_offset + chunk.size) for row, chunk in enumerate(chunks)}


class Forgetting:
    """Puts each clip out of the page cache once it has been read, as a page cache does that is smaller than the store.

    A thread does it, as the system would.

    Args:
        places: Where each clip lies.
    """

    def __init__(self, places: Mapping[int, tuple[Path, int, int]]) -> None:
        self._places, self._read = places, queue.SimpleQueue[Iterable[int] | None]()
        self._thread = threading.Thread(target=self._forget, daemon=True)
        self._thread.start()

    def add(self, clips: Iterable[int]) -> None:
        """Say which clips have been read."""
        self._read.put(clips)

    def end(self) -> None:
        """Wait for those that were said."""
        self._read.put(None)
        self._thread.join()

    def _forget(self) -> None:
        files = {path: os.open(path, os.O_RDONLY) for path in {path for path, _, _ in self._places.values()}}
        page = mmap.PAGESIZE
        while (clips := self._read.get()) is not None:
            for clip in clips:
                path, start, end = self._places[clip]
                # The system keeps pages of which it is told a part only.
                start, end = start // page * page, -(-end // page) * page
                os.posix_fadvise(files[path], start, end - start, os.POSIX_FADV_DONTNEED)
        for file in files.values():
            os.close(file)


def remember(path: Path) -> float:
    """Read a file into the page cache; returns the share of it that is there."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
    return resident(path)


def resident(path: Path) -> float:
    """The share of a file that is in the page cache, by ``mincore``."""
    size, there = path.stat().st_size, 0
    with path.open("rb") as file:
        # A view that may be written counts as memory, so a large file is looked at in parts.
        for start in range(0, size, _VIEW):
            there += _resident(file.fileno(), start, min(_VIEW, size - start))
    return there / -(-size // mmap.PAGESIZE)


def _resident(file: int, start: int, length: int) -> int:
    """How many pages of a part of a file are in the page cache."""
    there = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
    with mmap.mmap(file, length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=start) as view:
        address = ctypes.c_char.from_buffer(view)
        found = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(address)), ctypes.c_size_t(length), there
        )
        del address
    if found:
        raise OSError(ctypes.get_errno(), "mincore failed")
    return int((np.frombuffer(bytes(there), dtype=np.uint8) & 1).sum())

"""Ways to read batches of clips from disk, each as an iterator of inputs, targets and the numbers of the clips."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bayes_panns.clips import ClipSet, Sampler
from bayes_panns.clips.ahead import Ahead
from bayes_panns.clips.reader import ClipReader
from benchmarks.loader.material import LABELS

Batches = Iterator[tuple[Tensor, Tensor, Iterable[int]]]


def ours(store: Path, workers: int, batch: int, sampling: str) -> Batches:
    """The loader of a fit: int16, checked against the digests of the store; a GPU makes floats of it."""
    clips = ClipSet(store)
    target = torch.from_numpy(clips.target())
    sampler = Sampler(target, batch, sampling=sampling)
    plan = [sampler.batch(step) for step in range(sampler.batches)]
    with Ahead([ClipReader(clips)], ((0, index) for index in plan), workers=workers) as ahead:
        for index, values in zip(plan, ahead, strict=True):
            yield values, target[index].float(), index.tolist()


def rows(store: Path, workers: int, batch: int) -> Batches:
    """h5py alone: one process, the file open, one row after the other."""
    with h5py.File(store) as file:
        order = np.random.default_rng(0).permutation(len(file["waveform"]))
        for start in range(0, len(order), batch):
            clips = order[start : start + batch].tolist()
            sound, target = (np.stack([file[name][row] for row in clips]) for name in ("waveform", "target"))
            yield torch.from_numpy(sound), torch.from_numpy(target).float(), clips


class _PannsClips(Dataset[dict[str, Any]]):
    """Written from the description of PANNs' data set: it opens the file for each clip."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def __getitem__(self, row: int) -> dict[str, Any]:
        with h5py.File(self._store, "r") as file:
            name = file["audio_name"][row].decode()
            sound = (file["waveform"][row] / 32767.0).astype(np.float32)
            target = file["target"][row].astype(np.float32)
        return {"audio_name": name, "waveform": sound, "target": target}


def _collate(clips: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.array([clip[name] for clip in clips]) for name in clips[0]}


def panns(store: Path, workers: int, batch: int) -> Batches:
    """PANNs' way: workers of a DataLoader that open the file for each clip, floats, arrays of NumPy collated."""
    with h5py.File(store) as file:
        count = len(file["waveform"])
    order = np.random.default_rng(0).permutation(count)
    plan = [order[start : start + batch].tolist() for start in range(0, count, batch)]
    batches = DataLoader(_PannsClips(store), batch_sampler=plan, num_workers=workers, collate_fn=_collate)
    for clips, found in zip(plan, batches, strict=True):
        yield torch.Tensor(found["waveform"]), torch.Tensor(found["target"]), clips


def _decoded(sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    bits = np.unpackbits(np.frombuffer(sample["target"], dtype=np.uint8), count=LABELS)
    return np.frombuffer(sample["pcm"], dtype=np.int16), bits.astype(np.float32), int(sample["__key__"])


def webdataset(store: Path, workers: int, batch: int) -> Batches:
    """WebDataset: tar files read from front to back, shuffled among 100 clips; int16."""
    import webdataset as wds

    shards = [str(path) for path in sorted(store.with_suffix(".shards").glob("*.tar"))]
    clips = wds.WebDataset(shards, shardshuffle=False).shuffle(100).map(_decoded).batched(batch)
    for sound, target, numbers in wds.WebLoader(clips, batch_size=None, num_workers=workers):
        yield sound, target, numbers.tolist()


@dataclass(frozen=True)
class Contender:
    """A way to read clips.

    Attributes:
        make: Makes its batches of a store, workers and clips a batch.
        summary: What it is.
        package: The distribution that it needs; ``None`` for what is always there.
        alone: Whether it has no workers.
    """

    make: Callable[[Path, int, int], Batches]
    summary: str
    package: str | None = None
    alone: bool = False


CONTENDERS = {
    "panns": Contender(panns, "PANNs' way: opens the file for each clip, float32, arrays of NumPy from its workers"),
    "random": Contender(partial(ours, sampling="random"), 'this package, `sampling = "random"`: int16, with digests'),
    "blocks": Contender(partial(ours, sampling="blocks"), 'this package, `sampling = "blocks"`, runs of 8 clips'),
    "balanced": Contender(
        partial(ours, sampling="balanced"), 'this package, `sampling = "balanced"`; clips of rare labels repeat'
    ),
    "webdataset": Contender(webdataset, "WebDataset: tar files from front to back, int16", package="webdataset"),
    "h5py": Contender(rows, "h5py row by row in one process, the file open, int16", alone=True),
}
"""What takes turns; the first is what the others are compared with."""

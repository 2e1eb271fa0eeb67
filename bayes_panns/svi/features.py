"""The inputs of a fit: features of clips, computed once and kept, with their targets."""

import numpy as np
import torch
from torch import Tensor

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.clips import ClipSet
from bayes_panns.clips.ahead import waveforms
from bayes_panns.clips.reader import ClipReader, Reader
from bayes_panns.core import choices, progress
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError
from bayes_panns.devices import sent
from bayes_panns.svi.feature_file import FeatureFile, Section

_CHUNK = 64


class Features:
    """The inputs and targets of a set of clips, by index.

    Args:
        clips: The clips.
        front_end: Makes features of waveforms.
        task: How the targets are read.
        keep: ``memory``, ``disk`` or ``none`` of :class:`~bayes_panns.core.choices.Features`. With ``none`` batches are
            waveforms, for sets too large to keep.
        file: For ``disk``: the file, which sets of clips share, each in its turn; by default a temporary one.
        workers: How many processes read ahead the waveforms whose features are kept.

    Attributes:
        target: What :func:`targets` gives.
        reader: Reads the inputs in other processes; None where they are in this one's memory.

    Raises:
        StoreError: The task is one-of-K and a clip does not have exactly one label.
        OSError: The disk is full.
        ValueError: ``keep`` is none of the three.
    """

    embedded = False

    def __init__(
        self,
        clips: ClipSet,
        front_end: FrontEnd,
        task: Task,
        *,
        keep: str = choices.Features.MEMORY,
        file: FeatureFile | None = None,
        workers: int = 0,
    ):
        self.clips = clips
        self.target = targets(clips, task)
        keep = choices.Features(keep)
        if keep == choices.Features.EMBEDDINGS:
            raise ValueError("these are features; for embeddings use Embeddings")
        self.reader: Reader | None = None
        self._kept: _InMemory | Section | None = None
        if keep == choices.Features.MEMORY:
            self._kept = _InMemory(len(clips))
        elif keep == choices.Features.DISK:
            file = file or FeatureFile(None, front_end, clips.samples)
            self._kept = file.section(_digests(clips))
            self.reader = self._kept.reader()
        else:
            self.reader = ClipReader(clips)
            return
        # A chunk that is not there as a whole is computed as a whole: another batch may round in another way.
        chunks = torch.arange(len(clips)).split(_CHUNK)
        missing = [index for index in chunks if not self._kept.holds(index.numpy())]
        known = len(clips) - sum(map(len, missing))
        with (
            torch.no_grad(),
            progress.task("features", total=len(clips), unit="clip", done=known) as bar,
            waveforms(clips, missing, workers=workers) as read,
        ):
            for index, waveform in zip(missing, read, strict=True):
                self._kept.put(index.numpy(), front_end(waveform).numpy())
                bar.advance(len(index))

    def close(self) -> None:
        """Close the file that they are in, if there is one."""
        if isinstance(self._kept, Section):
            self._kept.file.close()

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The clips at ``index``, int64 of shape ``(batch,)``.

        Returns:
            Features ``(batch, frames, mels)``, or waveforms ``(batch, samples)`` where none are kept, int16 as most
            stores have them; and the targets, int64 ``(batch,)`` for one-of-K, float ``(batch, K)`` for multi-label.
        """
        chosen = index.numpy()
        if self.reader is not None:
            return self.with_targets(self.reader.read(chosen), index, device)
        assert self._kept is not None
        return self.with_targets(torch.from_numpy(self._kept.take(chosen)), index, device)

    def with_targets(self, values: Tensor, index: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """What :meth:`batch` returns for the clips at ``index``, whose inputs have been read."""
        return sent(values, device), sent(as_observed(self.target[index]), device)


class _InMemory:
    """The log-mels of ``count`` clips, by index, as :class:`~bayes_panns.svi.feature_file.Section` has them on disk."""

    def __init__(self, count: int) -> None:
        self._count, self._values = count, np.empty(0, dtype=np.float32)

    def holds(self, index: np.ndarray) -> bool:
        return False

    def put(self, index: np.ndarray, values: np.ndarray) -> None:
        if not self._values.size:
            self._values = np.empty((self._count, *values.shape[1:]), dtype=np.float32)
        self._values[index] = values

    def take(self, index: np.ndarray) -> np.ndarray:
        return self._values[index]


def _digests(clips: ClipSet) -> list[bytes]:
    found = [b""] * len(clips)
    for store, positions, rows in clips.by_store():
        for position, digest in zip(positions, store.digests(rows), strict=True):
            found[position] = digest
    return found


def as_observed(target: Tensor) -> Tensor:
    """Targets as the likelihood takes them: int64 for one-of-K, float for multi-label."""
    return target.float() if target.dtype == torch.bool else target


def targets(clips: ClipSet, task: Task) -> Tensor:
    """The targets of every clip: int64 ``(clips,)`` for one-of-K, bool ``(clips, K)`` for multi-label.

    Raises:
        StoreError: The task is one-of-K and a clip does not have exactly one label.
    """
    target = torch.from_numpy(clips.target())
    if task is Task.MULTI_LABEL:
        return target
    wrong = (target.sum(dim=1) != 1).nonzero().flatten()
    if len(wrong):
        raise StoreError(
            f"clip {clips.names[int(wrong[0])]} has {int(target[wrong[0]].sum())} labels, and {len(wrong) - 1} more "
            'clips do not have exactly one, but the task is one-of-k: set task = "multi-label" or correct the labels'
        )
    return target.int().argmax(dim=1)

"""The inputs of a fit: features of clips, computed once and kept, with their targets."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayes_panns.audio.front_end import FrontEnd
from bayes_panns.clips import ClipSet
from bayes_panns.core import choices, progress
from bayes_panns.core.choices import Task
from bayes_panns.core.errors import StoreError

_CHUNK = 64


class Features:
    """The inputs and targets of a set of clips, by index.

    Args:
        clips: The clips.
        front_end: Makes features of waveforms.
        task: How the targets are read.
        keep: ``memory``, ``disk`` or ``none`` of :class:`~bayes_panns.core.choices.Features`. ``disk`` is a temporary
            file; with ``none`` batches are waveforms, for sets too large to keep.
        folder: Where the temporary file goes; by default the system's folder for them.

    Raises:
        StoreError: The task is one-of-K and a clip does not have exactly one label.
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
        folder: Path | None = None,
    ):
        self.clips = clips
        self.target = targets(clips, task)
        keep = choices.Features(keep)
        if keep == choices.Features.EMBEDDINGS:
            raise ValueError("these are features; for embeddings use Embeddings")
        self._kept: np.ndarray | None = None
        if keep == choices.Features.NONE:
            return
        with torch.no_grad(), progress.task("features", total=len(clips), unit="clip") as bar:
            for start in range(0, len(clips), _CHUNK):
                index = np.arange(start, min(start + _CHUNK, len(clips)))
                chunk = front_end(torch.from_numpy(clips.waveform(index))).numpy()
                if self._kept is None:
                    self._kept = self._allocate((len(clips), *chunk.shape[1:]), keep, folder)
                self._kept[index] = chunk
                bar.advance(len(index))

    def _allocate(self, shape: tuple[int, ...], keep: str, folder: Path | None) -> np.ndarray:
        if keep != choices.Features.DISK:
            return np.empty(shape, dtype=np.float32)
        self._file = tempfile.NamedTemporaryFile(suffix=".features", dir=folder)  # noqa: SIM115 (lives as long as this)
        return np.memmap(Path(self._file.name), dtype=np.float32, mode="w+", shape=shape)

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The clips at ``index``, int64 of shape ``(batch,)``.

        Returns:
            Features ``(batch, frames, mels)``, or waveforms ``(batch, samples)`` where none are kept; and the targets,
            int64 ``(batch,)`` for one-of-K, float ``(batch, K)`` for multi-label.
        """
        chosen = index.numpy()
        values = self.clips.waveform(chosen) if self._kept is None else self._kept[chosen]
        return torch.from_numpy(values).to(device), self.target[index].to(device)


def targets(clips: ClipSet, task: Task) -> Tensor:
    """The targets of every clip: int64 ``(clips,)`` for one-of-K, float ``(clips, K)`` for multi-label.

    Raises:
        StoreError: The task is one-of-K and a clip does not have exactly one label.
    """
    target = torch.from_numpy(clips.target())
    if task is Task.MULTI_LABEL:
        return target.float()
    wrong = (target.sum(dim=1) != 1).nonzero().flatten()
    if len(wrong):
        raise StoreError(
            f"clip {clips.names[int(wrong[0])]} has {int(target[wrong[0]].sum())} labels, and {len(wrong) - 1} more "
            'clips do not have exactly one, but the task is one-of-k: set task = "multi-label" or correct the labels'
        )
    return target.int().argmax(dim=1)

"""Clips as a fit sees them: log-mels, computed once and kept, with their targets."""

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bayes_panns.audio.front_end import LogMel
from bayes_panns.clips import ClipSet, Task
from bayes_panns.core import progress
from bayes_panns.core.errors import StoreError

_CHUNK = 64


class Features:
    """The inputs and targets of a set of clips, by index.

    Args:
        clips: The clips.
        front_end: What makes log-mels of them.
        task: How the targets are read.
        keep: ``memory``: log-mels are computed once and kept in memory; ``disk``: kept in a temporary file; ``none``:
            batches are waveforms and the model computes the log-mels, for sets too large to keep.
        folder: Where the temporary file goes; by default where the system's do.

    Raises:
        StoreError: The task is one-of-K and a clip does not have exactly one label.
    """

    embedded = False

    def __init__(
        self,
        clips: ClipSet,
        front_end: LogMel,
        task: Task,
        *,
        keep: Literal["memory", "disk", "none"] = "memory",
        folder: Path | None = None,
    ):
        self.clips = clips
        self.target = targets(clips, task)
        self._logmel: np.ndarray | None = None
        if keep == "none":
            return
        shape = (len(clips), *front_end.shape(clips.samples))
        if keep == "disk":
            self._file = tempfile.NamedTemporaryFile(suffix=".logmel", dir=folder)  # noqa: SIM115 (lives as long as this)
            self._logmel = np.memmap(Path(self._file.name), dtype=np.float32, mode="w+", shape=shape)
        else:
            self._logmel = np.empty(shape, dtype=np.float32)
        with torch.no_grad(), progress.task("log-mels", total=len(clips), unit="clip") as bar:
            for start in range(0, len(clips), _CHUNK):
                index = np.arange(start, min(start + _CHUNK, len(clips)))
                self._logmel[index] = front_end(torch.from_numpy(clips.waveform(index))).numpy()
                bar.advance(len(index))

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The clips at ``index``, int64 of shape ``(batch,)``.

        Returns:
            Log-mels ``(batch, frames, 64)``, or waveforms ``(batch, samples)`` where none are kept; and the targets,
            int64 ``(batch,)`` for one-of-K, float ``(batch, K)`` for multi-label.
        """
        chosen = index.numpy()
        values = self.clips.waveform(chosen) if self._logmel is None else self._logmel[chosen]
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
            f"clip {clips.names[int(wrong[0])]} has {int(target[wrong[0]].sum())} labels and {len(wrong) - 1} more are "
            'like it, but the task is one-of-k, one label each: set task = "multi-label" or mend the labels'
        )
    return target.int().argmax(dim=1)

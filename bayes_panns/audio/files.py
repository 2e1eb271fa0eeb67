"""Sound files to mono waveforms at a wanted rate, whole."""

from pathlib import Path

import torch
from torch import Tensor

from bayes_panns.audio.recording import Recording
from bayes_panns.audio.resampling import resample
from bayes_panns.audio.walking import SUFFIXES, find

__all__ = ["SUFFIXES", "find", "read", "resample"]


def read(
    path: str | Path,
    sample_rate: int,
    *,
    exact: bool = True,
    channel: str = "mix",
    start: float = 0.0,
    seconds: float | None = None,
) -> Tensor:
    """Read a sound file, or a part of one, as one mono waveform: the blocks of a :class:`.Recording`, joined.

    Samples beyond full scale, as lossy files decode to, are kept as they are. What a user should know of the file is
    not said; a :class:`.Recording` has it.

    Args:
        path: The file; ``-`` is standard input.
        sample_rate: The rate wanted, in Hz.
        exact: As for :func:`~bayes_panns.audio.resampling.resampler`.
        channel: ``mix``, ``left``, ``right`` or the number of a channel from 1.
        start: Where to begin, in seconds.
        seconds: How much to read; by default all.

    Returns:
        float32 samples, shape ``(samples,)``, nominally in [-1, 1].

    Raises:
        AudioError: The file is missing or empty, nothing can be decoded, it holds NaN or infinite samples, or ends
            before ``start``.
    """
    with Recording(path, sample_rate, channel=channel, start=start, seconds=seconds, exact=exact) as recording:
        return torch.cat(list(recording))

"""Embeddings of sound by a posterior: the inputs of its last layer, under the means of the weights before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.files import read
from bayes_panns.clips import ClipSet
from bayes_panns.core import progress
from bayes_panns.core.errors import AudioError
from bayes_panns.posterior import Posterior, require_inputs, require_sound
from bayes_panns.predictions.clip_sets import CLIPS, SAMPLES
from bayes_panns.predictions.windows import Window, cut, in_samples


@dataclass(frozen=True)
class Embedded:
    """The embeddings of the windows of some files, or of the clips of a store.

    Attributes:
        embedding: float32, shape ``(N, E)``.
        windows: N windows.
        skipped: The files that could not be read, each with its error message.
    """

    embedding: NDArray[np.float32]
    windows: tuple[Window, ...]
    skipped: tuple[tuple[str, str], ...] = ()


def embed_files(
    posterior: Posterior,
    files: Sequence[str | Path],
    *,
    window: float | None = None,
    hop: float | None = None,
) -> Embedded:
    """Embed sound files, cut into windows as :func:`~bayes_panns.predictions.tag` cuts them.

    Args:
        posterior: What embeds.
        files: The files.
        window: Seconds; by default the length of the clips that the posterior was fitted to.
        hop: Seconds from one window's start to the next; by default the window.

    Raises:
        AudioError: No file can be read. A file that cannot be read is skipped as long as another can.
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
    """
    require_sound(posterior)
    window = posterior.clip_seconds if window is None else window
    rate = posterior.sample_rate
    samples, hop_samples = in_samples(window, rate, "window"), in_samples(window if hop is None else hop, rate, "hop")
    padded = posterior.width
    windows: list[Window] = []
    waiting: list[Tensor] = []
    parts: list[Tensor] = []
    skipped: list[tuple[str, str]] = []
    for file in progress.track(files, "embedding", total=len(files), unit="file"):
        try:
            waveform = read(file, rate)
        except AudioError as error:
            skipped.append((str(file), str(error)))
            continue
        starts, length = cut(len(waveform), samples, hop_samples)
        windows += [Window(str(file), start / rate, (start + length) / rate) for start in starts]
        for start in starts:
            waiting.append(waveform[start : start + length])
            if len(waiting) == CLIPS or sum(max(padded, len(each)) for each in waiting) >= SAMPLES:
                parts.append(_embed(posterior, waiting))
                waiting = []
    if waiting:
        parts.append(_embed(posterior, waiting))
    if not parts:
        first = skipped[0][1] if skipped else "no files to embed: name at least one"
        raise AudioError(first if len(skipped) < 2 else f"no file of {len(skipped)} can be read; the first: {first}")
    return Embedded(torch.cat(parts).numpy(), tuple(windows), tuple(skipped))


def embed_clips(posterior: Posterior, clips: ClipSet) -> Embedded:
    """Embed every clip of a set; its windows are the whole clips.

    Raises:
        PredictionError: The posterior takes embeddings.
        StoreError: The clips are not sound at its rate.
    """
    require_sound(posterior)
    require_inputs(posterior, clips)
    size = max(1, min(CLIPS, SAMPLES // clips.width))
    parts = []
    with progress.task("embedding", total=len(clips), unit="clip") as bar:
        for start in range(0, len(clips), size):
            index = np.arange(start, min(start + size, len(clips)))
            parts.append(posterior.embed(torch.from_numpy(clips.waveform(index))))
            bar.advance(len(index))
    windows = tuple(Window(name, 0.0, clips.seconds_per_clip) for name in clips.names)
    return Embedded(torch.cat(parts).numpy(), windows)


def _embed(posterior: Posterior, waveforms: Sequence[Tensor]) -> Tensor:
    """Embeddings of waveforms of any lengths, in their order; neighbours of one length are stacked."""
    return posterior.embed([torch.stack(list(same)) for _, same in groupby(waveforms, key=len)])

"""Embeddings of sound by a posterior: the inputs of its last layer, under the means of the weights before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayes_panns.audio.recording import Note
from bayes_panns.clips import ClipSet
from bayes_panns.core import progress
from bayes_panns.posterior import Posterior, require_inputs, require_sound
from bayes_panns.predictions.clip_sets import CLIPS, SAMPLES
from bayes_panns.predictions.recordings import Cutting, Piece, Skipped, computed, none_read
from bayes_panns.predictions.windows import Window
from bayes_panns.ranks import in_order


@dataclass(frozen=True)
class Embedded:
    """The embeddings of the windows of some files, or of the clips of a store.

    Attributes:
        embedding: float32, shape ``(N, E)``.
        windows: N windows.
        skipped: The files that could not be read, each with its error message.
        notes: What a user should know of files, each with the file's name.
    """

    embedding: NDArray[np.float32]
    windows: tuple[Window, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[tuple[str, Note], ...] = ()


def embed_files(
    posterior: Posterior,
    files: Sequence[str | Path],
    *,
    window: float | None = None,
    hop: float | None = None,
    channel: str = "mix",
) -> Embedded:
    """Embed sound files, cut into windows as :func:`~bayes_panns.predictions.tag` cuts them.

    Args:
        posterior: What embeds.
        files: The files; ``-`` is standard input.
        window: Seconds; by default the length of the clips that the posterior was fitted to.
        hop: Seconds from one window's start to the next; by default the window.
        channel: ``mix``, ``left``, ``right`` or the number of a channel from 1.

    Raises:
        AudioError: No file can be read. A file that cannot be read is skipped as long as another can.
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
    """
    pieces, skipped = list[Piece[NDArray[np.float32]]](), list[Skipped]()
    for each in embed_each(posterior, files, window=window, hop=hop, channel=channel):
        if isinstance(each, Skipped):
            skipped.append(each)
        else:
            pieces.append(each)
    if not pieces:
        raise none_read(skipped, "embed")
    return Embedded(
        embedding=np.concatenate([piece.result for piece in pieces]),
        windows=tuple(window for piece in pieces for window in piece.windows),
        skipped=tuple(skipped),
        notes=tuple((piece.file, note) for piece in pieces for note in piece.notes),
    )


def embed_each(
    posterior: Posterior,
    files: Sequence[str | Path],
    *,
    window: float | None = None,
    hop: float | None = None,
    channel: str = "mix",
) -> Iterator[Piece[NDArray[np.float32]] | Skipped]:
    """Embed sound files one after the other, in memory that grows neither with their lengths nor with their number.

    The arguments are those of :func:`embed_files`.

    Yields:
        For each file in order its embeddings ``(N, E)``, in one piece or several; or that it was skipped, and why.

    Raises:
        PredictionError: The posterior takes embeddings; or the window or hop is not finite, or shorter than one sample.
    """
    require_sound(posterior)
    cutting = Cutting.of(posterior.clip_seconds, posterior.sample_rate, window, hop, channel=channel, exact=True)

    return computed(files, cutting, _Embedding(posterior), _take, doing="embedding")


def embed_clips(posterior: Posterior, clips: ClipSet) -> Embedded:
    """Embed every clip of a set; its windows are the whole clips.

    Raises:
        PredictionError: The posterior takes embeddings.
        StoreError: The clips are not sound at its rate.
    """
    require_sound(posterior)
    require_inputs(posterior, clips)
    size = max(1, min(CLIPS, SAMPLES // clips.width))
    parts = list(in_order(_batches(clips, size), _Embedding(posterior)))
    windows = tuple(Window(name, 0.0, clips.seconds_per_clip) for name in clips.names)
    return Embedded(np.concatenate(parts), windows)


def _batches(clips: ClipSet, size: int) -> Iterator[Tensor]:
    with progress.task("embedding", total=len(clips), unit="clip") as bar:
        for start in range(0, len(clips), size):
            index = np.arange(start, min(start + size, len(clips)))
            yield torch.from_numpy(clips.waveform(index))
            bar.advance(len(index))


@dataclass(frozen=True)
class _Embedding:
    """Embeds waveforms; several processes may do so."""

    posterior: Posterior

    def __call__(self, waveforms: Tensor | Sequence[Tensor]) -> NDArray[np.float32]:
        return self.posterior.embed(waveforms).numpy()


def _take(embedding: NDArray[np.float32], index: NDArray[np.intp]) -> NDArray[np.float32]:
    return embedding[index]

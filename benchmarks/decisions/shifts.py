"""Shifted clips: another rate, or added noise; and the stores of their embeddings, made once."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayes_panns.audio.resampling import resample
from bayes_panns.clips import ClipSet, write_embeddings
from bayes_panns.core import progress
from bayes_panns.jobs.embed import model_name
from benchmarks.foundation_study.embedded import backbone

logger = logging.getLogger(__name__)

NONE = "none"
RATES = {"16 kHz": 16000, "8 kHz": 8000}
"""Clips are resampled to this rate, in Hz, and back."""

NOISES = {"noise 20 dB": 20.0, "noise 10 dB": 10.0, "noise 0 dB": 0.0}
"""Pink noise is added, at this ratio of the clip's power to that of the noise."""

SHIFTS = (NONE, *RATES, *NOISES)

_BATCH = 64


def shifted(waveform: Tensor, shift: str, rate: int, *, seconds: float, seed: int) -> Tensor:
    """A clip under a shift.

    Args:
        waveform: ``(samples,)``.
        shift: One of :data:`SHIFTS`.
        rate: In Hz.
        seconds: How long the clip's own sound is; the rest is padding, and stays silent.
        seed: Of the noise.
    """
    if shift in RATES:
        return resample(resample(waveform, rate, RATES[shift]), RATES[shift], rate)[: len(waveform)]
    if shift in NOISES:
        length = min(len(waveform), max(1, round(seconds * rate)))
        sound = waveform[:length]
        noise = pink_noise(length, seed)
        power = sound.square().mean() / 10 ** (NOISES[shift] / 10)
        return torch.cat([sound + noise * power.sqrt(), waveform[length:]])
    return waveform


def pink_noise(length: int, seed: int) -> Tensor:
    """Noise whose power falls by 3 dB an octave, of mean square 1, ``(length,)``."""
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    pink = np.fft.irfft(white / np.sqrt(np.maximum(np.arange(len(white)), 1)), length)
    return torch.from_numpy(pink / np.sqrt((pink**2).mean())).float()


def embedded(store: str, like: str, source: str, folder: Path, shift: str) -> Path:
    """The store of the embeddings of a store's clips under a shift; one that is there is taken.

    Args:
        store: A store of sound.
        like: The store whose length of clips the network is for.
        source: The network, imported.
        folder: Where the stores of embeddings are kept.
        shift: One of :data:`SHIFTS`.
    """
    made = folder / f"{Path(store).stem} {shift}.h5"
    if made.is_file():
        return made
    clips, posterior = ClipSet(store), backbone(source, ClipSet(like))
    # How long each clip is without its padding.
    seconds = np.concatenate(
        [np.full(len(each), np.inf) if each.seconds is None else each.seconds for each in clips.stores]
    )
    parts = []
    with progress.task(f"embedding {Path(store).stem}, {shift}", total=len(clips), unit="clip") as bar:
        for start in range(0, len(clips), _BATCH):
            index = np.arange(start, min(start + _BATCH, len(clips)))
            waveforms = torch.from_numpy(clips.waveform(index))
            rows = [
                shifted(
                    row, shift, clips.sample_rate, seconds=min(float(seconds[i]), clips.seconds_per_clip), seed=int(i)
                )
                for i, row in zip(index, waveforms, strict=True)
            ]
            parts.append(posterior.embed(torch.stack(rows)))
            bar.advance(len(index))
    write_embeddings(
        made,
        torch.cat(parts).numpy(),
        clips.target(),
        clips.labels,
        clips.task,
        model=model_name(posterior),
        names=clips.names,
        fold=clips.folds,
        source=None if clips.sources is None else np.asarray(clips.sources).tolist(),
    )
    return made
